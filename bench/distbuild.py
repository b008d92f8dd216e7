#!/usr/bin/env python3
"""Measure distributed builds on this machine: how well workers are used, and what a step costs.

A real controller, real workers, helpers and cache servers, all on 127.0.0.1. Chunks sleep, so that
more workers than processors can be busy.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.graph import Graph

_CHECKOUT = Path(__file__).resolve().parent.parent
_EFFICIENCY, _STEP_CPU, _RATIO = 0.95, 0.005, 1.15  # goals


def main(arguments: list[str]) -> int:
    from bench.tools import default_directory
    from morphlib.errors import MorphError

    chosen = _make_parser().parse_args(arguments)
    work = (chosen.work or default_directory() / "distbuild").resolve()
    met = []
    try:
        if "efficiency" in chosen.what:
            for count in chosen.workers:
                met.append(_measure_efficiency(work, count, chosen.steps, chosen.sleep))
        if "ratio" in chosen.what:
            graph = _read(chosen)
            for sleep in (chosen.sleep, 0.0):
                is_met = _measure_ratio(work, graph, sleep, chosen.rounds)
                if sleep:
                    met.append(is_met)
    except MorphError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    return 1 if chosen.check and not all(met) else 0


def _read(chosen: argparse.Namespace) -> Graph:
    from bench.graph import read_graph, synthetic_graph

    if chosen.definitions is None:
        return synthetic_graph(chosen.chunks)
    return read_graph(chosen.definitions, chosen.system)


def _measure_efficiency(work: Path, workers: int, steps: int, sleep: float) -> bool:
    """`steps` for each worker, which need nothing of each other."""
    from bench.graph import Chunk, Graph, Stratum
    from bench.networks import run_network
    from bench.projects import write_projects

    names = [f"sleeper-{number:03}" for number in range(workers * steps)]
    first = [f"before-{number:03}" for number in range(workers)]
    strata = [
        Stratum(stratum, (), tuple(Chunk(name, ()) for name in chunks))
        for stratum, chunks in (("before", first), ("sleepers", names))
    ]
    layout = write_projects(Graph("sleepers", tuple(strata)), work / "sleepers", sleep=sleep)
    with run_network(layout, workers) as network:
        network.build("before")  # workers are found, and have the definitions
        found = network.build("sleepers")
    makespan = found.makespan(names)
    efficiency = len(names) * sleep / workers / makespan
    cpu = found.cpu / len(names)
    met = efficiency >= _EFFICIENCY and cpu < _STEP_CPU
    print(
        f"{workers} workers, {len(names)} chunks that sleep {sleep:g} s: makespan {makespan:.2f} s,"
        f" efficiency {efficiency:.1%}; controller {cpu * 1000:.2f} ms CPU a step;"
        f" whole build {found.wall:.2f} s",
        _verdict(met, f"at least {_EFFICIENCY:.0%}, below {_STEP_CPU * 1000:.0f} ms"),
        flush=True,
    )
    return met


def _measure_ratio(work: Path, graph: Graph, sleep: float, rounds: int) -> bool:
    """One worker against `morph build`; which of them comes first changes with each round."""
    from bench.measure import time_program
    from bench.networks import local_command, run_network
    from bench.projects import write_projects
    from bench.tools import Morph, set_aside

    layout = write_projects(graph, work / "ratio", sleep=sleep)
    morph = Morph(_CHECKOUT / "morph")

    def local() -> float:
        morph.forget(layout)
        return time_program(
            local_command(layout),
            cwd=layout.definitions,
            environment=morph.environment(),
            log=layout.root / "local.log",
        ).wall

    def distributed() -> float:
        set_aside(layout.morph_tmp)
        with run_network(layout, 1) as network:
            return network.build().wall

    ratios, alone, others = [], [], []
    for number in range(rounds):
        ways = (local, distributed) if number % 2 == 0 else (distributed, local)
        seconds = {way: way() for way in ways}
        alone.append(seconds[local])
        others.append(seconds[distributed])
        ratios.append(seconds[distributed] / seconds[local])
    ratio = statistics.median(ratios)
    steps = graph.chunk_count + 2
    more = (statistics.median(others) - statistics.median(alone)) / steps
    print(
        f"{graph.name}, chunks that sleep {sleep:g} s, one worker against `morph build`:"
        f" {statistics.median(others):.2f} s against {statistics.median(alone):.2f} s,"
        f" ratio {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f}),"
        f" {more * 1000:.0f} ms more for each chunk",
        _verdict(ratio <= _RATIO, f"at most {_RATIO}") if sleep else "",
        flush=True,
    )
    return ratio <= _RATIO


def _verdict(met: bool, goal: str) -> str:
    return f"(goal: {goal}) {'met' if met else 'MISSED'}"


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="distbuild.py", description=__doc__)
    add = parser.add_argument
    add("definitions", nargs="?", type=Path, help="definitions repository; made-up graphs without")
    add("--system", default="systems/base-system-x86_64-generic.morph", help="one of its systems")
    add("--chunks", type=int, default=30, metavar="N", help="of the made-up graph (default 30)")
    add("--workers", type=int, nargs="+", default=[1, 2, 4, 8], metavar="N", help="(1 2 4 8)")
    add("--steps", type=int, default=6, metavar="N", help="for each worker (default 6)")
    add("--sleep", type=float, default=5.0, metavar="SECONDS", help="of a chunk (default 5)")
    add("--rounds", type=int, default=3, metavar="N", help="of the comparison (default 3)")
    add("--what", nargs="+", choices=("efficiency", "ratio"), default=("efficiency", "ratio"))
    add("--work", type=Path, metavar="DIR", help="directory for everything that is made")
    add("--check", action="store_true", help="exit with status 1 if a goal is missed")
    return parser


if __name__ == "__main__":
    python = _CHECKOUT / ".venv" / "bin" / "python"
    if python.exists() and Path(sys.prefix) != python.parent.parent:
        os.execv(python, [str(python), *sys.argv])
    sys.path.insert(0, str(_CHECKOUT))
    sys.exit(main(sys.argv[1:]))
