"""Asking a controller for builds, following them, asking about them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from distbuild import messages as m
from distbuild.addresses import Address
from distbuild.conversation import ConnectionLost, Conversation
from distbuild.handshake import Party
from distbuild.messages import Role
from distbuild.steplogs import StepLogs
from morphlib.errors import MorphError, Reason

#: Seconds before the second attempt to connect, and for which a lost controller is looked for.
_RETRY_SECONDS, _RETURN_SECONDS, _RETURN_PAUSE = 30.0, 110.0, 2.0


@dataclass(frozen=True, slots=True)
class Initiator:
    """`tell` shows a line to people. `what` names what is built, for messages."""

    address: Address
    party: Party
    tell: Callable[[str], None]
    what: str = ""

    def ask(self, question: m.BuildCancel | m.BuildStatus | m.ListRequests) -> m.RequestOutput:
        """Ask about builds. Raises MorphError."""
        with self._connect() as conversation:
            conversation.say(question)
            while True:
                answer = conversation.hear()
                if isinstance(answer, m.RequestOutput):
                    return answer

    def build(self, request: m.BuildRequest, logs: StepLogs | None) -> None:
        """Have something built, and follow that. Without `logs`, only until it has begun.

        Raises MorphError if it fails, is cancelled, or the controller can't be reached.
        """
        self.tell(f"Requesting build of {self.what}")
        self._follow(request, logs, "")

    def attach(self, build: str, logs: StepLogs) -> None:
        """Follow a build that was asked for before."""
        self._follow(m.BuildAttach(id=new_id(), build=build), logs, build)

    def _connect(self) -> Conversation[m.ToInitiator]:
        self.tell(f"Connecting to {self.address}")
        try:
            return self._try_to_connect()
        except ConnectionLost as error:
            self.tell(error.message)
            self.tell(f"Retrying in {_RETRY_SECONDS:.0f} seconds")
            time.sleep(_RETRY_SECONDS)
            return self._try_to_connect()

    def _try_to_connect(self) -> Conversation[m.ToInitiator]:
        return Conversation(self.address, self.party, (Role.CONTROLLER,), m.ToInitiator)

    def _reconnect(self) -> Conversation[m.ToInitiator]:
        deadline = time.monotonic() + _RETURN_SECONDS
        while True:
            time.sleep(_RETURN_PAUSE)
            try:
                return self._try_to_connect()
            except ConnectionLost:
                if time.monotonic() > deadline:
                    raise

    def _follow(
        self, first: m.BuildRequest | m.BuildAttach, logs: StepLogs | None, build: str
    ) -> None:
        follower = Follower(self.tell, self.what, logs, build)
        conversation = self._connect()
        try:
            conversation.say(first)
            while not follower.is_done:
                try:
                    follower.take(conversation.hear())
                except ConnectionLost as error:
                    if not follower.build:
                        raise
                    conversation.close()
                    self.tell(f"{error.message}; trying to reach it again")
                    conversation = self._reconnect()
                    conversation.say(m.BuildAttach(id=new_id(), build=follower.build))
        except KeyboardInterrupt:
            self.tell(
                "Stopping initiator process. To cancel the build use `morph distbuild-cancel"
                f" {follower.build}`."
            )
            if logs is not None:
                logs.finish_all("Initiator cancelled")
            raise
        finally:
            conversation.close()


class Follower:
    """Shows what a controller says of a build, and keeps the logs of its steps."""

    def __init__(
        self, tell: Callable[[str], None], what: str, logs: StepLogs | None, build: str
    ) -> None:
        self._tell = tell
        self._what = what
        self._logs = logs
        self.build = build
        self.is_done = False

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
            case m.CacheState(unbuilt=unbuilt, total=total):
                self._tell(f"Need to build {unbuilt}/{total} artifacts")
            case m.BuildProgress(message=text):
                self._tell(f"Progress: {text}")
            case m.BuildFinished(urls=urls):
                for url in urls:
                    self._tell(f"Artifact: {url}")
                if not urls:
                    self._tell("Controller did not give us any artifact URLs.")
                self.is_done = True
            case m.BuildFailed(reason=reason):
                raise MorphError(
                    f"Failed to build {self._what or self.build}: {reason}", reason=Reason.BUILD
                )
            case m.BuildCancelled():
                raise MorphError("Build was cancelled", reason=Reason.BUILD)
            case m.RequestOutput(message=text):
                raise MorphError(text, reason=Reason.NOT_FOUND)
            case m.StepStarted() | m.StepAlreadyStarted() | m.StepFinished() | m.StepFailed():
                self._take_step(message)
            case m.StepOutput(step_name=step, stdout=out, stderr=err):
                if self._logs is not None:
                    self._logs.write(step, out + err)
            case m.Refused() | m.Ping():
                pass  # conversations deal with them
            case _:
                assert_never(message)

    def _take_step(
        self, message: m.StepStarted | m.StepAlreadyStarted | m.StepFinished | m.StepFailed
    ) -> None:
        step = message.step_name
        match message:
            case m.StepStarted(worker_name=worker):
                text, starts = f"Started building {step} on {worker}", True
            case m.StepAlreadyStarted(worker_name=worker):
                text, starts = f"{step} is already building on {worker}", True
            case m.StepFinished(worker_name=worker):
                text, starts = f"Finished building {step} on {worker}", False
            case m.StepFailed():
                text, starts = f"Build of {step} failed.", False
        self._tell(text)
        if self._logs is None:
            return
        if starts:
            self._logs.start(step, text)
        else:
            self._logs.finish(step, text)


def new_id() -> str:
    return secrets.token_hex(16)
