"""Runs the whole benchmark: both builders in turn on the same graphs."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bench.floors import measure_floors
from bench.graph import Graph
from bench.measure import adopt_orphans, time_program, watch_memory
from bench.projects import Layout, write_projects
from bench.queries import time_queries
from bench.results import Build, Machine, Peak, Query, Report, What, find_goals
from bench.steps import Share, read_shares
from bench.tools import BuildStream, Morph, Tool, remove_used


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. `graphs` has the smallest first; `definitions` and `system` are for the
    commands that only read, and None leaves these out."""

    graphs: tuple[Graph, ...]
    defaults: bytes | None
    definitions: Path | None
    system: str | None
    work: Path
    rounds: int
    builders: int
    files: int
    morph: Morph
    buildstream: BuildStream | None


#: Tells a person what is being done.
Tell = Callable[[str], None]

#: How often each kind of build is run in a round, in this order. The short one is the noisy one.
_REPEATS: Mapping[What, int] = {"cold": 1, "no-op": 3}

_T = TypeVar("_T")


def run_plan(plan: Plan, tell: Tell) -> Report:
    """Measure everything. Raises MorphError when anything that is run fails."""
    adopt_orphans()
    tools: list[Tool] = [plan.morph]
    if plan.buildstream is not None:
        tools.append(plan.buildstream)
    plan.work.mkdir(parents=True, exist_ok=True)
    layouts = [
        (
            graph,
            write_projects(graph, plan.work / graph.name, files=plan.files, defaults=plan.defaults),
        )
        for graph in plan.graphs
    ]
    tell("Measuring what the machine can do")
    floors = measure_floors(layouts[0][1])
    queries = _time_queries(plan, tell)
    builds: list[Build] = []
    peaks: list[Peak] = []
    shares: tuple[Share, ...] = ()
    for graph, layout in layouts:
        bench = _Bench(plan, tools, graph, layout, tell)
        builds += bench.time_builds()
        shares = shares or read_shares(layout.morph_cache / "artifacts")
        peaks += bench.watch_builds()
        for tool in tools:
            tool.forget(layout)
    for _, layout in layouts:
        remove_used(layout)
    return Report(
        machine=_describe_machine(),
        builders=plan.builders,
        rounds=plan.rounds,
        versions={tool.name: tool.version() for tool in tools},
        floors=floors,
        builds=tuple(builds),
        peaks=tuple(peaks),
        shares=shares,
        queries=queries,
        goals=find_goals([(g.name, g.chunk_count) for g in plan.graphs], builds, peaks, queries),
    )


def _time_queries(plan: Plan, tell: Tell) -> tuple[Query, ...]:
    if plan.definitions is None or plan.system is None:
        return ()
    tell("Timing validate and list-artifacts")
    return time_queries(plan.morph, plan.definitions, plan.system, plan.work / "queries")


@dataclass(frozen=True, slots=True)
class _Bench:
    """The builds of one graph."""

    plan: Plan
    tools: Sequence[Tool]
    graph: Graph
    layout: Layout
    tell: Tell

    def time_builds(self) -> Iterator[Build]:
        """In each round every tool builds from nothing and then again; the tools take turns, so
        that whatever else the machine does hits both."""
        for number in range(1, self.plan.rounds + 1):
            for tool in self.tools:
                self._start_cold(tool)
                for what, repeats in _REPEATS.items():
                    for _ in range(repeats):
                        timing = self._run(time_program, tool)
                        yield Build(
                            tool.name,
                            self.graph.name,
                            self.graph.chunk_count,
                            what,
                            timing.wall,
                            timing.cpu,
                        )
                    self.tell(
                        f"Round {number} of {self.plan.rounds}, {self.graph.chunk_count} chunks: "
                        f"{what} build by {tool.name} took {timing.wall:.2f} s"
                    )

    def watch_builds(self) -> Iterator[Peak]:
        """Apart from the timed builds, because looking at memory takes time from the builders."""
        for tool in self.tools:
            self.tell(f"Watching the memory of {tool.name}, {self.graph.chunk_count} chunks")
            self._start_cold(tool)
            for what in _REPEATS:
                memory = self._run(watch_memory, tool)
                yield Peak(tool.name, self.graph.name, what, memory.tree, memory.largest)

    def _start_cold(self, tool: Tool) -> None:
        tool.forget(self.layout)
        os.sync()  # else a tool pays for what the one before it wrote

    def _run(self, measure: Callable[..., _T], tool: Tool) -> _T:
        argv, directory = tool.build(self.layout, self.plan.builders)
        return measure(
            argv,
            cwd=directory,
            environment=tool.environment(),
            log=self.layout.root / f"{tool.name}.log",
        )


def _describe_machine() -> Machine:
    return Machine(
        cpus=len(os.sched_getaffinity(0)),
        kernel=platform.release(),
        python=platform.python_version(),
        user="ordinary" if os.getuid() else "root",
    )
