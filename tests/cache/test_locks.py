from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import pytest

from morphlib.cache.locks import (
    KeyLocks,
    LockBusyError,
    acquire,
    acquire_directory,
    is_locked,
    lock,
    make_locked_directory,
)
from morphlib.errors import MorphError, Reason

_spawn = multiprocessing.get_context("fork")


def test_exclusive_lock_keeps_others_out_until_released(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock(path):
        assert acquire(path, blocking=False) is None
        assert acquire(path, blocking=False, shared=True) is None
        assert is_locked(path)
    assert not is_locked(path)
    with lock(path, blocking=False):
        pass


def test_shared_locks_go_together_and_keep_exclusive_ones_out(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock(path, shared=True), lock(path, shared=True, blocking=False):
        assert acquire(path, blocking=False) is None
        assert is_locked(path)


def test_refusal_names_the_holder(tmp_path: Path) -> None:
    locks = KeyLocks(tmp_path)
    held = locks.try_acquire("abc")
    assert held is not None
    busy = f"locked by process {os.getpid()}"
    with held, pytest.raises(LockBusyError, match=busy), lock(tmp_path / "abc", blocking=False):
        pass


def test_lock_file_that_exists_for_the_lock_alone_is_removed(tmp_path: Path) -> None:
    with lock(tmp_path / "lock", remove=True):
        assert (tmp_path / "lock").exists()
    assert not (tmp_path / "lock").exists()


def test_release_leaves_a_file_that_took_the_path_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held = acquire(path, remove=True)
    assert held is not None
    path.unlink()
    with lock(path):
        held.release()
        held.release()
        assert is_locked(path)


def test_missing_directory_of_a_lock_is_made(tmp_path: Path) -> None:
    with lock(tmp_path / "some" / "where" / "lock"):
        assert (tmp_path / "some" / "where" / "lock").exists()


def test_lock_does_not_follow_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MorphError) as caught, lock(tmp_path / "lock"):
        pass
    assert caught.value.reason is Reason.CACHE
    assert not (tmp_path / "elsewhere").exists()


def test_directories_can_be_locked(tmp_path: Path) -> None:
    held = acquire_directory(tmp_path)
    assert held is not None
    with held:
        assert acquire_directory(tmp_path, blocking=False) is None
        assert acquire(tmp_path, blocking=False) is None


def test_locking_a_vanished_directory_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(MorphError) as caught:
        acquire_directory(tmp_path / "gone")
    assert caught.value.reason is Reason.NOT_FOUND
    assert not (tmp_path / "gone").exists()


def test_fresh_directories_are_locked_from_the_start(tmp_path: Path) -> None:
    first, first_lock = make_locked_directory(tmp_path)
    second, second_lock = make_locked_directory(tmp_path)
    with first_lock, second_lock:
        assert first != second
        assert is_locked(first) and is_locked(second)


@pytest.mark.parametrize("key", ["", "../x", "a/b", ".hidden", "a b", "a.b"])
def test_odd_keys_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(MorphError, match="not a cache key"):
        KeyLocks(tmp_path).try_acquire(key)


def test_key_locks_leave_no_files(tmp_path: Path) -> None:
    locks = KeyLocks(tmp_path / "locks")
    held = locks.try_acquire("abc")
    assert held is not None
    assert locks.try_acquire("abc") is None
    assert locks.holder("abc") == os.getpid()
    other = locks.try_acquire("def")
    assert other is not None
    held.release()
    other.release()
    assert list((tmp_path / "locks").iterdir()) == []
    assert not locks.is_held("abc")
    assert locks.holder("abc") is None


def test_sweep_removes_what_killed_holders_left_only(tmp_path: Path) -> None:
    (tmp_path / "dead").write_text("99999999\n")
    locks = KeyLocks(tmp_path)
    with locks.acquire("alive"):
        assert locks.sweep() == 1
        assert [path.name for path in tmp_path.iterdir()] == ["alive"]
    assert KeyLocks(tmp_path / "missing").sweep() == 0


def _count_under_lock(directory: Path, rounds: int, seed: int) -> None:
    chance = random.Random(seed)
    locks = KeyLocks(directory / "locks")
    counter = directory / "counter"
    for _ in range(rounds):
        with locks.acquire("key"):
            seen = int(counter.read_text())
            if chance.random() < 0.1:
                time.sleep(0.0005)
            counter.write_text(str(seen + 1))


def test_processes_exclude_each_other_although_the_file_comes_and_goes(tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("0")
    rounds, processes = 150, 5
    children = [
        _spawn.Process(target=_count_under_lock, args=(tmp_path, rounds, seed))
        for seed in range(processes)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
        assert child.exitcode == 0
    assert int((tmp_path / "counter").read_text()) == rounds * processes
    assert list((tmp_path / "locks").iterdir()) == []


def _hold_for_ever(directory: Path, ready: Synchronized[int]) -> None:
    with KeyLocks(directory).acquire("key"):
        ready.value = 1
        time.sleep(60)


def test_a_killed_holder_does_not_hold(tmp_path: Path) -> None:
    ready = _spawn.Value("i", 0)
    child = _spawn.Process(target=_hold_for_ever, args=(tmp_path, ready))
    child.start()
    while not ready.value:
        time.sleep(0.01)
    locks = KeyLocks(tmp_path)
    assert locks.try_acquire("key") is None
    assert locks.holder("key") == child.pid
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    with locks.acquire("key"):
        assert locks.holder("key") == os.getpid()
