"""What a controller says to initiators, and does for them."""

from __future__ import annotations

from typing import Protocol

from distbuild.builds import Build, Builds, describe_running, describe_status
from distbuild.connection import Connection
from distbuild.messages import (
    BuildAttach,
    BuildCancel,
    BuildFailed,
    BuildRequest,
    BuildStarted,
    BuildStatus,
    FromInitiator,
    GraphingFinished,
    GraphingStarted,
    ListRequests,
    Message,
    RequestOutput,
)
from distbuild.progressing import describe_work
from morphlib.errors import MorphError

#: Builds that go on at a time: that one connection asked for, and all.
MOST_BUILDS_EACH, MOST_BUILDS = 20, 1000

_NOT_RUNNING = "Given build-request ID does not match any running build IDs."
_NOT_RECENT = (
    "Given build-request ID does not match any recent build IDs (the status information for this"
    " build may have expired)."
)


class Building(Protocol):
    """What initiators need of the controller."""

    builds: Builds

    def begin(self, request: BuildRequest, initiator: Initiator) -> None:
        """Raises MorphError if builds can't be remembered."""

    def follow(self, build: Build, initiator: Initiator) -> None: ...

    def catch_up(self, build: Build, initiator: Initiator) -> None: ...

    def unfollow(self, build: Build, initiator: Initiator, *, may_return: bool) -> None: ...

    def cancel(self, build: Build) -> None: ...

    def slots(self, architecture: str) -> int: ...


class Initiator:
    """Listens to one initiator."""

    union = FromInitiator

    def __init__(self, controller: Building) -> None:
        self._controller = controller
        self.connection: Connection

    @property
    def is_slow(self) -> bool:
        return self.connection.is_slow

    @property
    def name(self) -> str:
        peer = self.connection.transport.getPeer()
        return f"{peer.host}:{peer.port}"

    def tell(self, message: Message) -> None:
        self.connection.send(message)

    def greeted(self, connection: Connection) -> None:
        self.connection = connection

    def lost(self, reason: str) -> None:
        for build in self._controller.builds.running():
            if self in build.followers:
                may_return = self.connection.fell_silent
                self._controller.unfollow(build, self, may_return=may_return)

    def heard(self, message: FromInitiator) -> None:
        builds = self._controller.builds
        match message:
            case BuildRequest() if (known := builds.asked_by(message)) is not None:
                self._attach(message.id, known)  # who asked did not hear that it was begun
            case BuildRequest():
                if refusal := self._too_many():
                    self.tell(BuildFailed(build="none", reason=refusal))
                    return
                try:
                    self._controller.begin(message, self)
                except MorphError as error:
                    self.tell(BuildFailed(build="none", reason=str(error)))
            case BuildAttach(id=name, build=build_id):
                self._attach(name, builds.get(build_id))
            case BuildCancel(id=name, build=build_id):
                build = builds.get(build_id)
                is_running = build is not None and not build.is_over
                text = f"Cancelling build request with ID {build_id}"
                self._answer(name, text if is_running else _NOT_RUNNING, found=is_running)
                if build is not None and is_running:
                    self._controller.cancel(build)
            case BuildStatus(id=name, build=build_id):
                build = builds.get(build_id)
                text = _NOT_RECENT if build is None else describe_status(build)
                self._answer(name, text, found=build is not None)
            case ListRequests(id=name):
                self._answer(name, describe_running(builds.running()))
            case _:
                pass

    def _too_many(self) -> str:
        """Why no more builds may be asked for now, if so."""
        running = self._controller.builds.running()
        if sum(self in build.followers for build in running) >= MOST_BUILDS_EACH:
            return f"so many builds on one connection ({MOST_BUILDS_EACH}) are not begun"
        if len(running) >= MOST_BUILDS:
            return f"the controller has {MOST_BUILDS} builds going on already: try again later"
        return ""

    def _answer(self, name: str, text: str, *, found: bool = True) -> None:
        self.tell(RequestOutput(id=name, message=text[:60_000], found=found))

    def _attach(self, name: str, build: Build | None) -> None:
        if build is None:
            self._answer(name, _NOT_RECENT, found=False)
            return
        self.tell(GraphingStarted(build=build.id))
        if build.graph is not None:
            self.tell(GraphingFinished(build=build.id))
            self.tell(BuildStarted(build=build.id))
            if build.work is not None:
                slots = self._controller.slots(build.graph.arch)
                self.tell(describe_work(build, slots))
        if build.last is not None:
            self._controller.catch_up(build, self)
            self.tell(build.last)
        elif self not in build.followers:
            self._controller.follow(build, self)
