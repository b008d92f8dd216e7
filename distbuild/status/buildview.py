"""One build as its page shows it: its steps, its timeline, what holds it up, how long it takes.

`gather` takes what is needed out of a controller, which is quick. What is made of it is a function
of that alone, so that it can be done in a thread.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from distbuild.messages import BuildFailed
from distbuild.status.history import NO_STEP, Attempt, AttemptState, Planned, StepName
from distbuild.status.overview import BuildLine, BuildState, Watched, view_line
from distbuild.status.paths import critical_path, seconds_left
from distbuild.status.timeline import Timeline, view_timeline
from morphlib.build.schedule import Task
from morphlib.build.tasks import UNKNOWN_COST
from morphlib.definitions.models import Kind

#: What a step is that nobody began, and that nobody will begin for this build.
WAITING, UNBUILT = "waiting", "unbuilt"


class BuildFacts(msgspec.Struct, frozen=True):
    """`attempts` are those of the build's steps, by key, the first one first. `done`: keys that are
    built. `slots`: how many steps the workers that are there build at a time for it."""

    now: float
    version: int
    line: BuildLine
    reason: str
    planned: Planned | None
    attempts: Mapping[str, tuple[Attempt, ...]]
    done: frozenset[str]
    slots: int


class StepLine(msgspec.Struct, frozen=True):
    """`state` is that of its last attempt; without one "waiting", or "unbuilt" in a build that is
    over.

    Times are seconds since the epoch.
    """

    key: str
    name: str
    kind: str
    state: str
    worker: str
    began: float | None
    ended: float | None
    attempts: int
    expected: float
    is_critical: bool
    reason: str


class Critical(msgspec.Struct, frozen=True):
    """The longest chain of steps, first to last, by durations as measured or expected."""

    keys: tuple[str, ...]
    seconds: float


class Remaining(msgspec.Struct, frozen=True):
    """What is left: steps, and the seconds until all are done, if that can be told. Of
    `guesses` of the chunks nobody knows how long they take."""

    steps: int
    seconds: float | None
    guesses: int


class BuildView(msgspec.Struct, frozen=True):
    version: int
    build: BuildLine
    reason: str
    steps: tuple[StepLine, ...]
    timeline: Timeline
    critical: Critical
    remaining: Remaining


def gather(watched: Watched, name: str) -> BuildFacts | None:
    """What a controller knows of a build, None if it knows no such build."""
    build = watched.builds.get(name)
    if build is None:
        return None
    history, state = watched.history, watched.state
    now = history.now()
    planned = history.planned.get(name)
    tasks = planned.tasks if planned else ()
    request = state.requests.get(name)
    pools = {task.pool for task in tasks[-1:]}
    return BuildFacts(
        now=now,
        version=history.version,
        line=view_line(watched, build),
        reason=build.last.reason if isinstance(build.last, BuildFailed) else "",
        planned=planned,
        attempts={
            task.id: tuple(history.attempts[job] for job in jobs)
            for task in tasks
            if (jobs := history.by_key.get(task.id))
        },
        done=frozenset(request.schedule.done) if request else frozenset(),
        slots=sum(
            worker.capacity for worker in state.workers.values() if pools & worker.architectures
        ),
    )


def attempts_of(facts: BuildFacts, key: str) -> tuple[Attempt, ...]:
    """The attempts at a step for this build: an earlier one may have had it built before."""
    assert facts.planned is not None
    since, until = facts.planned.at, facts.line.ended or facts.now
    return tuple(
        attempt
        for attempt in facts.attempts.get(key, ())
        if (attempt.ended is None or attempt.ended >= since) and attempt.began <= until
    )


def view_build(facts: BuildFacts) -> BuildView:
    planned = facts.planned or Planned(facts.line.began, (), {}, 0)
    attempts = {task.id: found for task in planned.tasks if (found := attempts_of(facts, task.id))}
    is_finished = facts.line.state is BuildState.FINISHED
    done = {
        task.id
        for task in planned.tasks
        if is_finished or task.id in facts.done or _is_built(attempts.get(task.id, ()))
    }
    elapsed = {
        key: facts.now - found[-1].began
        for key, found in attempts.items()
        if found[-1].ended is None
    }
    durations = {
        task.id: _duration(attempts.get(task.id, ()), task.cost, task.id in done, facts.now)
        for task in planned.tasks
    }
    chain = critical_path(planned.tasks, durations)
    on_path = frozenset(chain)
    steps = []
    for task in planned.tasks:
        named = planned.names.get(task.id, NO_STEP)
        found = attempts.get(task.id, ())
        without = WAITING if facts.line.ended is None else UNBUILT
        if task.id in done:
            without = AttemptState.BUILT.value
        steps.append(_view_step(task, named, found, without, is_critical=task.id in on_path))
    return BuildView(
        version=facts.version,
        build=facts.line,
        reason=facts.reason,
        steps=tuple(steps),
        timeline=view_timeline(planned, attempts, on_path, facts.line.ended or facts.now),
        critical=Critical(chain, sum(durations[key] for key in chain)),
        remaining=_view_remaining(facts, planned, done, elapsed),
    )


def _is_built(attempts: tuple[Attempt, ...]) -> bool:
    return bool(attempts) and attempts[-1].state is AttemptState.BUILT


def _duration(attempts: tuple[Attempt, ...], cost: float, is_done: bool, now: float) -> float:
    """Seconds from the begin of a step until what needs it can begin."""
    last = attempts[-1] if attempts else None
    if last is None:
        return 0.0 if is_done else cost
    if last.ended is None:
        return max(cost, now - last.began)
    return last.ended - last.began if is_done else cost


def _view_step(
    task: Task, named: StepName, attempts: tuple[Attempt, ...], without: str, *, is_critical: bool
) -> StepLine:
    """`without`: its state if there is no attempt at it."""
    last = attempts[-1] if attempts else None
    return StepLine(
        key=task.id,
        name=named.name,
        kind=named.kind,
        state=last.state.value if last else without,
        worker=last.worker if last else "",
        began=last.began if last else None,
        ended=last.ended if last else None,
        attempts=len(attempts),
        expected=task.cost,
        is_critical=is_critical,
        reason=last.reason if last else "",
    )


def _view_remaining(
    facts: BuildFacts, planned: Planned, done: set[str], elapsed: Mapping[str, float]
) -> Remaining:
    left = [task for task in planned.tasks if task.id not in done]
    chunks = [task for task in left if _is_chunk(planned, task.id)]
    guesses = sum(task.cost == UNKNOWN_COST[Kind.CHUNK] for task in chunks)
    # As for builds on one machine: a guess of which most is guessed tells nothing.
    can_tell = left and facts.slots and facts.line.ended is None and guesses * 2 <= len(chunks)
    seconds = seconds_left(planned.tasks, done, elapsed, facts.slots) if can_tell else None
    return Remaining(len(left), seconds, guesses)


def _is_chunk(planned: Planned, key: str) -> bool:
    return planned.names.get(key, NO_STEP).kind == Kind.CHUNK.value
