"""What a run of the benchmark found: data that becomes JSON, and the goals computed from it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from bench.floors import Floor
from bench.steps import Share

What = Literal["cold", "no-op"]

#: At most this part of the wall time that BuildStream takes for the same build.
_BUILD_LIMITS: Mapping[What, float] = {"cold": 1 / 4, "no-op": 1 / 6}

#: A chunk of the large graph may cost this times what one of the small graph costs: larger systems
#: have more dependencies to mount, but must not cost more than in proportion.
_COST_LIMIT = 1.1

#: Seconds.
_QUERY_LIMITS = {"validate": 0.6, "list-artifacts": 0.25}


class Machine(msgspec.Struct, frozen=True):
    cpus: int
    kernel: str
    python: str
    user: Literal["root", "ordinary"]


class Build(msgspec.Struct, frozen=True):
    """One build of a whole graph. Times are seconds."""

    tool: str
    graph: str
    chunks: int
    what: What
    wall: float
    cpu: float


class Peak(msgspec.Struct, frozen=True):
    """The memory of one build of a whole graph, in bytes: of all processes at one moment, and of
    the largest process alone."""

    tool: str
    graph: str
    what: What
    tree: int
    largest: int


class Query(msgspec.Struct, frozen=True):
    """The seconds that a command took as a whole process, run by run."""

    what: Literal["validate", "list-artifacts"]
    subject: str
    walls: tuple[float, ...]


class Goal(msgspec.Struct, frozen=True):
    """A figure that must not exceed its limit."""

    what: str
    value: float
    limit: float
    unit: Literal["ratio", "seconds"]

    @property
    def met(self) -> bool:
        return self.value <= self.limit


class Report(msgspec.Struct, frozen=True):
    machine: Machine
    builders: int
    rounds: int
    versions: dict[str, str]  # by tool
    floors: tuple[Floor, ...]
    builds: tuple[Build, ...]
    peaks: tuple[Peak, ...]
    shares: tuple[Share, ...]
    queries: tuple[Query, ...]
    goals: tuple[Goal, ...] = ()


def median_wall(builds: Iterable[Build], tool: str, graph: str, what: What) -> float | None:
    """Seconds; None where there was no such build."""
    walls = [b.wall for b in builds if (b.tool, b.graph, b.what) == (tool, graph, what)]
    return statistics.median(walls) if walls else None


def find_goals(
    graphs: Sequence[tuple[str, int]],
    builds: Sequence[Build],
    peaks: Sequence[Peak],
    queries: Sequence[Query],
) -> tuple[Goal, ...]:
    """The goals that can be judged by what was measured.

    `graphs` are names and numbers of chunks, the smallest first: that one is compared with
    BuildStream, and the last one with it for the cost per chunk.
    """
    (small, small_chunks), (_, large_chunks) = graphs[0], graphs[-1]
    goals: list[Goal] = []

    def add_ratio(text: str, value: float | None, other: float | None, limit: float) -> None:
        if value is not None and other:
            goals.append(Goal(text, value / other, limit, "ratio"))

    for what, limit in _BUILD_LIMITS.items():
        mine, theirs = (median_wall(builds, tool, small, what) for tool in ("morph", "buildstream"))
        add_ratio(
            f"{what} build of {small_chunks} chunks: Morph / BuildStream", mine, theirs, limit
        )
    memory = {(p.tool, p.graph, p.what): float(p.tree) for p in peaks}
    for graph, chunks in dict(graphs).items():
        text = f"memory of the cold build of {chunks} chunks: Morph / BuildStream"
        mine, theirs = (memory.get((tool, graph, "cold")) for tool in ("morph", "buildstream"))
        add_ratio(text, mine, theirs, 1)
    if large_chunks > small_chunks:
        costs = [
            wall / chunks
            for graph, chunks in (graphs[0], graphs[-1])
            if (wall := median_wall(builds, "morph", graph, "cold")) is not None
        ]
        if len(costs) == 2:
            text = f"Morph's cost per chunk: {large_chunks} chunks / {small_chunks} chunks"
            add_ratio(text, costs[1], costs[0], _COST_LIMIT)
    for query in queries:
        text = f"morph {query.what} ({query.subject})"
        goals.append(
            Goal(text, statistics.median(query.walls), _QUERY_LIMITS[query.what], "seconds")
        )
    return tuple(goals)
