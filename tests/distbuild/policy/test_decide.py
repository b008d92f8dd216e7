"""The policy, event by event."""

from __future__ import annotations

from typing import Any

import pytest

from distbuild.policy.decide import MOST_TRANSFERS, decide
from distbuild.policy.events import (
    Command,
    EndRequest,
    Event,
    FollowerJoined,
    FollowerLeft,
    JobBuilt,
    JobFailed,
    JobStored,
    Outcome,
    RequestAdded,
    RequestCancelled,
    Rest,
    Settled,
    Start,
    Stop,
    TellFailed,
    TellFinished,
    TellRetried,
    TellStarted,
    Transfer,
    TransferFailed,
    WorkerJoined,
    WorkerLost,
    WorkerRested,
)
from distbuild.policy.state import State
from distbuild.workermessages import Fault
from morphlib.build.schedule import Task
from tests.distbuild.policy.invariants import check

X86 = frozenset({"x86_64"})


def task(key: str, *needs: str, cost: float = 1.0, pool: str = "x86_64") -> Task:
    return Task(key, needs, cost, pool)


class Network:
    """A policy and what it said last."""

    def __init__(self, workers: int = 0, *, settled: bool = True) -> None:
        self.state = State("j", settled=settled)
        for number in range(workers):
            self.tell(WorkerJoined(f"w{number}", X86))

    def tell(self, event: Event) -> list[Command]:
        out = decide(self.state, event)
        check(self.state)
        return out

    def ask(self, request: str, *tasks: Task, **more: Any) -> list[Command]:
        return self.tell(RequestAdded(request, tasks, **more))

    def build(self, job: str) -> list[Command]:
        """A job is done and its result transferred. Returns what follows from that."""
        worker, key = self.state.jobs[job].worker, self.state.jobs[job].key
        out = self.tell(JobBuilt(job))
        assert Transfer(job, worker, key) in out
        return [c for c in out if not isinstance(c, Transfer)] + self.tell(JobStored(job))


def test_a_build_from_its_request_to_its_end() -> None:
    network = Network(workers=1)
    assert network.ask("r", task("a"), task("b", "a")) == [
        Start("j-1", "w0", "a"),
        TellStarted("r", "a", "w0"),
    ]
    assert network.tell(JobBuilt("j-1")) == [Transfer("j-1", "w0", "a")]
    assert network.tell(JobStored("j-1")) == [
        TellFinished("r", "a", "w0"),
        Start("j-2", "w0", "b"),
        TellStarted("r", "b", "w0"),
    ]
    assert network.build("j-2") == [
        TellFinished("r", "b", "w0"),
        EndRequest("r", Outcome.FINISHED),
    ]
    assert not network.state.jobs
    assert not network.state.wanted


def test_a_request_for_what_is_there_ends_at_once() -> None:
    assert Network().ask("r") == [EndRequest("r", Outcome.FINISHED)]


def test_a_worker_builds_on_while_its_result_is_transferred() -> None:
    network = Network(workers=1)
    network.ask("r", task("a"), task("b"))
    assert network.tell(JobBuilt("j-1")) == [
        Transfer("j-1", "w0", "a"),
        Start("j-2", "w0", "b"),
        TellStarted("r", "b", "w0"),
    ]


def test_the_worker_that_waits_longest_goes_first() -> None:
    network = Network(workers=2)
    network.ask("r", task("a"))
    network.build("j-1")
    assert Start("j-2", "w1", "b") in network.ask("s", task("b"))


def test_the_longest_remaining_path_goes_first() -> None:
    network = Network(workers=1)
    out = network.ask("r", task("short", cost=3), task("long", cost=2), task("z", "long", cost=2))
    assert out[0] == Start("j-1", "w0", "long")


def test_a_key_is_built_once_for_all_that_want_it() -> None:
    network = Network(workers=3)
    network.ask("r", task("a"), task("b", "a"))
    assert network.ask("s", task("a"), task("c", "a")) == [
        TellStarted("s", "a", "w0", already=True)
    ]
    out = network.build("j-1")
    assert [c for c in out if isinstance(c, TellFinished)] == [
        TellFinished("r", "a", "w0"),
        TellFinished("s", "a", "w0"),
    ]
    assert [c.key for c in out if isinstance(c, Start)] == ["b", "c"]


