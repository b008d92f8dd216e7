"""What a controller's page tells of the past: every attempt at a step, with its times.

Told by the events that the policy takes and by the commands that it gives, so that the policy need
not know of it. Each costs the same, however much there is to remember. Times are seconds since the
epoch.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from distbuild.builds import Build
from distbuild.policy import events as e
from distbuild.status.joblogs import JobLogs
from distbuild.workermessages import Fault
from morphlib.build.schedule import Task

#: So many attempts, and builds that are over with so many steps, are remembered.
MOST_ATTEMPTS, MOST_BUILDS, MOST_STEPS = 100_000, 1000, 100_000


class AttemptState(StrEnum):
    BUILDING = "building"
    TRANSFERRING = "transferring"
    STOPPING = "stopping"
    BUILT = "built"
    FAILED = "failed"
    UNABLE = "unable"  # its worker could not build it, or its result not be fetched
    STOPPED = "stopped"
    LOST = "lost"


#: On a worker: what such an attempt comes to is lost with it.
_ON_WORKER = frozenset({AttemptState.BUILDING, AttemptState.STOPPING})
_ENDS = {Fault.BUILD: AttemptState.FAILED, Fault.CANCELLED: AttemptState.STOPPED}


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """A job. `slot` numbers what its worker does side by side, from 0. `built`: when its worker was
    done, `ended`: when nothing more came of it. `certain`: whether it was seen to begin."""

    job: str
    key: str
    worker: str
    slot: int
    began: float
    state: AttemptState = AttemptState.BUILDING
    built: float | None = None
    ended: float | None = None
    reason: str = ""
    certain: bool = True


class StepName(msgspec.Struct, frozen=True, gc=False):
    name: str
    kind: str


#: What a step is called that a build does not have.
NO_STEP = StepName("?", "?")


class Planned(msgspec.Struct, frozen=True):
    """What has to be built for a build, from when that was known. Its tasks stand in order."""

    at: float
    tasks: tuple[Task, ...]
    names: Mapping[str, StepName]
    total: int


class Presence(msgspec.Struct, frozen=True):
    """Since when a worker is there, is away or rests, and why."""

    since: float
    reason: str = ""


class History:
    """`version` grows with all that changes."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.now = now
        self.version = 0
        self.logs = JobLogs()
        self.attempts: dict[str, Attempt] = {}
        self.by_key: dict[str, tuple[str, ...]] = {}
        self.planned: dict[str, Planned] = {}
        self.done: dict[str, int] = {}
        self.present: dict[str, Presence] = {}
        self.resting: dict[str, Presence] = {}
        self._running: dict[str, dict[str, int]] = {}  # worker -> job -> slot
        self._over: deque[str] = deque()
        self._steps_over = 0

    # Builds

    def plan(self, build: Build) -> None:
        """What a build has to do is known."""
        assert build.work is not None
        names = {
            task.id: StepName(build.by_key[task.id].name, build.by_key[task.id].kind.value)
            for task in build.work.tasks
        }
        self.planned[build.id] = Planned(self.now(), build.work.tasks, names, build.work.total)
        self.done[build.id] = 0
        self.version += 1

    def touch(self) -> None:
        """Something changed of which nothing is remembered here."""
        self.version += 1

    def _end(self, request: str) -> None:
        if request not in self.planned:
            return
        self._over.append(request)
        self._steps_over += len(self.planned[request].tasks)
        while len(self._over) > MOST_BUILDS or (
            self._steps_over > MOST_STEPS and len(self._over) > 1
        ):
            gone = self._over.popleft()
            self._steps_over -= len(self.planned.pop(gone).tasks)
            del self.done[gone]

    # What happens

    def note(self, event: e.Event, commands: list[e.Command]) -> None:
        """Take in what happened, and what the policy made of it."""
        self.version += 1
        now = self.now()
        match event:
            case e.WorkerJoined(worker, _, _, running):
                self._join(worker, dict(running), now)
            case e.WorkerLost(worker):
                self._lose(worker, {}, now)
                self.present[worker] = Presence(now)
                self.resting.pop(worker, None)
            case e.WorkerRested(worker):
                self.resting.pop(worker, None)
            case e.JobBuilt(job) if self._is_on_worker(job):
                # A transfer goes on from here, if one is wanted.
                self._finish(job, AttemptState.STOPPED, now)
            case e.JobFailed(job, fault, reason) if self._is_on_worker(job):
                self._finish(job, _ENDS.get(fault, AttemptState.UNABLE), now, reason)
            case e.JobStored(job) if not self._is_on_worker(job):
                self._finish(job, AttemptState.BUILT, now)
            case e.TransferFailed(job, reason) if not self._is_on_worker(job):
                self._finish(job, AttemptState.UNABLE, now, reason)
            case _:
                pass
        for command in commands:
            self._obey(command, now)

    def _obey(self, command: e.Command, now: float) -> None:
        match command:
            case e.Start(job, worker, key):
                self._begin(job, key, worker, now)
            case e.Stop(job):
                attempt = self.attempts.get(job)
                if attempt is not None and attempt.state is AttemptState.BUILDING:
                    self.attempts[job] = replace(attempt, state=AttemptState.STOPPING)
            case e.Transfer(job):
                attempt = self.attempts.get(job)
                if attempt is not None:
                    self.attempts[job] = replace(
                        attempt,
                        state=AttemptState.TRANSFERRING,
                        built=attempt.built or now,
                        ended=None,
                    )
            case e.Rest(worker, reason):
                self.resting[worker] = Presence(now, reason)
            case e.TellFinished(request):
                if request in self.done:
                    self.done[request] += 1
            case e.EndRequest(request):
                self._end(request)
            case _:
                pass

    def _is_on_worker(self, job: str) -> bool:
        attempt = self.attempts.get(job)
        return attempt is not None and attempt.state in _ON_WORKER

    def _occupy(self, worker: str, job: str) -> int:
        slots = self._running.setdefault(worker, {})
        taken = set(slots.values())
        slots[job] = next(number for number in range(len(taken) + 1) if number not in taken)
        return slots[job]

    def _begin(self, job: str, key: str, worker: str, now: float, *, certain: bool = True) -> None:
        slot = self._occupy(worker, job)
        self.attempts[job] = Attempt(job, key, worker, slot, now, certain=certain)
        self.by_key[key] = (*self.by_key.get(key, ()), job)
        if len(self.attempts) > MOST_ATTEMPTS:
            self._forget(next(iter(self.attempts)))

    def _forget(self, job: str) -> None:
        attempt = self.attempts.pop(job)
        self._running.get(attempt.worker, {}).pop(job, None)
        rest = tuple(each for each in self.by_key[attempt.key] if each != job)
        if rest:
            self.by_key[attempt.key] = rest
        else:
            del self.by_key[attempt.key]

    def _finish(self, job: str, state: AttemptState, now: float, reason: str = "") -> None:
        attempt = self.attempts.get(job)
        if attempt is None or attempt.ended is not None:
            return
        self._running.get(attempt.worker, {}).pop(job, None)
        self.attempts[job] = replace(attempt, state=state, ended=now, reason=reason[:2000])

    def _join(self, worker: str, running: dict[str, str], now: float) -> None:
        self._lose(worker, running, now)
        self.present[worker] = Presence(now)
        self.resting.pop(worker, None)
        for job, key in running.items():
            attempt = self.attempts.get(job)
            if attempt is None:
                self._begin(job, key, worker, now, certain=False)
            elif attempt.worker == worker and attempt.state is AttemptState.LOST:
                # It goes on with what it did before it was lost.
                slot = self._occupy(worker, job)
                self.attempts[job] = replace(
                    attempt, state=AttemptState.BUILDING, slot=slot, ended=None, reason=""
                )

    def _lose(self, worker: str, kept: dict[str, str], now: float) -> None:
        for job in list(self._running.get(worker, ())):
            if job not in kept and self.attempts[job].state in _ON_WORKER:
                self._finish(job, AttemptState.LOST, now, f"worker {worker} was lost")
