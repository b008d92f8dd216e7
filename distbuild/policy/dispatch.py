"""Giving what is ready to workers that are free.

Of the requests with something ready, those of the highest priority go first, and of these that
which has the fewest slots; so requests share the workers equally while there are too few, and none
is idle for fairness' sake. Within a request the longest remaining path goes first.
"""

from __future__ import annotations

from distbuild.policy.events import Command, Start, TellStarted
from distbuild.policy.state import Job, Phase, Request, State, occupy_slot


def dispatch(state: State, out: list[Command]) -> None:
    """Start all that can be started now."""
    for architecture, eager in state.eager.items():
        free = state.free.get(architecture)
        if not free or not eager:
            continue
        held: list[tuple[Request, str]] = []
        while free and (request := _next_request(state, architecture)) is not None:
            task = request.schedule.take(architecture)
            assert task is not None
            if task.id in state.live:
                continue  # it runs for others, and this request has joined them by taking it
            avoided = state.wanted[task.id].avoided
            worker = next((each for each in free if each not in avoided), None)
            if worker is None:
                held.append((request, task.id))
            else:
                _start(state, task.id, worker, request.id, out)
        for request, key in held:
            request.schedule.put_back(key)
            eager[request.id] = None


def _next_request(state: State, architecture: str) -> Request | None:
    eager = state.eager[architecture]
    best: Request | None = None
    rank = (0, 0, 0)
    done = []
    for request_id in eager:
        request = state.requests[request_id]
        own = (-request.priority, request.share, request.number)
        if best is None or own < rank:
            if request.schedule.peek(architecture) is not None:
                best, rank = request, own
            else:
                done.append(request_id)
    for request_id in done:
        del eager[request_id]
    return best


def _start(state: State, key: str, worker: str, request: str, out: list[Command]) -> None:
    state.jobs_made += 1
    job = Job(f"{state.prefix}-{state.jobs_made}", key, worker, request, Phase.BUILDING)
    state.jobs[job.id] = job
    state.live[key] = job.id
    occupy_slot(state, job)
    out.append(Start(job.id, worker, key))
    for each in state.wanted[key].requests:
        state.requests[each].schedule.claim(key)
        out.append(TellStarted(each, key, worker))
