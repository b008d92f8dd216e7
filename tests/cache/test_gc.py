from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from morphlib.cache.gc import GcReport, collect
from morphlib.cache.gcplan import Limits, What
from morphlib.cache.inuse import InUse
from morphlib.cache.inventory import GcDirectories
from morphlib.cache.locks import Lock, acquire_directory
from morphlib.cache.store import ArtifactStore
from morphlib.cache.trees import remove_tree
from morphlib.errors import MorphError, Reason
from morphlib.events import AnyEvent, Status
from tests.cache.conftest import Told, key_for, publish

DAY = 86400.0
NEVER_ENOUGH = Limits(1 << 60, 1 << 60)
ALWAYS_ENOUGH = Limits(0, 0)
KEY, OTHER = key_for("one"), key_for("other")


@pytest.fixture
def where(tmp_path: Path) -> GcDirectories:
    return GcDirectories(tmp_path / "cache", tmp_path / "temp")


@pytest.fixture
def store(where: GcDirectories) -> Iterator[ArtifactStore]:
    with ArtifactStore(where.artifacts) as made:
        yield made


def make_area(where: GcDirectories, name: str) -> Path:
    area = where.staging / name
    (area / "zlib.build").mkdir(parents=True)
    (area / "zlib.build" / "file").write_bytes(b"x" * 5000)
    for suffix in (".log", ".sh"):
        (where.staging / (name + suffix)).write_text("text")
    return area


def make_layer(where: GcDirectories, key: str) -> Path:
    layer = where.chunks / f"{key}.chunk.bins.d"
    (layer / "usr").mkdir(parents=True)
    (layer / "usr" / "file").write_bytes(b"x" * 5000)
    (layer / "usr").chmod(0o555)
    return layer


def age(store: ArtifactStore, key: str, days: float) -> None:
    manifest = store.directory / f"{key}.manifest"
    then = manifest.stat().st_mtime - days * DAY
    os.utime(manifest, (then, then))


def removed(report: GcReport) -> list[tuple[What, str]]:
    return [(action.candidate.what, action.candidate.name) for action in report.removed]


def test_nothing_there_is_fine(where: GcDirectories, told: Told) -> None:
    report = collect(where, ALWAYS_ENOUGH, told)
    assert report.sufficient
    assert not (report.removed or report.kept or report.failed)
    assert told.warnings() == ["Made sufficient space"]


def test_abandoned_staging_areas_go_and_locked_ones_stay(where: GcDirectories, told: Told) -> None:
    gone, busy = make_area(where, "gone"), make_area(where, "busy")
    (where.staging / "vanished.log").write_text("text")
    (where.staging / "vanished.sh").write_text("text")
    (where.staging / "notes.txt").write_text("not ours")
    held = acquire_directory(busy)
    assert held is not None
    with held:
        report = collect(where, ALWAYS_ENOUGH, told)
    assert sorted(os.listdir(where.staging)) == ["busy", "busy.log", "busy.sh", "notes.txt"]
    assert not gone.exists()
    assert [kept.candidate.name for kept in report.kept] == ["busy"]
    assert report.freed > 5000


def test_orphan_temporaries_go_and_those_being_written_stay(
    where: GcDirectories, store: ArtifactStore, told: Told
) -> None:
    ours = store.temporary()
    ours.write_bytes(b"being written")
    orphan = where.artifacts / "tmp-0123456789ab-cdef"
    orphan.write_bytes(b"x" * 9000)
    (where.artifacts / "tmp-0123456789ab.lock").touch()
    report = collect(where, ALWAYS_ENOUGH, told)
    assert ours.exists()
    assert not orphan.exists()
    assert not (where.artifacts / "tmp-0123456789ab.lock").exists()
    assert removed(report) == [(What.TEMPORARY, "0123456789ab")]


def test_room_enough_keeps_layers_and_sources(
    where: GcDirectories, store: ArtifactStore, told: Told
) -> None:
    publish(store, KEY, bins=b"one")
    age(store, KEY, 100)
    layer = make_layer(where, KEY)
    report = collect(where, ALWAYS_ENOUGH, told)
    assert report.removed == ()
    assert layer.exists()
    assert store.keys() == [KEY]


def test_what_a_running_build_uses_stays_whatever_the_need(
    where: GcDirectories, store: ArtifactStore, told: Told
) -> None:
    names = {key: publish(store, key, bins=b"one") for key in (KEY, OTHER)}
    layers = {key: make_layer(where, key) for key in (KEY, OTHER)}
    for key in (KEY, OTHER):
        age(store, key, 100)
    with InUse(where.in_use[0], [KEY]):
        report = collect(where, NEVER_ENOUGH, told)
    assert store.check(KEY, names[KEY])
    assert layers[KEY].exists()
    assert not store.check(OTHER, names[OTHER])
    assert not layers[OTHER].exists()
    reasons = {kept.reason for kept in report.kept if kept.candidate.what is not What.TEMPORARY}
    assert reasons == {"a running build uses it"}
    assert not report.sufficient
    assert told.warnings()[-1] == "Unable to clear enough space"


