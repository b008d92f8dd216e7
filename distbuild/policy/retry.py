"""Building a key again where an attempt came to nothing through no fault of its own."""

from __future__ import annotations

from distbuild.policy.events import Command, TellRetried
from distbuild.policy.requests import fail_key
from distbuild.policy.state import Job, State

#: A chunk that takes its workers down with it must not take them all.
MOST_LOSSES = 4


def retry_key(state: State, job: Job, reason: str, out: list[Command], *, avoid: bool) -> None:
    """Make the key of a job that is gone ready again; on another worker, with `avoid`.

    It fails after too many attempts, and where every worker that could build it has tried. Those
    that were lost count too: they may come back.
    """
    wanted = state.wanted[job.key]
    wanted.losses += 1
    if avoid:
        wanted.avoided.add(job.worker)
    workers = {worker.id: worker.architectures for worker in state.workers.values()}
    known = state.away | workers
    able = [name for name, each in known.items() if wanted.architecture in each]
    exhausted = bool(able) and wanted.avoided.issuperset(able)
    if wanted.losses >= MOST_LOSSES or exhausted:
        where = "no other worker can build it" if exhausted else f"tried {wanted.losses} times"
        fail_key(state, job.key, f"{reason} ({where})", out)
        return
    for request_id in wanted.requests:
        state.requests[request_id].schedule.put_back(job.key)
        state.eager.setdefault(wanted.architecture, {})[request_id] = None
        out.append(TellRetried(request_id, job.key, job.worker, reason))