def test_all_that_wait_for_a_key_are_told_when_it_starts() -> None:
    network = Network()
    network.ask("r", task("a"))
    network.ask("s", task("a"))
    out = network.tell(WorkerJoined("w", X86))
    assert out[1:] == [TellStarted("r", "a", "w"), TellStarted("s", "a", "w")]


def started(out: list[Command]) -> list[str]:
    return [command.key for command in out if isinstance(command, Start)]


def test_requests_share_workers() -> None:
    network = Network(workers=4)
    assert started(network.ask("r", *(task(f"r{n}") for n in range(9)))) == [
        "r0",
        "r1",
        "r2",
        "r3",
    ]
    network.ask("s", *(task(f"s{n}") for n in range(9)))
    assert started(network.build("j-1")) == ["s0"]
    assert started(network.build("j-2")) == ["s1"]
    # Two each: what ends is replaced by its own kind.
    assert started(network.build("j-3")) == ["r4"]
    assert started(network.build("j-5")) == ["s2"]


def test_nobody_waits_for_the_sake_of_fairness() -> None:
    network = Network(workers=4)
    network.ask("r", task("r0"))
    assert len(started(network.ask("s", *(task(f"s{n}") for n in range(9))))) == 3


def test_a_higher_priority_goes_first() -> None:
    network = Network(workers=1)
    network.ask("r", task("r0"), task("r1"))
    network.ask("low", task("l0"), priority=-1)
    network.ask("high", task("h0"), task("h1"), priority=5)
    order = [key for n in range(1, 5) for key in started(network.build(f"j-{n}"))]
    assert order == ["h0", "h1", "r1", "l0"]


def test_capacity_and_architecture_of_workers_count() -> None:
    network = Network()
    network.ask("r", *(task(f"x{n}") for n in range(3)), task("a0", pool="armv8l64"))
    assert started(network.tell(WorkerJoined("big", X86, capacity=2))) == ["x0", "x1"]
    out = network.tell(WorkerJoined("arm", frozenset({"armv8l64", "armv7l"})))
    assert started(out) == ["a0"]
    assert started(network.build("j-3")) == []
    assert started(network.build("j-1")) == ["x2"]


def test_what_is_ready_is_spread_over_workers() -> None:
    network = Network()
    for name in ("big", "bigger", "small"):
        network.tell(WorkerJoined(name, X86, capacity=1 if name == "small" else 10))
    out = network.ask("r", *(task(f"x{n}") for n in range(7)))
    where = [command.worker for command in out if isinstance(command, Start)]
    assert where == ["big", "bigger", "small", "big", "bigger", "big", "bigger"]


def test_nothing_is_left_of_architectures_that_a_worker_made_up() -> None:
    network = Network(workers=1)
    for number in range(100):
        network.tell(WorkerJoined("w0", frozenset({"x86_64", f"x{number}"})))
    assert set(network.state.free) == {"x86_64", "x99"}


def test_what_a_lost_worker_did_is_done_elsewhere() -> None:
    network = Network(workers=2)
    network.ask("r", task("a"), task("b"), task("c"))
    out = network.tell(WorkerLost("w0"))
    assert out == [TellRetried("r", "a", "w0", "worker w0 was lost")]
    assert started(network.build("j-2")) == ["a"]
    # Whatever the lost one says now.
    assert network.tell(JobBuilt("j-1")) == []
    assert network.tell(WorkerLost("w0")) == []


def test_a_worker_that_comes_back_stops_what_is_built_elsewhere() -> None:
    network = Network(workers=2)
    network.ask("r", task("a"))
    out = network.tell(WorkerLost("w0"))
    assert out[1:] == [Start("j-2", "w1", "a"), TellStarted("r", "a", "w1")]
    back = WorkerJoined("w0", X86, running=(("j-1", "a"),))
    assert network.tell(back) == [Stop("j-1", "w0")]
    network.ask("s", task("b"))
    assert started(network.tell(JobFailed("j-1", Fault.CANCELLED, "stopped"))) == ["b"]


