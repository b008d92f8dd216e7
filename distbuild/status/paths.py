"""Of a build's steps: which of them decided how long it takes, and how long that still is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from morphlib.build.schedule import Task, estimate_makespan


def critical_path(tasks: Sequence[Task], durations: Mapping[str, float]) -> tuple[str, ...]:
    """The ids of the longest chain by `durations`, in seconds, from its first step to its last.

    `tasks` come in an order in which each stands after all that it needs.
    """
    ends: dict[str, float] = {}
    before: dict[str, str] = {}
    for task in tasks:
        start = 0.0
        for need in task.needs:
            end = ends.get(need)
            if end is not None and (end > start or task.id not in before):
                start, before[task.id] = max(start, end), need
        ends[task.id] = start + durations[task.id]
    if not ends:
        return ()
    chain = [max(ends, key=ends.__getitem__)]
    while chain[-1] in before:
        chain.append(before[chain[-1]])
    return tuple(reversed(chain))


def seconds_left(
    tasks: Sequence[Task], done: Collection[str], elapsed: Mapping[str, float], slots: int
) -> float:
    """How long the rest takes with so many slots, played through. `elapsed`: of those that run."""
    left = [
        Task(task.id, task.needs, max(0.0, task.cost - elapsed.get(task.id, 0.0)))
        for task in tasks
        if task.id not in done
    ]
    return estimate_makespan(left, max(1, slots))
