"""What an initiator makes of what a controller says of a build: events, and logs of its steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, assert_never
from urllib.parse import parse_qs, urlsplit

from distbuild import messages as m
from distbuild.steplogs import StepLogs
from morphlib import events
from morphlib.errors import MorphError, Reason

_Start = m.StepStarted | m.StepAlreadyStarted


@dataclass(frozen=True, slots=True)
class _Running:
    """A step that runs somewhere. `slot`: the row that shows it. `since`: by the clock."""

    start: _Start
    index: int
    slot: int
    since: float

    @property
    def key(self) -> str:
        return self.start.key or self.start.step_name

    @property
    def kind(self) -> str:
        return self.start.kind or ""


class Follower:
    """`what` names what is built, for messages. Without `logs` it is done when the build has begun.

    `build` is the id of the build, "" until it is known.
    """

    def __init__(
        self,
        listener: events.Listener,
        what: str,
        logs: StepLogs | None,
        build: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listener = listener
        self._what = what
        self._logs = logs
        self._clock = clock
        self.build = build
        self.is_done = False
        self._since = clock()
        self._state: m.CacheState | None = None
        self._running: dict[str, _Running] = {}
        self._indices: dict[str, int] = {}  # by step, in the order in which they began
        self._built = self._failed = self._present = 0

    def take(self, message: m.ToInitiator) -> None:
        """Raises MorphError for a build that failed or was cancelled."""
        match message:
            case m.GraphingStarted(build=build):
                self.build = build
                self._tell("Computing build graph")
            case m.GraphingFinished():
                self._tell("Finished computing build graph")
            case m.BuildStarted(build=build):
                self._tell(
                    f"Distbuild started with build request ID: {build}. To cancel, use `morph"
                    f" distbuild-cancel {build}`."
                )
                self.is_done = self._logs is None
            case m.CacheState():
                self._plan(message)
            case m.BuildProgress():
                self._progress(message)
            case m.StepStarted() | m.StepAlreadyStarted():
                self._start(message)
            case m.StepFinished():
                self._finish(message)
            case m.StepPhase(step_name=name, phase=phase):
                self._phase(name, phase)
            case m.StepFailed():
                self._fail(message)
            case m.StepOutput(step_name=step, stdout=out, stderr=err):
                if self._logs is not None:
                    self._logs.write(step, out + err, message.job, message.offset)
            case m.BuildFinished(urls=urls):
                self._end(urls)
            case m.BuildFailed(reason=reason):
                self._tell_end(succeeded=False)
                raise MorphError(
                    f"Failed to build {self._what or self.build}: {reason}", reason=Reason.BUILD
                )
            case m.BuildCancelled():
                self._tell_end(succeeded=False)
                raise MorphError("Build was cancelled", reason=Reason.BUILD)
            case m.RequestOutput(message=text):
                raise MorphError(text, reason=Reason.NOT_FOUND)
            case m.Refused() | m.Ping():
                pass  # conversations deal with them
            case _:
                assert_never(message)

    def lose(self) -> None:
        """The controller can't be heard. When it is back, it tells anew what runs."""
        for name in list(self._running):
            self._leave(name, "lost")

    def _tell(self, text: str, source: str = "") -> None:
        self._listener(events.Status(text=text, source=source))

    def _plan(self, state: m.CacheState) -> None:
        """How much there is to do. Told again by a controller that was away: then it counts what
        was built in the meantime."""
        done = min(state.total, max(0, state.total - state.unbuilt) + state.built)
        before, self._state = self._state, state
        if before is None:
            self._present = done - state.built
            self._built = state.built
            self._listener(
                events.BuildStarted(
                    target=state.system or self.build,
                    total=state.total,
                    cached=self._present,
                    slots=0,
                    estimate=state.estimate,
                    remote=True,
                    built=state.built,
                )
            )
        else:
            self._tell(f"Need to build {state.unbuilt}/{state.total} artifacts")
            self._present = max(0, done - self._built)
            self._listener(events.PlanRevised(total=state.total, cached=self._present))

    def _progress(self, message: m.BuildProgress) -> None:
        name = message.step_name or ""
        step = self._running.get(name)
        if message.doing == "retry" and step is not None:
            self._leave(name, "lost")
            step = None
        # What the view shows need not scroll by as well.
        shown = message.doing == "transfer" and step is not None
        self._tell(f"Progress: {message.message}", name if shown else "")
        if shown:
            self._phase(name, "transfer")

    def _phase(self, name: str, phase: str) -> None:
        step = self._running.get(name)
        if step is not None:
            self._listener(
                events.StepStarted(
                    name=name,
                    key=step.key,
                    step=phase,
                    slot=step.slot,
                    worker=step.start.worker_name,
                )
            )

    def _start(self, message: _Start) -> None:
        name, joined = message.step_name, isinstance(message, m.StepAlreadyStarted)
        known = self._running.get(name)
        if known is not None and joined and known.start.worker_name == message.worker_name:
            return  # it is told whenever somebody begins to follow
        if known is not None:
            self._leave(name, "lost")
        index = self._indices.setdefault(name, self._present + len(self._indices) + 1)
        taken = {each.slot for each in self._running.values()}
        slot = next(number for number in range(len(taken) + 1) if number not in taken)
        since = self._clock() - message.elapsed
        step = self._running[name] = _Running(message, index, slot, since)
        self._listener(
            events.SourceStarted(
                name=name,
                kind=step.kind,
                key=step.key,
                index=index,
                total=self._total,
                slot=slot,
                estimate=message.estimate,
                worker=message.worker_name,
                joined=joined,
                elapsed=message.elapsed,
            )
        )
        if self._logs is not None:
            worker = message.worker_name
            text = f"Started building {name} on {worker}"
            self._logs.start(name, f"{name} is already building on {worker}" if joined else text)

    def _finish(self, message: m.StepFinished) -> None:
        name, worker = message.step_name, message.worker_name
        if name not in self._running:  # that it began was told while nobody heard
            self._start(
                m.StepAlreadyStarted(build=message.build, step_name=name, worker_name=worker)
            )
        self._built += 1
        self._leave(name, "built", worker)
        if self._logs is not None:
            self._logs.finish(name, f"Finished building {name} on {worker}")

    def _fail(self, message: m.StepFailed) -> None:
        name = message.step_name
        self._failed += 1
        step = self._running.get(name)
        tail: tuple[str, ...] = ()
        log = ""
        if self._logs is not None:
            tail, log = self._logs.tail(name), str(self._logs.path_of(name) or "")
            self._logs.finish(name, f"Build of {name} failed.")
        self._listener(
            events.SourceFailed(
                name=name,
                key=step.key if step else name,
                step=message.phase or "",
                exit_code=message.exit_code,
                log=log,
                tail=tail,
                staging="",
                shell="",
                worker=step.start.worker_name if step else "another machine",
            )
        )
        if step is not None:
            self._leave(name, "failed")

    def _leave(
        self, name: str, outcome: Literal["built", "failed", "lost"], worker: str = ""
    ) -> None:
        step = self._running.pop(name)
        self._listener(
            events.SourceFinished(
                name=name,
                kind=step.kind,
                key=step.key,
                index=step.index,
                total=self._total,
                outcome=outcome,
                duration=self._clock() - step.since,
                slot=step.slot,
                worker=worker or step.start.worker_name,
            )
        )

    @property
    def _total(self) -> int:
        return 0 if self._state is None else self._state.total

    def _end(self, urls: tuple[str, ...]) -> None:
        self._tell_end(succeeded=True)
        for url in urls:
            kind, name = _parts_of(url)
            self._listener(events.ArtifactCached(kind=kind, name=name, url=url))
        if not urls:
            self._tell("Controller did not give us any artifact URLs.")
        self.is_done = True

    def _tell_end(self, *, succeeded: bool) -> None:
        for name in list(self._running):  # what others want goes on, but not for us
            self._leave(name, "lost")
        state = self._state
        if state is None:
            return  # it never began
        left = max(0, state.total - self._present - self._built - self._failed)
        self._listener(
            events.BuildFinished(
                target=state.system or self.build,
                succeeded=succeeded,
                built=self._built,
                cached=self._present,
                failed=self._failed,
                skipped=left,
                duration=self._clock() - self._since,
            )
        )


def _parts_of(url: str) -> tuple[str, str]:
    """Kind and name of the artifact at a URL, as far as it tells."""
    names = parse_qs(urlsplit(url).query).get("filename", [""])
    _, _, rest = names[0].partition(".")
    kind, _, name = rest.partition(".")
    return kind, name
