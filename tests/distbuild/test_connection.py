"""Connections of daemons, and what listens to them, under whatever the other side says."""

from __future__ import annotations

import json
import logging
from base64 import b64decode
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransport

from distbuild.builds import Build, Builds
from distbuild.connection import Connection
from distbuild.framing import MAX_LINE, encode
from distbuild.handshake import Party
from distbuild.initiators import Initiator
from distbuild.messages import (
    BuildCancel,
    BuildRequest,
    BuildStatus,
    Hello,
    ListRequests,
    Message,
    Ping,
    Role,
)
from distbuild.oldprotocol import encode_old
from distbuild.worker import Abilities, Worker
from distbuild.workermessages import (
    CancelStep,
    ExecOutput,
    Fault,
    JobBuilt,
    JobFailed,
    JobOutput,
    RunStep,
    Step,
)

KEY = "0f" * 32
STEP = Step(repo="r", ref="f" * 40, morphology="m", key=KEY, name="lib")

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Transport(StringTransport):
    """One that knows what real ones know."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    @property
    def is_closed(self) -> bool:
        return bool(self.disconnecting or self.disconnected)


class Peer:
    """The other side of a connection to a daemon."""

    def __init__(self, connection: Connection, address: str = "127.0.0.1") -> None:
        self.connection = connection
        make: Any = Transport
        self.transport: Any = make(peerAddress=IPv4Address("TCP", address, 1234))
        connection.makeConnection(self.transport)  # type: ignore[no-untyped-call]

    def send(self, data: bytes) -> None:
        self.connection.dataReceived(data)

    def say(self, *messages: Message) -> None:
        self.send(b"".join(encode(each) for each in messages))

    def heard(self) -> list[dict[str, Any]]:
        """What was said to us since the last time."""
        data = self.transport.value()
        self.transport.clear()
        return [json.loads(line) for line in data.splitlines()]

    def close(self) -> None:
        from twisted.internet.error import ConnectionDone
        from twisted.python.failure import Failure

        failure: Any = Failure
        self.connection.connectionLost(failure(ConnectionDone()))


def worker(capacity: int = 1) -> Worker:
    return Worker(Abilities(("x86_64",), capacity, ("morph", "--quiet")))


def connect(daemon: Worker, role: Role, *, greet: bool = True) -> Peer:
    speakers = {Role.CONTROLLER: daemon.speaker, Role.HELPER: daemon.helpers.speaker}
    peer = Peer(Connection(Party(Role.WORKER), speakers))  # type: ignore[arg-type]
    assert [each["type"] for each in peer.heard()] == ["hello"]
    if greet:
        peer.say(Party(role).hello())
    return peer


# ---- How connections begin and end -----------------------------------------------------------


def test_another_machine_is_refused_where_there_is_no_secret() -> None:
    peer = Peer(Connection(Party(Role.WORKER), {}), "192.0.2.7")
    (said,) = peer.heard()
    assert said["type"] == "refused"
    assert "set distbuild-secret-file" in said["reason"]
    assert peer.transport.is_closed


@pytest.mark.parametrize(
    "line",
    [
        encode(Ping()) + encode(ListRequests(id="1")),
        b"GET / HTTP/1.1\r\n",
        b"\n",
        encode(Hello(role=Role.INITIATOR, protocol=5, program="x", nonce="0" * 16)),
        encode(Hello(role=Role.CONTROLLER, protocol=6, program="x", nonce="0" * 16)),
        b"x" * (MAX_LINE + 1),
    ],
    ids=["no hello", "HTTP", "empty", "wrong role", "wrong version", "endless"],
)
def test_what_is_no_beginning_ends_the_connection(line: bytes) -> None:
    peer = connect(worker(), Role.CONTROLLER, greet=False)
    peer.send(line)
    assert [each["type"] for each in peer.heard()] == ["refused"]
    assert peer.transport.is_closed


def test_an_old_party_is_answered_and_may_stay() -> None:
    peer = connect(worker(), Role.CONTROLLER, greet=False)
    peer.send(encode_old({"type": "exec-request", "id": "1", "argv": ["true"]}))
    (answer,) = peer.heard()
    assert "type: build-failed" in answer
    assert not peer.transport.is_closed


def test_too_many_lines_that_are_no_messages_end_the_connection() -> None:
    peer = connect(worker(), Role.CONTROLLER)
    peer.send(b"x\n" * 99)
    assert not peer.transport.is_closed
    peer.send(b"x\n")
    assert peer.heard()[-1]["reason"] == "too many lines that are no messages"
    assert peer.transport.is_closed


@unhurried
@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"\n", encode(Ping())])), st.booleans())
@example(pieces=[b"\x16\x03\x01", b"\x16\x03\x01"], greet=False)
def test_no_bytes_do_harm(pieces: list[bytes], greet: bool) -> None:
    logging.disable()
    try:
        daemon = worker()
        peer = connect(daemon, Role.CONTROLLER, greet=greet)
        for piece in pieces:
            peer.send(piece)
        peer.close()
        # Whoever comes next is listened to.
        helper, other = connect(daemon, Role.HELPER), connect(daemon, Role.CONTROLLER)
        assert [each["type"] for each in other.heard()] == ["offer"]
        helper.close()
    finally:
        logging.disable(logging.NOTSET)


def test_lines_may_come_in_pieces() -> None:
    daemon = worker()
    connect(daemon, Role.HELPER)
    peer = connect(daemon, Role.CONTROLLER, greet=False)
    for byte in encode(Party(Role.CONTROLLER).hello()):
        peer.send(bytes([byte]))
    assert [each["type"] for each in peer.heard()] == ["offer"]


# ---- A worker --------------------------------------------------------------------------------


def test_a_worker_runs_builders_and_nothing_else() -> None:
    daemon = worker()
    helper, controller = connect(daemon, Role.HELPER), connect(daemon, Role.CONTROLLER)
    (offer,) = controller.heard()
    assert (offer["architectures"], offer["capacity"], offer["running"]) == (["x86_64"], 1, [])
    (request,) = helper.heard()
    assert request["argv"] == ["morph", "--quiet", "worker-builder"]
    assert request["keeps_input"] is True
    controller.say(RunStep(job="j-1", step=STEP))
    (given,) = helper.heard()
    assert (given["type"], given["id"]) == ("exec-input", request["id"])
    assert b64decode(given["data"]) == encode(RunStep(job="j-1", step=STEP))
    # What a helper may be asked, a controller may not ask.
    controller.send(b'{"type":"exec-request","id":"1","argv":["rm","-r","/"]}\n')
    assert helper.heard() == []
    output = encode(JobOutput(job="j-1", stdout=b"building\n"))
    helper.say(ExecOutput(id=request["id"], stdout=output[:20]))
    helper.say(ExecOutput(id=request["id"], stdout=output[20:] + encode(JobBuilt(job="j-1"))))
    said = controller.heard()
    assert [each["type"] for each in said] == ["job-output", "job-built"]
    assert said[1]["job"] == "j-1"
    # The next step goes to the same one.
    controller.say(RunStep(job="j-2", step=STEP))
    assert [each["id"] for each in helper.heard()] == [request["id"]]


def test_what_is_said_twice_counts_once() -> None:
    daemon = worker()
    helper, controller = connect(daemon, Role.HELPER), connect(daemon, Role.CONTROLLER)
    controller.say(RunStep(job="j-1", step=STEP), RunStep(job="j-1", step=STEP))
    request, _ = helper.heard()
    controller.heard()
    result = encode(JobFailed(job="j-1", fault=Fault.BUILD, reason="no"))
    helper.say(ExecOutput(id=request["id"], stdout=result))
    (failed,) = controller.heard()
    assert (failed["type"], failed["fault"]) == ("job-failed", "build")
    controller.say(CancelStep(job="j-1"), CancelStep(job="unknown"))
    assert helper.heard() == []


def test_a_worker_without_a_helper_offers_nothing_until_one_comes() -> None:
    daemon = worker()
    controller = connect(daemon, Role.CONTROLLER)
    assert controller.heard() == []
    connect(daemon, Role.HELPER)
    assert [each["type"] for each in controller.heard()] == ["offer"]


def test_the_next_helper_runs_what_a_lost_one_did() -> None:
    daemon = worker()
    first, controller = connect(daemon, Role.HELPER), connect(daemon, Role.CONTROLLER)
    controller.say(RunStep(job="j-1", step=STEP))
    request, _ = first.heard()
    first.close()
    second = connect(daemon, Role.HELPER)
    (again,) = second.heard()
    assert (again["argv"], again["id"] != request["id"]) == (request["argv"], True)
    assert b64decode(again["stdin"]) == encode(RunStep(job="j-1", step=STEP))


def test_what_ended_while_no_controller_was_there_is_told_to_the_next() -> None:
    daemon = worker(capacity=2)
    helper, first = connect(daemon, Role.HELPER), connect(daemon, Role.CONTROLLER)
    other = Step(repo="r", ref="f" * 40, morphology="m", key="1" * 64, name="app")
    first.say(RunStep(job="j-1", step=STEP), RunStep(job="j-2", step=other))
    builder = helper.heard()[0]["id"]
    printed = encode(JobOutput(job="j-1", stdout=b"before\n"))
    helper.say(ExecOutput(id=builder, stdout=printed))
    assert [each["type"] for each in first.heard()] == ["offer", "job-output"]
    first.close()
    printed = encode(JobOutput(job="j-1", stderr=b"ERROR: no\n"))
    result = encode(JobFailed(job="j-1", fault=Fault.BUILD, reason="ERROR: no"))
    helper.say(ExecOutput(id=builder, stdout=printed + result))
    second = connect(daemon, Role.CONTROLLER)
    offer, known, missed, failed = second.heard()
    assert [each["job"] for each in offer["running"]] == ["j-1", "j-2"]
    assert (b64decode(known["stdout"]), known["offset"]) == (b"before\n", 0)
    assert (b64decode(missed["stderr"]), missed["offset"]) == (b"ERROR: no\n", 7)
    assert (failed["type"], failed["job"], failed["reason"]) == ("job-failed", "j-1", "ERROR: no")
    third = connect(daemon, Role.CONTROLLER)
    assert [each["job"] for each in third.heard()[0]["running"]] == ["j-2"]
    # The one before is taken for gone.
    assert second.transport.is_closed


def test_a_controller_that_does_not_read_gets_output_later() -> None:
    daemon = worker()
    helper, controller = connect(daemon, Role.HELPER), connect(daemon, Role.CONTROLLER)
    controller.say(RunStep(job="j-1", step=STEP))
    builder = helper.heard()[0]["id"]
    controller.heard()
    controller.connection.pauseProducing()
    for number in range(3):
        piece = encode(JobOutput(job="j-1", stdout=b"%d" % number * 1000))
        helper.say(ExecOutput(id=builder, stdout=piece))
    assert controller.heard() == []
    helper.say(ExecOutput(id=builder, stdout=encode(JobBuilt(job="j-1"))))
    said = controller.heard()
    assert [each["type"] for each in said] == ["job-output"] * 3 + ["job-built"]
    assert [each.get("offset", 0) for each in said[:3]] == [0, 1000, 2000]


# ---- Initiators ------------------------------------------------------------------------------


class Asked:
    """A controller that only notes what it is asked for."""

    def __init__(self) -> None:
        self.builds = Builds()
        self.asked: list[str] = []

    def begin(self, request: BuildRequest, initiator: Initiator) -> None:
        build = self.builds.new(request, initiator.name)
        build.followers.append(initiator)
        self.asked.append(f"begin {request.morphology}")

    def follow(self, build: Build, initiator: Initiator) -> None:
        build.followers.append(initiator)

    def catch_up(self, build: Build, initiator: Initiator) -> None:
        self.asked.append("catch up")

    def unfollow(self, build: Build, initiator: Initiator, *, may_return: bool) -> None:
        build.followers.remove(initiator)
        self.asked.append("wait" if may_return else "unfollow")

    def cancel(self, build: Build) -> None:
        self.asked.append("cancel")

    def slots(self, architecture: str) -> int:
        return 1


def initiator(controller: Asked) -> Peer:
    speakers = {Role.INITIATOR: lambda hello: Initiator(controller)}
    peer = Peer(Connection(Party(Role.CONTROLLER), speakers))  # type: ignore[arg-type]
    peer.say(Party(Role.INITIATOR).hello())
    peer.heard()
    return peer


def test_initiators_ask_and_leave() -> None:
    controller = Asked()
    peer = initiator(controller)
    peer.say(BuildRequest(id="1", repo="r", ref="f" * 40, morphology="m"))
    (build,) = controller.builds.running()
    peer.say(ListRequests(id="2"), BuildStatus(id="3", build=build.id))
    listed, status = peer.heard()
    assert listed["message"].startswith("1 distbuild requests(s) currently in progress\n\n")
    assert status["message"].endswith("Build status: Computing build graph")
    peer.say(BuildCancel(id="4", build=build.id), BuildCancel(id="5", build="none"))
    assert [each["found"] for each in peer.heard()] == [True, False]
    peer.close()
    assert controller.asked == ["begin m", "cancel", "unfollow"]


def test_a_slow_initiator_misses_output_and_nothing_else() -> None:
    from distbuild.messages import StepOutput, StepStarted

    controller = Asked()
    peer = initiator(controller)
    peer.say(BuildRequest(id="1", repo="r", ref="f" * 40, morphology="m"))
    (build,) = controller.builds.running()
    peer.connection.pauseProducing()
    build.tell(StepOutput(build=build.id, step_name="s", stdout=b"x"))
    build.tell(StepStarted(build=build.id, step_name="s", worker_name="w"))
    assert [each["type"] for each in peer.heard()] == ["step-started"]
    peer.connection.resumeProducing()
    build.tell(StepOutput(build=build.id, step_name="s", stdout=b"x"))
    assert [each["type"] for each in peer.heard()] == ["step-output"]
