"""Runs one scenario on a disk of a few MiB, which it mounts over the directory it is given.

A program of its own, since mounting takes a mount namespace of its own:
unshare ... python -m tests.cache.small_disk DIRECTORY SCENARIO
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from morphlib import process
from morphlib.cache.gc import collect
from morphlib.cache.gcplan import Limits
from morphlib.cache.inuse import InUse
from morphlib.cache.inventory import GcDirectories
from morphlib.cache.records import Records
from morphlib.cache.remote import RemoteArtifacts
from morphlib.cache.store import ArtifactStore
from morphlib.errors import MorphError, Reason
from tests.cache.conftest import Told, key_for, publish
from tests.cache.fickle_server import fickle_server
from tests.cache.test_records import record

MIB = 1 << 20
SIZE = 8 * MIB


def fill_up(directory: Path) -> Path:
    """Take all that is left of the disk."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(b"x" * size) == size:
                    pass
            except OSError:
                continue
    return filler


def storing_on_a_full_disk(directory: Path) -> None:
    """What can't be stored is refused with advice, loses nothing, and works with room again."""
    with ArtifactStore(directory / "artifacts") as store:
        old = publish(store, key_for("old"), bins=b"o" * MIB)
        name = f"{key_for('new')}.chunk.bins"
        # With much beside the artifact it fails before anything has its name, without after.
        for extra in ({f"{key_for('new')}.meta": b"{}" * 5000}, {}):
            path = store.temporary()
            path.write_bytes(b"n" * MIB)
            filler = fill_up(directory)
            try:
                store.publish(key_for("new"), {name: path}, extra)
            except MorphError as error:
                assert error.reason is Reason.SPACE, error
                assert error.hint is not None and "morph gc" in error.hint
            else:
                raise AssertionError("it was stored, on a full disk")
            assert not path.exists()
            assert store.check(key_for("old"), old)
            assert not store.check(key_for("new"), [name])
            assert not store.path(name).exists()
            filler.unlink()
        publish(store, key_for("new"), bins=b"n" * MIB)
        assert store.check(key_for("new"), [name])
    left = [entry for entry in os.listdir(directory / "artifacts") if entry.startswith("tmp")]
    assert left == [], left


def renewing_stamps_on_a_full_disk(directory: Path) -> None:
    """Verification by digest works even if its result can't be kept."""
    told = Told()
    with ArtifactStore(directory / "artifacts", told) as store:
        names = publish(store, key_for("old"), bins=b"o" * MIB)
        os.utime(store.path(names[0]), (1, 1))
        fill_up(directory)
        assert store.check(key_for("old"), names)
        assert store.check(key_for("old"), names)
    assert told == []


def claiming_on_a_full_disk(directory: Path) -> None:
    """Who can't register what it needs is told so, and does not go on unprotected."""
    (directory / "in-use").mkdir()
    fill_up(directory)
    try:
        with InUse(directory / "in-use", [key_for(str(number)) for number in range(1000)]):
            raise AssertionError("registered, on a full disk")
    except MorphError as error:
        assert error.reason is Reason.SPACE, error
    assert os.listdir(directory / "in-use") == []


def recording_on_a_full_disk(directory: Path) -> None:
    """Records that can't be written are told of once, and hurt nobody."""
    told = Told()
    with Records(directory / "records.sqlite", told) as records:
        records.add(record("zlib", "k", 1))
        filler = fill_up(directory)
        for number in range(200):
            records.add(record("zlib", f"k{number}", 1))
        assert len(told) == 1, told
    filler.unlink()
    told.clear()
    with Records(directory / "records.sqlite", told) as records:
        records.add(record("lua", "k", 2))
        assert records.estimate([("lua", "k")]) == {"lua": 2}
        assert records.estimate([("zlib", "k")]) == {"zlib": 1}
    assert told == []


def collecting_just_enough(directory: Path) -> None:
    """Sources go oldest first, and no more of them than makes the room that is asked for."""
    where = GcDirectories(directory / "cache", directory / "temp")
    keys = [key_for(str(number)) for number in range(5)]
    with ArtifactStore(where.artifacts) as store:
        for number, key in enumerate(keys):
            publish(store, key, bins=b"x" * MIB)
            manifest = store.directory / f"{key}.manifest"
            then = manifest.stat().st_mtime - 86400 * (6 - number / 10)
            os.utime(manifest, (then, then))
        fill_up(directory)
        told = Told()
        report = collect(where, Limits(0, 2 * MIB), told)
        gone = [action.candidate.name for action in report.removed]
        assert gone == keys[:2], gone
        assert store.keys() == sorted(keys[2:])
        assert report.sufficient
        assert 2 * MIB <= report.freed < 3 * MIB
        assert told.warnings()[-1] == "Made sufficient space"


def fetching_onto_a_full_disk(directory: Path) -> None:
    """It is the disk that is full, not the server that fails; nothing is left of the file."""
    name = f"{key_for('big')}.chunk.bins"
    with fickle_server() as server:
        server.files = {name: b"x" * (2 * SIZE), "small": b"x"}
        client = RemoteArtifacts(server.url)
        try:
            client.fetch(name, directory / "f")
        except MorphError as error:
            assert error.reason is Reason.SPACE, error
        else:
            raise AssertionError("it was stored, on a full disk")
        assert not (directory / "f").exists()
        assert len(server.asked) == 1
        client.fetch("small", directory / "f")


SCENARIOS: dict[str, Callable[[Path], None]] = {
    scenario.__name__: scenario
    for scenario in (
        storing_on_a_full_disk,
        renewing_stamps_on_a_full_disk,
        claiming_on_a_full_disk,
        recording_on_a_full_disk,
        collecting_just_enough,
        fetching_onto_a_full_disk,
    )
}


def main() -> None:
    directory, scenario = Path(sys.argv[1]), SCENARIOS[sys.argv[2]]
    process.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", directory])
    scenario(directory)


if __name__ == "__main__":
    main()
