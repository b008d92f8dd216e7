"""What is true of a policy's state after every event, whatever happened before."""

from __future__ import annotations

from collections import Counter

from distbuild.policy.state import Phase, State

LIVE = (Phase.BUILDING, Phase.TRANSFERRING, Phase.UNCLAIMED)


def check(state: State) -> None:
    check_jobs(state)
    check_slots(state)
    check_wants(state)
    check_nobody_idles(state)


def check_jobs(state: State) -> None:
    """A key has one live job at most, and those that take slots are known to their workers."""
    live = [job for job in state.jobs.values() if job.phase in LIVE]
    assert {job.key: job.id for job in live} == state.live
    assert len(live) == len(state.live)
    for job in state.jobs.values():
        if job.takes_slot:
            assert job.id in state.workers[job.worker].jobs
        if job.phase is Phase.BUILDING:
            assert job.request in state.wanted[job.key].requests


def check_slots(state: State) -> None:
    for worker in state.workers.values():
        assert all(state.jobs[job].worker == worker.id for job in worker.jobs)
        assert all(state.jobs[job].takes_slot for job in worker.jobs)
        for architecture in worker.architectures:
            assert (worker.id in state.free.get(architecture, {})) is worker.is_free
    for waiting in state.free.values():
        assert set(waiting) <= set(state.workers)
    shares = Counter(job.request for job in state.jobs.values() if job.takes_slot)
    for request in state.requests.values():
        assert request.share == shares[request.id]


def check_wants(state: State) -> None:
    for wanted in state.wanted.values():
        assert wanted.requests
        for request in wanted.requests:
            schedule = state.requests[request].schedule
            assert wanted.key not in schedule.done
            assert (wanted.key in schedule.running) is (wanted.key in state.live)
    for request_ in state.requests.values():
        schedule = request_.schedule
        assert schedule.unfinished
        undone = set(schedule.tasks) - schedule.done
        assert all(request_.id in state.wanted[key].requests for key in undone)


def check_nobody_idles(state: State) -> None:
    """No free worker could do something that is ready."""
    for request in state.requests.values():
        for task in request.schedule.tasks.values():
            needs = set(task.needs) & set(request.schedule.tasks)
            if task.id in state.live or task.id in request.schedule.done:
                continue
            if needs <= request.schedule.done:
                able = set(state.free.get(task.pool, {})) - state.wanted[task.id].avoided
                assert not able, f"{task.id} is ready, and {able} idle"
