"""Asking a controller for builds, following them, asking about them."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from distbuild import messages as m
from distbuild.addresses import Address
from distbuild.conversation import ConnectionLost, Conversation
from distbuild.following import Follower
from distbuild.handshake import Party
from distbuild.messages import Role
from distbuild.steplogs import StepLogs
from morphlib.events import Listener, Status

#: Seconds before the second attempt to connect, and between those to find a lost controller.
_RETRY_SECONDS, _RETURN_PAUSE = 30.0, 2.0


@dataclass(frozen=True, slots=True)
class Initiator:
    """`listener` shows what happens. `what` names what is built, for messages."""

    address: Address
    party: Party
    listener: Listener
    what: str = ""

    def tell(self, text: str) -> None:
        self.listener(Status(text=text))

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
        deadline = time.monotonic() + self.party.heartbeat.search
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
        follower = Follower(self.listener, self.what, logs, build)
        conversation = self._connect()
        unsaid: m.BuildRequest | m.BuildAttach | None = first
        try:
            while not follower.is_done:
                try:
                    if unsaid is not None:
                        conversation.say(unsaid)
                        unsaid = None
                    follower.take(conversation.hear())
                except ConnectionLost as error:
                    conversation.close()
                    follower.lose()
                    self.tell(f"{error.message}; trying to reach it again")
                    conversation = self._reconnect()
                    # Without an answer yet, the same again: the request says by its id which.
                    again = m.BuildAttach(id=new_id(), build=follower.build)
                    unsaid = again if follower.build else first
        except KeyboardInterrupt:
            how = f" To cancel the build use `morph distbuild-cancel {follower.build}`."
            self.tell(f"Stopping initiator process.{how if follower.build else ''}")
            if logs is not None:
                logs.finish_all("Initiator cancelled")
            raise
        finally:
            conversation.close()


def new_id() -> str:
    return secrets.token_hex(16)
