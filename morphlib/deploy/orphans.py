"""Processes that become ours when those that started them end."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Collection
from pathlib import Path

from morphlib.build import syscalls
from morphlib.process import wait_until


def adopt_orphans() -> None:
    """From now on, descendants of this process become its children when they lose their parent."""
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)


def children() -> frozenset[int]:
    """The process ids of our children; none where the kernel does not tell."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for task in Path("/proc/self/task").iterdir():
            found.update(map(int, (task / "children").read_text().split()))
    return frozenset(found)


def end_children(keep: Collection[int] = (), *, patience: float = 0) -> None:
    """Tell our children but those to `keep` to end, and what they leave behind in turn.

    Those that there are have `patience` seconds for it, the others a second until they are killed.
    """
    left = set(children().difference(keep))
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)

    def all_gone() -> bool:
        left.difference_update([pid for pid in left if _is_gone(pid)])
        return not left

    wait_until(all_gone, patience)
    for number in (signal.SIGTERM, signal.SIGKILL):
        if wait_until(functools.partial(_are_gone, keep, number), 1):
            return


def _is_gone(pid: int) -> bool:
    """Take leave of a child, if it ended."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _are_gone(keep: Collection[int], number: signal.Signals) -> bool:
    """Send a signal to what is left. True if there is nothing."""
    left = children().difference(keep)
    for pid in left:
        if not _is_gone(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
    return not left  # those of one that ended are ours now, so it counts
