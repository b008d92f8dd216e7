"""What garbage collection would remove, and why: arithmetic on what was found on disk.

What nobody can need any more goes in any case: staging areas that no build holds, what belongs to
areas that vanished, temporary files whose writers died, and sources that were not used for as long
as somebody said. The rest goes only while there is too little room: first deployments and unpacked
layers in the directory for temporary files, then sources in the artifact cache, of which there may
also be too much. Nothing goes that a running build uses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

_CLOCK_TOLERANCE = 86400.0  # seconds by which clocks of machines that share a cache may differ


class Place(StrEnum):
    """The two directories in which there may be too little room."""

    TEMP = "tempdir"
    CACHE = "cachedir"


class What(StrEnum):
    """Kinds of things that garbage collection knows."""

    STAGING = "staging area"
    LEFTOVER = "leftover"  # files of a vanished staging area, trees half removed
    TEMPORARY = "temporary file"
    DEPLOYMENT = "deployment"
    LAYER = "unpacked artifact"
    SOURCE = "source"  # all files of one key in the artifact cache


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that could be removed.

    `name` is a directory entry or a key, `paths` all that goes with it, `size` the bytes that this
    frees, `last_used` seconds since the epoch. `held` says who needs it, if anybody does.
    """

    what: What
    name: str
    paths: tuple[Path, ...]
    size: int
    last_used: float
    held: str = ""

    @property
    def place(self) -> Place:
        in_cache = self.what in (What.SOURCE, What.TEMPORARY)
        return Place.CACHE if in_cache else Place.TEMP

    def __str__(self) -> str:
        return f"{self.what} {self.name}"


@dataclass(frozen=True, slots=True)
class Inventory:
    """What is on disk. Free space is in bytes, by place."""

    candidates: tuple[Candidate, ...]
    temp_free: int
    cache_free: int
    one_device: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """Settings: free bytes to reach, and seconds since last use of sources.

    Sources unused for longer than `delete_older_than` go first, all of them; those used within
    `keep_younger_than` never go.
    """

    tempdir_min: int
    cachedir_min: int
    delete_older_than: float = 7 * 86400.0
    keep_younger_than: float = 86400.0
    #: bytes that all sources together may take; 0: any number
    max_size: int = 0
    #: seconds after which an unused source goes even if there is room; 0: never
    expire_after: float = 0.0

    def required(self, place: Place, *, one_device: bool) -> int:
        """The free bytes that a place should have: on one device, what both need together."""
        if one_device:
            return self.tempdir_min + self.cachedir_min
        return self.tempdir_min if place is Place.TEMP else self.cachedir_min


@dataclass(frozen=True, slots=True)
class GcAction:
    """One removal. With `until_enough` it is needed only while that place has too little room."""

    candidate: Candidate
    reason: str
    until_enough: Place | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """Something that stays, and why."""

    candidate: Candidate
    reason: str


@dataclass(frozen=True, slots=True)
class GcPlan:
    """Removals in order, what stays, and whether there should be room enough in the end. `fits`:
    whether the sources then take no more than they may."""

    actions: tuple[GcAction, ...]
    kept: tuple[Kept, ...]
    sufficient: bool
    fits: bool = True


@dataclass(slots=True)
class _Planner:
    """Free space as it will be after the actions so far."""

    inventory: Inventory
    limits: Limits
    free: dict[Place, int]
    taken: int  # by sources
    actions: list[GcAction] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)

    def is_short(self, place: Place) -> bool:
        required = self.limits.required(place, one_device=self.inventory.one_device)
        return self.free[place] < required

    @property
    def is_too_much(self) -> bool:
        return 0 < self.limits.max_size < self.taken

    def remove(self, candidate: Candidate, reason: str, until_enough: Place | None = None) -> None:
        self.actions.append(GcAction(candidate, reason, until_enough))
        gaining = tuple(Place) if self.inventory.one_device else (candidate.place,)
        for place in gaining:
            self.free[place] += candidate.size
        if candidate.what is What.SOURCE:
            self.taken -= candidate.size

    def keep(self, candidate: Candidate, reason: str) -> None:
        self.kept.append(Kept(candidate, reason))

    def unused(self, *kinds: What) -> Iterator[Candidate]:
        """Candidates of these kinds that nobody holds, oldest first; the others are kept."""
        for kind in kinds:
            found = [each for each in self.inventory.candidates if each.what is kind]
            for candidate in sorted(found, key=lambda each: (each.last_used, each.name)):
                if candidate.held:
                    self.keep(candidate, candidate.held)
                else:
                    yield candidate


