"""Garbage collection: making room without taking anything from a running build.

Looking and planning need no locks. Every single removal looks again: a staging area or deployment
is removed while its lock is held, a layer or source while no build can register that it needs it.
Trees in use by their path are renamed before they are removed, so that nobody meets half of one.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from morphlib.cache.gcplan import (
    GcAction,
    GcPlan,
    Kept,
    Limits,
    Place,
    What,
    plan_collection,
)
from morphlib.cache.inuse import exclude_new_uses
from morphlib.cache.inventory import (
    REMOVING_PREFIX,
    GcDirectories,
    is_locked_by_other,
    take_inventory,
)
from morphlib.cache.locks import KeyLocks, acquire_directory
from morphlib.cache.names import MANIFEST_SUFFIX, key_of
from morphlib.cache.store import ArtifactStore
from morphlib.cache.temporaries import sweep_temporaries
from morphlib.cache.trees import delete_tree, refuse_mounts
from morphlib.errors import MorphError
from morphlib.events import Listener, Status

_USED_BY_NOW = "a build started that uses it"
_ROUNDS = 3  # sizes are estimates, so one plan may turn out not to free enough


@dataclass(frozen=True, slots=True)
class GcFailure:
    """Something that should have been removed and could not be."""

    action: GcAction
    message: str


@dataclass(frozen=True, slots=True)
class GcReport:
    """What garbage collection did, or in a dry run would do. Sizes are bytes."""

    removed: tuple[GcAction, ...]
    kept: tuple[Kept, ...]
    failed: tuple[GcFailure, ...]
    sufficient: bool
    dry_run: bool

    @property
    def freed(self) -> int:
        return sum(action.candidate.size for action in self.removed)


def collect(
    where: GcDirectories,
    limits: Limits,
    listener: Listener,
    *,
    dry_run: bool = False,
    remove_tree: Callable[[Path], None] = delete_tree,
    clock: Callable[[], float] = time.time,
) -> GcReport:
    """Make room, as far as needed and possible, and tell how that went.

    `remove_tree` removes a directory that a build left and raises OSError or MorphError if it
    can't: files owned by subordinate ids can only be removed within a user namespace that has them.
    Several collections of one cache run one after the other. Raises MorphError if the directories
    can't be read.
    """
    if dry_run:
        plan = plan_collection(take_inventory(where, limits), limits, clock())
        report = GcReport(plan.actions, plan.kept, (), plan.sufficient, dry_run=True)
    else:
        locks = KeyLocks(where.locks)
        with locks.acquire("gc"):
            locks.sweep()
            report = _Collection(where, limits, listener, remove_tree).run(clock)
    _tell_outcome(report, listener)
    return report


class _Collection:
    """One run of garbage collection."""

    def __init__(
        self,
        where: GcDirectories,
        limits: Limits,
        listener: Listener,
        remove_tree: Callable[[Path], None],
    ) -> None:
        self.where = where
        self.limits = limits
        self._listener = listener
        self._delete = remove_tree
        self._removed: list[GcAction] = []
        self._fits = True
        self._failed: dict[tuple[What, str], GcFailure] = {}

    def run(self, clock: Callable[[], float]) -> GcReport:
        kept: tuple[Kept, ...] = ()
        for number in range(_ROUNDS):
            if number:
                os.sync()  # some file systems count what was freed only now
            plan = plan_collection(take_inventory(self.where, self.limits), self.limits, clock())
            before = len(self._removed)
            kept = (*plan.kept, *self._execute(plan))
            self._fits = plan.fits
            if self._is_sufficient() or len(self._removed) == before:
                break
        failed = tuple(self._failed.values())
        return GcReport(tuple(self._removed), kept, failed, self._is_sufficient(), dry_run=False)

    def _execute(self, plan: GcPlan) -> list[Kept]:
        kept: list[Kept] = []
        for action in plan.actions:
            candidate = action.candidate
            if (candidate.what, candidate.name) in self._failed:
                continue
            if action.until_enough is not None and not self._is_short(action.until_enough):
                kept.append(Kept(candidate, "there is room enough"))
                continue
            self._tell(action)
            try:
                refusal = self._remove(action)
            except FileNotFoundError:
                continue  # somebody else removed it
            except (OSError, MorphError) as error:
                self._failed[candidate.what, candidate.name] = GcFailure(action, str(error))
                continue
            if refusal is None:
                self._removed.append(action)
            else:
                kept.append(Kept(candidate, refusal))
        return kept

    def _tell(self, action: GcAction) -> None:
        """People see which work directories go; of artifacts there may be thousands."""
        candidate = action.candidate
        if candidate.what in (What.STAGING, What.DEPLOYMENT):
            self._listener(Status(text=f"Removing temp subdirectory: {candidate.name}"))
        else:
            self._listener(Status(text=f"Removing {candidate}: {action.reason}", level="chatty"))

    def _remove(self, action: GcAction) -> str | None:
        """Remove it unless it is needed after all; then the result says by whom."""
        match action.candidate.what:
            case What.STAGING | What.DEPLOYMENT:
                return self._remove_locked(action)
            case What.LAYER:
                return self._remove_layer(action)
            case What.SOURCE:
                return self._remove_source(action)
            case What.LEFTOVER:
                self._remove_tree(action.candidate.paths[0])
            case What.TEMPORARY:
                sweep_temporaries(self.where.artifacts)
        return None

    def _remove_tree(self, path: Path) -> None:
        refuse_mounts(path)
        self._delete(path)

    def _remove_locked(self, action: GcAction) -> str | None:
        *beside, directory = action.candidate.paths
        if directory.is_symlink() or not directory.is_dir():
            directory.unlink()
            return None
        held = acquire_directory(directory, blocking=False)
        if held is None:
            return "somebody is in it by now"
        with held:
            for path in beside:
                path.unlink(missing_ok=True)
            self._remove_tree(directory)
        return None

    def _remove_layer(self, action: GcAction) -> str | None:
        (path,) = action.candidate.paths
        aside = path.with_name(REMOVING_PREFIX + secrets.token_hex(6))
        with exclude_new_uses(self.where.in_use) as used:
            if key_of(path.name) in used or is_locked_by_other(path):
                return _USED_BY_NOW
            path.rename(aside)
        self._remove_tree(aside)
        return None

    def _remove_source(self, action: GcAction) -> str | None:
        candidate = action.candidate
        names = [path.name for path in candidate.paths if path.suffix != MANIFEST_SUFFIX]
        with exclude_new_uses(self.where.in_use) as used:
            if candidate.name in used:
                return _USED_BY_NOW
            store = ArtifactStore(self.where.artifacts)
            last_used = store.last_used(candidate.name)
            if last_used is not None and last_used != candidate.last_used:
                return "it was used just now"
            store.remove(candidate.name, names)
        return None

    def _is_short(self, place: Place) -> bool:
        temp, cache = self.where.room(Place.TEMP), self.where.room(Place.CACHE)
        room = temp if place is Place.TEMP else cache
        required = self.limits.required(place, one_device=temp.device == cache.device)
        return room.available < required

    def _is_sufficient(self) -> bool:
        return self._fits and not any(self._is_short(place) for place in Place)


def _tell_outcome(report: GcReport, listener: Listener) -> None:
    for failure in report.failed:
        text = f"could not remove {failure.action.candidate}: {failure.message}"
        listener(Status(text=text, level="warning"))
    if report.sufficient:
        text = "Would make sufficient space" if report.dry_run else "Made sufficient space"
        listener(Status(text=text))
    else:
        text = "Would be unable" if report.dry_run else "Unable"
        listener(Status(text=f"{text} to clear enough space", level="error"))
