"""Where the time of a cold chunk goes, from the times that Morph keeps beside its artifacts."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from morphlib.definitions.models import STEPS
from morphlib.errors import MorphError, Reason

_OVERALL = "overall-build"

#: The phases of a chunk's build, by what they do. A phase that is not here stands for itself.
_GROUPS: Mapping[str, tuple[str, ...]] = {
    "source": ("extract",),
    "staging": ("stage", "mount"),
    "sandbox": STEPS,
    "split": ("determine-splits",),
    "store": ("create-chunks", "store"),
}
_GROUP_OF = {phase: group for group, phases in _GROUPS.items() for phase in phases}


class Share(msgspec.Struct, frozen=True):
    """What one part of a chunk's build takes: milliseconds of wall time, the mean of all chunks."""

    part: str
    milliseconds: float


class _Phase(msgspec.Struct):
    delta: str  # seconds


class _Meta(msgspec.Struct):
    times: dict[str, _Phase] = msgspec.field(name="build-times")


def read_shares(artifacts: Path) -> tuple[Share, ...]:
    """The shares of the chunks in a cache's directory of artifacts, which one build filled.

    The last share, "all", is a chunk's whole time; "rest" is what no phase accounts for. Raises
    MorphError if there are no times of chunks.
    """
    keys = {path.name.partition(".")[0] for path in artifacts.glob("*.chunk.*")}
    metas = [artifacts / f"{key}.meta" for key in sorted(keys)]
    try:
        times = [msgspec.json.decode(path.read_bytes(), type=_Meta).times for path in metas]
        chunks = [{name: float(phase.delta) for name, phase in item.items()} for item in times]
    except (OSError, ValueError) as error:
        raise MorphError(
            f"can't read the times of a chunk: {error}", reason=Reason.CACHE
        ) from error
    if not chunks:
        raise MorphError(f"there are no chunks in {artifacts}", reason=Reason.NOT_FOUND)
    return mean_shares(chunks)


def mean_shares(chunks: Iterable[Mapping[str, float]]) -> tuple[Share, ...]:
    """The shares of chunks, of each of which the seconds of every phase are given."""
    sums: list[dict[str, float]] = []
    for phases in chunks:
        groups = dict.fromkeys(_GROUPS, 0.0)
        for name, seconds in phases.items():
            if name != _OVERALL:
                group = _GROUP_OF.get(name, name)
                groups[group] = groups.get(group, 0.0) + seconds
        known = sum(groups.values())
        total = phases.get(_OVERALL, known)
        sums.append(groups | {"rest": max(0.0, total - known), "all": total})
    parts = dict.fromkeys(part for chunk in sums for part in chunk if part not in ("rest", "all"))
    return tuple(
        Share(part, statistics.fmean(chunk.get(part, 0.0) for chunk in sums) * 1000)
        for part in (*parts, "rest", "all")
    )