def test_a_worker_that_comes_back_goes_on_with_what_nobody_else_took() -> None:
    network = Network(workers=1)
    network.ask("r", task("a"))
    network.tell(WorkerLost("w0"))
    out = network.tell(WorkerJoined("w0", X86, running=(("j-1", "a"),)))
    assert out == [TellStarted("r", "a", "w0", already=True)]
    assert network.build("j-1")[-1] == EndRequest("r", Outcome.FINISHED)


def test_a_reconnection_that_comes_before_the_loss_was_noticed_costs_nothing() -> None:
    network = Network(workers=1)
    network.ask("r", task("a"))
    assert network.tell(WorkerJoined("w0", X86, running=(("j-1", "a"),))) == []
    assert network.tell(WorkerJoined("w0", X86)) == [
        TellRetried("r", "a", "w0", "worker w0 was lost"),
        Start("j-2", "w0", "a"),
        TellStarted("r", "a", "w0"),
    ]


def test_no_worker_can_take_the_job_of_another() -> None:
    network = Network(workers=1)
    network.ask("r", task("a"))
    liar = WorkerJoined("liar", X86, running=(("j-1", "a"),))
    assert network.tell(liar) == [Stop("j-1", "liar")]
    assert network.state.jobs["j-1"].worker == "w0"


def test_a_chunk_that_takes_down_its_workers_does_not_take_them_all() -> None:
    network = Network(workers=9)
    network.ask("r", task("a"))
    for number in range(3):
        assert started(network.tell(WorkerLost(f"w{number}"))) == ["a"]
    out = network.tell(WorkerLost("w3"))
    reason = "worker w3 was lost (tried 4 times)"
    assert out == [TellFailed("r", "a"), EndRequest("r", Outcome.FAILED, "a", reason)]


def test_lack_of_space_is_the_workers_affair() -> None:
    network = Network(workers=2)
    network.ask("r", task("a"))
    assert network.tell(JobFailed("j-1", Fault.SPACE, "disk full")) == [
        Rest("w0", "disk full"),
        TellRetried("r", "a", "w0", "disk full"),
        Start("j-2", "w1", "a"),
        TellStarted("r", "a", "w1"),
    ]
    # It gets nothing else until it has rested.
    assert started(network.ask("s", task("b"))) == []
    assert started(network.tell(WorkerRested("w0"))) == ["b"]


def test_what_fits_on_no_worker_fails() -> None:
    network = Network(workers=2)
    network.ask("r", task("a"))
    network.tell(JobFailed("j-1", Fault.SPACE, "full"))
    out = network.tell(JobFailed("j-2", Fault.SPACE, "full"))
    assert out[-1] == EndRequest("r", Outcome.FAILED, "a", "full (no other worker can build it)")


def test_what_fits_on_no_worker_that_is_there_waits_for_those_that_are_away() -> None:
    network = Network(workers=2)
    network.tell(WorkerLost("w1"))
    network.ask("r", task("a"))
    out = network.tell(JobFailed("j-1", Fault.SPACE, "full"))
    assert out == [Rest("w0", "full"), TellRetried("r", "a", "w0", "full")]
    assert started(network.tell(WorkerJoined("w1", X86))) == ["a"]
    out = network.tell(JobFailed("j-2", Fault.SPACE, "full"))
    assert out[-1] == EndRequest("r", Outcome.FAILED, "a", "full (no other worker can build it)")


def test_a_failure_ends_the_requests_that_want_it_and_no_other() -> None:
    network = Network(workers=3)
    network.ask("r", task("a"), task("b"), task("z", "a"))
    network.ask("s", task("a"), task("c"))
    network.ask("t", task("b"), task("d"))
    out = network.tell(JobFailed("j-1", Fault.BUILD, "no"))
    assert out[:2] == [TellFailed("r", "a"), EndRequest("r", Outcome.FAILED, "a", "no")]
    # c was built for s alone; b goes on, because t wants it.
    assert Stop("j-3", "w2") in out
    assert Stop("j-2", "w1") not in out
    assert EndRequest("s", Outcome.FAILED, "a", "no") in out
    assert started(out) == ["d"]
    assert network.state.jobs["j-2"].request == "t"


