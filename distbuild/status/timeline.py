"""When the steps of a build were built, and where: a lane for each slot of a worker."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from distbuild.status.history import NO_STEP, Attempt, AttemptState, Planned


class Bar(msgspec.Struct, frozen=True):
    """An attempt in the timeline. Seconds count from the begin of it; without `until` it runs."""

    job: str
    key: str
    name: str
    lane: int
    since: float
    until: float | None
    state: AttemptState
    is_critical: bool


class Timeline(msgspec.Struct, frozen=True):
    """`began` is seconds since the epoch. Each lane is a worker, or one of its slots."""

    began: float
    span: float
    lanes: tuple[str, ...]
    bars: tuple[Bar, ...]


def view_timeline(
    planned: Planned,
    attempts: Mapping[str, tuple[Attempt, ...]],
    on_path: frozenset[str],
    until: float,
) -> Timeline:
    """The attempts at a build's steps, by key; those in `on_path` are critical. `until`: when the
    build ended, or now, in seconds since the epoch."""
    every = sorted(
        (attempt for found in attempts.values() for attempt in found),
        key=lambda attempt: (attempt.began, attempt.worker, attempt.slot),
    )
    lanes: dict[tuple[str, int], int] = {}
    bars = []
    for each in every:
        lane = lanes.setdefault((each.worker, each.slot), len(lanes))
        end = each.built if each.built is not None else each.ended
        bars.append(
            Bar(
                job=each.job,
                key=each.key,
                name=planned.names.get(each.key, NO_STEP).name,
                lane=lane,
                since=max(0.0, each.began - planned.at),
                until=None if end is None else max(0.0, end - planned.at),
                state=each.state,
                is_critical=each.key in on_path,
            )
        )
    shared = {worker for worker, slot in lanes if slot}
    return Timeline(
        began=planned.at,
        span=max(1.0, until - planned.at),
        lanes=tuple(
            f"{worker} #{slot + 1}" if worker in shared else worker for worker, slot in lanes
        ),
        bars=tuple(bars),
    )
