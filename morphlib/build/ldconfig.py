"""Telling a tree's dynamic linker where its libraries are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from morphlib.build.members import MTIME_NS
from morphlib.build.merging import resolve
from morphlib.build.sandbox import Sandbox, run_in_sandbox
from morphlib.build.sandboxroot import Mount, MountKind, RootKind, kind_in
from morphlib.cache.failures import storage_error
from morphlib.errors import MorphError, Reason
from morphlib.rooted import resolve_in

_CONFIGURATION = "etc/ld.so.conf"
_NOTES = "var/cache/ldconfig/aux-cache"  # inodes and times of libraries, for the next run
_WHERE = "/root-of-ldconfig"
_PATH = "/sbin:/usr/sbin:/usr/local/sbin"


def needs_ldconfig(kind: Callable[[str], str | None]) -> bool:
    """Is there an etc/ld.so.conf in a tree? `kind` says what is at a path, as in `resolve`."""
    directory, _, name = _CONFIGURATION.rpartition("/")
    place = resolve(kind, directory)
    return place is not None and kind(f"{place}/{name}") is not None


def run_ldconfig(root: Path, work: Path, log_fd: int) -> bool:
    """Run this machine's ldconfig for the tree `root`, if that has a configuration for it.

    Nobody vouches for the tree, so ldconfig runs in a sandbox where it can write to nothing else;
    none of the tree's own programs runs. `work` is an existing directory. Returns whether it was
    run. Raises MorphError if it is missing, or fails.
    """
    if not needs_ldconfig(lambda path: kind_in(root, path)):
        return False
    configuration = resolve_in(root, _CONFIGURATION)
    if configuration.exists() and not configuration.is_file():
        raise MorphError(
            f"/{_CONFIGURATION} is no file: ldconfig would wait for a FIFO for ever",
            reason=Reason.BUILD,
            hint="A chunk that is unpacked there installs it.",
        )
    program = shutil.which("ldconfig", path=os.environ.get("PATH", "") + ":" + _PATH)
    if program is None:
        raise MorphError(
            "this machine has no ldconfig",
            reason=Reason.SANDBOX,
            hint="Install it (package libc-bin).",
        )
    place = work / "ldconfig"
    place.mkdir()
    try:
        sandbox = Sandbox(
            place,
            RootKind.HOST,
            (Mount(MountKind.WRITABLE, _WHERE, root),),
            {"PATH": _PATH, "LC_ALL": "C"},
        )
        outcome = run_in_sandbox(sandbox, [program, "-r", _WHERE], log_fd)
    finally:
        place.rmdir()
    if outcome.status != 0:
        raise MorphError(
            f"ldconfig failed for {root} (exit status {outcome.status})",
            reason=Reason.BUILD,
            hint="The log says why.",
        )
    _settle(root)
    return True


def _settle(root: Path) -> None:
    """Let nothing of what ldconfig wrote tell when that was, or on which disk."""
    try:
        resolve_in(root, _NOTES).unlink(missing_ok=True)
        for path in ("etc/ld.so.cache", "etc"):
            os.utime(resolve_in(root, path), ns=MTIME_NS)
    except OSError as error:
        raise storage_error(error, "run ldconfig", root) from error
