"""Views of a controller and of a build, as functions of what is known."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbuild.policy import events as e
from distbuild.policy.queue import waiting_steps
from distbuild.status.buildview import Remaining
from distbuild.status.history import AttemptState
from distbuild.status.overview import BuildState, WorkerState
from distbuild.status.paths import critical_path, seconds_left
from distbuild.workermessages import Fault
from morphlib.build.schedule import Schedule, Task
from morphlib.build.tasks import UNKNOWN_COST
from morphlib.definitions.models import Kind
from tests.distbuild.status.game import Game, key_of, source

UNKNOWN = UNKNOWN_COST[Kind.CHUNK]


# ---- Workers, builds, and what waits -------------------------------------------------------------


def test_workers_are_told_by_what_they_do() -> None:
    game = Game(["w0", "w1", "w2", "w3"])
    game.join("w0", capacity=2)
    game.join("w1")
    game.clock = 1010.0
    game.ask(source("a"), source("b", "a"), source("c", "b"))
    game.clock = 1020.0
    game.join("w2")
    game.tell(e.WorkerLost("w2"))
    lines = {worker.name: worker for worker in game.overview().workers}
    assert lines["w0"].state is WorkerState.BUILDING
    assert (lines["w0"].capacity, lines["w0"].architectures) == (2, ("x86_64",))
    (job,) = lines["w0"].jobs
    assert (job.name, job.build, job.began) == ("a", "build-1", 1010.0)
    assert (lines["w1"].state, lines["w1"].since) == (WorkerState.IDLE, 1000.0)
    assert (lines["w2"].state, lines["w2"].since) == (WorkerState.AWAY, 1020.0)
    assert lines["w2"].architectures == ("x86_64",)
    assert (lines["w3"].state, lines["w3"].since) == (WorkerState.AWAY, None)
    game.clock = 1030.0
    game.tell(e.JobFailed(game.jobs["a"], Fault.SPACE, "disk is full"))
    resting = game.overview().workers[0]
    assert (resting.state, resting.since) == (WorkerState.RESTING, 1030.0)
    assert resting.reason == "disk is full"
    game.tell(e.WorkerRested("w0"))
    assert game.overview().workers[0].state is WorkerState.IDLE


def test_builds_are_told_by_how_far_they_are() -> None:
    game = Game()
    game.ask(source("a"), source("b", "a"), name="first")
    game.ask(source("c"), name="second")
    assert [line.state for line in game.overview().builds] == [BuildState.WAITING] * 2
    game.join("w0")
    states = {line.id: line.state for line in game.overview().builds}
    assert states == {"first": BuildState.BUILDING, "second": BuildState.WAITING}
    game.build("a")
    (first, _) = game.overview().builds
    assert (first.done, first.steps, first.total) == (1, 2, 2)
    game.tell(e.RequestCancelled("second"))
    (over,) = game.overview().over
    assert (over.id, over.state, over.ended) == ("second", BuildState.CANCELLED, game.clock)


def test_the_newest_of_what_is_over_comes_first() -> None:
    game = Game()
    for number in range(60):
        game.ask(source("a"), name=f"build-{number}", present="a")
    over = game.overview().over
    assert [line.id for line in over] == [f"build-{number}" for number in range(59, 9, -1)]


needs = st.lists(st.lists(st.integers(0, 30), max_size=3), min_size=1, max_size=12)
requests = st.lists(st.tuples(needs, st.integers(-2, 2)), min_size=1, max_size=4)


@given(requests, st.integers(1, 3), st.integers(1, 20))
def test_what_waits_is_told_in_the_order_in_which_it_starts(
    asked: list[tuple[list[list[int]], int]], busy: int, more: int
) -> None:
    game = Game()
    game.join("busy", busy)
    for number, (graph, priority) in enumerate(asked):
        sources = [
            # Some keys are shared by all requests.
            source(
                f"s{i}" if i % 3 == 0 else f"s{number}-{i}",
                *(f"s{n}" for n in deps if n < i and n % 3 == 0),
                cost=1.0 + (i * 7) % 5,
            )
            for i, deps in enumerate(graph)
        ]
        game.ask(*sources, name=f"build-{number}", priority=priority)
    told = [each.key for each in waiting_steps(game.state, 1000)]
    again = [each.key for each in waiting_steps(game.state, 1000)]
    assert told == again
    assert [each.key for each in waiting_steps(game.state, 2)] == told[:2]
    game.join("w1", more)
    started = [command.key for command in game.commands if isinstance(command, e.Start)]
    assert told[: len(started)] == started
    assert len(started) == min(more, len(told))


def test_a_schedule_tells_what_is_ready_without_taking_it() -> None:
    schedule = Schedule([Task("a", (), 1), Task("b", (), 5), Task("c", ("a",), 1)])
    assert [task.id for task in schedule.ready()] == ["b", "a"]
    assert [task.id for task in schedule.ready(most=1)] == ["b"]
    schedule.claim("b")
    assert [task.id for task in schedule.ready()] == ["a"]
    schedule.put_back("b")
    assert [task.id for task in schedule.ready()] == ["b", "a"]
    assert schedule.ready("other") == ()


# ---- A build -------------------------------------------------------------------------------------


def test_steps_bars_and_what_decides_the_time() -> None:
    game = Game()
    game.join("w0")
    game.join("w1", capacity=2)
    game.ask(
        source("long", cost=50.0),
        source("short", cost=10.0),
        source("after", "long", "short", cost=20.0),
        source("apart", cost=5.0),
    )
    game.build("short", seconds=70.0)
    view = game.view()
    assert game.states() == {
        "long": "building",
        "short": "built",
        "after": "waiting",
        "apart": "building",
    }
    # It ran for 70 seconds by now, which is what counts.
    assert view.critical.keys in (
        (key_of("long"), key_of("after")),
        (key_of("short"), key_of("after")),
    )
    assert view.critical.seconds == 90.0
    assert view.remaining == Remaining(3, 20.0, 0)
    assert view.timeline.span == 70.0
    bars = {bar.name: bar for bar in view.timeline.bars}
    assert (bars["short"].since, bars["short"].until) == (0.0, 70.0)
    assert (bars["long"].since, bars["long"].until) == (0.0, None)
    assert bars["short"].state is AttemptState.BUILT
    assert len({bar.lane for bar in view.timeline.bars}) == 3
    assert view.timeline.lanes == ("w0", "w1 #1", "w1 #2")
    game.build("long", seconds=30.0)
    view = game.view()
    assert view.critical.keys == (key_of("long"), key_of("after"))
    assert [step.name for step in view.steps if step.is_critical] == ["long", "after"]
    assert view.critical.seconds == 120.0
    assert {bar.name for bar in view.timeline.bars if bar.is_critical} == {"long", "after"}


def test_a_failure_is_told_where_it_happened() -> None:
    game = Game()
    game.join("w0")
    game.ask(source("a"), source("b", "a"))
    game.tell(e.JobFailed(game.jobs["a"], Fault.BUILD, "cc: error"))
    view = game.view()
    assert (view.build.state, view.reason) == (BuildState.FAILED, "cc: error")
    assert (view.steps[0].state, view.steps[0].reason) == ("failed", "cc: error")
    assert view.steps[1].state == "unbuilt"
    assert view.remaining.seconds is None
    assert view.timeline.bars[0].until == 0.0
    game.clock += 500
    assert game.view().timeline.span == 1.0  # it is over


def test_a_guess_of_guesses_is_not_told() -> None:
    game = Game()
    game.join("w0")
    game.ask(source("a", cost=UNKNOWN), source("b", cost=UNKNOWN), source("c"), name="most")
    assert game.view("most").remaining == Remaining(3, None, 2)
    game.ask(source("d", cost=UNKNOWN), source("e"), source("f"), name="some")
    assert game.view("some").remaining == Remaining(3, 80.0, 1)
    game.tell(e.WorkerLost("w0"))
    assert game.view("some").remaining.seconds is None  # nobody builds it


def test_a_build_whose_graph_is_not_there_has_no_steps() -> None:
    game = Game()
    build = game.ask(source("a"))
    del game.history.planned[build.id]
    view = game.view()
    assert (view.steps, view.timeline.bars, view.critical.keys) == ((), (), ())
    assert view.remaining == Remaining(0, None, 0)


def test_what_is_there_already_is_no_step() -> None:
    game = Game()
    game.ask(source("a"), source("b", "a"), source("c", "b"), present="b")
    view = game.view()
    assert [step.name for step in view.steps] == ["c"]
    assert view.build.total == 3


# ---- Paths ---------------------------------------------------------------------------------------

tasks = st.lists(
    st.tuples(st.lists(st.integers(0, 11), max_size=3), st.floats(0, 100)), max_size=12
).map(
    lambda rows: [
        Task(str(i), tuple(str(n) for n in set(deps) if n < i), cost)
        for i, (deps, cost) in enumerate(rows)
    ]
)


@given(tasks)
def test_the_critical_path_is_the_longest_chain(graph: list[Task]) -> None:
    durations = {task.id: task.cost for task in graph}
    needs = {task.id: task.needs for task in graph}
    chain = critical_path(graph, durations)
    assert bool(chain) == bool(graph)
    for before, after in pairwise(chain):
        assert before in needs[after]

    def longest(key: str) -> float:
        return durations[key] + max((longest(need) for need in needs[key]), default=0.0)

    assert sum(durations[key] for key in chain) == pytest.approx(
        max((longest(task.id) for task in graph), default=0.0)
    )


def test_what_is_left_is_played_through() -> None:
    graph = [Task("a", (), 10), Task("b", (), 10), Task("c", ("a", "b"), 5, "x86_64")]
    assert seconds_left(graph, (), {}, 1) == 25
    assert seconds_left(graph, (), {}, 2) == 15
    assert seconds_left(graph, ("a",), {"b": 4.0}, 2) == 11
    assert seconds_left(graph, ("a", "b"), {"c": 50.0}, 0) == 0
