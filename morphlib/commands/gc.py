"""Make room in the cache and in the directory for temporary files.

Staging areas that no build holds are removed in any case. While there is less free space than
--tempdir-min-space and --cachedir-min-space ask for, deployments, unpacked artifacts and then
artifacts that were not used for long are removed. With --gc-max-size artifacts that were not used
for long are removed until the others take no more than that, and with --gc-expire-after those that
were not used for so long in any case. Nothing is taken from a running build, and nothing that was
used within --cachedir-artifact-keep-younger-than. Mirrors and compiler caches are left alone. With
--dry-run it is only said what would be removed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from morphlib.build.removal import remove_tree
from morphlib.cache.gc import GcReport, collect
from morphlib.cache.gcplan import Candidate, GcAction, Limits, Place
from morphlib.cache.inventory import GcDirectories
from morphlib.cache.ownership import refuse_planted
from morphlib.commands.session import Session


def run(session: Session, arguments: Sequence[str]) -> None:
    settings = session.settings
    refuse_planted(settings.tempdir)
    report = collect(
        GcDirectories(settings.cachedir, settings.tempdir),
        Limits(
            settings.tempdir_min_space,
            settings.cachedir_min_space,
            settings.cachedir_artifact_delete_older_than,
            settings.cachedir_artifact_keep_younger_than,
            settings.gc_max_size,
            settings.gc_expire_after,
        ),
        session.listener,
        dry_run=settings.dry_run,
        remove_tree=remove_tree,
    )
    if settings.json:
        session.print_json(as_data(report))
        return
    verb = "Would remove" if report.dry_run else "Removed"
    for action in report.removed:
        if report.dry_run:
            session.status(f"Would remove {action.candidate}: {action.reason}")
    for kept in report.kept:
        session.chat(f"Kept {kept.candidate}: {kept.reason}")
    session.status(f"{verb} {len(report.removed)} things, {report.freed} bytes")


def as_data(report: GcReport) -> Mapping[str, object]:
    return {
        "dry_run": report.dry_run,
        "sufficient": report.sufficient,
        "freed": report.freed,
        "removed": [_action(action) for action in report.removed],
        "failed": [{**_action(f.action), "message": f.message} for f in report.failed],
        "kept": [{**_candidate(kept.candidate), "reason": kept.reason} for kept in report.kept],
    }


def _action(action: GcAction) -> dict[str, object]:
    return {**_candidate(action.candidate), "reason": action.reason}


def _candidate(candidate: Candidate) -> dict[str, object]:
    return {
        "what": str(candidate.what),
        "name": candidate.name,
        "place": str(Place(candidate.place)),
        "bytes": candidate.size,
        "last_used": candidate.last_used,
    }
