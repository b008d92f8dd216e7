"""What a controller does now: its workers, its builds, and what waits. Frozen values, no clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from distbuild.builds import Build, Builds
from distbuild.messages import BuildCancelled, BuildFailed
from distbuild.policy.queue import waiting_steps
from distbuild.policy.state import Phase, State
from distbuild.status.history import History, Presence
from morphlib.credentials import hide_credentials

#: So many of each are shown: builds that are over, and steps that wait, for each architecture.
SHOWN_OVER, SHOWN_WAITING = 50, 100


@dataclass(frozen=True, slots=True)
class Watched:
    """The parts of a controller that its page looks at, and never changes. `workers`: all names."""

    state: State
    builds: Builds
    history: History
    workers: Iterable[str]


class BuildState(StrEnum):
    GRAPHING = "graphing"
    WAITING = "waiting"
    BUILDING = "building"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


class WorkerState(StrEnum):
    BUILDING = "building"
    IDLE = "idle"
    RESTING = "resting"
    AWAY = "away"


class BuildLine(msgspec.Struct, frozen=True):
    """`steps` are to be built, of `total` that it consists of; `done` of them are built.

    Times are seconds since the epoch.
    """

    id: str
    state: BuildState
    status: str
    morphology: str
    repo: str
    ref: str
    components: tuple[str, ...]
    initiator: str
    priority: int
    began: float
    ended: float | None
    steps: int
    done: int
    total: int


class JobLine(msgspec.Struct, frozen=True):
    """What a worker does. `build` is empty where nobody wants it."""

    job: str
    key: str
    name: str
    build: str
    state: Phase
    began: float | None


class WorkerLine(msgspec.Struct, frozen=True):
    """`since` tells how long it has been there or away, or rests; None if it was never seen."""

    name: str
    state: WorkerState
    since: float | None
    reason: str
    architectures: tuple[str, ...]
    capacity: int
    jobs: tuple[JobLine, ...]


class WaitingLine(msgspec.Struct, frozen=True):
    """A step that is ready. `seconds`: how long it is expected to take."""

    key: str
    name: str
    kind: str
    build: str
    architecture: str
    seconds: float


class Overview(msgspec.Struct, frozen=True):
    """`over`: the newest first. `waiting`: in the order in which they will be started."""

    version: int
    workers: tuple[WorkerLine, ...]
    builds: tuple[BuildLine, ...]
    over: tuple[BuildLine, ...]
    waiting: tuple[WaitingLine, ...]


def view_overview(watched: Watched) -> Overview:
    """All of it. Takes as long as there are workers, builds and ready steps."""
    builds = watched.builds.all()
    over = [build for build in builds if build.is_over]
    return Overview(
        version=watched.history.version,
        workers=tuple(_view_worker(watched, name) for name in watched.workers),
        builds=tuple(view_line(watched, build) for build in builds if not build.is_over),
        over=tuple(view_line(watched, build) for build in over[: -SHOWN_OVER - 1 : -1]),
        waiting=_view_waiting(watched),
    )


def view_line(watched: Watched, build: Build) -> BuildLine:
    planned = watched.history.planned.get(build.id)
    request = build.request
    return BuildLine(
        id=build.id,
        state=_state_of(watched.state, build),
        status=build.status,
        morphology=request.morphology,
        repo=hide_credentials(request.repo),
        ref=request.original_ref or request.ref,
        components=request.components,
        initiator=build.initiator,
        priority=request.priority,
        began=build.began,
        ended=build.ended,
        steps=len(planned.tasks) if planned else 0,
        done=watched.history.done.get(build.id, 0),
        total=planned.total if planned else 0,
    )


def _state_of(state: State, build: Build) -> BuildState:
    match build.last:
        case None:
            request = state.requests.get(build.id)
            if request is None:
                return BuildState.GRAPHING
            is_running = request.share or request.schedule.running
            return BuildState.BUILDING if is_running else BuildState.WAITING
        case BuildFailed():
            return BuildState.FAILED
        case BuildCancelled():
            return BuildState.CANCELLED
        case _:
            return BuildState.FINISHED


def _view_worker(watched: Watched, name: str) -> WorkerLine:
    state, history = watched.state, watched.history
    worker = state.workers.get(name)
    if worker is None:
        seen = history.present.get(name)
        known = tuple(sorted(state.away.get(name, ())))
        since = None if seen is None else seen.since
        return WorkerLine(name, WorkerState.AWAY, since, "", known, 0, ())
    jobs = tuple(_view_job(watched, job) for job in worker.jobs)
    doing = WorkerState.BUILDING if jobs else WorkerState.IDLE
    presence = history.present.get(name)
    if worker.resting:
        doing, presence = WorkerState.RESTING, history.resting.get(name, presence)
    presence = presence or Presence(0.0)
    return WorkerLine(
        name,
        doing,
        presence.since,
        presence.reason,
        tuple(sorted(worker.architectures)),
        worker.capacity,
        jobs,
    )


def _view_job(watched: Watched, job_id: str) -> JobLine:
    job = watched.state.jobs[job_id]
    attempt = watched.history.attempts.get(job_id)
    planned = watched.history.planned.get(job.request)
    name = planned.names[job.key].name if planned and job.key in planned.names else job.key[:12]
    build = job.request if planned else ""
    began = attempt.began if attempt is not None and attempt.certain else None
    return JobLine(job.id, job.key, name, build, job.phase, began)


def _view_waiting(watched: Watched) -> tuple[WaitingLine, ...]:
    lines = []
    for each in waiting_steps(watched.state, SHOWN_WAITING):
        planned = watched.history.planned[each.request]
        named = planned.names[each.key]
        cost = watched.state.requests[each.request].schedule.tasks[each.key].cost
        lines.append(
            WaitingLine(each.key, named.name, named.kind, each.request, each.architecture, cost)
        )
    return tuple(lines)
