from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import pytest

from morphlib.sources.refcache import RefCache
from tests.sources.conftest import Told


def sha(text: object) -> str:
    return hashlib.sha1(str(text).encode()).hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gits" / "trees.cache.json"


def test_remembers(path: Path) -> None:
    cache = RefCache(path)
    cache.put("upstream:x y", sha(1), sha(2))
    cache.save()
    again = RefCache(path)
    assert again.get("upstream:x y", sha(1)) == sha(2)
    assert again.get("upstream:x", sha(1)) is None
    assert again.get("upstream:x y", "master") is None
    assert [p.name for p in path.parent.iterdir() if p.name.startswith("tmp")] == []


def test_least_recently_used_go(path: Path) -> None:
    cache = RefCache(path, limit=3)
    for number in range(3):
        cache.put("r", sha(number), sha("tree"))
    cache.save()
    cache = RefCache(path, limit=3)
    assert cache.get("r", sha(0))
    cache.put("r", sha(3), sha("tree"))
    cache.save()
    cache = RefCache(path, limit=3)
    assert [n for n in range(4) if cache.get("r", sha(n))] == [0, 2, 3]


def test_others_entries_are_kept(path: Path) -> None:
    caches = [RefCache(path) for _ in range(8)]
    for number, cache in enumerate(caches):
        cache.load()
        cache.put("r", sha(number), sha("tree"))
    threads = [threading.Thread(target=cache.save) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache = RefCache(path)
    assert all(cache.get("r", sha(number)) for number in range(8))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04cos\nsystem\n",
        b"[]",
        b"null",
        b'{"version": 2, "trees": {}}',
        b'{"version": 1, "trees": [1]}',
        b'{"version": 1, "trees": {"a": 1}}',
        b'{"version": 1, "trees": {"' + b"\xff" * 5 + b'": "x"}}',
        b"[" * 100_000,
    ],
)
def test_damaged_file_counts_as_empty(path: Path, told: Told, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    cache = RefCache(path, listener=told)
    assert cache.get("r", sha(1)) is None
    assert len(told.texts("chatty")) == 1
    cache.put("r", sha(1), sha(2))
    cache.save()
    assert RefCache(path).get("r", sha(1)) == sha(2)


def test_entries_that_are_no_trees_do_not_count(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps({"version": 1, "trees": {f"{sha(1)} r": "--option"}}))
    assert RefCache(path).get("r", sha(1)) is None


def test_nothing_new_nothing_written(path: Path) -> None:
    cache = RefCache(path)
    cache.load()
    cache.save()
    assert not path.parent.exists()


def test_place_that_can_not_be_written_is_told(tmp_path: Path, told: Told) -> None:
    (tmp_path / "file").touch()
    cache = RefCache(tmp_path / "file" / "cache", listener=told)
    cache.put("r", sha(1), sha(2))
    cache.save()
    assert "Can't write" in told.texts("chatty")[-1]