def test_a_cancelled_job_holds_its_slot_until_it_ended() -> None:
    network = Network(workers=1)
    network.ask("r", task("a"))
    assert network.tell(RequestCancelled("r")) == [
        Stop("j-1", "w0"),
        EndRequest("r", Outcome.CANCELLED),
    ]
    # The same source can be asked for anew meanwhile.
    assert network.ask("s", task("a")) == []
    out = network.tell(JobFailed("j-1", Fault.CANCELLED, ""))
    assert started(out) == ["a"]
    # A late word of the first attempt says nothing of the second.
    assert network.tell(JobBuilt("j-1")) == []


def test_a_cancelled_job_that_was_built_after_all_counts() -> None:
    network = Network(workers=1)
    network.ask("r", task("a"))
    network.tell(RequestCancelled("r"))
    network.ask("s", task("a"))
    assert network.tell(JobBuilt("j-1")) == [
        TellStarted("s", "a", "w0", already=True),
        Transfer("j-1", "w0", "a"),
    ]
    assert network.tell(JobStored("j-1"))[-1] == EndRequest("s", Outcome.FINISHED)


def test_a_request_without_followers_is_cancelled_unless_it_may_be_detached_from() -> None:
    network = Network(workers=2)
    network.ask("r", task("a"))
    network.ask("d", task("b"), allow_detach=True)
    assert network.tell(FollowerLeft("r"))[-1] == EndRequest("r", Outcome.CANCELLED)
    assert network.tell(FollowerLeft("d")) == []
    assert network.tell(FollowerJoined("d")) == [TellStarted("d", "b", "w1", already=True)]
    assert network.build("j-2")[-1] == EndRequest("d", Outcome.FINISHED)


def test_a_request_goes_on_while_anybody_follows() -> None:
    network = Network(workers=1)
    network.ask("r", task("a"))
    network.tell(FollowerJoined("r"))
    assert network.tell(FollowerLeft("r")) == []
    assert network.tell(FollowerLeft("r"))[-1] == EndRequest("r", Outcome.CANCELLED)


def test_a_failed_transfer_is_tried_again() -> None:
    network = Network(workers=2)
    network.ask("r", task("a"))
    network.tell(JobBuilt("j-1"))
    for _ in range(MOST_TRANSFERS - 1):
        assert network.tell(TransferFailed("j-1", "reset")) == [Transfer("j-1", "w0", "a")]
    assert started(network.tell(TransferFailed("j-1", "reset"))) == ["a"]


def test_a_worker_that_lied_about_its_result_does_not_get_another_go() -> None:
    network = Network(workers=2)
    network.ask("r", task("a"))
    network.tell(JobBuilt("j-1"))
    out = network.tell(TransferFailed("j-1", "wrong digest", hopeless=True))
    assert Start("j-2", "w1", "a") in out


def test_what_a_lost_worker_had_built_may_still_come() -> None:
    network = Network(workers=1)
    network.ask("r", task("a"))
    network.tell(JobBuilt("j-1"))
    assert network.tell(WorkerLost("w0")) == []
    assert network.tell(JobStored("j-1"))[-1] == EndRequest("r", Outcome.FINISHED)


def test_after_a_restart_workers_go_on_with_what_is_asked_for_again() -> None:
    network = Network(settled=False)
    running = (("old-1", "a"), ("old-2", "b"))
    assert network.tell(WorkerJoined("w", X86, 2, running)) == []
    assert network.ask("r", task("a"), task("c", "a")) == [TellStarted("r", "a", "w", already=True)]
    assert network.tell(Settled()) == [Stop("old-2", "w")]
    assert started(network.build("old-1")) == ["c"]


@pytest.mark.parametrize(
    "event",
    [
        RequestCancelled("x"),
        FollowerJoined("x"),
        FollowerLeft("x"),
        WorkerLost("x"),
        WorkerRested("x"),
        JobBuilt("x"),
        JobFailed("x", Fault.BUILD, "x"),
        JobStored("x"),
        TransferFailed("x", "x"),
        JobStored("j-1"),  # of what is not even built
        TransferFailed("j-1", "x"),
        RequestAdded("r", (task("other"),)),
        Settled(),
    ],
)
def test_what_nobody_asked_for_changes_nothing(event: Event) -> None:
    network = Network(workers=1)
    network.ask("r", task("a"), task("b"))
    assert network.tell(event) == []
    assert started(network.build("j-1")) == ["b"]
