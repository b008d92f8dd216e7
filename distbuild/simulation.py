"""Plays builds through the real policy: many workers, many steps, no network and no clock.

Times are simulated seconds; only the time that the policy itself takes is measured.
"""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from distbuild.policy.decide import decide
from distbuild.policy.events import (
    EndRequest,
    Event,
    JobBuilt,
    JobFailed,
    JobStored,
    Outcome,
    RequestAdded,
    Rest,
    Start,
    Stop,
    Transfer,
    WorkerJoined,
    WorkerLost,
    WorkerRested,
)
from distbuild.policy.state import State
from distbuild.workermessages import Fault
from morphlib.build.schedule import Task


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request, and when it comes."""

    at: float
    request: RequestAdded


@dataclass(frozen=True, slots=True)
class Fleet:
    """The workers. Each of them is lost about every `lost_every` seconds, if at all, and comes back
    after `away`. Results take `transfer` seconds, in which their workers go on."""

    workers: int
    architectures: frozenset[str]
    capacity: int = 1
    transfer: float = 0.0
    lost_every: float = 0.0
    away: float = 60.0


@dataclass(slots=True)
class Played:
    """What came of it. `cpu`: seconds that the policy took for each event."""

    makespan: float = 0.0
    steps: int = 0
    starts: int = 0
    events: int = 0
    ended: dict[str, tuple[float, Outcome]] = field(default_factory=dict)
    cpu: list[float] = field(default_factory=list)

    @property
    def cpu_per_step(self) -> float:
        return sum(self.cpu) / max(1, self.steps)


def made_up_tasks(count: int, *, seed: int, needs: int = 3, reach: int = 400) -> tuple[Task, ...]:
    """A graph whose tasks need some of the nearest before them; most are short, a few are long."""
    dice = random.Random(seed)
    tasks = []
    for number in range(count):
        nearest = range(max(0, number - reach), number)
        chosen = dice.sample(nearest, min(len(nearest), dice.randint(0, needs)))
        cost = min(3600.0, dice.lognormvariate(3.5, 1.0))
        tasks.append(Task(f"{number}", tuple(str(n) for n in sorted(chosen)), cost, "x86_64"))
    return tuple(tasks)


def play(arrivals: Iterable[Arrival], fleet: Fleet, *, seed: int = 1) -> Played:
    """Play it through to the end of the last request."""
    return _Game(fleet, seed).play(arrivals)


class _Game:
    def __init__(self, fleet: Fleet, seed: int) -> None:
        self.fleet = fleet
        self.dice = random.Random(seed)
        self.state = State("sim")
        self.now = 0.0
        self.queue: list[tuple[float, int, Event]] = []
        self.pushed = 0
        self.costs: dict[str, float] = {}
        self.played = Played()
        self.open = 0

    def push(self, at: float, event: Event) -> None:
        self.pushed += 1
        heapq.heappush(self.queue, (at, self.pushed, event))

    def play(self, arrivals: Iterable[Arrival]) -> Played:
        fleet = self.fleet
        for number in range(fleet.workers):
            self.push(0.0, WorkerJoined(f"w{number}", fleet.architectures, fleet.capacity))
        for arrival in arrivals:
            self.open += 1
            self.costs |= {task.id: task.cost for task in arrival.request.tasks}
            self.push(arrival.at, arrival.request)
        self.played.steps = len(self.costs)
        while self.open and self.queue:
            self.now, _, event = heapq.heappop(self.queue)
            self._plan_accidents(event)
            self._tell(event)
        self.played.makespan = self.now
        return self.played

    def _plan_accidents(self, event: Event) -> None:
        if isinstance(event, WorkerLost):
            back = WorkerJoined(event.worker, self.fleet.architectures, self.fleet.capacity)
            self.push(self.now + self.fleet.away, back)
        elif isinstance(event, WorkerJoined) and self.fleet.lost_every:
            lost = self.now + self.dice.expovariate(1 / self.fleet.lost_every)
            self.push(lost, WorkerLost(event.worker))

    def _tell(self, event: Event) -> None:
        before = time.thread_time()
        commands = decide(self.state, event)
        self.played.cpu.append(time.thread_time() - before)
        self.played.events += 1
        for command in commands:
            match command:
                case Start(job, _, key):
                    self.played.starts += 1
                    self.push(self.now + self.costs[key], JobBuilt(job))
                case Transfer(job):
                    self.push(self.now + self.fleet.transfer, JobStored(job))
                case Stop(job):
                    self.push(self.now, JobFailed(job, Fault.CANCELLED, "stopped"))
                case Rest(worker):
                    self.push(self.now + self.fleet.away, WorkerRested(worker))
                case EndRequest(request, outcome):
                    self.open -= 1
                    self.played.ended[request] = (self.now, outcome)
                case _:
                    pass
