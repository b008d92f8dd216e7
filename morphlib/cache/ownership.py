"""Whose directories are used: what somebody else put where everybody can write is refused."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from morphlib.cache.failures import explain_failure
from morphlib.errors import MorphError, Reason

_INSIDE = ("chunks", "deployments", "in-use", "staging")


def refuse_planted(tempdir: Path, *, user: int | None = None) -> None:
    """Raise MorphError if somebody else could have put the work directory there, or a part of it.

    The usual one has a well-known name below /tmp. Whoever is there first could have root build
    with trees that are not what they are said to be, or remove what a link leads to. `user` is who
    uses the directory (None: who runs this); root is trusted by all.
    """
    trusted = {0, os.geteuid() if user is None else user}
    for path in (tempdir, *(tempdir / name for name in _INSIDE)):
        with explain_failure("look at the work directory", path):
            try:
                owner = path.lstat().st_uid
                parent = path.parent.stat()
            except FileNotFoundError:
                continue
        if owner not in trusted and parent.st_mode & stat.S_IWOTH:
            raise MorphError(
                f"The work directory {path} belongs to {_name(owner)}, and everybody can make "
                f"something in {path.parent}",
                reason=Reason.CACHE,
                hint="Choose a directory of your own with --tempdir, or set TMPDIR.",
            )


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"
