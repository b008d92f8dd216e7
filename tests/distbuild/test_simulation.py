"""Builds that are played through the real policy, and what no schedule can beat."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distbuild.bounds import critical_path, lower_bound, replicate, sharper_bound, work
from distbuild.policy.events import Outcome, RequestAdded
from distbuild.simulation import Arrival, Fleet, made_up_tasks, play
from morphlib.build.schedule import Task

X86 = frozenset({"x86_64"})


def task(name: str, cost: float, *needs: str) -> Task:
    return Task(name, needs, cost, "x86_64")


def arrivals_of(*requests: tuple[Task, ...]) -> list[Arrival]:
    return [Arrival(0.0, RequestAdded(f"r{n}", tasks)) for n, tasks in enumerate(requests)]


def test_a_chain_takes_its_length() -> None:
    chain = (task("a", 5), task("b", 7, "a"))
    played = play(arrivals_of(chain), Fleet(10, X86, transfer=1))
    assert played.makespan == 14
    assert played.ended == {"r0": (14, Outcome.FINISHED)}


def test_the_bounds_of_small_graphs() -> None:
    fan = (task("a", 10), *(task(f"b{n}", 10, "a") for n in range(4)), task("z", 10, "b0"))
    assert critical_path([(0.0, fan)]) == 30
    assert work([(0.0, fan), (0.0, fan)]) == 60
    assert lower_bound([(0.0, fan)], 2) == 30
    # Four of ten seconds after the first ten, on two workers, and nothing but z at the end.
    assert sharper_bound([(0.0, fan)], 2) >= 35 - 30 / 64 * 2
    assert lower_bound([(3.0, fan)], 9) == 33


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 60), st.integers(1, 3))
def test_no_schedule_beats_the_bounds(seed: int, workers: int, count: int, copies: int) -> None:
    requests = replicate(made_up_tasks(count, seed=seed, reach=10), copies)
    played = play(arrivals_of(*requests), Fleet(workers, X86))
    arrivals = [(0.0, tasks) for tasks in requests]
    plain, sharp = lower_bound(arrivals, workers), sharper_bound(arrivals, workers)
    assert plain * 0.999 <= sharp <= played.makespan * 1.001
    # And none that lets nobody idle is worse than this (Graham).
    longest, total = critical_path(arrivals), work(arrivals)
    assert played.makespan <= (total / workers + longest * (1 - 1 / workers)) * 1.001
    assert played.starts == played.steps == count * copies


def test_lost_workers_cost_only_what_they_were_building() -> None:
    tasks = made_up_tasks(400, seed=3)
    quiet = play(arrivals_of(tasks), Fleet(20, X86))
    stormy = play(arrivals_of(tasks), Fleet(20, X86, lost_every=2000.0))
    assert stormy.ended["r0"][1] is Outcome.FINISHED
    assert stormy.starts > stormy.steps
    assert quiet.makespan < stormy.makespan < 3 * quiet.makespan


def test_equal_requests_end_together() -> None:
    requests = replicate(made_up_tasks(100, seed=4), 4)
    played = play(arrivals_of(*requests), Fleet(8, X86))
    ends = [at for at, _ in played.ended.values()]
    assert max(ends) < 1.2 * min(ends)


def test_requests_for_the_same_cost_no_more_than_one() -> None:
    tasks = made_up_tasks(100, seed=5)
    alone = play(arrivals_of(tasks), Fleet(4, X86))
    together = play(arrivals_of(tasks, tasks, tasks), Fleet(4, X86))
    assert together.starts == 100
    assert together.makespan == alone.makespan


def test_a_thousand_workers_are_kept_busy() -> None:
    """A tenth of what the benchmark plays: it has to stay far below its 5 ms for each step."""
    requests = replicate(made_up_tasks(500, seed=6), 20)
    played = play(arrivals_of(*requests), Fleet(1000, X86))
    assert played.makespan <= 1.05 * sharper_bound([(0.0, t) for t in requests], 1000)
    assert played.cpu_per_step < 0.005


def test_the_benchmark_tells_figures() -> None:
    script = Path(__file__).parents[2] / "bench" / "distbuild_simulation.py"
    command = [sys.executable, str(script), "--workers", "50", "--steps", "1000"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0].split()[:4] == ["requests", "workers", "steps", "makespan"]
    assert lines[1].startswith("one made-up graph")
    assert "synthetic-431 x 2" in done.stdout
    assert "Peak memory: " in done.stdout
