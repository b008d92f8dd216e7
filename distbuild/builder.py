"""The program that a worker keeps for building: it takes one step after another.

It speaks with the worker on standard input and output, in lines. Steps are built by a process that
it forks, which keeps what steps have in common: the bench. Whatever becomes of that one, its output
arrives, and whoever waits for a step is told.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable

from distbuild.bench import Alive, At, Bench, Ended, Steps
from distbuild.faults import fault_of
from distbuild.framing import MAX_LINE, MAX_OUTPUT, BadLine, LineDecoder, encode
from distbuild.messages import Message, Ping
from distbuild.workermessages import (
    CancelStep,
    Fault,
    JobBuilt,
    JobFailed,
    JobOutput,
    JobPhase,
    RunStep,
    ToBuilder,
)
from morphlib.errors import MorphError, Reason

#: So much of the end of standard error says why a step failed, in bytes.
_REASON_BYTES = 4000
#: Output is held back so many seconds, for more of it to go with it.
_GATHER_SECONDS = 0.05
#: Seconds that a bench has for tidying up before it is killed.
_END_SECONDS = 8.0
#: A bench that has grown beyond this many bytes is replaced by a fresh one.
_MOST_MEMORY = 1 << 30


def serve(make: Callable[[], Steps]) -> None:
    """Build what standard input asks for until it ends. Raises MorphError if a bench is lost that
    was not told to end: the worker starts another builder."""
    builder = _Builder(make)
    try:
        builder.run()
    finally:
        builder.end()


class _Builder:
    def __init__(self, make: Callable[[], Steps]) -> None:
        self._make = make
        self._decoder = LineDecoder[RunStep | CancelStep](ToBuilder)
        self._input = b""
        self._bench: Bench | None = None
        self._run: RunStep | None = None
        self._cancelled: float | None = None  # when to stop being patient
        self._out = self._err = self._errors = b""
        self._send_at: float | None = None

    def run(self) -> None:
        while True:
            poll = select.poll()
            poll.register(0, select.POLLIN)
            bench = self._bench
            if bench is not None:
                for descriptor in bench.descriptors:
                    poll.register(descriptor, select.POLLIN)
            ready = {descriptor for descriptor, _ in poll.poll(self._patience())}
            if 0 in ready and not self._read_input():
                return
            if bench is not None and ready.intersection(bench.descriptors):
                self._read_bench(bench)
            self._look_at_clock()

    def end(self) -> None:
        """End what is being built, and the bench."""
        bench, self._bench = self._bench, None
        if bench is not None:
            bench.end(_END_SECONDS, is_busy=self._run is not None)

    def _patience(self) -> float | None:
        """Milliseconds until something is to be done anyhow."""
        moments = [moment for moment in (self._send_at, self._cancelled) if moment is not None]
        return max(0.0, min(moments) - time.monotonic()) * 1000 if moments else None

    def _look_at_clock(self) -> None:
        now = time.monotonic()
        if self._send_at is not None and now >= self._send_at:
            self._send_output()
        if self._cancelled is not None and now >= self._cancelled and self._bench is not None:
            self._bench.kill()
            self._cancelled = None

    # The worker

    def _read_input(self) -> bool:
        data = os.read(0, 1 << 16)
        *lines, self._input = (self._input + data).split(b"\n")
        for line in lines:
            self._take_line(line)
        if len(self._input) > MAX_LINE:
            raise MorphError("standard input has a line without an end", reason=Reason.USAGE)
        return bool(data)

    def _take_line(self, line: bytes) -> None:
        try:
            message = self._decoder.decode(line)
        except BadLine as error:
            raise MorphError(f"standard input has no step: {error}", reason=Reason.USAGE) from None
        match message:
            case RunStep() if self._run is None:
                self._run, self._errors = message, b""
                if self._bench is None:
                    self._bench = Bench(self._make)
                self._bench.build(message.step)
            case CancelStep(job=job) if self._run is not None and self._run.job == job:
                if self._cancelled is None and self._bench is not None:
                    self._cancelled = time.monotonic() + _END_SECONDS
                    self._bench.ask_to_end()
            case _:
                pass  # it was over when this was said

    def _say(self, message: Message) -> None:
        line = encode(message)
        while line:
            line = line[os.write(1, line) :]

    # The bench

    def _read_bench(self, bench: Bench) -> None:
        self._gather(*bench.read())
        for heard in bench.hear():
            match heard:
                case None:
                    self._lost(bench)
                    return
                case Alive():
                    self._say(Ping())
                case At(phase=phase):
                    self._at(bench, phase)
                case Ended():
                    self._ended(bench, heard)

    def _gather(self, out: bytes, err: bytes) -> None:
        if self._run is None:
            sys.stderr.buffer.write(out + err)
            sys.stderr.buffer.flush()
            return
        self._out, self._err = self._out + out, self._err + err
        if len(self._out) + len(self._err) >= MAX_OUTPUT:
            self._send_output()
        elif (out or err) and self._send_at is None:
            self._send_at = time.monotonic() + _GATHER_SECONDS

    def _send_output(self) -> None:
        assert self._run is not None
        self._errors = (self._errors + self._err)[-_REASON_BYTES:]
        out, err = self._out, self._err
        self._out = self._err = b""
        self._send_at = None
        for start in range(0, len(out), MAX_OUTPUT):
            self._say(JobOutput(job=self._run.job, stdout=out[start : start + MAX_OUTPUT]))
        for start in range(0, len(err), MAX_OUTPUT):
            self._say(JobOutput(job=self._run.job, stderr=err[start : start + MAX_OUTPUT]))

    def _at(self, bench: Bench, phase: str) -> None:
        if self._run is not None:
            self._gather(*bench.read())
            self._send_output()  # what was printed before it, for the most part
            self._say(JobPhase(job=self._run.job, phase=phase))

    def _ended(self, bench: Bench, ended: Ended) -> None:
        assert self._run is not None
        self._gather(*bench.read())  # what was printed before that was said
        self._send_output()
        job = self._run.job
        said = self._errors.decode("utf-8", "backslashreplace").strip()
        self._run = None
        if ended.status == 0:
            self._say(JobBuilt(job=job))
        else:
            self._say(
                JobFailed(
                    job=job,
                    fault=fault_of(ended.status),
                    reason=said or f"it ended with status {ended.status}",
                    phase=ended.phase,
                    exit_code=ended.exit_code,
                )
            )
        if self._cancelled is not None:
            # It was faster than the signal, which has reached it since.
            self._cancelled = None
            self.end()
        elif bench.memory > _MOST_MEMORY:
            self.end()

    def _lost(self, bench: Bench) -> None:
        """The bench is gone."""
        how = bench.reap()
        self._bench = None
        self._gather(*bench.read())
        bench.close()
        if self._run is None:
            return
        self._send_output()
        if self._cancelled is None:
            raise MorphError(f"the process that was building {how}", reason=Reason.SANDBOX)
        job, self._run, self._cancelled = self._run.job, None, None
        self._say(JobFailed(job=job, fault=Fault.CANCELLED, reason="cancelled"))
