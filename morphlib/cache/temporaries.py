"""Temporary files beside the artifacts, and how those of dead processes are told from others.

Each process that writes has a random TOKEN and holds a lock on `tmp-TOKEN.lock`; its temporary
files are named `tmp-TOKEN-RANDOM*`. Once that lock can be had by others nobody can be writing the
files, and whoever notices removes them. Forked children share their parent's token and its lock.
"""

from __future__ import annotations

import os
import secrets
import threading
import weakref
from collections.abc import Iterable
from pathlib import Path

from morphlib.cache.failures import explain_failure, storage_error
from morphlib.cache.locks import Lock, acquire
from morphlib.cache.names import TEMPORARY_PREFIX


class Temporaries:
    """The temporary files of one process in one directory, which is made when first needed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._token: str | None = None
        self._release: weakref.finalize[..., Temporaries] | None = None
        self._guard = threading.Lock()

    def fresh(self, suffix: str = "") -> Path:
        """A path at which nothing is yet. Raises MorphError if the directory can't be used."""
        with self._guard:
            token = self._token or self._begin()
        return self.directory / f"{TEMPORARY_PREFIX}-{token}-{secrets.token_hex(6)}{suffix}"

    def write(self, data: bytes, mode: int) -> Path:
        """A fresh file with this content. Raises OSError, and leaves nothing then."""
        path = self.fresh()
        try:
            path.write_bytes(data)
            path.chmod(mode)
        except BaseException:
            remove_files([path])
            raise
        return path

    def close(self) -> None:
        """Files that are left may be removed by anybody from now on."""
        with self._guard:
            if self._release is not None:
                self._release()
            self._token = self._release = None

    def _begin(self) -> str:
        with explain_failure("make a directory", self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
        sweep_temporaries(self.directory)
        token = secrets.token_hex(6)
        held = acquire(_lock_path(self.directory, token), remove=True)
        assert held is not None
        self._release = weakref.finalize(self, _release, held, os.getpid())
        self._token = token
        return token


def sweep_temporaries(directory: Path) -> int:
    """Remove temporary files that no living process can be writing. Returns the bytes freed."""
    freed = 0
    for token, paths in find_temporaries(directory).items():
        held = acquire(_lock_path(directory, token), blocking=False, remove=True)
        if held is not None:
            with held:
                freed += remove_files(path for path in paths if path != held.path)
    return freed


def find_temporaries(directory: Path) -> dict[str, list[Path]]:
    """All temporary files by the token of their writer."""
    found: dict[str, list[Path]] = {}
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.startswith(TEMPORARY_PREFIX + "-"):
                    token = entry.name.split("-", 2)[1].removesuffix(".lock")
                    found.setdefault(token, []).append(Path(entry.path))
    except FileNotFoundError:
        pass  # nothing was ever written there
    except OSError as error:
        raise storage_error(error, "list temporary files", directory) from error
    return found


def remove_files(paths: Iterable[Path]) -> int:
    """Remove files as far as that is possible. Returns the bytes that this frees on disk."""
    freed = 0
    for path in paths:
        try:
            found = path.lstat()
            path.unlink()
        except OSError:
            continue  # it is gone already, or garbage collection will try again
        if found.st_nlink == 1:
            freed += found.st_blocks * 512
    return freed


def _lock_path(directory: Path, token: str) -> Path:
    return directory / f"{TEMPORARY_PREFIX}-{token}.lock"


def _release(held: Lock, pid: int) -> None:
    """Give up a process' claim on its files. A forked child's end is not its parent's."""
    if os.getpid() == pid:
        held.release()
