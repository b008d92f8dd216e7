"""In which order to do what a plan holds: plain arithmetic, no threads, no clock.

A task is ready when all that it needs is done. Of the ready ones that with the longest way still
ahead of it goes first (its own time plus that of the longest chain of tasks that wait for it).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Task:
    """`needs`: ids of other tasks. `cost`: expected seconds. `pool`: which slots it runs in."""

    id: str
    needs: tuple[str, ...]
    cost: float
    pool: str = "build"


def remaining_paths(tasks: Sequence[Task]) -> dict[str, float]:
    """For each task, the seconds from its start until the last task that waits for it is done.

    `tasks` come in an order in which each stands after all that it needs.
    """
    longest: dict[str, float] = {}
    waiting: dict[str, float] = {}  # longest path of the tasks that need this one
    for task in reversed(tasks):
        longest[task.id] = task.cost + waiting.get(task.id, 0.0)
        for needed in task.needs:
            waiting[needed] = max(waiting.get(needed, 0.0), longest[task.id])
    return longest


def estimate_makespan(tasks: Sequence[Task], slots: int) -> float:
    """Seconds until all tasks are done with so many slots: the schedule itself, played through.

    What runs in other pools than "build" takes none of these slots, and is taken to need no time.
    """
    schedule = Schedule(tasks)
    elsewhere = {task.pool for task in tasks} - {"build"}
    now = 0.0
    running: list[tuple[float, str]] = []
    while True:
        for pool in elsewhere:
            while (task := schedule.take(pool)) is not None:
                schedule.finish(task.id)
        while len(running) < slots and (task := schedule.take()) is not None:
            heapq.heappush(running, (now + task.cost, task.id))
        if not running:
            return now
        now, finished = heapq.heappop(running)
        schedule.finish(finished)


class Schedule:
    """Which tasks are waiting, ready, running, done, failed or skipped."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self.running: set[str] = set()
        self.done: set[str] = set()
        self.failed: set[str] = set()
        self.skipped: set[str] = set()
        self._plan(tuple(tasks))

    def revise(self, tasks: Iterable[Task]) -> None:
        """Go on with other tasks. What has ended, or runs, stays so; of the others, the new ones
        count. Raises AssertionError if one that runs or has ended is missing."""
        ordered = tuple(tasks)
        assert self.running | self.done | self.failed | self.skipped <= {t.id for t in ordered}
        self._plan(ordered)

    def _plan(self, ordered: Sequence[Task]) -> None:
        known = {task.id for task in ordered}
        self.tasks: Mapping[str, Task] = {task.id: task for task in ordered}
        self._priority = remaining_paths(ordered)
        self._position = {task.id: number for number, task in enumerate(ordered)}
        waited_for = known - self.done
        self._missing = {task.id: len(set(task.needs) & waited_for) for task in ordered}
        self._dependants: dict[str, list[str]] = {task.id: [] for task in ordered}
        for task in ordered:
            for needed in set(task.needs) & waited_for:
                self._dependants[needed].append(task.id)
        self._ready: dict[str, list[tuple[float, int, str]]] = {}
        begun = self.running | self.done | self.failed
        for task in ordered:
            if not self._missing[task.id] and task.id not in begun:
                self._make_ready(task)
        for task_id in (*self.failed, *self.skipped):
            self._skip_dependants(task_id)

    def _make_ready(self, task: Task) -> None:
        entry = (-self._priority[task.id], self._position[task.id], task.id)
        heapq.heappush(self._ready.setdefault(task.pool, []), entry)

    def _is_over(self, task_id: str) -> bool:
        """Whether what stands in the queue of ready tasks need not run any more, or runs already:
        somebody else may have claimed it, or brought its result."""
        return task_id in self.skipped or task_id in self.running or task_id in self.done

    def peek(self, pool: str = "build") -> Task | None:
        """The task that `take` would give."""
        ready = self._ready.get(pool)
        while ready and self._is_over(ready[0][2]):
            heapq.heappop(ready)
        return self.tasks[ready[0][2]] if ready else None

    def ready(self, pool: str = "build", most: int | None = None) -> tuple[Task, ...]:
        """The tasks of a pool that are ready, in the order in which `take` would give them."""
        entries = [each for each in self._ready.get(pool, ()) if not self._is_over(each[2])]
        first = sorted(entries) if most is None else heapq.nsmallest(most, entries)
        return tuple(self.tasks[each] for each in dict.fromkeys(entry[2] for entry in first))

    def take(self, pool: str = "build") -> Task | None:
        """The ready task of a pool that is to run next, now running; None where none is ready."""
        task = self.peek(pool)
        if task is not None:
            heapq.heappop(self._ready[pool])
            self.running.add(task.id)
        return task

    def claim(self, task_id: str) -> None:
        """A task runs though nobody took it from here: it runs for another schedule as well.

        It need not have been ready here.
        """
        self.running.add(task_id)

    def put_back(self, task_id: str) -> None:
        """A running task could not run now; it is ready again, if what it needs is done."""
        self.running.remove(task_id)
        if not self._missing[task_id]:
            self._make_ready(self.tasks[task_id])

    def finish(self, task_id: str) -> None:
        self.running.discard(task_id)
        self.done.add(task_id)
        for dependant in self._dependants[task_id]:
            self._missing[dependant] -= 1
            if not self._missing[dependant] and dependant not in self.skipped:
                self._make_ready(self.tasks[dependant])

    def fail(self, task_id: str) -> tuple[str, ...]:
        """A task failed: what waits for it, directly or not, is skipped. Returns their ids."""
        self.running.discard(task_id)
        self.failed.add(task_id)
        return self._skip_dependants(task_id)

    def _skip_dependants(self, task_id: str) -> tuple[str, ...]:
        skipped: list[str] = []
        queue = list(self._dependants[task_id])
        while queue:
            dependant = queue.pop()
            if dependant not in self.skipped:
                self.skipped.add(dependant)
                skipped.append(dependant)
                queue.extend(self._dependants[dependant])
        return tuple(skipped)

    @property
    def unfinished(self) -> int:
        """How many tasks have neither ended nor been given up."""
        ended = len(self.done) + len(self.failed) + len(self.skipped)
        return len(self.tasks) - ended
