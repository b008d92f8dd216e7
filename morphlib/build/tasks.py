"""A plan as tasks for the schedule, and what these may cost, by what builds before took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from morphlib.build.plan import Plan, inputs
from morphlib.build.schedule import Task, estimate_makespan
from morphlib.cache.records import Records
from morphlib.definitions.models import Kind
from morphlib.graph.model import BuildGraph

#: Expected seconds of what was never built here.
UNKNOWN_COST = {Kind.CHUNK: 60.0, Kind.STRATUM: 0.05, Kind.SYSTEM: 20.0}
_FETCH = "fetch:"  # before the id of a source, the task that fetches for it


def fetch_task(source: str) -> str:
    """The id of the task that fetches what a source, given by its id, is built from."""
    return _FETCH + source


def fetched_by(task: str) -> str:
    """The id of the source that such a task fetches for."""
    return task.removeprefix(_FETCH)


def estimate_costs(graph: BuildGraph, plan: Plan, records: Records) -> dict[str, float]:
    """Seconds by id, of those sources to be built that were built before."""
    wanted: dict[Kind, list[tuple[str, str]]] = {}
    for source_id in plan.build:
        source = graph.source(source_id)
        wanted.setdefault(source.kind, []).append((source.name, source.key))
    found: dict[str, float] = {}
    for kind, pairs in wanted.items():
        for name, seconds in records.estimate(pairs, kind=kind.value).items():
            found[f"{kind}:{name}"] = seconds
    return found


def tasks_of(
    graph: BuildGraph, plan: Plan, order: Mapping[str, int], costs: Mapping[str, float]
) -> list[Task]:
    """One task for each source that is built or downloaded, and one for what each chunk is built
    from. `order` numbers sources by id."""
    wanted = {*plan.build, *plan.fetch}
    building = set(plan.build)
    tasks = []
    for source_id in sorted(wanted, key=order.__getitem__):
        if source_id not in building:
            tasks.append(Task(source_id, (), 0.0, "download"))
            continue
        source = graph.source(source_id)
        needs = [needed for needed in inputs(graph, source) if needed in wanted]
        if source.kind is Kind.CHUNK:
            fetch = fetch_task(source_id)
            tasks.append(Task(fetch, (), 0.0, "fetch"))
            needs.append(fetch)
        cost = costs.get(source_id, UNKNOWN_COST[source.kind])
        tasks.append(Task(source_id, tuple(needs), cost))
    return tasks


def expected_time(
    graph: BuildGraph, plan: Plan, tasks: Sequence[Task], costs: Mapping[str, float], slots: int
) -> float | None:
    """Seconds, where enough of the chunks were built before for this to mean something."""
    chunks = [i for i in plan.build if graph.source(i).kind is Kind.CHUNK]
    known = sum(i in costs for i in chunks)
    if known * 2 < len(chunks):
        return None
    return estimate_makespan(tasks, slots)
