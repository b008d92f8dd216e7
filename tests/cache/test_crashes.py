"""Processes that share a cache, race for it, and are killed at random moments."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from morphlib.cache.gc import collect
from morphlib.cache.gcplan import Limits
from morphlib.cache.inuse import InUse
from morphlib.cache.inventory import GcDirectories
from morphlib.cache.locks import KeyLocks
from morphlib.cache.store import ArtifactStore
from morphlib.events import silence
from tests.cache.conftest import Told, key_for

_fork = multiprocessing.get_context("fork")
KEYS = [key_for(str(number)) for number in range(12)]
NEVER_ENOUGH = Limits(1 << 60, 1 << 60, delete_older_than=-1, keep_younger_than=-1)


def content(key: str, artifact: str) -> bytes:
    """What building this artifact gives: some blocks of bytes that depend on the key alone."""
    return hashlib.sha256((key + artifact).encode()).digest() * 3000


def names_of(key: str) -> list[str]:
    return [f"{key}.chunk.{artifact}" for artifact in ("bins", "libs", "misc")]


def build(store: ArtifactStore, key: str) -> None:
    """Write the artifacts in pieces, so that a kill can hit anywhere, and publish them."""
    files = {}
    with store.open_log(key) as log:
        for name in names_of(key):
            path = store.temporary()
            data = content(key, name)
            with path.open("wb", buffering=0) as file:
                for start in range(0, len(data), 8192):
                    file.write(data[start : start + 8192])
            log.write(b"made " + name.encode() + b"\n")
            files[name] = path
    store.publish(key, files, {f"{key}.meta": b"{}"})


def is_right(store: ArtifactStore, key: str) -> bool:
    return all(store.path(name).read_bytes() == content(key, name) for name in names_of(key))


def build_all(root: Path, seed: int) -> None:
    """What a morph process does: register, check, build what is missing under its key's lock."""
    chance = random.Random(seed)
    keys = chance.sample(KEYS, len(KEYS))
    locks = KeyLocks(root / "cache" / "locks")
    with InUse(root / "cache" / "in-use", keys), ArtifactStore(root / "cache/artifacts") as store:
        for key in keys:
            with locks.acquire(key):
                if not store.check(key, names_of(key)):
                    build(store, key)
                    with (root / "built").open("a") as built:
                        built.write(key + "\n")
            assert is_right(store, key), "what was checked is not what was built"


def collect_all(root: Path, seed: int) -> None:
    collect(GcDirectories(root / "cache", root / "temp"), NEVER_ENOUGH, silence)


def build_for_ever(root: Path, seed: int) -> None:
    """Build, remove, damage and collect, until killed."""
    chance = random.Random(seed)
    while True:
        build_all(root, chance.randrange(1 << 30))
        with ArtifactStore(root / "cache" / "artifacts") as store:
            for key in chance.sample(KEYS, 4):
                store.remove(key)
        collect_all(root, seed)


def join_all(children: list[BaseProcess]) -> None:
    for child in children:
        child.start()
    for child in children:
        child.join(50)
    assert [child.exitcode for child in children] == [0] * len(children)


def kill(child: BaseProcess) -> None:
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()


def test_processes_that_share_a_cache_build_each_source_once(tmp_path: Path) -> None:
    join_all([_fork.Process(target=build_all, args=(tmp_path, seed)) for seed in range(4)])
    assert sorted((tmp_path / "built").read_text().split()) == sorted(KEYS)
    assert list((tmp_path / "cache" / "locks").iterdir()) == []
    assert list((tmp_path / "cache" / "in-use").iterdir()) == []
    left = [name for name in os.listdir(tmp_path / "cache" / "artifacts") if name[:3] == "tmp"]
    assert left == []


@pytest.mark.parametrize("seed", range(20))
def test_after_kills_at_random_moments_the_next_build_succeeds(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    told = Told()
    for _ in range(3):
        children = [
            _fork.Process(target=build_for_ever, args=(tmp_path, chance.randrange(1 << 30)))
            for _ in range(2)
        ]
        for child in children:
            child.start()
        for child in children:
            time.sleep(chance.uniform(0.005, 0.1))
            kill(child)
        with ArtifactStore(tmp_path / "cache" / "artifacts", told) as store:
            for key in KEYS:
                # Whole or absent, and never something else.
                assert not store.check(key, names_of(key)) or is_right(store, key)
    join_all([_fork.Process(target=build_all, args=(tmp_path, seed))])
    with ArtifactStore(tmp_path / "cache" / "artifacts", told) as store:
        assert store.check_many({key: names_of(key) for key in KEYS}) == set(KEYS)
        assert all(is_right(store, key) for key in KEYS)
    assert told == [], "a kill damages nothing"
    collect_all(tmp_path, seed)
    assert os.listdir(tmp_path / "cache" / "artifacts") == []
    assert os.listdir(tmp_path / "cache" / "locks") == []


def test_collecting_beside_builds_takes_nothing_from_them(tmp_path: Path) -> None:
    """Everything is old enough to go, at any time; only what builds register protects it."""
    for round_ in range(6):
        builders = [
            _fork.Process(target=build_all, args=(tmp_path, seed))
            for seed in range(round_, round_ + 2)
        ]
        collectors = [_fork.Process(target=_collect_often, args=(tmp_path,)) for _ in range(2)]
        for child in (*builders, *collectors):
            child.start()
        for child in builders:
            child.join(50)
        for child in collectors:
            kill(child)
        assert [child.exitcode for child in builders] == [0, 0]


def _collect_often(root: Path) -> None:
    while True:
        collect_all(root, 0)


def test_the_same_key_published_twice_at_once_is_whole(tmp_path: Path) -> None:
    """Nothing but locks outside the store prevents it, and these may be on another machine."""
    told = Told()
    for _ in range(10):
        join_all([_fork.Process(target=_publish, args=(tmp_path, KEYS[0])) for _ in range(3)])
        with ArtifactStore(tmp_path, told) as store:
            assert store.check(KEYS[0], names_of(KEYS[0]))
            assert is_right(store, KEYS[0])
    assert told == []


def _publish(directory: Path, key: str) -> None:
    with ArtifactStore(directory) as store:
        build(store, key)


def test_checks_beside_publications_see_all_or_nothing(tmp_path: Path) -> None:
    key = KEYS[0]
    child = _fork.Process(target=_publish_and_remove, args=(tmp_path, key))
    child.start()
    told = Told()
    hits = 0
    with ArtifactStore(tmp_path, told) as store:
        end = time.monotonic() + 2
        while time.monotonic() < end:
            hits += store.check(key, names_of(key))
    kill(child)
    assert hits > 0
    assert told == []


def _publish_and_remove(directory: Path, key: str) -> None:
    while True:
        with ArtifactStore(directory) as store:
            build(store, key)
            time.sleep(0.001)
            store.remove(key, [f"{key}.meta"])