def plan_collection(inventory: Inventory, limits: Limits, now: float) -> GcPlan:
    """Decide what to remove. `now` is in seconds since the epoch."""
    free = {Place.TEMP: inventory.temp_free, Place.CACHE: inventory.cache_free}
    taken = sum(each.size for each in inventory.candidates if each.what is What.SOURCE)
    planner = _Planner(inventory, limits, free, taken)
    _plan_garbage(planner)
    _plan_temp(planner)
    _plan_sources(planner, now)
    fits = not planner.is_too_much
    sufficient = fits and not any(planner.is_short(place) for place in Place)
    return GcPlan(tuple(planner.actions), tuple(planner.kept), sufficient, fits)


def _plan_garbage(planner: _Planner) -> None:
    reasons = {
        What.STAGING: "no build uses it any more",
        What.LEFTOVER: "what it belonged to is gone",
        What.TEMPORARY: "who was writing it is gone",
    }
    for candidate in planner.unused(*reasons):
        planner.remove(candidate, reasons[candidate.what])


def _plan_temp(planner: _Planner) -> None:
    for candidate in planner.unused(What.DEPLOYMENT, What.LAYER):
        if planner.is_short(Place.TEMP):
            planner.remove(candidate, "there is too little room", Place.TEMP)
        else:
            planner.keep(candidate, "there is room enough")


def _plan_sources(planner: _Planner, now: float) -> None:
    limits = planner.limits
    unused = _expire(planner, planner.unused(What.SOURCE), now)
    if not planner.is_short(Place.CACHE) and not planner.is_too_much:
        _keep_all(planner, unused)
        return
    younger: list[Candidate] = []
    for candidate in unused:
        age = now - candidate.last_used
        if age > limits.delete_older_than:
            planner.remove(candidate, f"not used for {describe_age(age)}")
        else:
            younger.append(candidate)
    for candidate in younger:
        age = now - candidate.last_used
        if age < -_CLOCK_TOLERANCE:
            planner.keep(candidate, "last used in the future, says its file: a clock is wrong")
        elif age <= limits.keep_younger_than:
            planner.keep(candidate, f"used {describe_age(age)} ago")
        elif planner.is_too_much:
            reason = f"not used for {describe_age(age)}, and the cache is larger than it may be"
            planner.remove(candidate, reason)
        elif planner.is_short(Place.CACHE):
            reason = f"not used for {describe_age(age)}, and there is too little room"
            planner.remove(candidate, reason, Place.CACHE)
        else:
            planner.keep(candidate, "there is room enough")


def _expire(planner: _Planner, unused: Iterable[Candidate], now: float) -> list[Candidate]:
    """Remove those that nobody used for too long in any case. Returns the others."""
    limit = planner.limits.expire_after
    left = []
    for candidate in unused:
        age = now - candidate.last_used
        if limit and age > max(limit, planner.limits.keep_younger_than):
            planner.remove(candidate, f"not used for {describe_age(age)}")
        else:
            left.append(candidate)
    return left


def _keep_all(planner: _Planner, candidates: Iterable[Candidate]) -> None:
    for candidate in candidates:
        planner.keep(candidate, "there is room enough")


def describe_age(seconds: float) -> str:
    """`seconds` in the largest unit of which there are two or more."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} seconds"
