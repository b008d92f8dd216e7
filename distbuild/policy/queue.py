"""What waits for a worker, in the order in which it will get one."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from distbuild.policy.state import State
from morphlib.build.schedule import Task


@dataclass(frozen=True, slots=True)
class Waiting:
    """A step that is ready. `request`: on whose account it would be built."""

    key: str
    request: str
    architecture: str


def waiting_steps(state: State, most: int) -> tuple[Waiting, ...]:
    """The next steps to be started, `most` for each architecture, if workers become free now.

    Takes the same choices as `distbuild.policy.dispatch`. Changes nothing.
    """
    return tuple(each for architecture in state.eager for each in _of(state, architecture, most))


def _of(state: State, architecture: str, most: int) -> Iterator[Waiting]:
    ready: dict[str, Iterator[Task]] = {}
    ranks: list[tuple[int, int, int, str]] = []
    for request in state.requests.values():
        tasks = request.schedule.ready(architecture, most)
        if tasks:
            ready[request.id] = iter(tasks)
            ranks.append((-request.priority, request.share, request.number, request.id))
    heapq.heapify(ranks)
    given: set[str] = set()
    while ranks and len(given) < most:
        priority, share, number, request_id = ranks[0]
        task = next(ready[request_id], None)
        if task is None:
            heapq.heappop(ranks)
        elif task.id not in state.live and task.id not in given:
            given.add(task.id)
            heapq.heapreplace(ranks, (priority, share + 1, number, request_id))
            yield Waiting(task.id, request_id, architecture)
