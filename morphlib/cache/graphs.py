"""Resolved build graphs, kept so that the next run need not work them out again.

CACHEDIR/graphs/NAME holds the SHA-256 of what follows, a line end, and the text of a graph. Names
are digests of all that went into it (`graph_name`), so an entry is never out of date; it is only
ever absent. The most recently used entries are kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec

_KEPT = 64


def graph_name(inputs: Sequence[str]) -> str:
    """The name under which what follows from `inputs` is kept."""
    return hashlib.sha256(msgspec.json.encode(inputs)).hexdigest()


class GraphCache:
    """The entries in one directory. A cache that can't be used is one that has nothing."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def get(self, name: str) -> bytes | None:
        path = self.directory / name
        try:
            digest, _, text = path.read_bytes().partition(b"\n")
            os.utime(path)
        except OSError:
            return None
        return text if hashlib.sha256(text).hexdigest().encode() == digest else None

    def put(self, name: str, text: bytes) -> None:
        aside = self.directory / f"tmp-{secrets.token_hex(8)}"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
            aside.rename(self.directory / name)
            self._forget_oldest()
        except OSError:
            # The next run works it out again.
            with contextlib.suppress(OSError):
                aside.unlink()

    def _forget_oldest(self) -> None:
        with os.scandir(self.directory) as entries:
            ages = sorted((entry.stat().st_mtime, entry.path) for entry in entries)
        for _, path in ages[:-_KEPT]:
            Path(path).unlink(missing_ok=True)
