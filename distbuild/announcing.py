"""What a controller tells the followers of builds when its policy says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Protocol

from distbuild.builds import Build, Builds
from distbuild.framing import MAX_LINE
from distbuild.messages import (
    BuildCancelled,
    BuildFailed,
    BuildFinished,
    Message,
    StepAlreadyStarted,
    StepFailed,
    StepFinished,
    StepStarted,
)
from distbuild.policy import events as e
from distbuild.policy.state import State
from distbuild.sharedcache import SharedCache
from distbuild.workermessages import JobFailed


class Announcer(Protocol):
    builds: Builds

    @property
    def shared(self) -> SharedCache: ...

    def end(self, build: Build, last: Message, status: str) -> None: ...

    def elapsed(self, key: str) -> float:
        """Seconds since somebody began to build a key."""

    def phase(self, key: str) -> str: ...

    @property
    def failures(self) -> Mapping[str, JobFailed]: ...


def announce(controller: Announcer, command: e.Command) -> None:
    """Carry out a command that is about telling; others do nothing."""
    if not isinstance(
        command, e.TellStarted | e.TellRetried | e.TellFinished | e.TellFailed | e.EndRequest
    ):
        return
    build = controller.builds.get(command.request)
    if build is None or build.is_over:
        return
    match command:
        case e.TellStarted(_, key, worker, already):
            source = build.by_key[key]
            message = StepAlreadyStarted if already else StepStarted
            build.tell(
                message(
                    build=build.id,
                    step_name=source.name,
                    worker_name=worker,
                    kind=source.kind.value,
                    key=key,
                    elapsed=controller.elapsed(key) if already else 0.0,
                    estimate=source.cost if source.measured else None,
                )
            )
            phase = controller.phase(key) if already else ""
            if phase:
                build.tell_phase(key, phase)
            build.status = f"Building {source.name}"
        case e.TellRetried(_, key, _, reason):
            name = build.by_key[key].name
            build.progress(f"Building {name} again: {reason}", name, "retry")
        case e.TellFinished(_, key, worker):
            name = build.by_key[key].name
            build.tell(StepFinished(build=build.id, step_name=name, worker_name=worker))
        case e.TellFailed(_, key):
            failure = controller.failures.get(key)
            build.tell(
                StepFailed(
                    build=build.id,
                    step_name=build.by_key[key].name,
                    phase=failure.phase if failure else None,
                    exit_code=failure.exit_code if failure else None,
                )
            )
        case e.EndRequest():
            _end(controller, build, command)


def announce_waiting(build: Build, state: State) -> None:
    """Say so if a build that has just begun has to wait for a worker."""
    if build.graph is None:
        return
    arch = build.graph.arch
    key = state.waiting(build.id, arch)
    if key is not None:
        which = "" if state.can_build(arch) else f" that builds for {arch}"
        name = build.by_key[key].name
        build.progress(f"Ready to build {name}: waiting for a worker{which} to become available")


def _fitting(urls: Sequence[str]) -> tuple[str, ...]:
    """As many as one message has room for."""
    ends = accumulate(len(url) + 3 for url in urls)
    return tuple(url for url, end in zip(urls, ends, strict=True) if end <= MAX_LINE - 1000)


def _end(controller: Announcer, build: Build, command: e.EndRequest) -> None:
    match command.outcome:
        case e.Outcome.FINISHED:
            names = [name for source in build.targets for name in source.files]
            names = [name for name in names if not name.endswith(".meta")]
            urls = _fitting([controller.shared.url_of(name) for name in names])
            if len(urls) < len(names):
                build.progress(f"{len(names) - len(urls)} more artifacts are in the shared cache")
            controller.end(build, BuildFinished(build=build.id, urls=urls), "Finished")
        case e.Outcome.FAILED:
            name = build.by_key[command.key].name
            reason = f"Building failed for {name}: {command.reason}"[:60_000]
            last = BuildFailed(build=build.id, reason=reason)
            controller.end(build, last, f"Failed building {name}")
        case e.Outcome.CANCELLED:
            controller.end(build, BuildCancelled(build=build.id), "Cancelled")
