"""The cache directory and the work directories, made when a command starts."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from morphlib.errors import MorphError, Reason
from morphlib.settings import Settings


def make_directories(settings: Settings) -> None:
    """Make CACHEDIR and the folders of TEMPDIR where they are not there. May raise MorphError."""
    _make("cachedir", settings.cachedir)
    _make("tempdir", settings.tempdir)
    _check_owner(settings.tempdir)
    for name in ("chunks", "staging", "deployments"):
        _make("tempdir", settings.tempdir / name)


def _make(setting: str, path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MorphError(
            f"can't make directory {path}: {error.strerror}",
            reason=Reason.CONFIG,
            hint=f"Choose another place with --{setting}=DIR.",
        ) from error


def _check_owner(path: Path) -> None:
    """In a directory that all can write to, such as /tmp, others may have made ours before us."""
    if not path.parent.stat().st_mode & stat.S_IWOTH:
        return
    if path.is_symlink() or path.stat().st_uid not in (os.geteuid(), 0):
        raise MorphError(
            f"work directory {path} belongs to somebody else",
            reason=Reason.CONFIG,
            hint="Choose another place with --tempdir=DIR.",
        )
