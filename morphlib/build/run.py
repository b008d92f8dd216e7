"""A build from plan to artifacts.

What is not in the store is built by an executor; nothing here knows where it does that. A build
with nothing to do loads no executor.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from morphlib import events
from morphlib.build.model import BuildContext
from morphlib.build.plan import Plan, make_plan
from morphlib.cache.records import Records
from morphlib.cache.trust import find_whole
from morphlib.errors import MorphError, raise_all
from morphlib.events import Listener

if TYPE_CHECKING:
    from morphlib.build.crew import Crew


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What a build came to. `artifacts` holds the paths of the targets' artifacts."""

    artifacts: tuple[Path, ...]
    built: tuple[str, ...]
    cached: tuple[str, ...]


def plan_build(context: BuildContext, targets: Sequence[str]) -> Plan:
    """Look what is in the store, and decide what to build for `targets` (ids of sources)."""
    store, graph = context.store, context.graph
    reached = graph.reachable(targets)
    before = set(store.keys())
    present = store.check_many({source.key: source.filenames() for source in reached})
    damaged = {s.key for s in reached if s.key in before and s.key not in present}
    plan = make_plan(graph, targets, present, damaged)
    if context.remote is None or not plan.build:
        return plan
    missing = [graph.source(source_id) for source_id in plan.build]
    remote = find_whole(context.remote, {source.key: source.filenames() for source in missing})
    return make_plan(graph, targets, present, damaged, remote) if remote else plan


def run_build(
    context: BuildContext,
    targets: Sequence[str],
    records: Records,
    listener: Listener,
    crew: Crew | None = None,
) -> BuildResult:
    """Build `targets` (ids of sources) and all that they need and is not in the store.

    With a `crew`, by builders that go on after it.

    Raises MorphError: what failed, or all that failed. Ctrl-C (KeyboardInterrupt) and SIGTERM leave
    nothing running, mounted or half-written.
    """
    started = time.monotonic()
    plan = plan_build(context, targets)
    context.store.touch(context.graph.source(i).key for i in (*plan.cached, *plan.targets))
    if not plan.build and not plan.fetch:
        listener(
            events.BuildStarted(
                target=context.graph.system.name, total=plan.total, cached=plan.total, slots=0
            )
        )
        errors: list[MorphError] = []
        built: tuple[str, ...] = ()
        failed = skipped = fetched = elsewhere = 0
    else:
        from morphlib.build.area import remove_abandoned
        from morphlib.build.interruption import terminated_like_interrupted
        from morphlib.build.local import LocalBuild

        remove_abandoned(context.options.staging)
        run = LocalBuild(context, plan, records, listener, crew)
        with terminated_like_interrupted():
            run.run()
        plan, errors, built = run.plan, run.errors, tuple(run.built)
        failed, fetched, elsewhere = run.failed, run.fetched, run.elsewhere
        wanted = len(plan.build) + len(plan.fetch)
        skipped = wanted - len(built) - fetched - failed - elsewhere
    artifacts = _tell_artifacts(context, plan, listener) if not errors else ()
    listener(
        events.BuildFinished(
            target=context.graph.system.name,
            succeeded=not errors,
            built=len(built),
            cached=plan.untouched + elsewhere,
            fetched=fetched,
            failed=failed,
            skipped=skipped,
            duration=time.monotonic() - started,
        )
    )
    raise_all(errors)
    return BuildResult(artifacts, built, plan.cached)


def _tell_artifacts(context: BuildContext, plan: Plan, listener: Listener) -> tuple[Path, ...]:
    paths = []
    for target in plan.targets:
        source = context.graph.source(target)
        for artifact in source.artifacts:
            path = context.store.path(source.filename(artifact))
            paths.append(path)
            listener(events.ArtifactCached(kind=source.kind.value, name=artifact, path=str(path)))
    return tuple(paths)
