"""What can be looked at, each with its page, its JSON, and what changes from one view to the next.

`gather` is called where the controller runs, and is quick; all else may be done in a thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from distbuild.status import pages
from distbuild.status.buildview import BuildFacts, BuildView, gather, view_build
from distbuild.status.joblogs import Excerpt
from distbuild.status.overview import Overview, Watched, view_overview
from distbuild.status.pages import Update
from distbuild.status.stepview import StepFacts, StepView, gather_step, readable, view_step


class Target(Protocol):
    """Targets that are equal are the same. Facts and views are of the target's own types."""

    def gather(self, watched: Watched) -> Any:
        """What is known of it, None if there is nothing like it."""

    def pulse(self, watched: Watched) -> Any:
        """Something that differs when the target may have changed."""

    def view(self, facts: Any) -> Any: ...

    def page(self, view: Any, stamp: int, now: float) -> bytes: ...

    def update(self, before: Any, after: Any, now: float) -> Update: ...

    def json(self, view: Any) -> bytes: ...


@dataclass(frozen=True, slots=True)
class OverviewTarget:
    def gather(self, watched: Watched) -> Overview:
        return view_overview(watched)

    def pulse(self, watched: Watched) -> int:
        return watched.history.version

    def view(self, facts: Overview) -> Overview:
        return facts

    def page(self, view: Overview, stamp: int, now: float) -> bytes:
        return pages.overview_page(view, stamp, now)

    def update(self, before: Overview, after: Overview, now: float) -> Update:
        return pages.overview_update(before, after, now)

    def json(self, view: Overview) -> bytes:
        return msgspec.json.encode(view)


@dataclass(frozen=True, slots=True)
class BuildTarget:
    build: str

    def gather(self, watched: Watched) -> BuildFacts | None:
        return gather(watched, self.build)

    def pulse(self, watched: Watched) -> int:
        return watched.history.version

    def view(self, facts: BuildFacts) -> BuildView:
        return view_build(facts)

    def page(self, view: BuildView, stamp: int, now: float) -> bytes:
        return pages.build_page(view, stamp, now)

    def update(self, before: BuildView, after: BuildView, now: float) -> Update:
        return pages.build_update(before, after, now)

    def json(self, view: BuildView) -> bytes:
        return msgspec.json.encode(view)


@dataclass(frozen=True, slots=True)
class StepTarget:
    """`job` names one attempt; the last without it."""

    build: str
    key: str
    job: str = ""

    def pinned(self, watched: Watched) -> StepTarget:
        """The attempt that is the last one now: a page goes on with that which it shows."""
        facts = None if self.job else self.gather(watched)
        if facts is None or facts.shown is None:
            return self
        return StepTarget(self.build, self.key, facts.shown.job)

    def gather(self, watched: Watched) -> StepFacts | None:
        return gather_step(watched, self.build, self.key, self.job)

    def pulse(self, watched: Watched) -> tuple[int, int]:
        jobs = watched.history.by_key.get(self.key, ())
        job = self.job or (jobs[-1] if jobs else "")
        return watched.history.version, watched.history.logs.end(job)

    def view(self, facts: StepFacts) -> tuple[StepView, Excerpt]:
        return view_step(facts), readable(facts.excerpt, facts.shown)

    def page(self, view: tuple[StepView, Excerpt], stamp: int, now: float) -> bytes:
        return pages.step_page(*view, stamp, now)

    def update(
        self, before: tuple[StepView, Excerpt], after: tuple[StepView, Excerpt], now: float
    ) -> Update:
        return pages.step_update(before, after, now)

    def json(self, view: tuple[StepView, Excerpt]) -> bytes:
        return msgspec.json.encode(view[0])
