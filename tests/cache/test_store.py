from __future__ import annotations

import os
import shutil
import stat
import time
from pathlib import Path

import msgspec
import pytest

from morphlib.cache.manifest import digest_file
from morphlib.cache.store import ArtifactStore
from morphlib.errors import MorphError, Reason
from tests.cache.conftest import Told, key_for, publish

KEY = key_for("zlib")


def alter(path: Path, offset: int = 0) -> None:
    """Flip a bit of a file and give it back its size and modification time."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_was_published_is_there(store: ArtifactStore) -> None:
    names = publish(store, KEY, bins=b"one", libs=b"two")
    assert store.check(KEY, names)
    assert store.path(names[0]).read_bytes() == b"one"
    assert store.keys() == [KEY]
    assert store.names() == sorted([*names, f"{KEY}.meta"])
    assert (
        store.digest(names[1]) == "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"
    )


def test_a_store_without_directory_is_empty(store: ArtifactStore, tmp_path: Path) -> None:
    assert store.names() == store.keys() == []
    assert not store.check(KEY, [f"{KEY}.chunk.bins"])
    assert not (tmp_path / "artifacts").exists()


def test_nothing_but_finished_files_is_left(store: ArtifactStore) -> None:
    names = publish(store, KEY, bins=b"one")
    store.close()
    assert sorted(os.listdir(store.directory)) == sorted([*names, f"{KEY}.manifest", f"{KEY}.meta"])


def test_files_can_be_read_by_everybody(store: ArtifactStore) -> None:
    path = store.temporary()
    path.touch(mode=0o600)
    store.publish(KEY, {f"{KEY}.chunk.bins": path}, {f"{KEY}.meta": b"{}"})
    for file in (f"{KEY}.chunk.bins", f"{KEY}.meta", f"{KEY}.manifest"):
        assert stat.S_IMODE((store.directory / file).stat().st_mode) == 0o644


def test_wanting_more_than_was_stored_is_a_miss(store: ArtifactStore, told: Told) -> None:
    names = publish(store, KEY, bins=b"one")
    assert not store.check(KEY, [*names, f"{KEY}.chunk.doc"])
    assert store.check(KEY, names)
    assert told == []


def test_files_without_manifest_are_no_source_and_get_replaced(store: ArtifactStore) -> None:
    names = publish(store, KEY, bins=b"one")
    (store.directory / f"{KEY}.manifest").unlink()
    assert not store.check(KEY, names)
    publish(store, KEY, bins=b"other")
    assert store.check(KEY, names)
    assert store.path(names[0]).read_bytes() == b"other"


def test_sources_that_share_a_key_live_side_by_side(store: ArtifactStore) -> None:
    first = publish(store, KEY, one=b"[]")
    second = publish(store, KEY, two=b"[]")
    assert store.check(KEY, [*first, *second])


def test_known_digests_are_taken_and_others_computed(store: ArtifactStore) -> None:
    path = store.temporary()
    path.write_bytes(b"data")
    store.publish(KEY, {f"{KEY}.chunk.a": path}, digests={f"{KEY}.chunk.a": "0" * 64})
    assert store.digest(f"{KEY}.chunk.a") == "0" * 64


def test_digest_of_what_is_not_stored(store: ArtifactStore) -> None:
    with pytest.raises(MorphError) as caught:
        store.digest(f"{KEY}.chunk.a")
    assert caught.value.reason is Reason.NOT_FOUND


@pytest.mark.parametrize("damage", ["truncated", "grown", "flipped", "removed", "directory"])
def test_damage_is_noticed_said_and_removed(store: ArtifactStore, told: Told, damage: str) -> None:
    names = publish(store, KEY, bins=b"some bytes" * 1000, libs=b"whole")
    other = publish(store, key_for("other"), bins=b"other")
    path = store.path(names[0])
    match damage:
        case "truncated":
            os.truncate(path, 4096)
        case "grown":
            os.truncate(path, 20000)
        case "flipped":
            alter(path, 5000)
        case "removed":
            path.unlink()
        case "directory":
            path.unlink()
            path.mkdir()
    assert not store.check(KEY, names)
    assert len(told.warnings()) == 1
    assert str(path) in told.warnings()[0]
    assert "built again" in told.warnings()[0]
    assert not store.path(names[1]).exists()
    assert store.check(key_for("other"), other)
    if damage == "directory":
        path.rmdir()
    publish(store, KEY, bins=b"new", libs=b"new")
    assert store.check(KEY, names)
    assert len(told.warnings()) == 1


def test_an_intact_part_of_a_source_can_be_used(store: ArtifactStore, told: Told) -> None:
    names = publish(store, KEY, bins=b"one", libs=b"two")
    alter(store.path(names[1]))
    assert store.check(KEY, names[:1])
    assert not store.check(KEY, names)


def test_a_touched_file_is_read_once_more_and_then_trusted(
    store: ArtifactStore, told: Told
) -> None:
    names = publish(store, KEY, bins=b"one")
    before = (store.directory / f"{KEY}.manifest").read_bytes()
    os.utime(store.path(names[0]), (1, 1))
    assert store.check(KEY, names)
    after = (store.directory / f"{KEY}.manifest").read_bytes()
    assert before != after
    assert store.check(KEY, names)
    assert (store.directory / f"{KEY}.manifest").read_bytes() == after
    assert told == []


def test_a_copied_cache_is_verified_by_digest_and_stamped(tmp_path: Path, told: Told) -> None:
    with ArtifactStore(tmp_path / "old") as old:
        names = publish(old, KEY, bins=b"one", libs=b"two")
        others = publish(old, key_for("o"), bins=b"three")
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    alter(tmp_path / "new" / others[0])
    new = ArtifactStore(tmp_path / "new", told)
    assert new.check_many({KEY: names, key_for("o"): others}) == {KEY}
    stamps = msgspec.json.decode((tmp_path / "new" / f"{KEY}.manifest").read_bytes())
    assert stamps[names[0]]["inode"] == (tmp_path / "new" / names[0]).stat().st_ino
    assert len(told.warnings()) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a":1}', b"\xff\xfe", b"\0" * 300])
def test_a_damaged_manifest_is_a_miss_and_said(
    store: ArtifactStore, told: Told, content: bytes
) -> None:
    names = publish(store, KEY, bins=b"one")
    (store.directory / f"{KEY}.manifest").write_bytes(content)
    assert not store.check(KEY, names)
    assert len(told.warnings()) == 1
    assert not store.check(KEY, names)
    assert len(told.warnings()) == 1
    publish(store, KEY, bins=b"one")
    assert store.check(KEY, names)


def test_a_manifest_that_was_tampered_with_removes_nothing_elsewhere(
    store: ArtifactStore, tmp_path: Path
) -> None:
    publish(store, KEY, bins=b"one")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    manifest = store.directory / f"{KEY}.manifest"
    stamp = next(iter(msgspec.json.decode(manifest.read_bytes()).values()))
    manifest.write_bytes(msgspec.json.encode({"../victim": stamp}))
    assert not store.check(KEY, ["../victim"])
    store.remove(KEY)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/etc/passwd", "tmp-x", "a\0b", f"{KEY}.manifest", ".x"]
)
def test_names_that_are_no_file_names_are_refused(store: ArtifactStore, name: str) -> None:
    with pytest.raises(MorphError) as caught:
        store.path(name)
    assert caught.value.reason is Reason.CACHE


def test_names_too_long_for_the_file_system_are_refused_early(store: ArtifactStore) -> None:
    with pytest.raises(MorphError, match="255 bytes"):
        store.path(f"{KEY}.chunk." + "é" * 100)


def test_use_is_noted_and_can_lie_in_the_future(store: ArtifactStore) -> None:
    names = publish(store, KEY, bins=b"one")
    manifest = store.directory / f"{KEY}.manifest"
    os.utime(manifest, (5, 5))
    assert store.last_used(KEY) == 5
    assert store.check(KEY, names)
    assert store.last_used(KEY) == 5
    store.touch([KEY, key_for("unknown")])
    assert abs((store.last_used(KEY) or 0) - time.time()) < 10
    future = time.time() + 1e8
    os.utime(manifest, (future, future))
    os.utime(store.path(names[0]), (future, future))
    assert store.check(KEY, names)
    assert store.last_used(key_for("unknown")) is None


def test_removal(store: ArtifactStore) -> None:
    names = publish(store, KEY, bins=b"one")
    store.remove(KEY, [f"{KEY}.meta"])
    store.remove(KEY)
    assert store.names() == []
    assert not store.check(KEY, names)


def test_logs_are_stored_whether_the_build_succeeds_or_fails(store: ArtifactStore) -> None:
    with store.open_log(KEY) as log:
        log.write(b"fine \xff\n")
    assert store.log_path(KEY).read_bytes() == b"fine \xff\n"
    with pytest.raises(KeyError), store.open_log(KEY) as log:
        log.write(b"broken\n")
        raise KeyError
    assert store.log_path(KEY).read_bytes() == b"broken\n"
    store.write_log(KEY, b"whole")
    assert store.log_path(KEY).read_bytes() == b"whole"
    assert store.keys() == []


def test_adopted_files_have_to_be_what_was_promised(store: ArtifactStore) -> None:
    name = f"{KEY}.chunk.a"
    path = store.temporary()
    path.write_bytes(b"two")
    with pytest.raises(MorphError, match="did not arrive as promised"):
        store.adopt(KEY, {name: path}, {name: "0" * 64})
    assert not path.exists()
    path = store.temporary()
    path.write_bytes(b"two")
    digest = "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"
    store.adopt(KEY, {name: path}, {name: digest})
    assert store.check(KEY, [name])


def test_checking_a_large_graph_is_quick(store: ArtifactStore) -> None:
    wanted = {}
    for number in range(431):
        key = key_for(str(number))
        wanted[key] = publish(store, key, bins=b"b", libs=b"l", misc=b"m")
    best = 1.0
    for _ in range(10):
        start = time.process_time()
        assert len(store.check_many(wanted)) == 431
        best = min(best, time.process_time() - start)
    # 15 ms are the aim; the bound leaves room for a slower machine.
    assert best < 0.045, f"{best * 1000:.1f} ms"


def test_a_source_that_is_built_again_while_its_damage_is_found_stays(
    store: ArtifactStore, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = publish(store, KEY, bins=b"one")
    alter(store.path(names[0]))
    other = ArtifactStore(store.directory)

    def digest_slowly(path: Path) -> tuple[str, os.stat_result]:
        monkeypatch.undo()
        found = digest_file(path)
        other.remove(KEY)
        publish(other, KEY, bins=b"one")
        return found

    monkeypatch.setattr("morphlib.cache.manifest.digest_file", digest_slowly)
    assert store.check(KEY, names)
    assert store.path(names[0]).read_bytes() == b"one"
    assert told == []


def test_a_source_of_very_many_files_is_stored_like_any_other(store: ArtifactStore) -> None:
    """Its manifest is larger than what is read at once."""
    names = publish(store, KEY, **{f"part{number}": b"x" for number in range(400)})
    assert (store.directory / f"{KEY}.manifest").stat().st_size > 65536
    assert store.check(KEY, names)


def test_one_file_of_a_source_can_be_removed(store: ArtifactStore, told: Told) -> None:
    key = key_for("x")
    bins, libs = publish(store, key, bins=b"b", libs=b"l")
    store.discard(bins)
    assert not store.path(bins).exists()
    assert store.check(key, [libs]) and not store.check(key, [bins])
    store.discard(libs)
    assert store.keys() == []
    with pytest.raises(MorphError) as caught:
        store.discard(libs)
    assert caught.value.reason is Reason.NOT_FOUND
    assert told == []
