"""How far a build is, and how long it will take: what initiators show of that."""

from __future__ import annotations

from distbuild.bounds import lower_bound
from distbuild.builds import Build
from distbuild.messages import CacheState
from morphlib.definitions.models import Kind


def describe_work(build: Build, slots: int) -> CacheState:
    """What there is to do for a build whose graph is known, and what of that is done.

    `slots`: how many steps can be built at a time.
    """
    assert build.graph is not None
    assert build.work is not None
    tasks = build.work.tasks
    root = build.by_key[build.graph.root]
    return CacheState(
        build=build.id,
        unbuilt=len(tasks),
        total=build.work.total,
        built=sum(task.id in build.stored for task in tasks),
        system=root.component,
        estimate=_estimate(build, slots),
    )


def _estimate(build: Build, slots: int) -> float | None:
    """Seconds, where enough of the chunks were built before for this to mean something.

    That no schedule can be faster is no matter: the one that is followed hardly takes longer.
    """
    assert build.work is not None
    left = [task for task in build.work.tasks if task.id not in build.stored]
    chunks = [task for task in left if build.by_key[task.id].kind is Kind.CHUNK]
    measured = sum(build.by_key[task.id].measured for task in chunks)
    if not left or not slots or measured * 2 < len(chunks):
        return None
    return lower_bound([(0.0, left)], slots)
