"""The times of what deployments change: not when it was done, or no two were equal."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from morphlib.build.members import MTIME
from morphlib.errors import MorphError, Reason

VARIABLE = "SOURCE_DATE_EPOCH"
_LATEST = 2**32 - 1  # what image formats have room for
_NANO = 10**9


def newest_time(environment: Mapping[str, str]) -> int:
    """The time, in seconds, that nothing in a deployed system is newer than if it was changed.

    That of everything in artifacts, if SOURCE_DATE_EPOCH does not say otherwise. Raises MorphError
    if that can't be understood.
    """
    text = environment.get(VARIABLE, "").strip()
    if not text:
        return MTIME
    if not (text.isascii() and text.isdigit() and int(text) <= _LATEST):
        raise MorphError(
            f"{VARIABLE} is a number of seconds since 1970, not {text}", reason=Reason.DEPLOY
        )
    return int(text)


def settle_times(tree: Path, changed: Path, newest: int) -> None:
    """Give what is newer than `newest` (seconds) that time: of a tree, what is in `changed` too.

    Raises OSError.
    """
    # From the bottom up: what is reached does not change what reached it.
    for directory, folders, files in os.walk(changed, topdown=False):
        place = tree / os.path.relpath(directory, changed)
        for name in (*folders, *files):
            _settle(place / name, newest)
    _settle(tree, newest)


def _settle(path: Path, newest: int) -> None:
    with contextlib.suppress(FileNotFoundError):  # what says in an overlay that a file is gone
        if path.lstat().st_mtime_ns > newest * _NANO:
            os.utime(path, ns=(newest * _NANO, newest * _NANO), follow_symlinks=False)
