"""What the policy of controllers makes of jobs, workers and requests, as graphs for Graphviz.

Nothing of that is written down here: small networks are played through, event by event, and what
changes is noted. So the graphs are what the policy does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Mapping
from copy import deepcopy

from distbuild.policy import events as e
from distbuild.policy.decide import decide
from distbuild.policy.state import State
from distbuild.workermessages import Fault
from morphlib.build.schedule import Task

#: Where things are before they are there, and after.
_OUTSIDE = "none"
#: So many events after each other show all that there is.
_DEPTH = 12
_REQUEST, _WORKER, _KEY, _ARCH = "request", "worker", "key", "arch"

#: (before, event, after)
Edge = tuple[str, str, str]


def draw_all() -> Mapping[str, str]:
    """Graphviz documents by what they are about: job, worker, request."""
    return {name: _draw(name, sorted(edges)) for name, edges in explore().items()}


def explore(depth: int = _DEPTH) -> dict[str, set[Edge]]:
    """How things change, by what they are, within so many events after each other."""
    found: dict[str, set[Edge]] = {"job": set(), "worker": set(), "request": set()}
    starts = [State("j", settled=settled) for settled in (True, False)]
    seen = {_essence(state) for state in starts}
    waiting = deque((state, 1) for state in starts)
    while waiting:
        state, number = waiting.popleft()
        for event in _possible(state):
            after = deepcopy(state)
            for command in decide(after, event):
                if isinstance(command, e.EndRequest):
                    found["request"].add(("building", _name_of(event), command.outcome.value))
            for kind, edges in found.items():
                edges.update(_changes(_look(kind, state), _look(kind, after), event))
            essence = _essence(after)
            if number < depth and essence not in seen:
                seen.add(essence)
                waiting.append((after, number + 1))
    return found


def _possible(state: State) -> Iterator[e.Event]:
    """What may happen to a request for one step, with one worker."""
    arch = frozenset({_ARCH})
    if _REQUEST not in state.requests and state.requests_made < 2:
        yield e.RequestAdded(_REQUEST, (Task(_KEY, (), 1.0, _ARCH),))
    if _REQUEST in state.requests:
        yield e.RequestCancelled(_REQUEST)
        yield e.FollowerLeft(_REQUEST)
    if _WORKER in state.workers:
        yield e.WorkerLost(_WORKER)
        yield e.WorkerRested(_WORKER)
    else:
        yield e.WorkerJoined(_WORKER, arch)
        yield e.WorkerJoined(_WORKER, arch, 1, (("j-0", _KEY),))
    if not state.settled:
        yield e.Settled()
    for job in state.jobs:
        yield e.JobBuilt(job)
        yield e.JobStored(job)
        yield e.TransferFailed(job, "")
        for fault in Fault:
            yield e.JobFailed(job, fault, "")


def _look(kind: str, state: State) -> dict[str, str]:
    """What state each thing is in."""
    if kind == "job":
        return {job.id: job.phase.value for job in state.jobs.values()}
    if kind == "request":
        return dict.fromkeys(state.requests, "building")
    found = dict.fromkeys(state.away, "away")
    for worker in state.workers.values():
        found[worker.id] = "resting" if worker.resting else "busy" if worker.jobs else "free"
    return found


def _changes(before: Mapping[str, str], after: Mapping[str, str], event: e.Event) -> Iterator[Edge]:
    for name in before.keys() | after.keys():
        old, new = before.get(name, _OUTSIDE), after.get(name, _OUTSIDE)
        # How a request ended, commands tell.
        if old != new and not (name == _REQUEST and new == _OUTSIDE):
            yield old, _name_of(event), new


def _name_of(event: e.Event) -> str:
    """`JobFailed` as `job failed (space)`."""
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in type(event).__name__).strip()
    match event:
        case e.JobFailed(fault=fault):
            return f"{words} ({fault.value})"
        case e.WorkerJoined(running=running) if running:
            return f"{words} (with a job)"
        case _:
            return words


def _essence(state: State) -> Hashable:
    """What matters for what comes next. Jobs have a new name each time."""
    return (
        state.settled,
        state.requests_made,
        tuple(state.requests),
        tuple((worker.resting, len(worker.jobs)) for worker in state.workers.values()),
        tuple(state.away),
        tuple((len(each.requests), each.losses, *each.avoided) for each in state.wanted.values()),
        tuple((job.phase, job.transfers) for job in state.jobs.values()),
        len(state.live),
    )


def _draw(name: str, edges: list[Edge]) -> str:
    merged: dict[tuple[str, str], list[str]] = {}
    for before, event, after in edges:
        merged.setdefault((before, after), []).append(event)
    lines = [f'digraph "{name}" {{', f'    "{_OUTSIDE}" [shape=point];']
    for (before, after), events in merged.items():
        label = r"\n".join(events)
        lines.append(f'    "{before}" -> "{after}" [label="{label}"];')
    return "\n".join([*lines, "}"]) + "\n"
