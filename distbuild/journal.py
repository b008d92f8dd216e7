"""What a controller remembers beyond its own end: the builds that were asked for and go on.

A file of JSON lines: a `Begun` for each build, an `Over` when it ended. A line that a crash cut
short is passed over. When a controller starts, the file is written anew with what still counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from distbuild.messages import BuildRequest, Id, Text
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

    def __init__(self, path: Path) -> None:
        """Raises MorphError if it can't be read or written."""
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.unfinished = tuple(_read(path))
            aside = path.with_suffix(".new")
            with aside.open("wb") as file:
                file.writelines(msgspec.json.encode(each) + b"\n" for each in self.unfinished)
                file.flush()
                os.fsync(file.fileno())
            aside.rename(path)
            self._file = path.open("ab")
        except OSError as error:
            raise _failed(path, error) from error

    def add(self, entry: Begun | Over) -> None:
        """Raises MorphError if it can't be kept."""
        try:
            self._file.write(msgspec.json.encode(entry) + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _failed(self.path, error) from error

    def close(self) -> None:
        self._file.close()


def _read(path: Path) -> Iterable[Begun]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return ()
    going: dict[str, Begun] = {}
    for line in lines:
        try:
            entry = _decode(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, Begun):
            going[entry.build] = entry
        else:
            going.pop(entry.build, None)
    return going.values()


def _failed(path: Path, error: OSError) -> MorphError:
    return MorphError(f"can't keep the journal {path}: {error.strerror}", reason=Reason.CACHE)
