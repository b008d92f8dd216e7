"""Directories for mount points and other small things that are gone with the build."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from morphlib.build import syscalls
from morphlib.build.namespace import has_overlay
from morphlib.build.removal import remove_tree


@contextlib.contextmanager
def scratch_directory(path: Path) -> Iterator[Path]:
    """A new directory at `path`, in memory where that will do.

    Making and removing a dozen directories on disk takes longer than mounting memory for them.
    Without overlay mounts whole trees would go there, so then it is on disk.
    """
    path.mkdir()
    mounted = False
    if has_overlay():
        with contextlib.suppress(OSError):
            flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
            syscalls.mount("tmpfs", os.fspath(path), "tmpfs", flags, "mode=755")
            mounted = True
    try:
        yield path
    finally:
        if mounted:
            with contextlib.suppress(OSError):
                syscalls.unmount(os.fspath(path))
        remove_tree(path)
