"""Workers: how they come, rest and go."""

from __future__ import annotations

from distbuild.policy.events import Command, Rest, Stop, TellStarted, WorkerJoined
from distbuild.policy.retry import retry_key
from distbuild.policy.state import Job, Phase, State, Worker, note_free, occupy_slot, release_slot


def join(state: State, event: WorkerJoined, out: list[Command]) -> None:
    """A worker is there. If it was there before, what it does not do any more is lost."""
    running = dict(event.running)
    if event.worker in state.workers:
        _forget(state, event.worker, out, kept=running)
    worker = Worker(event.worker, event.architectures, event.capacity)
    state.workers[worker.id] = worker
    state.away.pop(worker.id, None)
    note_free(state, worker)
    for job_id, key in running.items():
        _take_up(state, worker, job_id, key, out)


def _take_up(state: State, worker: Worker, job_id: str, key: str, out: list[Command]) -> None:
    """Let a worker go on with what it does, unless nobody wants it from this one."""
    job = state.jobs.get(job_id)
    if job is not None:
        if job.worker != worker.id or job.key != key or not job.takes_slot:
            # A lie, or old news. It must not touch the job of another.
            out.append(Stop(job_id, worker.id))
            return
        if job.phase is Phase.STOPPING:
            out.append(Stop(job_id, worker.id))
    else:
        job = Job(job_id, key, worker.id, "", Phase.UNCLAIMED)
        state.jobs[job_id] = job
        if key in state.live or (state.settled and key not in state.wanted):
            job.phase = Phase.STOPPING
            out.append(Stop(job_id, worker.id))
        else:
            state.live[key] = job_id
            _claim(state, job, out)
    occupy_slot(state, job)


def _claim(state: State, job: Job, out: list[Command]) -> None:
    for request_id in state.wanted[job.key].requests if job.key in state.wanted else ():
        if job.phase is Phase.UNCLAIMED:
            job.phase, job.request = Phase.BUILDING, request_id
        state.requests[request_id].schedule.claim(job.key)
        out.append(TellStarted(request_id, job.key, job.worker, already=True))


def lose(state: State, worker_id: str, out: list[Command]) -> None:
    """A worker is gone: what it was building is built elsewhere.

    What it had built may still come: its cache is served by another program.
    """
    state.away[worker_id] = state.workers[worker_id].architectures
    _forget(state, worker_id, out, kept={})


def _forget(state: State, worker_id: str, out: list[Command], kept: dict[str, str]) -> None:
    worker = state.workers[worker_id]
    jobs = [state.jobs[each] for each in worker.jobs]
    for job in jobs:
        release_slot(state, job)
    del state.workers[worker_id]
    note_free(state, worker)
    gone = [job for job in jobs if kept.get(job.id) != job.key]
    orphans = [job for job in gone if state.live.get(job.key) == job.id]
    for job in gone:
        del state.jobs[job.id]
    for job in orphans:
        del state.live[job.key]
    # Not before all are gone: a key that fails for good changes what becomes of the others.
    for job in orphans:
        if job.key in state.wanted:
            retry_key(state, job, f"worker {worker_id} was lost", out, avoid=False)


def rest(state: State, worker_id: str, reason: str, out: list[Command]) -> None:
    worker = state.workers[worker_id]
    if not worker.resting:
        worker.resting = True
        note_free(state, worker)
        out.append(Rest(worker_id, reason))


def rested(state: State, worker_id: str) -> None:
    worker = state.workers.get(worker_id)
    if worker is not None:
        worker.resting = False
        note_free(state, worker)


def stop_unclaimed(state: State, out: list[Command]) -> None:
    for job in state.jobs.values():
        if job.phase is Phase.UNCLAIMED:
            job.phase = Phase.STOPPING
            del state.live[job.key]
            out.append(Stop(job.id, job.worker))
