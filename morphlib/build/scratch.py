"""Directories for mount points and other small things that are gone with the build."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from morphlib.build import syscalls
from morphlib.build.overlay import OverlayUnavailable, mount_overlay
from morphlib.build.removal import remove_tree

#: Whether overlays over a file system (by device number) can be mounted from memory.
_overlay_works: dict[int, bool] = {}


def _mount_memory(path: Path) -> bool:
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
    try:
        syscalls.mount("tmpfs", os.fspath(path), "tmpfs", flags, "mode=755")
    except OSError:
        return False
    return True


def _try_overlay(path: Path) -> bool:
    """Mount one as builds do: a layer on the disk below, one and the mount point in memory."""
    on_disk = path.with_name(f"{path.name}.try")
    in_memory, root = path / "layer", path / "root"
    for directory in (on_disk, in_memory, root):
        directory.mkdir()
    try:
        mount_overlay([on_disk, in_memory], root, upper=None, scratch=path)
        syscalls.unmount(os.fspath(root))
    except (OSError, OverlayUnavailable):
        return False
    finally:
        for directory in (root, in_memory, on_disk):
            directory.rmdir()
    return True


@contextlib.contextmanager
def scratch_directory(path: Path) -> Iterator[Path]:
    """A new directory at `path`, in memory where that will do.

    Making and removing a dozen directories on disk takes longer than mounting memory for them.
    Without overlay mounts whole trees would go there, so then it is on disk.
    """
    path.mkdir()
    mounted = _overlay_works.get(path.parent.stat().st_dev, True) and _mount_memory(path)
    if mounted and path.parent.stat().st_dev not in _overlay_works:
        _overlay_works[path.parent.stat().st_dev] = works = _try_overlay(path)
        if not works:
            syscalls.unmount(os.fspath(path))
            mounted = False
    try:
        yield path
    finally:
        if mounted:
            with contextlib.suppress(OSError):
                syscalls.unmount(os.fspath(path))
        remove_tree(path)
