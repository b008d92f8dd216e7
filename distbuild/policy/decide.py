"""One step of a controller's policy: an event in, commands out.

Nothing that comes late, twice or unasked for does harm: events about requests, workers and jobs
that are not there change nothing.
"""

from __future__ import annotations

from typing import assert_never

from distbuild.policy import events as e
from distbuild.policy import workers
from distbuild.policy.dispatch import dispatch
from distbuild.policy.requests import add_request, end_request, fail_key, finish_key
from distbuild.policy.retry import retry_key
from distbuild.policy.state import Job, Phase, State, release_slot
from distbuild.workermessages import Fault

#: How often the transfer of one result is tried.
MOST_TRANSFERS = 3


def decide(state: State, event: e.Event) -> list[e.Command]:
    """Change `state` by what happened, and say what is to be done now."""
    out: list[e.Command] = []
    match event:
        case e.RequestAdded():
            add_request(state, event, out)
        case e.RequestCancelled(request):
            if request in state.requests:
                end_request(state, request, e.Outcome.CANCELLED, out)
        case e.FollowerJoined(request) | e.FollowerLeft(request):
            if request in state.requests:
                _count_followers(state, event, out)
        case e.WorkerJoined():
            workers.join(state, event, out)
        case e.WorkerLost(worker):
            if worker in state.workers:
                workers.lose(state, worker, out)
        case e.WorkerRested(worker):
            workers.rested(state, worker)
        case e.JobBuilt(job):
            if job in state.jobs:
                _built(state, state.jobs[job], out)
        case e.JobFailed(job):
            if job in state.jobs:
                _failed(state, state.jobs[job], event, out)
        case e.JobStored(job):
            if job in state.jobs:
                _stored(state, state.jobs[job], out)
        case e.TransferFailed(job):
            if job in state.jobs:
                _transfer_failed(state, state.jobs[job], event, out)
        case e.Settled():
            state.settled = True
            workers.stop_unclaimed(state, out)
        case _:
            assert_never(event)
    dispatch(state, out)
    return out


def _count_followers(
    state: State, event: e.FollowerJoined | e.FollowerLeft, out: list[e.Command]
) -> None:
    request = state.requests[event.request]
    if isinstance(event, e.FollowerLeft):
        request.followers = max(0, request.followers - 1)
        if not request.followers and not request.allow_detach:
            end_request(state, request.id, e.Outcome.CANCELLED, out)
        return
    request.followers += 1
    for key in sorted(request.schedule.running):
        job = state.live_job(key)
        if job is not None:
            out.append(e.TellStarted(request.id, key, job.worker, already=True))


def _built(state: State, job: Job, out: list[e.Command]) -> None:
    if job.phase is Phase.TRANSFERRING:
        return
    release_slot(state, job)
    if job.phase is Phase.STOPPING and job.key in state.live:
        del state.jobs[job.id]  # somebody else builds it by now
        return
    # Even if nobody wants it any more: it is built, and somebody may.
    was_given_up = job.phase is Phase.STOPPING
    job.phase = Phase.TRANSFERRING
    job.transfers = 1
    state.live[job.key] = job.id
    for request in state.wanted[job.key].requests if job.key in state.wanted else ():
        state.requests[request].schedule.claim(job.key)
        if was_given_up:
            out.append(e.TellStarted(request, job.key, job.worker, already=True))
    out.append(e.Transfer(job.id, job.worker, job.key))


def _failed(state: State, job: Job, event: e.JobFailed, out: list[e.Command]) -> None:
    if job.phase is Phase.TRANSFERRING:
        return
    release_slot(state, job)
    del state.jobs[job.id]
    if event.fault is Fault.SPACE and job.worker in state.workers:
        workers.rest(state, job.worker, event.reason, out)
    if state.live.get(job.key) != job.id:
        return
    del state.live[job.key]
    if job.key not in state.wanted:
        return
    if event.fault is Fault.BUILD:
        fail_key(state, job.key, event.reason, out)
    else:
        retry_key(state, job, event.reason, out, avoid=True)


def _stored(state: State, job: Job, out: list[e.Command]) -> None:
    if job.phase is not Phase.TRANSFERRING:
        return
    del state.jobs[job.id]
    del state.live[job.key]
    if job.key in state.wanted:
        finish_key(state, job.key, job.worker, out)


def _transfer_failed(state: State, job: Job, event: e.TransferFailed, out: list[e.Command]) -> None:
    if job.phase is not Phase.TRANSFERRING:
        return
    is_there = job.worker in state.workers
    if is_there and not event.hopeless and job.transfers < MOST_TRANSFERS:
        job.transfers += 1
        out.append(e.Transfer(job.id, job.worker, job.key))
        return
    del state.jobs[job.id]
    del state.live[job.key]
    if job.key in state.wanted:
        retry_key(state, job, event.reason, out, avoid=is_there)
