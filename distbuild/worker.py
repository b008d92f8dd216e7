"""A worker: builds steps for a controller, by programs that its helpers run.

What a controller may have run is that and nothing else: it names a step, never a command.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from distbuild.builders import Builders
from distbuild.connection import Connection
from distbuild.crashing import passing
from distbuild.helpers import Helpers
from distbuild.messages import Hello
from distbuild.outputs import KeptOutput
from distbuild.workermessages import (
    CancelStep,
    JobBuilt,
    JobFailed,
    JobOutput,
    JobPhase,
    Offer,
    RunStep,
    ToWorker,
)

_log = logging.getLogger("morph.distbuild")


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a worker offers, and how it builds: `call` begins the command line of builders."""

    architectures: tuple[str, ...]
    capacity: int
    call: tuple[str, ...]


@dataclass(eq=False, slots=True)
class _Job:
    """What a builder says of it is kept until a controller has been told. `sent`: so many bytes of
    its output the controller that is there was sent."""

    worker: Worker
    run: RunStep
    output: KeptOutput = field(default_factory=KeptOutput)
    sent: int = 0
    phase: str = ""
    is_cancelled: bool = False
    result: JobBuilt | JobFailed | None = None

    def printed(self, out: bytes, err: bytes) -> None:
        self.output.add(out, err)
        self.worker.printed(self)

    def is_at(self, phase: str) -> None:
        self.phase = phase
        self.worker.is_at(self)

    def ended(self, result: JobBuilt | JobFailed) -> None:
        self.result = result
        self.worker.ended(self)


class Worker:
    """The jobs of this machine. They go on while no controller is connected."""

    def __init__(self, abilities: Abilities) -> None:
        self._abilities = abilities
        self._name = secrets.token_hex(8)
        self.helpers = Helpers(self._offer)
        argv = (*abilities.call, "worker-builder")
        self._builders = Builders(self.helpers, argv, abilities.capacity)
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
                worker=self._name,
            )
        )
        for job in list(self._jobs.values()):
            # It may have had some of this, before it was away: offsets say what is new.
            job.sent = 0
            self._send_output(job)
            self.is_at(job)
            if job.result is not None:
                self._tell_result(job)
        self._builders.prepare()

    def take(self, message: ToWorker) -> None:
        match message:
            case RunStep() if message.job not in self._jobs:
                self._start(message)
            case CancelStep(job=name) if name in self._jobs:
                self._jobs[name].is_cancelled = True
                self._builders.cancel(name)
            case _:
                pass

    # Jobs

    def _start(self, run: RunStep) -> None:
        _log.info("%s: building %s", run.job, run.step.name)
        passing("worker", "start")
        job = self._jobs[run.job] = _Job(self, run)
        self._builders.build(job)

    def printed(self, job: _Job) -> None:
        """A slow controller gets it later, if it is still kept then."""
        if self._controller is not None and not self._controller.connection.is_slow:
            self._send_output(job)

    def _send_output(self, job: _Job) -> None:
        """Nobody reads the output of what was cancelled."""
        if self._controller is None or not self._has_offered or job.is_cancelled:
            return
        for piece in job.output.since(job.sent):
            self._controller.connection.send(
                JobOutput(job=job.run.job, offset=piece.offset, stdout=piece.out, stderr=piece.err)
            )
        job.sent = job.output.end

    def is_at(self, job: _Job) -> None:
        if self._controller is not None and self._has_offered and job.phase:
            self._controller.connection.send(JobPhase(job=job.run.job, phase=job.phase))

    def ended(self, job: _Job) -> None:
        passing("worker", "ended")
        _log.info("%s: %s: %s", job.run.job, job.run.step.name, job.result)
        if self._controller is not None and self._has_offered:
            self._send_output(job)
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
