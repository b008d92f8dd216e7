"""One step of a build as its page shows it: the attempts at it, and what they print."""

from __future__ import annotations

import msgspec

from distbuild.status.buildview import BuildFacts, StepLine, attempts_of, gather, view_build
from distbuild.status.history import Attempt, AttemptState
from distbuild.status.joblogs import Excerpt
from distbuild.status.overview import BuildLine, Watched

#: A line that does not end is shown once it is longer than this, in bytes.
_LONG_LINE = 4096


class LogSpan(msgspec.Struct, frozen=True):
    """Bytes `start` to `end` of what an attempt printed are kept."""

    start: int
    end: int


class Need(msgspec.Struct, frozen=True):
    """A step that has to be built before. Others were there already."""

    key: str
    name: str
    state: str


class StepView(msgspec.Struct, frozen=True):
    """`shown`: the attempt whose log it is, the last one unless another was asked for."""

    version: int
    build: BuildLine
    step: StepLine
    needs: tuple[Need, ...]
    attempts: tuple[Attempt, ...]
    shown: Attempt | None
    log: LogSpan


class StepFacts(msgspec.Struct, frozen=True):
    """`excerpt` is the end of the log of the attempt that is shown."""

    build: BuildFacts
    key: str
    shown: Attempt | None
    excerpt: Excerpt


def gather_step(watched: Watched, build: str, key: str, job: str = "") -> StepFacts | None:
    """What is known of a step, or of one attempt at it; None if there is none such."""
    facts = gather(watched, build)
    if facts is None or facts.planned is None or key not in facts.planned.names:
        return None
    attempts = attempts_of(facts, key)
    chosen = [attempt for attempt in attempts if attempt.job == job] if job else attempts[-1:]
    if job and not chosen:
        return None
    shown = chosen[0] if chosen else None
    return StepFacts(
        facts,
        key,
        shown,
        Excerpt(0, b"") if shown is None else watched.history.logs.read(shown.job),
    )


def view_step(facts: StepFacts) -> StepView:
    view = view_build(facts.build)
    steps = {step.key: step for step in view.steps}
    assert facts.build.planned is not None
    task = next(task for task in facts.build.planned.tasks if task.id == facts.key)
    return StepView(
        version=view.version,
        build=view.build,
        step=steps[facts.key],
        needs=tuple(
            Need(key, steps[key].name, steps[key].state) for key in task.needs if key in steps
        ),
        attempts=attempts_of(facts.build, facts.key),
        shown=facts.shown,
        log=LogSpan(facts.excerpt.start, facts.excerpt.end),
    )


def readable(excerpt: Excerpt, shown: Attempt | None) -> Excerpt:
    """The part to be shown: whole lines, as long as more may come. Half a character can't be."""
    if shown is not None and shown.state is AttemptState.BUILDING:
        whole = excerpt.data.rfind(b"\n") + 1
        if len(excerpt.data) - whole <= _LONG_LINE:
            return Excerpt(excerpt.start, excerpt.data[:whole])
    return excerpt


def news(before: Excerpt, after: Excerpt) -> tuple[int, bytes]:
    """What came since: how many bytes of it are lost, and the rest."""
    lost = max(0, after.start - before.end)
    return lost, after.data[max(0, before.end - after.start) :]
