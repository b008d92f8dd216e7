"""How far a build is, worked out from its events: what the live view draws."""

from __future__ import annotations

from dataclasses import dataclass, field

from morphlib.events import (
    AnyEvent,
    BuildFinished,
    BuildStarted,
    PlanRevised,
    SourceFailed,
    SourceFinished,
    SourceStarted,
    StepStarted,
)


@dataclass(slots=True)
class Slot:
    """What one builder works on. Times are seconds of the clock that the caller keeps."""

    name: str
    kind: str
    key: str
    since: float
    estimate: float | None
    step: str = ""
    worker: str = ""  # the machine that builds it, where that is another


@dataclass(slots=True)
class BuildState:
    """The state of the build at hand; `running` is False before it begins and after it ends."""

    target: str = ""
    running: bool = False
    since: float = 0.0
    total: int = 0
    slot_count: int = 0
    remote: bool = False
    estimate: float | None = None
    built: int = 0
    cached: int = 0
    untouched: int = 0  # of the cached ones, those that needed no work from the beginning
    failed: int = 0
    slots: dict[int, Slot] = field(default_factory=dict)

    @property
    def done(self) -> int:
        return self.built + self.cached + self.failed

    def update(self, event: AnyEvent, now: float) -> None:
        """Take in an event that was told at `now`."""
        match event:
            case BuildStarted():
                self._start(event, now)
            case PlanRevised():
                self.cached += event.cached - self.untouched
                self.untouched = event.cached
            case SourceStarted():
                self.slots[event.slot] = Slot(
                    name=event.name,
                    kind=event.kind,
                    key=event.key,
                    since=now - event.elapsed,
                    estimate=event.estimate,
                    worker=event.worker,
                )
            case StepStarted():
                if event.slot in self.slots and self.slots[event.slot].key == event.key:
                    self.slots[event.slot].step = event.step
            case SourceFinished():
                self._finish(event)
            case SourceFailed():
                self._leave(event.key)
            case BuildFinished():
                self.running = False
                self.slots.clear()
            case _:
                pass

    def remaining(self, now: float) -> float | None:
        """Seconds until done, as far as earlier builds tell; None where they don't."""
        if self.estimate is None:
            return None
        left = self.estimate - (now - self.since)
        return left if left > 0 else None

    def _start(self, event: BuildStarted, now: float) -> None:
        self.target, self.running, self.since = event.target, True, now
        self.total, self.slot_count, self.estimate = event.total, event.slots, event.estimate
        self.cached = self.untouched = event.cached
        self.remote, self.built, self.failed = event.remote, event.built, 0
        self.slots.clear()

    def _finish(self, event: SourceFinished) -> None:
        self._leave(event.key)
        match event.outcome:
            case "built":
                self.built += 1
            case "failed":
                self.failed += 1
            case "waited" | "fetched":
                self.cached += 1
            case "cached":
                # Those that were known to be cached when the build began are counted already.
                pass
            case "lost":
                pass

    def _leave(self, key: str) -> None:
        for number, slot in list(self.slots.items()):
            if slot.key == key:
                del self.slots[number]
