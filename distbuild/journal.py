"""What a controller remembers beyond its own end: the builds that were asked for and go on.

A file of JSON lines: a `Begun` for each build, an `Over` when it ended. A line that a crash cut
short is passed over. When a controller starts, the file is written anew with what still counts, and
what it can't read is put aside.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path

import msgspec

from distbuild.messages import BuildRequest, Id, Text
from morphlib.cache.locks import acquire
from morphlib.errors import MorphError, Reason


class Begun(msgspec.Struct, frozen=True, tag="begun"):
    build: Id
    request: BuildRequest
    initiator: Text
    at: float = 0.0  # seconds since the epoch; 0 if that is not known


class Over(msgspec.Struct, frozen=True, tag="over"):
    build: Id


_decode = msgspec.json.Decoder(Begun | Over).decode


class Journal:
    """The journal at `path`, which only one controller may write."""

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        """`tell` is told of what can't be read. Raises MorphError if the journal can't be read or
        written, or if another controller has it."""
        self.path = path
        self._owed: list[Over] = []
        lock = acquire(path.with_suffix(".lock"), blocking=False)
        if lock is None:
            raise MorphError(
                f"another controller keeps its journal in {path}",
                reason=Reason.CONFIG,
                hint="Give each controller a cachedir of its own, or end the other one.",
            )
        self._lock = lock
        try:
            self.unfinished, unread = _read(path)
            if unread:
                aside = _put_aside(path, unread)
                tell(f"Lines of {path} that this version can't read are in {aside} now")
            new = path.with_suffix(".new")
            with _open(new, os.O_TRUNC) as file:
                _write(file, b"".join(_line(each) for each in self.unfinished))
            new.rename(path)
            self._file = _open(path, os.O_APPEND)
        except OSError as error:
            lock.release()
            raise _failed(path, error) from error

    def add(self, entry: Begun | Over) -> None:
        """Raises MorphError if it can't be kept. An end is kept with the next entry then, and
        nothing is left of a beginning."""
        size = os.fstat(self._file.fileno()).st_size
        try:
            _write(self._file, b"".join(_line(each) for each in (*self._owed, entry)))
        except OSError as error:
            if isinstance(entry, Over):
                self._owed.append(entry)
            with suppress(OSError):
                self._file.truncate(size)
            raise _failed(self.path, error) from error
        self._owed.clear()

    def close(self) -> None:
        self._file.close()
        self._lock.release()


def _open(path: Path, how: int) -> FileIO:
    """For writing, without a buffer, which might be written after all when it should not."""
    file = FileIO(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | how, 0o600), "wb")
    os.fchmod(file.fileno(), 0o600)  # URLs of repositories may hold passwords
    return file


def _write(file: FileIO, data: bytes) -> None:
    while data:
        data = data[file.write(data) :]
    os.fsync(file.fileno())


def _line(entry: Begun | Over) -> bytes:
    return msgspec.json.encode(entry) + b"\n"


def _read(path: Path) -> tuple[tuple[Begun, ...], list[bytes]]:
    """What goes on, and the lines that are whole and mean nothing."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return (), []
    going: dict[str, Begun] = {}
    unread = []
    for line in lines:
        try:
            entry = _decode(line)
        except (ValueError, RecursionError):
            if line.endswith(b"\n"):
                unread.append(line)
            continue
        if isinstance(entry, Begun):
            going[entry.build] = entry
        else:
            going.pop(entry.build, None)
    return tuple(going.values()), unread


def _put_aside(path: Path, lines: Sequence[bytes]) -> Path:
    aside = path.with_suffix(".unread")
    with _open(aside, os.O_APPEND) as file:
        _write(file, b"".join(lines))
    return aside


def _failed(path: Path, error: OSError) -> MorphError:
    return MorphError(f"can't keep the journal {path}: {error.strerror}", reason=Reason.CACHE)
