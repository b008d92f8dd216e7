"""Requests: how they come, what happens to their keys, how they end."""

from __future__ import annotations

from distbuild.policy.events import (
    Command,
    EndRequest,
    Outcome,
    RequestAdded,
    Stop,
    TellFailed,
    TellFinished,
    TellStarted,
)
from distbuild.policy.state import Job, Phase, Request, State, Wanted, charge
from morphlib.build.schedule import Schedule


def add_request(state: State, event: RequestAdded, out: list[Command]) -> None:
    """Take in a request. One with an id that is there already changes nothing."""
    if event.request in state.requests:
        return
    request = Request(
        id=event.request,
        number=state.requests_made,
        schedule=Schedule(event.tasks),
        priority=event.priority,
        allow_detach=event.allow_detach,
        followers=event.followers,
    )
    state.requests_made += 1
    state.requests[request.id] = request
    for task in event.tasks:
        wanted = state.wanted.setdefault(task.id, Wanted(task.id, task.pool))
        wanted.requests[request.id] = None
        state.eager.setdefault(task.pool, {})[request.id] = None
        job = state.live_job(task.id)
        if job is not None:
            _join(state, request, job, out)
    if not request.schedule.unfinished:
        end_request(state, request.id, Outcome.FINISHED, out)


def _join(state: State, request: Request, job: Job, out: list[Command]) -> None:
    """Somebody builds a key already, or brings it into the cache: a request waits for that."""
    request.schedule.claim(job.key)
    if job.request not in state.requests:
        charge(state, job, request.id)
    if job.phase is Phase.UNCLAIMED:
        job.phase = Phase.BUILDING
    out.append(TellStarted(request.id, job.key, job.worker, already=True))


def finish_key(state: State, key: str, worker: str, out: list[Command]) -> None:
    """A key is in the shared cache: what needs it may be ready now."""
    wanted = state.wanted.pop(key)
    for request_id in wanted.requests:
        request = state.requests[request_id]
        request.schedule.finish(key)
        for eager in state.eager.values():
            eager[request_id] = None
        out.append(TellFinished(request_id, key, worker))
        if not request.schedule.unfinished:
            end_request(state, request_id, Outcome.FINISHED, out)


def fail_key(state: State, key: str, reason: str, out: list[Command]) -> None:
    """A key can't be built: all requests that want it fail."""
    for request_id in list(state.wanted[key].requests):
        out.append(TellFailed(request_id, key))
        end_request(state, request_id, Outcome.FAILED, out, key, reason)


def end_request(
    state: State,
    request_id: str,
    outcome: Outcome,
    out: list[Command],
    key: str = "",
    reason: str = "",
) -> None:
    """A request is over. What is built for it alone is stopped."""
    request = state.requests.pop(request_id)
    for eager in state.eager.values():
        eager.pop(request_id, None)
    for task in request.schedule.tasks:
        wanted = state.wanted.get(task)
        if wanted is not None and request_id in wanted.requests:
            del wanted.requests[request_id]
            _let_go(state, wanted, request_id, out)
    out.append(EndRequest(request_id, outcome, key, reason))


def _let_go(state: State, wanted: Wanted, request_id: str, out: list[Command]) -> None:
    job = state.live_job(wanted.key)
    if wanted.requests:
        if job is not None and job.request == request_id:
            charge(state, job, next(iter(wanted.requests)))
        return
    del state.wanted[wanted.key]
    if job is not None and job.phase is Phase.BUILDING:
        job.phase = Phase.STOPPING
        del state.live[wanted.key]
        out.append(Stop(job.id, job.worker))
