"""A worker: builds steps for a controller, each by running `morph worker-build` in a helper.

What a controller may have run is that and nothing else: it names a step, never a command.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from distbuild.connection import Connection
from distbuild.crashing import passing
from distbuild.faults import fault_of
from distbuild.framing import encode
from distbuild.helpers import Helpers, Program
from distbuild.messages import Hello
from distbuild.workermessages import (
    CancelStep,
    Fault,
    JobBuilt,
    JobFailed,
    JobOutput,
    Offer,
    RunStep,
    ToWorker,
)

_log = logging.getLogger("morph.distbuild")

#: So much of the end of standard error says why a job failed, in bytes.
_REASON_BYTES = 4000


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a worker offers, and how it builds: `call` begins the command line of worker-build."""

    architectures: tuple[str, ...]
    capacity: int
    call: tuple[str, ...]


@dataclass(eq=False, slots=True)
class _Job:
    run: RunStep
    program: Program | None = None
    errors: bytes = b""
    is_cancelled: bool = False
    result: JobBuilt | JobFailed | None = None  # that no controller was told yet


class Worker:
    """The jobs of this machine. They go on while no controller is connected."""

    def __init__(self, abilities: Abilities) -> None:
        self._abilities = abilities
        self.helpers = Helpers(self._offer)
        self._controller: _Controller | None = None
        self._jobs: dict[str, _Job] = {}
        self._has_offered = False

    def speaker(self, hello: Hello) -> _Controller:
        """What listens to a controller that connects."""
        return _Controller(self)

    # Controllers

    def join(self, controller: _Controller) -> None:
        """A controller is there. One that was there before is gone, even if nobody noticed."""
        before, self._controller = self._controller, controller
        if before is not None:
            before.connection.close("another connection took its place")
        self._has_offered = False
        self._offer()

    def leave(self, controller: _Controller) -> None:
        if self._controller is controller:
            self._controller = None

    def _offer(self) -> None:
        """Offer to build, once there is a helper. What ended meanwhile is told after that."""
        if self._controller is None or self._has_offered or not self.helpers.are_there:
            return
        self._has_offered = True
        connection = self._controller.connection
        connection.send(
            Offer(
                architectures=self._abilities.architectures,
                capacity=self._abilities.capacity,
                running=tuple(job.run for job in self._jobs.values()),
            )
        )
        for job in list(self._jobs.values()):
            if job.result is not None:
                self._tell_result(job)

    def take(self, message: ToWorker) -> None:
        match message:
            case RunStep() if message.job not in self._jobs:
                self._start(message)
            case CancelStep(job=name) if name in self._jobs:
                self._cancel(self._jobs[name])
            case _:
                pass

    # Jobs

    def _start(self, run: RunStep) -> None:
        _log.info("%s: building %s", run.job, run.step.name)
        passing("worker", "start")
        job = self._jobs[run.job] = _Job(run)
        argv = [*self._abilities.call, "worker-build", "--", run.step.name]
        job.program = self.helpers.run(
            argv,
            encode(run.step),
            lambda out, err: self._pass_on(job, out, err),
            lambda status: self._ended(job, status),
        )

    def _cancel(self, job: _Job) -> None:
        job.is_cancelled = True
        if job.program is not None:
            self.helpers.cancel(job.program)

    def _pass_on(self, job: _Job, out: bytes, err: bytes) -> None:
        job.errors = (job.errors + err)[-_REASON_BYTES:]
        # Nobody reads the output of what was cancelled, and a slow controller gets less of it.
        if self._controller is not None and self._has_offered and not job.is_cancelled:
            connection = self._controller.connection
            if not connection.is_slow:
                connection.send(JobOutput(job=job.run.job, stdout=out, stderr=err))

    def _ended(self, job: _Job, status: int) -> None:
        passing("worker", "ended")
        name = job.run.job
        _log.info("%s: %s ended with status %d", name, job.run.step.name, status)
        if status == 0:
            job.result = JobBuilt(job=name)
        elif job.is_cancelled:
            job.result = JobFailed(job=name, fault=Fault.CANCELLED, reason="cancelled")
        else:
            said = job.errors.decode("utf-8", "backslashreplace").strip()
            reason = said or f"worker-build ended with status {status}"
            job.result = JobFailed(job=name, fault=fault_of(status), reason=reason)
        if self._controller is not None and self._has_offered:
            self._tell_result(job)

    def _tell_result(self, job: _Job) -> None:
        assert self._controller is not None
        assert job.result is not None
        self._controller.connection.send(job.result)
        del self._jobs[job.run.job]


class _Controller:
    """Listens to one connection of a controller."""

    union = ToWorker

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.connection: Connection

    def greeted(self, connection: Connection) -> None:
        self.connection = connection
        self._worker.join(self)

    def heard(self, message: ToWorker) -> None:
        self._worker.take(message)

    def lost(self, reason: str) -> None:
        self._worker.leave(self)


def call_with(call: Sequence[str], capacity: int, max_jobs: int) -> tuple[str, ...]:
    """The command line of a job. Make jobs are shared among jobs, twice over, for they seldom all
    use theirs."""
    share = max(1, min(max_jobs, -(-2 * max_jobs // capacity)))
    return (
        *call,
        "--progress=plain",
        "--build-log-on-stdout",
        "--builders=1",
        f"--max-jobs={share}",
    )
