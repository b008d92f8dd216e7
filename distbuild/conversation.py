"""A connection for programs that do one thing at a time: initiators and helpers."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Collection
from contextlib import suppress
from typing import Any, Generic, TypeVar

from distbuild.addresses import Address
from distbuild.certificates import Identity, describe_error, describe_problem
from distbuild.framing import MAX_LINE, BadLine, LineDecoder, encode
from distbuild.handshake import Party, RefusedError
from distbuild.messages import Hello, Message, Ping, Proof, Refused, Role
from distbuild.wire import Wire
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
        self._closed = threading.Event()
        try:
            where = (address.host, address.port)
            plain = socket.create_connection(where, party.heartbeat.connect)
        except OSError as error:
            raise ConnectionLost(
                f"Couldn't connect to {address}: {error.strerror or error}"
            ) from error
        self._wire = Wire(plain, party.heartbeat.lost)
        try:
            self._shake_hands(party, expected)
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self._keep_alive, daemon=True).start()

    def _shake_hands(self, party: Party, expected: Collection[Role]) -> None:
        try:
            party.check_address(self._peer())
            shown = b"" if party.identity is None else self._start_tls(party.identity)
            ours = party.hello()
            with suppress(ConnectionLost):  # the other side may have said why it is gone
                self.say(ours)
            theirs = self._hear_first(Hello)
            party.check_hello(theirs, expected)
            if party.identity is not None:
                party.check_certificate(theirs.role, shown)
            if party.secret:
                self.say(party.prove(ours, theirs))
                party.check_proof(self._hear_first(Proof), ours, theirs)
        except RefusedError as error:
            with suppress(ConnectionLost):
                self.say(Refused(reason=str(error)))
            raise MorphError(f"{self.address}: {error}", reason=Reason.CONFIG) from error

    def _peer(self) -> str:
        try:
            return self._wire.peer
        except OSError as error:
            raise self._lost(error) from error

    def _start_tls(self, identity: Identity) -> bytes:
        """Gives the certificate of the other side as DER."""
        try:
            return self._wire.start_tls(
                identity.client_context(), self.address.host, self._heartbeat.handshake
            )
        except OSError as error:
            raise self._lost(error) from error

    def _lost(self, error: OSError) -> MorphError:
        """The error to raise where the connection fails."""
        if isinstance(error, ssl.SSLCertVerificationError):
            why = describe_problem(error.verify_code)
        elif isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            why = describe_error(error.reason or str(error))
        else:
            return ConnectionLost(f"Lost the connection to {self.address}: {error}")
        return MorphError(f"{self.address}: {why}", reason=Reason.CONFIG)

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
            line = self._wire.read_line(MAX_LINE)
        except OSError as error:
            raise self._lost(error) from error
        except ValueError as error:
            raise ConnectionLost(f"{self.address} does not speak as it should: {error}") from error
        if line is None:
            raise ConnectionLost(f"{self.address} closed the connection")
        return line

    def say(self, message: Message) -> None:
        """Raises ConnectionLost."""
        try:
            self._wire.send(encode(message))
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

    def hang_up(self) -> None:
        """Let whoever hears, also on this side, find the connection lost. For signal handlers."""
        self._wire.hang_up()

    def close(self) -> None:
        self._closed.set()
        self._wire.close()

    def __enter__(self) -> Conversation[_T]:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
