"""Which cache keys running builds and deployments need, so that garbage collection keeps them.

In a directory (CACHEDIR/in-use) each of them has a file that lists its keys, one per line, and
holds a lock on it as long as it lives. The lock of the directory itself is held for the moment in
which keys are added, and by garbage collection from looking at all keys until it has removed one
thing. So a key is either seen to be in use, or gone before its user looks whether it is there:
register first, look afterwards.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from morphlib.cache.failures import explain_failure
from morphlib.cache.locks import Lock, acquire, acquire_directory


class InUse:
    """The claim of one process, from the start of its `with` block to the end of it."""

    def __init__(self, directory: Path, keys: Iterable[str] = ()) -> None:
        self.directory = directory
        self._first = tuple(keys)
        self._lock: Lock | None = None

    def __enter__(self) -> InUse:
        """Register. Raises MorphError if the directory can't be written."""
        with explain_failure("register what a build needs", self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            with _only(self.directory):
                self._lock = acquire(self.directory / secrets.token_hex(8), remove=True)
                assert self._lock is not None
                try:
                    _append(self._lock, self._first)
                except BaseException:
                    self._release()
                    raise
        return self

    def __exit__(self, *_: object) -> None:
        self._release()

    def add(self, keys: Iterable[str]) -> None:
        """Claim further keys."""
        assert self._lock is not None, "keys are claimed within the with block"
        doing = "register what a build needs"
        with explain_failure(doing, self.directory), _only(self.directory):
            _append(self._lock, keys)

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
        self._lock = None


@contextmanager
def exclude_new_uses(directories: Sequence[Path]) -> Iterator[frozenset[str]]:
    """The keys that are in use now; nobody registers more until the block ends.

    Claims of processes that died are removed. Directories are made if missing, for else a first
    claim could appear behind our back, but not so their parents: nothing could be in use there.
    """
    with ExitStack() as stack:
        keys: set[str] = set()
        # Always in one order, so that two collectors can't wait for each other.
        for directory in sorted({each for each in directories if each.parent.is_dir()}):
            with explain_failure("find out what is in use", directory):
                directory.mkdir(exist_ok=True)
            stack.enter_context(_only(directory))
            keys.update(_read_claims(directory))
        yield frozenset(keys)


def _read_claims(directory: Path) -> Iterator[str]:
    with explain_failure("find out what is in use", directory):
        for name in os.listdir(directory):
            path = directory / name
            abandoned = acquire(path, blocking=False, remove=True)
            if abandoned is not None:
                abandoned.release()
                continue
            try:
                yield from path.read_text().split()
            except FileNotFoundError:
                continue  # its owner is done


@contextmanager
def _only(directory: Path) -> Iterator[None]:
    held = acquire_directory(directory)
    assert held is not None
    with held:
        yield


def _append(held: Lock, keys: Iterable[str]) -> None:
    data = "".join(f"{key}\n" for key in keys).encode()
    offset = os.fstat(held.fileno()).st_size
    while data:
        written = os.pwrite(held.fileno(), data, offset)
        data, offset = data[written:], offset + written
