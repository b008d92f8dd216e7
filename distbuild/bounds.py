"""How fast builds could be at best: what no schedule can beat.

Times are seconds. Requests come as (time of arrival, tasks).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from morphlib.build.schedule import Task, remaining_paths

Arrivals = Sequence[tuple[float, Sequence[Task]]]

_GRID = 64


def critical_path(arrivals: Arrivals) -> float:
    """The end of the longest chain, with as many workers as you like."""
    return max(
        (at + max(remaining_paths(t).values(), default=0.0) for at, t in arrivals), default=0
    )


def work(arrivals: Arrivals) -> float:
    """Seconds that one worker needs for everything, building each key once."""
    return sum({task.id: task.cost for _, tasks in arrivals for task in tasks}.values())


def lower_bound(arrivals: Arrivals, slots: int) -> float:
    """max(critical path, work / slots)."""
    return max(critical_path(arrivals), work(arrivals) / slots)


def sharper_bound(arrivals: Arrivals, slots: int) -> float:
    """A bound that also knows that graphs are narrow where they begin and end.

    What can't start before x, and has y to follow when it is done, has to be done between x and
    y before the end. So for all x and y the whole takes at least x + y + that work / slots. At
    x = y = 0 that is work / slots; the critical path counts as well.
    """
    marks: dict[str, tuple[float, float, float]] = {}  # earliest start, what follows, cost
    for at, tasks in arrivals:
        starts, paths = earliest_starts(at, tasks), remaining_paths(tasks)
        for task in tasks:
            marks[task.id] = (starts[task.id], paths[task.id] - task.cost, task.cost)
    longest = critical_path(arrivals)
    step = longest / _GRID or 1.0
    grid = [[0.0] * (_GRID + 1) for _ in range(_GRID + 1)]
    for start, rest, cost in marks.values():
        grid[min(_GRID, int(start / step))][min(_GRID, int(rest / step))] += cost
    best = longest
    above = [0.0] * (_GRID + 1)
    for number in range(_GRID, -1, -1):
        above = [a + b for a, b in zip(above, grid[number], strict=True)]
        for other, amount in enumerate(reversed(list(accumulate(reversed(above))))):
            if amount:
                best = max(best, (number + other) * step + amount / slots)
    return best


def earliest_starts(at: float, tasks: Sequence[Task]) -> dict[str, float]:
    ends: dict[str, float] = {}
    starts: dict[str, float] = {}
    for task in tasks:
        starts[task.id] = max((ends[need] for need in task.needs if need in ends), default=at)
        ends[task.id] = starts[task.id] + task.cost
    return starts


def replicate(tasks: Sequence[Task], times: int) -> list[tuple[Task, ...]]:
    """So many copies of a graph that have no key in common."""
    return [
        tuple(
            replace(task, id=f"{n}.{task.id}", needs=tuple(f"{n}.{need}" for need in task.needs))
            for task in tasks
        )
        for n in range(times)
    ]
