"""A worker's builders: programs that it keeps, each of which builds one step after another."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from twisted.internet.task import LoopingCall

from distbuild.connection import reactor
from distbuild.framing import MAX_LINE, BadLine, LineDecoder, encode
from distbuild.helpers import LOST, Helpers, Program
from distbuild.workermessages import (
    CancelStep,
    Fault,
    FromBuilder,
    JobBuilt,
    JobFailed,
    JobOutput,
    JobPhase,
    RunStep,
)

_log = logging.getLogger("morph.distbuild")

#: Seconds without a sign of life after which a builder at work is taken to hang; a busy machine
#: may keep one waiting for long.
SILENT_SECONDS = 30.0
#: Seconds without work after which a builder ends, and that it has to end what was cancelled.
_IDLE_SECONDS, _CANCEL_SECONDS = 600.0, 30.0
_LOOK_SECONDS = 2.0
#: So often a step is begun here where builders come to an unexpected end over it.
_MOST_ATTEMPTS = 2
#: So much of the end of what a builder says beside its messages tells why it ended, in bytes.
_REASON_BYTES = 4000


class Customer(Protocol):
    """Who wants a step built. Output comes as standard output and standard error."""

    @property
    def run(self) -> RunStep: ...

    def printed(self, out: bytes, err: bytes) -> None: ...

    def is_at(self, phase: str) -> None: ...

    def ended(self, result: JobBuilt | JobFailed) -> None:
        """Comes once."""


@dataclass(eq=False, slots=True)
class _Task:
    customer: Customer
    attempts: int = 0
    is_cancelled: bool = False

    @property
    def name(self) -> str:
        return f"{self.customer.run.job}: {self.customer.run.step.name}"


@dataclass(eq=False, slots=True)
class _Builder:
    """`since`: when it last began to do what it does, or gave a sign of life. A builder that was
    told to end gets nothing more to do; `why` says for what reason it is ended by force."""

    program: Program = field(init=False)
    task: _Task | None = None
    is_leaving: bool = False
    why: str = ""
    since: float = 0.0
    line: bytes = b""
    errors: bytes = b""


class Builders:
    """At most `capacity` of them, which the command line `argv` starts.

    A builder that dies, hangs or speaks nonsense costs its step one attempt and nothing else.
    """

    def __init__(self, helpers: Helpers, argv: Sequence[str], capacity: int) -> None:
        self._helpers = helpers
        self._argv = tuple(argv)
        self._capacity = capacity
        self._builders: list[_Builder] = []
        self._waiting: deque[_Task] = deque()
        self._decoder = LineDecoder[JobOutput | JobPhase | JobBuilt | JobFailed](FromBuilder)
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

    def prepare(self) -> None:
        """Start what is missing: the first steps come soon."""
        while self._present < self._capacity:
            self._start()

    def build(self, customer: Customer) -> None:
        self._waiting.append(_Task(customer))
        self._assign()

    def cancel(self, job: str) -> None:
        """End a step. Its result comes as that of any other."""
        for task in self._waiting:
            if task.customer.run.job == job:
                self._waiting.remove(task)
                self._cancelled(task)
                return
        for builder in self._builders:
            if builder.task is not None and builder.task.customer.run.job == job:
                builder.task.is_cancelled = True
                builder.since = reactor.seconds()
                self._helpers.feed(builder.program, encode(CancelStep(job=job)))

    @property
    def _present(self) -> int:
        return sum(not builder.is_leaving for builder in self._builders)

    def _assign(self) -> None:
        while self._waiting:
            free = [each for each in self._builders if each.task is None and not each.is_leaving]
            if not free:
                if self._present >= self._capacity:
                    return
                free = [self._start()]
            builder = free[0]
            task = builder.task = self._waiting.popleft()
            task.attempts += 1
            builder.since = reactor.seconds()
            builder.errors = b""
            self._helpers.feed(builder.program, encode(task.customer.run))

    def _start(self) -> _Builder:
        if not self._looking.running:
            self._looking.start(_LOOK_SECONDS, now=False)
        builder = _Builder(since=reactor.seconds())
        builder.program = self._helpers.run(
            self._argv,
            b"",
            lambda out, err: self._heard(builder, out, err),
            lambda status: self._ended(builder, status),
            keeps_input=True,
        )
        self._builders.append(builder)
        return builder

    # What builders say

    def _heard(self, builder: _Builder, out: bytes, err: bytes) -> None:
        builder.errors = (builder.errors + err)[-_REASON_BYTES:]
        if builder.why:
            return
        *lines, builder.line = (builder.line + out).split(b"\n")
        if len(builder.line) > MAX_LINE:
            self._end(builder, "its builder said a line without an end")
            return
        for line in lines:
            try:
                message = self._decoder.decode(line)
            except BadLine as error:
                self._end(builder, f"its builder says what is no message: {error}")
                return
            self._take(builder, message)

    def _take(self, builder: _Builder, message: object) -> None:
        task = builder.task
        if task is None or not task.is_cancelled:
            builder.since = reactor.seconds()
        match message:
            case JobOutput(job=job, stdout=out, stderr=err) if _is_about(task, job):
                assert task is not None
                task.customer.printed(out, err)
            case JobPhase(job=job, phase=phase) if _is_about(task, job):
                assert task is not None
                task.customer.is_at(phase)
            case JobBuilt(job=job) | JobFailed(job=job) if _is_about(task, job):
                assert task is not None
                builder.task = None
                builder.since = reactor.seconds()
                assert isinstance(message, JobBuilt | JobFailed)
                task.customer.ended(message)
                self._assign()
            case JobOutput() | JobPhase() | JobBuilt() | JobFailed():
                self._end(builder, "its builder spoke of a step that was not its own")
            case _:
                pass

    def _end(self, builder: _Builder, why: str) -> None:
        """End a builder by force. What it was building comes to its next attempt when it has
        ended."""
        name = "no step" if builder.task is None else builder.task.name
        _log.warning("%s: %s", name, why)
        builder.is_leaving, builder.why = True, why
        self._helpers.cancel(builder.program)

    def _ended(self, builder: _Builder, status: int) -> None:
        self._builders.remove(builder)
        task = builder.task
        if task is None:
            if status != 0 and not builder.is_leaving and status != LOST:
                _log.warning("a builder ended with status %d: %s", status, _text(builder.errors))
        elif task.is_cancelled:
            self._cancelled(task)
        elif status == LOST:
            task.attempts -= 1
            self._waiting.appendleft(task)
        else:
            said = builder.why or _text(builder.errors) or f"its builder ended with {status}"
            self._retry(task, said)
        self._assign()

    def _retry(self, task: _Task, why: str) -> None:
        if task.attempts < _MOST_ATTEMPTS:
            _log.warning("%s is begun again: %s", task.name, why)
            self._waiting.appendleft(task)
        else:
            job = task.customer.run.job
            task.customer.ended(JobFailed(job=job, fault=Fault.MACHINE, reason=why[:60_000]))

    def _cancelled(self, task: _Task) -> None:
        job = task.customer.run.job
        task.customer.ended(JobFailed(job=job, fault=Fault.CANCELLED, reason="cancelled"))

    # What is due

    def _look(self) -> None:
        now = reactor.seconds()
        if not self._builders:
            self._looking.stop()
        for builder in list(self._builders):
            silence = now - builder.since
            if builder.is_leaving:
                continue
            if builder.program.helper is None:
                builder.since = now  # it does not run yet
            elif builder.task is None:
                if silence > _IDLE_SECONDS:
                    builder.is_leaving = True
                    self._helpers.feed(builder.program, b"", is_last=True)
            elif builder.task.is_cancelled:
                if silence > _CANCEL_SECONDS:
                    self._end(builder, "it does not end what was cancelled")
            elif silence > SILENT_SECONDS:
                seconds = f"{SILENT_SECONDS:.0f} seconds"
                self._end(builder, f"its builder gave no sign of life for {seconds}")


def _is_about(task: _Task | None, job: str) -> bool:
    return task is not None and task.customer.run.job == job


def _text(errors: bytes) -> str:
    return errors.decode("utf-8", "backslashreplace").strip()
