"""A worker's builders, with a helper that is played by the test and a clock of its own."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import pytest
from twisted.internet.task import Clock

from distbuild import builders
from distbuild.builders import SILENT_SECONDS
from distbuild.framing import encode
from distbuild.messages import Message, Ping, Role
from distbuild.worker import Worker
from distbuild.workermessages import (
    CancelStep,
    ExecOutput,
    ExecResponse,
    JobBuilt,
    JobOutput,
    RunStep,
)
from tests.distbuild.test_connection import STEP, Peer, connect, worker


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(builders, "reactor", clock)
    return clock


class Played:
    """A worker with a helper and a controller."""

    def __init__(self, capacity: int = 1) -> None:
        self.worker: Worker = worker(capacity=capacity)
        self.helper: Peer = connect(self.worker, Role.HELPER)
        self.controller: Peer = connect(self.worker, Role.CONTROLLER)
        self.controller.heard()
        self.started: list[str] = []
        self.given: list[tuple[str, bytes]] = []
        self.cancelled: list[str] = []
        self.closed: list[str] = []
        self.look()

    def look(self) -> None:
        """Note what the helper was asked for since."""
        for each in self.helper.heard():
            match each["type"]:
                case "exec-request":
                    self.started.append(each["id"])
                    if each.get("stdin"):
                        self.given.append((each["id"], b64decode(each["stdin"])))
                case "exec-input" if each.get("is_last"):
                    self.closed.append(each["id"])
                case "exec-input":
                    self.given.append((each["id"], b64decode(each["data"])))
                case "exec-cancel":
                    self.cancelled.append(each["id"])

    def run(self, job: str) -> RunStep:
        run = RunStep(job=job, step=STEP)
        self.controller.say(run)
        self.look()
        return run

    def say(self, builder: str, *messages: Message) -> None:
        self.helper.say(
            ExecOutput(id=builder, stdout=b"".join(encode(message) for message in messages))
        )
        self.look()

    def end(self, builder: str, status: int = 0, err: bytes = b"") -> None:
        if err:
            self.helper.say(ExecOutput(id=builder, stderr=err))
        self.helper.say(ExecResponse(id=builder, exit=status))
        self.look()

    def told(self) -> list[Any]:
        return self.controller.heard()


def test_builders_are_there_before_steps_come_and_no_more_than_there_is_room_for() -> None:
    played = Played(capacity=2)
    assert len(played.started) == 2
    runs = [played.run(f"j-{number}") for number in range(3)]
    first, second = played.started
    assert played.given == [(first, encode(runs[0])), (second, encode(runs[1]))]
    played.say(second, JobBuilt(job="j-1"))
    assert played.given[2:] == [(second, encode(runs[2]))]
    assert len(played.started) == 2


def test_a_builder_that_dies_costs_its_step_one_attempt() -> None:
    played = Played()
    run = played.run("j-1")
    played.end(played.started[0], -9)
    assert played.told() == []
    assert played.given[1:] == [(played.started[1], encode(run))]
    played.end(played.started[1], 1, b"ERROR: the process that was building was killed\n")
    (failed,) = played.told()
    assert (failed["type"], failed["job"], failed["fault"]) == ("job-failed", "j-1", "machine")
    assert failed["reason"] == "ERROR: the process that was building was killed"
    # What comes next has attempts of its own.
    played.run("j-2")
    assert played.given[-1][0] == played.started[2]


@pytest.mark.parametrize(
    "said",
    [
        b"hello\n",
        b"\xff\xfe\n",
        encode(JobBuilt(job="another")),
        encode(JobOutput(job="another", stdout=b"x")),
        b'{"type":"exec-cancel","id":"run-1"}\n',
        b"x" * (3 << 19),
    ],
    ids=range(6),
)
def test_a_builder_that_speaks_nonsense_is_ended(said: bytes) -> None:
    played = Played()
    run = played.run("j-1")
    for start in range(0, len(said), 60_000):
        played.helper.say(ExecOutput(id=played.started[0], stdout=said[start : start + 60_000]))
    played.look()
    assert played.cancelled == [played.started[0]]
    # Whatever it says now, it is too late.
    played.say(played.started[0], JobBuilt(job="j-1"))
    assert played.told() == []
    played.end(played.started[0], -15)
    assert played.given[1:] == [(played.started[1], encode(run))]


def test_a_builder_that_gives_no_sign_of_life_is_ended(clock: Clock) -> None:
    played = Played()
    played.run("j-1")
    for _ in range(3):
        clock.advance(SILENT_SECONDS - 5)
        played.look()
        assert played.cancelled == []
        played.say(played.started[0], Ping())
    for _ in range(40):
        clock.advance(2)
    played.look()
    assert played.cancelled == [played.started[0]]
    played.end(played.started[0], -9)
    for _ in range(40):
        clock.advance(2)
    played.look()
    played.end(played.started[1], -9)
    (failed,) = played.told()
    assert failed["fault"] == "machine"
    assert failed["reason"] == "its builder gave no sign of life for 30 seconds"


def test_a_builder_without_work_may_be_silent_and_ends_after_a_while(clock: Clock) -> None:
    played = Played()
    for _ in range(299):
        clock.advance(2)
    played.look()
    assert (played.cancelled, played.closed) == ([], [])
    clock.advance(10)
    played.look()
    assert played.closed == played.started
    played.run("j-1")
    assert [builder for builder, _ in played.given] == [played.started[1]]
    played.end(played.started[0])
    assert played.told() == []


def test_what_is_cancelled_ends_in_time(clock: Clock) -> None:
    played = Played()
    played.run("j-1")
    played.controller.say(CancelStep(job="j-1"))
    played.look()
    assert played.given[1:] == [(played.started[0], encode(CancelStep(job="j-1")))]
    for _ in range(20):
        clock.advance(2)
        played.say(played.started[0], Ping())  # signs of life do not count any more
    assert played.cancelled == [played.started[0]]
    played.end(played.started[0], -9)
    (failed,) = played.told()
    assert (failed["job"], failed["fault"]) == ("j-1", "cancelled")


def test_what_waits_is_cancelled_at_once() -> None:
    played = Played()
    played.run("j-1")
    played.run("j-2")
    played.controller.say(CancelStep(job="j-2"))
    (failed,) = played.told()
    assert (failed["job"], failed["fault"]) == ("j-2", "cancelled")
    played.say(played.started[0], JobBuilt(job="j-1"))
    assert len(played.given) == 1


def test_a_lost_helper_costs_no_attempt() -> None:
    played = Played()
    run = played.run("j-1")
    for _ in range(3):
        played.helper.close()
        played.helper = connect(played.worker, Role.HELPER)
        played.look()
        assert played.given[-1] == (played.started[-1], encode(run))
    assert played.told() == []
    played.say(played.started[-1], JobBuilt(job="j-1"))
    assert [each["type"] for each in played.told()] == ["job-built"]
