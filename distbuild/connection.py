"""A connection of a daemon, on Twisted: lines, handshake, signs of life, limits.

What is made of its messages is the business of a `Speaker`.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet import reactor as _reactor
from twisted.internet.protocol import connectionDone
from twisted.internet.task import LoopingCall
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from distbuild.addresses import Address
from distbuild.complaints import complain, forgive
from distbuild.framing import MAX_LINE, BadLine, LineDecoder, encode
from distbuild.handshake import Party, RefusedError
from distbuild.messages import Hello, Message, Ping, Proof, Refused, Role
from distbuild.oldprotocol import answer_old, is_old, read_old
from distbuild.pacing import Pace, Room

_log = logging.getLogger("morph.distbuild")
reactor: Any = _reactor
# Twisted goes by the clock on the wall, which people and machines set: then all who were heard a
# moment ago would count as lost, or what is due would wait for hours.
reactor.seconds = time.monotonic

#: With what the handshake of TLS begins.
_TLS = b"\x16\x03"
#: A connection whose lines are no messages so often is closed.
_MOST_BAD_LINES = 100
#: Seconds that the other side has to take what it is told at the end.
_CLOSE_SECONDS = 10.0


class Speaker(Protocol):
    """What one side of a connection is for."""

    #: the union of the messages that it understands
    union: Any

    def greeted(self, connection: Connection) -> None:
        """The other side may take part."""

    def heard(self, message: Any) -> None: ...

    def lost(self, reason: str) -> None:
        """Comes once, and only after `greeted`."""


class Connection(LineOnlyReceiver):
    """`speakers`: by the roles that may connect here, what makes the one that listens to them.

    `transport` is the other end; `is_slow` while it does not take what it is sent,
    and `fell_silent` if it was lost without a word. `is_client`
    where it was us who connected.
    """

    delimiter = b"\n"
    MAX_LENGTH = MAX_LINE
    transport: Any

    def __init__(
        self,
        party: Party,
        speakers: dict[Role, Callable[[Hello], Speaker]],
        *,
        is_client: bool = False,
        room: Room | None = None,
    ) -> None:
        self._party = party
        self._room = room or Room()
        self._is_client = is_client
        self._speakers = speakers
        self._speaker: Speaker | None = None
        self._decoder: LineDecoder[Message] = LineDecoder(Hello | Refused | Ping)
        self._theirs: Hello | None = None
        self._alive = LoopingCall(self._look_for_life)
        self._spoke = self._listened = 0.0
        self._bad_lines = 0
        self._pace = Pace()
        self._unheard: deque[bytes] = deque()
        self._is_resting = False
        self._over = False
        self._deadline: Any = None
        self._closing: Any = None
        self.is_slow = self.fell_silent = False
        self.peer = self._label = "?"

    # What Twisted calls

    def connectionMade(self) -> None:
        address = self.transport.getPeer()
        self.peer = self._label = str(address.host)
        if self._is_client:
            self._label = str(Address(self.peer, address.port))
        self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        self._spoke = self._listened = reactor.seconds()
        self._room.enter(self)
        if self._over:
            return
        self._ours = self._party.hello()
        self._deadline = reactor.callLater(self._party.heartbeat.handshake, self._begin_too_late)
        try:
            self._party.check_address(self.peer)
        except RefusedError as error:
            self.refuse(str(error))
            return
        self._alive.start(self._party.heartbeat.ping / 2, now=False)
        self.send(self._ours)

    def _begin_too_late(self) -> None:
        reason = f"no handshake within {self._party.heartbeat.handshake:g} seconds"
        self.abort(reason)

    def abort(self, reason: str) -> None:
        """End the connection at once, without telling the other side."""
        complain("%s: %s", self._label, reason)
        self._end(reason)
        self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        if self._theirs is None and not self._over and data.startswith(_TLS):
            self.refuse(
                "TLS is not spoken here: set distbuild-certificate and"
                " distbuild-authorities here as well, or not there"
            )
        if self._over:
            return
        if not self._pace.count_bytes(reactor.seconds(), len(data)):
            self._rest()
        super().dataReceived(data)  # type: ignore[no-untyped-call]  # Twisted gives it no types

    def _rest(self) -> None:
        """Listen no more until this second is over."""
        if not self._is_resting:
            self._is_resting = True
            self.transport.pauseProducing()
            reactor.callLater(self._pace.rest(reactor.seconds()), self._listen_again)

    def _listen_again(self) -> None:
        self._is_resting = False
        self._listened = reactor.seconds()  # what it said meanwhile was not even read
        while self._unheard and not self._over and self._may_be_heard():
            self._read(self._unheard.popleft())
        if self._over:
            self._unheard.clear()
        elif self._unheard:
            self._rest()
        else:
            self.transport.resumeProducing()

    def _may_be_heard(self) -> bool:
        # Who asks and does not read the answers gets no more of them.
        is_deaf = self.is_slow and self._theirs is not None and self._theirs.role is Role.INITIATOR
        return not is_deaf and self._pace.take_message(reactor.seconds())

    def lineReceived(self, line: bytes) -> None:
        if self._over:
            return
        self._listened = reactor.seconds()
        if self._unheard or not self._may_be_heard():
            self._unheard.append(line)
            self._rest()
        else:
            self._read(line)

    def _read(self, line: bytes) -> None:
        if is_old(line):
            self._answer_old(line)
            return
        try:
            message = self._decoder.decode(line)
        except BadLine as error:
            if self._speaker is None:
                self.refuse(f"that is not how a connection begins here: {error}")
            else:
                self._count_bad_line(str(error))
                if self._theirs is not None and self._theirs.role is Role.INITIATOR:
                    # Somebody waits for the answer to what this was meant to be.
                    self.send(Refused(reason=f"Bad request: {error}"))
            return
        try:
            self._take(message)
        except RefusedError as error:
            self.refuse(str(error))

    def lineLengthExceeded(self, line: bytes) -> None:
        self.refuse(f"a line is longer than {MAX_LINE} bytes")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._room.leave(self)
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        why = reason.getErrorMessage()
        if self._party.identity is not None:
            from distbuild.tls import describe_loss

            why = describe_loss(self.transport, reason)
            if self._theirs is None and not self._over:
                complain("%s: %s", self._label, why)
        self._end(why)

    # The producer that transports tell of a full buffer

    def pauseProducing(self) -> None:
        self.is_slow = True

    def resumeProducing(self) -> None:
        self.is_slow = False

    def stopProducing(self) -> None:
        self.is_slow = True

    # What is said and heard

    def send(self, message: Message) -> None:
        if not self._over:
            self._spoke = reactor.seconds()
            self.transport.write(encode(message))

    def refuse(self, reason: str) -> None:
        """Tell the other side why it is not listened to, and close the connection."""
        complain("%s refused: %s", self._label, reason)
        self.send(Refused(reason=reason))
        self.close(reason)

    def close(self, reason: str) -> None:
        self._end(reason)
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        if self._closing is None:
            self._closing = reactor.callLater(_CLOSE_SECONDS, self.transport.abortConnection)

    def _end(self, reason: str) -> None:
        if self._alive.running:
            self._alive.stop()
        self._forget_deadline()
        if not self._over:
            self._over = True
            speaker, self._speaker = self._speaker, None
            if speaker is not None:
                speaker.lost(reason)

    def _take(self, message: Message) -> None:
        match message:
            case Ping():
                pass
            case Refused(reason=reason):
                complain("%s refuses us: %s", self._label, reason)
                self.close(reason)
            case Hello() if self._theirs is None:
                self._party.check_hello(message, self._speakers)
                if self._party.identity is not None:
                    self._party.check_certificate(message.role, self.transport.check_peer())
                self._theirs = message
                if self._party.secret:
                    self.send(self._party.prove(self._ours, message))
                    self._decoder = LineDecoder(Proof | Refused | Ping)
                else:
                    self._greet(message)
            case Proof() if self._theirs is not None and self._speaker is None:
                self._party.check_proof(message, self._ours, self._theirs)
                self._greet(self._theirs)
            case _ if self._speaker is not None:
                self._speaker.heard(message)
            case _:
                raise RefusedError("that is not how a connection begins here")

    def _forget_deadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()

    def _greet(self, theirs: Hello) -> None:
        self._forget_deadline()
        self._room.settle(self)
        self._pace.suit(theirs.role)
        forgive(self._label)
        speaker = self._speakers[theirs.role](theirs)
        self._speaker = speaker
        self._decoder = LineDecoder(speaker.union)
        speaker.greeted(self)

    def _answer_old(self, line: bytes) -> None:
        try:
            answer = answer_old(read_old(line))
        except BadLine as error:
            self._count_bad_line(str(error))
            return
        self.transport.write(answer)
        self._count_bad_line("it speaks an old version of the protocol")

    def _count_bad_line(self, why: str) -> None:
        self._bad_lines += 1
        _log.warning("%s: ignoring a line: %s", self._label, why)
        if self._bad_lines >= _MOST_BAD_LINES:
            self.refuse("too many lines that are no messages")

    def _look_for_life(self) -> None:
        now, heartbeat = reactor.seconds(), self._party.heartbeat
        if now - self._listened > heartbeat.lost:
            reason = f"silent for {heartbeat.lost:g} seconds"
            self.fell_silent = True
            self._end(reason)
            self.transport.abortConnection()
        elif now - self._spoke >= heartbeat.ping:
            self.send(Ping())
