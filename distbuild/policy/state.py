"""What a controller's policy knows. Changed by `distbuild.policy.decide` alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from morphlib.build.schedule import Schedule


class Phase(Enum):
    BUILDING = "building"
    TRANSFERRING = "transferring"  # it takes no slot of the worker any more
    STOPPING = "stopping"  # nobody wants it; it takes its slot until the worker says it ended
    UNCLAIMED = "unclaimed"  # a worker does it from before a restart, and nobody asked for it yet


@dataclass(slots=True)
class Job:
    """`request`: on whose account it is. `transfers`: how often its transfer was begun."""

    id: str
    key: str
    worker: str
    request: str
    phase: Phase
    transfers: int = 0

    @property
    def takes_slot(self) -> bool:
        return self.phase is not Phase.TRANSFERRING


@dataclass(slots=True)
class Worker:
    """`jobs`: ids of those that take its slots, in the order in which they began."""

    id: str
    architectures: frozenset[str]
    capacity: int
    jobs: dict[str, None] = field(default_factory=dict)
    resting: bool = False

    @property
    def is_free(self) -> bool:
        return not self.resting and len(self.jobs) < self.capacity


@dataclass(slots=True)
class Wanted:
    """A key that has to be built. `requests`: who wants it, the first that asked first.

    `avoided`: workers that could not build it, for reasons of their own. `losses`: how many
    attempts came to nothing so far.
    """

    key: str
    architecture: str
    requests: dict[str, None] = field(default_factory=dict)
    avoided: set[str] = field(default_factory=set)
    losses: int = 0


@dataclass(slots=True)
class Request:
    """`share`: how many slots are taken on its account. `number`: requests count from 0."""

    id: str
    number: int
    schedule: Schedule
    priority: int
    allow_detach: bool
    followers: int
    share: int = 0


@dataclass(slots=True)
class State:
    """`prefix` begins the ids of all jobs: controllers take a new one each time they start.

    `live`: key -> id of the job that builds or transfers it. `free`: by architecture, workers with
    a free slot, that which has been waiting longest first. `eager`: by architecture, requests that
    may have something ready. `away`: the architectures of workers that were lost.
    """

    prefix: str
    settled: bool = True
    jobs_made: int = 0
    requests_made: int = 0
    requests: dict[str, Request] = field(default_factory=dict)
    workers: dict[str, Worker] = field(default_factory=dict)
    away: dict[str, frozenset[str]] = field(default_factory=dict)
    wanted: dict[str, Wanted] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    live: dict[str, str] = field(default_factory=dict)
    free: dict[str, dict[str, None]] = field(default_factory=dict)
    eager: dict[str, dict[str, None]] = field(default_factory=dict)

    def waiting(self, request: str, architecture: str) -> str | None:
        """A key of a request that is ready, and for which no worker is free."""
        found = self.requests.get(request)
        task = None if found is None else found.schedule.peek(architecture)
        return None if task is None else task.id

    def can_build(self, architecture: str) -> bool:
        """Whether a worker that is there builds for it."""
        return any(architecture in worker.architectures for worker in self.workers.values())

    def slots(self, architecture: str) -> int:
        """How many steps for it can be built at a time by the workers that are there."""
        workers = self.workers.values()
        return sum(each.capacity for each in workers if architecture in each.architectures)

    def live_job(self, key: str) -> Job | None:
        job = self.live.get(key)
        return None if job is None else self.jobs[job]


def note_free(state: State, worker: Worker) -> None:
    """Let a worker stand among the free ones exactly if it is free."""
    for architecture in worker.architectures:
        waiting = state.free.setdefault(architecture, {})
        if worker.is_free and worker.id in state.workers:
            waiting.setdefault(worker.id)
        else:
            waiting.pop(worker.id, None)
        if not waiting:
            del state.free[architecture]  # a worker may name as many as it likes


def occupy_slot(state: State, job: Job) -> None:
    """A job begins to take a slot of its worker, on the account of its request."""
    worker = state.workers[job.worker]
    worker.jobs[job.id] = None
    if job.request in state.requests:
        state.requests[job.request].share += 1
    # The next goes to another machine, if one is free: it has more to give than what is left here.
    for architecture in worker.architectures:
        waiting = state.free.get(architecture, {})
        if worker.id in waiting:
            del waiting[worker.id]
            waiting[worker.id] = None
    note_free(state, worker)


def release_slot(state: State, job: Job) -> None:
    """A job takes its slot no longer. Harmless if it does not take any."""
    worker = state.workers.get(job.worker)
    if worker is None or job.id not in worker.jobs:
        return
    del worker.jobs[job.id]
    if job.request in state.requests:
        state.requests[job.request].share -= 1
    # To the end of the queue, also if it had another free slot.
    for architecture in worker.architectures:
        state.free.get(architecture, {}).pop(worker.id, None)
    note_free(state, worker)


def charge(state: State, job: Job, request: str) -> None:
    """Put a job on the account of another request."""
    worker = state.workers.get(job.worker)
    if worker is not None and job.id in worker.jobs:
        for account, change in ((job.request, -1), (request, 1)):
            if account in state.requests:
                state.requests[account].share += change
    job.request = request
