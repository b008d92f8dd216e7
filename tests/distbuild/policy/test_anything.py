"""The policy under any order of events: what must hold does after each, and all comes to an end."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distbuild.policy.decide import decide
from distbuild.policy.events import (
    Command,
    EndRequest,
    Event,
    FollowerJoined,
    FollowerLeft,
    JobBuilt,
    JobFailed,
    JobStored,
    RequestAdded,
    RequestCancelled,
    Rest,
    Settled,
    Start,
    Stop,
    Transfer,
    TransferFailed,
    WorkerJoined,
    WorkerLost,
    WorkerRested,
)
from distbuild.policy.state import Phase, State
from distbuild.workermessages import Fault
from morphlib.build.schedule import Task
from tests.distbuild.policy.invariants import check

ARCHITECTURES = ("x86_64", "armv8l64")
FLEETS = (frozenset(ARCHITECTURES), frozenset(ARCHITECTURES[:1]), frozenset(ARCHITECTURES[1:]))

#: One graph that all requests take parts of: key n may need smaller ones.
KEYS = 12
needs = st.lists(st.sets(st.integers(0, KEYS - 1), max_size=3), min_size=KEYS, max_size=KEYS).map(
    lambda sets: [{n for n in each if n < number} for number, each in enumerate(sets)]
)
moves = st.lists(
    st.tuples(st.integers(0, 15), st.integers(0, 1000), st.integers(0, 1000)), max_size=60
)


#: Making up events takes its time on a machine that has other work.
unhurried = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Driver:
    """Plays the part of all others: makes events of numbers, and follows what is commanded."""

    def __init__(self, needs: list[set[int]], *, settled: bool) -> None:
        self.needs = needs
        self.state = State("j", settled=settled)
        self.made = 0
        self.present: set[str] = set()
        self.ended: list[str] = []
        self.asked: list[str] = []

    def tell(self, event: Event) -> list[Command]:
        out = decide(self.state, event)
        check(self.state)
        for command in out:
            self._check_command(command)
        return out

    def _check_command(self, command: Command) -> None:
        match command:
            case Start(job, worker, key):
                assert self.state.jobs[job].worker == worker
                assert not self.state.workers[worker].resting
                assert len(self.state.workers[worker].jobs) <= self.state.workers[worker].capacity
                architecture = ARCHITECTURES[int(key) % 2]
                assert architecture in self.state.workers[worker].architectures
                assert {str(n) for n in self.needs[int(key)]} <= self.present
            case Stop(job, worker):
                known = self.state.jobs.get(job)
                assert known is None or known.worker != worker or known.phase is not Phase.BUILDING
            case Transfer(job, _, key):
                assert self.state.jobs[job].phase is Phase.TRANSFERRING
                assert self.state.live[key] == job
            case EndRequest(request):
                assert request not in self.state.requests
                self.ended.append(request)
            case _:
                pass

    def tasks(self, first: int, last: int) -> tuple[Task, ...]:
        """What is missing of the keys that some target needs, in build order."""
        wanted: set[int] = set()
        queue = [first % KEYS, last % KEYS]
        while queue:
            number = queue.pop()
            if number not in wanted and str(number) not in self.present:
                wanted.add(number)
                queue.extend(self.needs[number])
        return tuple(
            Task(
                str(number),
                tuple(str(n) for n in sorted(self.needs[number])),
                float(number % 5),
                ARCHITECTURES[number % 2],
            )
            for number in sorted(wanted)
        )

    def new(self, prefix: str) -> str:
        self.made += 1
        return f"{prefix}{self.made}"

    def ask(self, a: int, b: int) -> None:
        request = self.new("r")
        self.asked.append(request)
        self.tell(RequestAdded(request, self.tasks(a, b), a % 3, b % 2 == 0))

    def store(self, job: str) -> None:
        if job in self.state.jobs and self.state.jobs[job].phase is Phase.TRANSFERRING:
            self.present.add(self.state.jobs[job].key)
        self.tell(JobStored(job))

    def move(self, kind: int, a: int, b: int) -> None:
        jobs = [*self.state.jobs, "unknown"]
        workers = [*self.state.workers, "nobody"]
        requests = [*self.state.requests, "none"]
        job, worker = jobs[a % len(jobs)], workers[a % len(workers)]
        request = requests[a % len(requests)]
        reported = ((job, str(b % KEYS)),) if b % 3 == 0 else ()
        if b % 5 == 0 and job in self.state.jobs:
            reported = ((job, self.state.jobs[job].key),)
        actions: list[Callable[[], object]] = [
            lambda: self.ask(a, b),
            lambda: self.tell(WorkerJoined(self.new("w"), FLEETS[a % 3], 1 + b % 3)),
            lambda: self.tell(JobBuilt(job)),
            lambda: self.store(job),
            lambda: self.tell(JobBuilt(job)),
            lambda: self.store(job),
            lambda: self.tell(JobFailed(job, list(Fault)[b % 4], "why")),
            lambda: self.tell(JobFailed(job, Fault.SPACE, "full")),
            lambda: self.tell(TransferFailed(job, "why", b % 2 == 0)),
            lambda: self.tell(WorkerLost(worker)),
            lambda: self.tell(WorkerJoined(worker, FLEETS[b % 3], 1 + b % 2, reported)),
            lambda: self.tell(WorkerRested(worker)),
            lambda: self.tell(RequestCancelled(request)),
            lambda: self.tell(FollowerLeft(request)),
            lambda: self.tell(FollowerJoined(request)),
            lambda: self.tell(Settled()),
        ]
        actions[kind]()

    def run_to_the_end(self) -> None:
        """From now on all goes well."""
        self.tell(Settled())
        self.tell(WorkerJoined("last", FLEETS[0], 2))
        self.tell(WorkerJoined("very-last", FLEETS[0], 1))
        for worker in list(self.state.workers):
            self.tell(WorkerRested(worker))
        for _ in range(1000):
            if not self.state.jobs:
                break
            job = self.state.jobs[min(self.state.jobs)]
            if job.phase is Phase.STOPPING:
                self.tell(JobFailed(job.id, Fault.CANCELLED, ""))
            elif job.phase is Phase.TRANSFERRING:
                self.store(job.id)
            else:
                self.tell(JobBuilt(job.id))


@unhurried
@given(needs, moves, st.booleans())
def test_whatever_happens_it_comes_to_an_end(
    needs: list[set[int]], moves: list[tuple[int, int, int]], settled: bool
) -> None:
    driver = Driver(needs, settled=settled)
    for move in moves:
        driver.move(*move)
    driver.run_to_the_end()
    # Every request ends exactly once, and nothing is left over.
    assert sorted(driver.ended) == sorted(driver.asked)
    state = driver.state
    assert not state.requests
    assert not state.wanted
    assert not state.jobs
    assert not state.live
    assert not any(worker.jobs for worker in state.workers.values())


@unhurried
@given(needs, st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=6))
def test_requests_build_each_key_once(needs: list[set[int]], asked: list[tuple[int, int]]) -> None:
    driver = Driver(needs, settled=True)
    started: list[str] = []

    def tell(event: Event) -> None:
        started.extend(command.key for command in driver.tell(event) if isinstance(command, Start))

    for number in range(3):
        tell(WorkerJoined(f"w{number}", FLEETS[0]))
    for number, (a, b) in enumerate(asked):
        tell(RequestAdded(f"r{number}", driver.tasks(a, b)))
    while driver.state.jobs:
        job = driver.state.jobs[min(driver.state.jobs)]
        if job.phase is Phase.BUILDING:
            tell(JobBuilt(job.id))
        else:
            driver.present.add(job.key)
            tell(JobStored(job.id))
    assert len(started) == len(set(started))
    assert len(driver.ended) == len(asked)


@unhurried
@given(needs, st.integers(0, 1000))
def test_equal_events_give_equal_commands(needs: list[set[int]], seed: int) -> None:
    def run() -> list[Command]:
        driver = Driver(needs, settled=True)
        out = driver.tell(WorkerJoined("w", FLEETS[0], 3))
        for number in range(3):
            out += driver.tell(RequestAdded(f"r{number}", driver.tasks(seed + number, seed)))
        return out

    assert run() == run()


def test_a_worker_that_rests_asks_to_be_told_so() -> None:
    driver = Driver([set() for _ in range(KEYS)], settled=True)
    driver.tell(WorkerJoined("w", FLEETS[0], 2))
    driver.tell(RequestAdded("r", driver.tasks(0, 2)))
    out = driver.tell(JobFailed("j-1", Fault.SPACE, "full"))
    assert Rest("w", "full") in out
