from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import pytest

from morphlib.cache.inuse import InUse, exclude_new_uses
from morphlib.errors import MorphError

_fork = multiprocessing.get_context("fork")


def keys_in_use(*directories: Path) -> set[str]:
    with exclude_new_uses(directories) as keys:
        return set(keys)


def test_claims_last_as_long_as_their_block(tmp_path: Path) -> None:
    directory = tmp_path / "in-use"
    with InUse(directory, ["a", "b"]) as first, InUse(directory, ["c"]):
        assert keys_in_use(directory) == {"a", "b", "c"}
        first.add(["d"])
        assert keys_in_use(directory) == {"a", "b", "c", "d"}
    assert keys_in_use(directory) == set()
    assert list(directory.iterdir()) == []


def test_claims_of_several_directories_count_together(tmp_path: Path) -> None:
    with InUse(tmp_path / "one", ["a"]), InUse(tmp_path / "two", ["b"]):
        assert keys_in_use(tmp_path / "two", tmp_path / "one", tmp_path / "none") == {"a", "b"}


def test_a_place_that_can_not_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MorphError), InUse(tmp_path / "file" / "in-use", ["a"]):
        pass


def _claim(directory: Path, key: str, ready: Synchronized[int]) -> None:
    with InUse(directory, [key]):
        ready.value = 1
        time.sleep(60)


def test_claims_of_killed_processes_are_removed(tmp_path: Path) -> None:
    ready = _fork.Value("i", 0)
    child = _fork.Process(target=_claim, args=(tmp_path, "a", ready))
    child.start()
    while not ready.value:
        time.sleep(0.01)
    assert keys_in_use(tmp_path) == {"a"}
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert keys_in_use(tmp_path) == set()
    assert list(tmp_path.iterdir()) == []


def test_nobody_registers_while_something_is_removed(tmp_path: Path) -> None:
    ready = _fork.Value("i", 0)
    with exclude_new_uses([tmp_path]):
        child = _fork.Process(target=_claim, args=(tmp_path, "a", ready))
        child.start()
        time.sleep(0.2)
        assert not ready.value
    while not ready.value:
        time.sleep(0.01)
    child.terminate()
    child.join()
