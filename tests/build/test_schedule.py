"""The schedule is plain arithmetic: no threads, no clock, so it is tested as such."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from morphlib.build.schedule import Schedule, Task, estimate_makespan, remaining_paths


def tasks_of(costs: list[float], edges: list[tuple[int, int]]) -> list[Task]:
    """Tasks "0", "1", ... where an edge (a, b) makes the larger number need the smaller."""
    needs: dict[int, set[int]] = {number: set() for number in range(len(costs))}
    for a, b in edges:
        if a != b and max(a, b) < len(costs):
            needs[max(a, b)].add(min(a, b))
    return [
        Task(str(number), tuple(str(n) for n in sorted(needs[number])), cost)
        for number, cost in enumerate(costs)
    ]


graphs = st.builds(
    tasks_of,
    st.lists(st.floats(0, 100), min_size=1, max_size=20),
    st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=60),
)


def test_longest_remaining_path_goes_first() -> None:
    tasks = [Task("short", (), 5), Task("long", (), 1), Task("after-long", ("long",), 10)]
    schedule = Schedule(tasks)
    first, second = schedule.take(), schedule.take()
    assert first is not None
    assert second is not None
    assert (first.id, second.id) == ("long", "short")
    assert remaining_paths(tasks) == {"short": 5, "long": 11, "after-long": 10}


def test_equal_paths_keep_build_order() -> None:
    schedule = Schedule([Task(name, (), 1) for name in "abc"])
    order = []
    while (task := schedule.take()) is not None:
        order.append(task.id)
    assert order == ["a", "b", "c"]


def test_what_runs_elsewhere_is_not_taken() -> None:
    schedule = Schedule([Task("a", (), 3), Task("b", (), 2), Task("c", ("a",), 1)])
    schedule.claim("a")
    taken = schedule.take()
    assert taken is not None
    assert taken.id == "b"
    assert schedule.peek() is None
    schedule.finish("a")
    assert schedule.peek() == Task("c", ("a",), 1)
    schedule.finish("c")  # somebody else had it
    assert schedule.peek() is None
    assert schedule.take() is None


def test_what_was_claimed_can_be_put_back() -> None:
    schedule = Schedule([Task("a", (), 3)])
    schedule.claim("a")
    schedule.put_back("a")
    assert schedule.take() is not None
    assert schedule.take() is None


def test_what_was_claimed_too_early_waits_again_for_what_it_needs() -> None:
    schedule = Schedule([Task("a", (), 3), Task("b", ("a",), 1)])
    schedule.claim("b")
    schedule.put_back("b")
    first = schedule.take()
    assert first is not None
    assert first.id == "a"
    assert schedule.take() is None
    schedule.finish("a")
    assert schedule.peek() is not None


@given(graphs)
def test_everything_runs_once_and_after_what_it_needs(tasks: list[Task]) -> None:
    schedule = Schedule(tasks)
    finished: list[str] = []
    while (task := schedule.take()) is not None:
        assert set(task.needs) <= set(finished)
        finished.append(task.id)
        schedule.finish(task.id)
    assert sorted(finished) == sorted(task.id for task in tasks)
    assert schedule.unfinished == 0


@given(graphs, st.integers(0, 19))
def test_failure_skips_exactly_what_waits_for_it(tasks: list[Task], number: int) -> None:
    failing = tasks[number % len(tasks)].id
    waiting = {failing}
    for task in tasks:
        if waiting & set(task.needs):
            waiting.add(task.id)
    schedule = Schedule(tasks)
    ran = []
    while (task_ := schedule.take()) is not None:
        ran.append(task_.id)
        if task_.id == failing:
            assert set(schedule.fail(failing)) == waiting - {failing}
        else:
            schedule.finish(task_.id)
    assert set(ran) == {task.id for task in tasks} - waiting | {failing}
    assert schedule.unfinished == 0


def test_pools_are_served_apart() -> None:
    schedule = Schedule([Task("f", (), 0, "fetch"), Task("b", ("f",), 1)])
    assert schedule.take() is None
    fetch = schedule.take("fetch")
    assert fetch is not None
    schedule.finish(fetch.id)
    assert schedule.take() is not None


def test_put_back_is_ready_again() -> None:
    schedule = Schedule([Task("a", (), 1)])
    assert schedule.take() is not None
    assert schedule.take() is None
    schedule.put_back("a")
    assert schedule.take() is not None


@given(graphs, st.integers(1, 8))
def test_makespan_lies_between_its_bounds(tasks: list[Task], slots: int) -> None:
    work = sum(task.cost for task in tasks)
    lower = max(max(remaining_paths(tasks).values()), work / slots)
    makespan = estimate_makespan(tasks, slots)
    assert lower - 1e-6 <= makespan <= work + 1e-6
    # Greedy list scheduling is never worse than twice the best possible.
    assert makespan <= 2 * lower + 1e-6


def test_makespan_counts_what_waits_for_other_pools() -> None:
    tasks = [
        Task("fetch-a", (), 0, "fetch"),
        Task("a", ("fetch-a",), 4),
        Task("fetch-b", ("a",), 0, "fetch"),
        Task("b", ("fetch-b",), 3),
        Task("c", (), 5),
    ]
    assert estimate_makespan(tasks, 1) == 12
    assert estimate_makespan(tasks, 2) == 7


@given(graphs, st.integers(0, 19))
def test_a_revised_schedule_runs_the_rest_once(tasks: list[Task], count: int) -> None:
    """Whatever has run stays so, and the new tasks come in their order."""
    schedule = Schedule(tasks)
    for _ in range(count):
        task = schedule.take()
        if task is None:
            break
        schedule.finish(task.id)
    given_back = schedule.take()
    more = [Task("more", (), 1.0), *tasks]
    if given_back is not None:
        schedule.put_back(given_back.id)
        changed = Task(given_back.id, (*given_back.needs, "more"), 1.0)
        more = [changed if task.id == changed.id else task for task in more]
    schedule.revise(more)
    ran = set(schedule.done)
    while (task := schedule.take()) is not None:
        assert ran.issuperset(task.needs)
        assert task.id not in ran
        ran.add(task.id)
        schedule.finish(task.id)
    assert ran == {task.id for task in more}
    assert schedule.unfinished == 0


def test_what_waits_for_a_failure_stays_skipped_in_a_revised_schedule() -> None:
    schedule = Schedule([Task("bad", (), 1), Task("after", ("bad",), 1)])
    assert schedule.take() is not None
    schedule.fail("bad")
    schedule.revise([Task("bad", (), 1), Task("after", ("bad",), 1), Task("later", ("after",), 1)])
    assert schedule.take() is None
    assert schedule.skipped == {"after", "later"}