def test_all_files_of_old_sources_go_and_foreign_files_stay(
    where: GcDirectories, store: ArtifactStore, told: Told
) -> None:
    publish(store, KEY, bins=b"one", libs=b"two")
    store.write_log(KEY, b"log")
    publish(store, OTHER, bins=b"young")
    age(store, KEY, 8)
    # All but the last character of a key in common is not the same key.
    sibling = KEY[:-1] + ("0" if KEY[-1] != "0" else "1")
    publish(store, sibling, bins=b"sibling")
    (where.artifacts / "README").write_text("not ours")
    report = collect(where, NEVER_ENOUGH, told)
    assert removed(report) == [(What.SOURCE, KEY)]
    assert [name for name in os.listdir(where.artifacts) if name.startswith(KEY)] == []
    assert store.keys() == sorted([OTHER, sibling])
    assert (where.artifacts / "README").exists()


def test_logs_of_failed_builds_age_too(
    where: GcDirectories, store: ArtifactStore, told: Told
) -> None:
    store.write_log(KEY, b"failed long ago")
    os.utime(store.log_path(KEY), (1, 1))
    store.write_log(OTHER, b"failed now")
    collect(where, NEVER_ENOUGH, told)
    assert not store.log_path(KEY).exists()
    assert store.log_path(OTHER).exists()


def test_a_dry_run_says_the_same_and_removes_nothing(
    where: GcDirectories, store: ArtifactStore, told: Told
) -> None:
    publish(store, KEY, bins=b"one")
    age(store, KEY, 8)
    layer, area = make_layer(where, KEY), make_area(where, "area")
    dry = collect(where, NEVER_ENOUGH, told, dry_run=True)
    assert dry.dry_run
    assert told.warnings() == ["Would be unable to clear enough space"]
    assert layer.exists() and area.exists() and store.keys() == [KEY]
    real = collect(where, NEVER_ENOUGH, told)
    assert removed(dry) == removed(real)
    assert removed(real) == [
        (What.STAGING, "area"),
        (What.LAYER, f"{KEY}.chunk.bins.d"),
        (What.SOURCE, KEY),
    ]
    assert dry.freed == real.freed > 0
    assert store.names() == []


def test_deployments_go_unless_they_run(where: GcDirectories, told: Told) -> None:
    for name in ("done", "running"):
        (where.deployments / name).mkdir(parents=True)
    held = acquire_directory(where.deployments / "running")
    assert held is not None
    with held:
        collect(where, NEVER_ENOUGH, told)
    assert os.listdir(where.deployments) == ["running"]


def test_trees_that_can_not_be_removed_are_reported_and_the_rest_goes_on(
    where: GcDirectories, store: ArtifactStore, told: Told
) -> None:
    stubborn, layer = make_area(where, "stubborn"), make_layer(where, KEY)
    publish(store, OTHER, bins=b"one")
    age(store, OTHER, 8)

    def remove(path: Path) -> None:
        if path == stubborn:
            raise MorphError("files of subordinate ids", reason=Reason.CACHE)
        remove_tree(path)

    report = collect(where, NEVER_ENOUGH, told, remove_tree=remove)
    assert [failure.action.candidate.name for failure in report.failed] == ["stubborn"]
    assert not layer.exists()
    assert store.keys() == []
    assert any("subordinate ids" in text for text in told.warnings())


def test_what_a_killed_collection_left_half_removed_goes_next_time(
    where: GcDirectories, told: Told
) -> None:
    make_layer(where, KEY)

    def die(path: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(where, NEVER_ENOUGH, told, remove_tree=die)
    (left,) = os.listdir(where.chunks)
    assert not left.startswith(KEY)
    collect(where, ALWAYS_ENOUGH, told)
    assert os.listdir(where.chunks) == []


def test_who_comes_after_the_plan_was_made_is_respected(
    where: GcDirectories, store: ArtifactStore
) -> None:
    """Telling of a removal comes right before it: builds, shells and uses begin in that moment."""
    area = make_area(where, "area")
    layer = make_layer(where, KEY)
    for key in (KEY, OTHER):
        publish(store, key, bins=b"one")
        age(store, key, 8)
    claim = InUse(where.in_use[0], [KEY])
    locks: list[Lock] = []

    def interfere(event: AnyEvent) -> None:
        text = event.text if isinstance(event, Status) else ""
        if "temp subdirectory" in text:
            held = acquire_directory(area)
            assert held is not None
            locks.append(held)
        elif "unpacked" in text:
            claim.__enter__()
        elif OTHER in text:
            store.touch([OTHER])

    report = collect(where, NEVER_ENOUGH, interfere)
    claim.__exit__()
    locks[0].release()
    assert report.removed == ()
    assert area.exists() and layer.exists()
    assert store.keys() == sorted([KEY, OTHER])


def test_a_source_claimed_after_the_plan_was_made_stays(
    where: GcDirectories, store: ArtifactStore
) -> None:
    publish(store, KEY, bins=b"one")
    age(store, KEY, 8)
    with ExitStack() as stack:

        def claim(event: AnyEvent) -> None:
            stack.enter_context(InUse(where.in_use[0], [KEY]))

        collect(where, NEVER_ENOUGH, claim)
    assert store.keys() == [KEY]


def test_what_others_removed_meanwhile_is_no_failure(
    where: GcDirectories, store: ArtifactStore
) -> None:
    layer = make_layer(where, KEY)
    report = collect(where, NEVER_ENOUGH, lambda event: remove_tree(layer))
    assert not (report.failed or report.removed or report.kept)
