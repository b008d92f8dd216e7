"""The builds that a controller was asked for: who follows each, and how far it is."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from distbuild.graphs import Graph, GraphSource, Work
from distbuild.messages import BuildProgress, BuildRequest, Message, StepOutput, StepPhase
from morphlib.credentials import hide_credentials

#: So many builds that are over are remembered.
KEPT = 1000


class Follower(Protocol):
    """An initiator that is told what happens."""

    @property
    def is_slow(self) -> bool: ...

    def tell(self, message: Message) -> None: ...


@dataclass(eq=False, slots=True)
class Build:
    """`last` is what ended it, for those who ask later. `stored` are keys that came into the shared
    cache since it was last asked. While it `is_expected` that its initiator comes back, it goes on
    as if somebody followed it. Times are seconds since the epoch."""

    id: str
    request: BuildRequest
    initiator: str
    status: str = "Computing build graph"
    followers: list[Follower] = field(default_factory=list)
    graph: Graph | None = None
    by_key: dict[str, GraphSource] = field(default_factory=dict)
    targets: tuple[GraphSource, ...] = ()
    work: Work | None = None
    stored: set[str] = field(default_factory=set)
    is_scheduled: bool = False
    is_expected: bool = False
    last: Message | None = None
    began: float = field(default_factory=time.time)
    ended: float | None = None

    @property
    def is_forgotten(self) -> bool:
        """Whether nobody waits for it, so that it would be built for nothing."""
        return not (self.followers or self.is_expected or self.request.allow_detach)

    @property
    def is_over(self) -> bool:
        return self.last is not None

    def tell(self, message: Message) -> None:
        """Tell all followers. Those that are slow to listen miss output, and nothing else."""
        for follower in list(self.followers):
            if not (follower.is_slow and isinstance(message, StepOutput)):
                follower.tell(message)

    def tell_phase(self, key: str, phase: str) -> None:
        name = self.by_key[key].name
        self.tell(StepPhase(build=self.id, step_name=name, phase=phase))

    def progress(
        self,
        text: str,
        step: str | None = None,
        doing: Literal["transfer", "retry"] | None = None,
    ) -> None:
        self.tell(BuildProgress(build=self.id, message=text[:60_000], step_name=step, doing=doing))


class Builds:
    """All builds by public id, which is hard to guess and never used twice."""

    def __init__(self) -> None:
        self._builds: dict[str, Build] = {}

    def asked_by(self, request: BuildRequest) -> Build | None:
        """The build that this very request led to, if it came before. Ids of requests are as hard
        to guess as those of builds."""
        found = (each for each in self._builds.values() if each.request.id == request.id)
        return next((build for build in found if build.request == request), None)

    def forget(self, build: Build) -> None:
        del self._builds[build.id]

    def new(self, request: BuildRequest, initiator: str, name: str = "") -> Build:
        build = Build(name or f"build-{secrets.token_hex(6)}", request, initiator)
        self._builds[build.id] = build
        over = [each for each in self._builds.values() if each.is_over]
        for each in over[: max(0, len(over) - KEPT)]:
            del self._builds[each.id]
        return build

    def get(self, name: str) -> Build | None:
        return self._builds.get(name)

    def all(self) -> list[Build]:
        """Those that are remembered, in the order in which they were asked for."""
        return list(self._builds.values())

    def running(self) -> list[Build]:
        return [build for build in self._builds.values() if not build.is_over]


def describe_running(builds: Iterable[Build]) -> str:
    """What `morph distbuild-list-jobs` shows."""
    found = list(builds)
    blocks = [f"{len(found)} distbuild requests(s) currently in progress"]
    blocks += [
        f"Build request ID: {build.id}\n"
        f"  Initiator: {build.initiator}\n"
        f"  Repo: {hide_credentials(build.request.repo)}\n"
        f"  Ref: {build.request.ref}\n"
        f"  Component: {build.request.morphology}"
        for build in found
    ]
    return "\n\n".join(blocks)


def describe_status(build: Build) -> str:
    """What `morph distbuild-status` shows."""
    return (
        f"\nBuild request ID: {build.id}\n"
        f"  System build: {build.request.morphology}\n"
        f"  Build status: {build.status}"
    )
