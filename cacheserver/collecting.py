"""Removing artifacts that nobody used for long, by age and by size, while the server runs or not.

What is handed out, stored or asked for counts as used. Builds and deployments of this machine that
share the directory register what they use beside it, and nothing of that goes.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from cacheserver.settings import ServerSettings
from morphlib.cache.gc import GcReport, collect
from morphlib.cache.gcplan import Limits, Place
from morphlib.cache.inventory import GcDirectories
from morphlib.cache.space import Room, measure
from morphlib.errors import MorphError
from morphlib.events import Listener

_log = logging.getLogger("morph.cacheserver")


@dataclass(frozen=True, slots=True)
class ServerDirectories(GcDirectories):
    """Artifacts alone: the server has no directory for temporary files."""

    artifact_dir: Path = Path()

    @classmethod
    def of(cls, artifacts: Path) -> ServerDirectories:
        return cls(artifacts.parent, artifacts / ".none", artifacts)

    @property
    def artifacts(self) -> Path:
        return self.artifact_dir

    @property
    def in_use(self) -> tuple[Path, ...]:
        return (self.cachedir / "in-use",)

    def room(self, place: Place) -> Room:
        return measure(self.artifact_dir, 0)


def limits_of(settings: ServerSettings) -> Limits:
    return Limits(
        tempdir_min=0,
        cachedir_min=settings.gc_min_space,
        delete_older_than=float("inf"),
        keep_younger_than=settings.gc_keep_younger_than,
        max_size=settings.gc_max_size,
        expire_after=settings.gc_expire_after,
    )


def has_limits(settings: ServerSettings) -> bool:
    return bool(settings.gc_max_size or settings.gc_min_space or settings.gc_expire_after)


def collect_once(settings: ServerSettings, listener: Listener, *, dry_run: bool) -> GcReport:
    """Raises MorphError if the directory can't be read."""
    where = ServerDirectories.of(settings.artifact_dir)
    return collect(where, limits_of(settings), listener, dry_run=dry_run)


def start_collecting(settings: ServerSettings, listener: Listener) -> None:
    """Collect now and then in a thread, if there is a reason to. Failures are logged."""
    if settings.gc_interval and has_limits(settings):
        thread = threading.Thread(target=_collect_forever, args=(settings, listener), daemon=True)
        thread.start()


def _collect_forever(settings: ServerSettings, listener: Listener) -> None:
    pause = threading.Event()
    while True:
        try:
            report = collect_once(settings, listener, dry_run=False)
        except MorphError as error:
            _log.error("can't remove old artifacts: %s", error)
        except Exception:
            _log.exception("can't remove old artifacts")
        else:
            if report.removed:
                count, freed = len(report.removed), report.freed
                _log.info("removed %d sources, %d bytes; kept %d", count, freed, len(report.kept))
        pause.wait(settings.gc_interval)


def describe(report: GcReport) -> str:
    """What went, or would go, and what stays, each with the reason."""
    verb = "would remove" if report.dry_run else "removed"
    lines = [f"{verb} {each.candidate}: {each.reason}" for each in report.removed]
    lines += [f"could not remove {each.action.candidate}: {each.message}" for each in report.failed]
    lines += [f"kept {each.candidate}: {each.reason}" for each in report.kept]
    lines.append(f"{verb} {len(report.removed)}, {report.freed} bytes; kept {len(report.kept)}")
    return "".join(f"{line}\n" for line in lines)
