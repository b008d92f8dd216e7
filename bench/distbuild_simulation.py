#!/usr/bin/env python3
"""Play distributed builds through the controller's policy: 1,000 workers, 100,000 steps.

Graphs are those of real systems where DEFINITIONS are given, as many copies as make up the steps,
and made-up ones. Durations are made up. Nothing is built: times are simulated, and only what the
policy itself takes is measured.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.graph import Graph
    from morphlib.build.schedule import Task

_CHECKOUT = Path(__file__).resolve().parent.parent
_SYSTEMS = ("base-system-x86_64-generic", "openstack-system-x86_64")
_ARCHITECTURE = "x86_64"
#: Goals: makespan over the lower bound, and milliseconds of CPU for each step.
_MOST_OVER, _MOST_CPU = 1.05, 5.0


@dataclass(frozen=True, slots=True)
class Case:
    """`requests`: the tasks of each; all come at once. `slots`: of all workers together."""

    name: str
    requests: Sequence[Sequence[Task]]
    workers: int
    lost_every: float = 0.0


def tasks_of(graph: Graph) -> tuple[Task, ...]:
    """The steps of a system: its chunks, a list for each stratum, and the system itself."""
    from morphlib.build.schedule import Task

    tasks = []
    for stratum in graph.strata:
        below = tuple(f"stratum:{name}" for name in stratum.build_depends)
        for chunk in stratum.chunks:
            needs = (*(f"{stratum.name}/{name}" for name in chunk.build_depends), *below)
            name = f"{stratum.name}/{chunk.name}"
            tasks.append(Task(name, needs, _made_up_cost(chunk.name), _ARCHITECTURE))
        needs = tuple(f"{stratum.name}/{chunk.name}" for chunk in stratum.chunks)
        tasks.append(Task(f"stratum:{stratum.name}", needs, 0.05, _ARCHITECTURE))
    needs = tuple(f"stratum:{stratum.name}" for stratum in graph.strata)
    return (*tasks, Task("system", needs, 20.0, _ARCHITECTURE))


def _made_up_cost(name: str) -> float:
    """Seconds: most chunks take half a minute, a few take many."""
    return min(3600.0, random.Random(name).lognormvariate(3.5, 1.0))


def make_cases(
    definitions: Path | None, systems: Sequence[str], workers: int, steps: int
) -> Iterator[Case]:
    from bench.graph import read_graph, synthetic_graph
    from distbuild.bounds import replicate
    from distbuild.simulation import made_up_tasks

    tasks = made_up_tasks(steps, seed=1, reach=40 * workers)
    yield Case("one made-up graph", [tasks], workers)
    graphs = [synthetic_graph(117), synthetic_graph(431)]
    if definitions is not None:
        graphs = [read_graph(definitions, f"systems/{name}.morph") for name in systems]
    for graph in graphs:
        tasks = tasks_of(graph)
        copies = replicate(tasks, max(1, round(steps / len(tasks))))
        for share in (1, 4):
            name = f"{graph.name} x {len(copies)}"
            yield Case(name, copies, max(1, workers // share))
        yield Case(f"{graph.name}, workers lost", copies, workers, lost_every=7200.0)


def run_case(case: Case) -> bool:
    """Print a line about it. Whether it meets the goals."""
    from distbuild.bounds import lower_bound, sharper_bound
    from distbuild.policy.events import Outcome, RequestAdded
    from distbuild.simulation import Arrival, Fleet, play

    fleet = Fleet(case.workers, frozenset({_ARCHITECTURE}), lost_every=case.lost_every)
    requests = [Arrival(0.0, RequestAdded(f"r{n}", tuple(t))) for n, t in enumerate(case.requests)]
    before = time.process_time()
    played = play(requests, fleet)
    spent = time.process_time() - before
    assert all(outcome is Outcome.FINISHED for _, outcome in played.ended.values())
    assert len(played.ended) == len(requests)
    arrivals = [(0.0, tasks) for tasks in case.requests]
    plain, sharp = lower_bound(arrivals, case.workers), sharper_bound(arrivals, case.workers)
    cpu = spent / played.steps * 1000
    print(
        f"{case.name:42} {case.workers:7} {played.steps:7} {played.makespan:9.0f}"
        f" {played.makespan / plain:7.3f} {played.makespan / sharp:7.3f} {cpu:9.3f}"
        f" {max(played.cpu) * 1000:9.1f}",
        flush=True,
    )
    return cpu < _MOST_CPU and (bool(case.lost_every) or played.makespan <= _MOST_OVER * sharp)


def main(arguments: list[str]) -> int:
    chosen = _make_parser().parse_args(arguments)
    print(
        f"{'requests':42} {'workers':>7} {'steps':>7} {'makespan':>9} {'/plain':>7} {'/sharp':>7}"
        f" {'CPU ms':>9} {'worst ms':>9}"
    )
    cases = make_cases(chosen.definitions, chosen.systems, chosen.workers, chosen.steps)
    good = [run_case(case) for case in cases]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        "\nmakespan: simulated seconds. /plain: over max(critical path, work / workers). /sharp:"
        "\nover a bound that knows how narrow graphs begin and end. CPU ms: for each step,"
        "\nsimulation included. worst ms: the CPU of the costliest event."
        f"\nPeak memory: {peak:.0f} MiB."
        f"\nGoals (/sharp <= {_MOST_OVER} unless workers are lost, CPU ms < {_MOST_CPU}):"
        f" {'met' if all(good) else 'MISSED'}"
    )
    return 1 if chosen.check and not all(good) else 0


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="distbuild_simulation.py", description=__doc__)
    parser.add_argument(
        "definitions", type=Path, nargs="?", metavar="DEFINITIONS", help="a definitions repository"
    )
    add = parser.add_argument
    add("--systems", nargs="+", default=_SYSTEMS, metavar="SYSTEM", help="its systems to take")
    add("--workers", type=int, default=1000, metavar="N", help="workers (default 1000)")
    add("--steps", type=int, default=100_000, metavar="N", help="steps (default 100000)")
    add("--check", action="store_true", help="exit with status 1 if a goal is missed")
    return parser


if __name__ == "__main__":
    python = _CHECKOUT / ".venv" / "bin" / "python"
    if python.exists() and Path(sys.prefix) != python.parent.parent:
        os.execv(python, [str(python), *sys.argv])
    sys.path.insert(0, str(_CHECKOUT))
    sys.exit(main(sys.argv[1:]))
