"""A connection for programs that do one thing at a time: initiators and helpers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Collection
from typing import Any, Generic, TypeVar

from distbuild.addresses import Address
from distbuild.framing import MAX_LINE, BadLine, LineDecoder, encode
from distbuild.handshake import Party, RefusedError
from distbuild.messages import Hello, Message, Ping, Proof, Refused, Role
from morphlib.errors import MorphError, Reason

_T = TypeVar("_T", bound=Message)


class ConnectionLost(MorphError):
    """The other side is gone, or cannot be reached."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message, reason=Reason.NOT_FOUND, hint=hint)


class Conversation(Generic[_T]):
    """A connection to `address` on which messages of `union` are heard.

    One thread may hear while others speak. Silent stretches are bridged with pings from a thread.
    """

    def __init__(
        self, address: Address, party: Party, expected: Collection[Role], union: Any
    ) -> None:
        """Connect and shake hands. Raises ConnectionLost, or MorphError if one side refuses."""
        self.address = address
        self._heartbeat = party.heartbeat
        self._decoder = LineDecoder[_T](union)
        self._speaking = threading.Lock()
        self._closed = threading.Event()
        try:
            self._socket = socket.create_connection(
                (address.host, address.port), party.heartbeat.connect
            )
        except OSError as error:
            raise ConnectionLost(
                f"Couldn't connect to {address}: {error.strerror or error}"
            ) from error
        self._socket.settimeout(party.heartbeat.lost)
        self._file = self._socket.makefile("rb")
        try:
            self._shake_hands(party, expected)
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self._keep_alive, daemon=True).start()

    def _shake_hands(self, party: Party, expected: Collection[Role]) -> None:
        try:
            party.check_address(str(self._socket.getpeername()[0]))
            ours = party.hello()
            self.say(ours)
            theirs = self._hear_first(Hello)
            party.check_hello(theirs, expected)
            if party.secret:
                self.say(party.prove(ours, theirs))
                party.check_proof(self._hear_first(Proof), ours, theirs)
        except RefusedError as error:
            self.say(Refused(reason=str(error)))
            raise MorphError(f"{self.address}: {error}", reason=Reason.CONFIG) from error

    def _hear_first(self, kind: type[Any]) -> Any:
        try:
            message = LineDecoder[Message](kind | Refused).decode(self._line())
        except BadLine as error:
            raise MorphError(
                f"{self.address} does not speak as it should: {error}",
                reason=Reason.CONFIG,
                hint="Is it a controller of the same version of Morph?",
            ) from error
        if isinstance(message, Refused):
            raise MorphError(f"{self.address}: {message.reason}", reason=Reason.CONFIG)
        return message

    def _line(self) -> bytes:
        try:
            line = self._file.readline(MAX_LINE + 2)
        except (OSError, ValueError) as error:
            raise ConnectionLost(f"Lost the connection to {self.address}: {error}") from error
        if not line.endswith(b"\n"):
            raise ConnectionLost(f"{self.address} closed the connection")
        return line[:-1]

    def say(self, message: Message) -> None:
        """Raises ConnectionLost."""
        try:
            with self._speaking:
                self._socket.sendall(encode(message))
        except OSError as error:
            raise ConnectionLost(f"Lost the connection to {self.address}: {error}") from error

    def hear(self) -> _T:
        """The next message. Lines that are none are passed over. Raises ConnectionLost."""
        while True:
            try:
                message = self._decoder.decode(self._line())
            except BadLine:
                continue
            if isinstance(message, Refused):
                raise MorphError(f"{self.address}: {message.reason}", reason=Reason.CONFIG)
            if not isinstance(message, Ping):
                return message

    def _keep_alive(self) -> None:
        try:
            while not self._closed.wait(self._heartbeat.ping):
                self.say(Ping())
        except ConnectionLost:
            pass  # whoever hears notices it too

    def close(self) -> None:
        self._closed.set()
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it was gone already
        self._socket.close()

    def __enter__(self) -> Conversation[_T]:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
