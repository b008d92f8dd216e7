"""Overlay mounts of many directories.

Where the kernel has the interface (6.5 and later) each lower directory is told to it by itself.
Older ones take all options as one text of less than a page, which symlinks with short names in a
directory of their own keep within bounds.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from morphlib.build import syscalls
from morphlib.build.namespace import is_user_namespace

#: The most lower directories that the kernel takes.
MAX_LAYERS = 500

_PAGE = 4096


class OverlayUnavailable(Exception):
    """These directories can't be stacked by an overlay mount; the text says why."""


def mount_overlay(
    lower: Sequence[Path],
    target: Path,
    *,
    upper: Path | None = None,
    scratch: Path,
    one_by_one: bool | None = None,
) -> None:
    """Mount `lower`, the topmost last, at `target`: read-only, or with changes going to `upper`.

    `scratch` is an existing directory on the file system of `upper` for what the mount needs
    besides. `one_by_one` chooses the interface (None: the better one that is there). Raises
    OverlayUnavailable.
    """
    if len(lower) > MAX_LAYERS:
        raise OverlayUnavailable(f"an overlay of {len(lower)} layers is more than the kernel takes")
    try:
        if len(lower) == 1 and upper is None:
            fd = syscalls.open_tree(os.fspath(lower[0]), recursive=False)
            _attach_read_only(fd, target)
            return
        options = {}
        if upper is not None:
            work = scratch / "overlay-work"
            work.mkdir(exist_ok=True)
            options = {"upperdir": os.fspath(upper), "workdir": os.fspath(work)}
        if one_by_one is not False:
            try:
                _mount_one_by_one(lower, target, options)
                return
            except OSError as error:
                unknown = error.errno in (errno.EINVAL, errno.ENOSYS)
                if one_by_one or not unknown:
                    raise
        _mount_at_once(lower, target, options, scratch)
    except OSError as error:
        raise OverlayUnavailable(f"overlay mount: {error.strerror or error}") from error


def _attach_read_only(fd: int, target: Path) -> None:
    try:
        syscalls.make_read_only(fd)
        syscalls.attach(fd, os.fspath(target))
    finally:
        os.close(fd)


def _mount_one_by_one(lower: Sequence[Path], target: Path, options: dict[str, str]) -> None:
    context = syscalls.fsopen("overlay")
    try:
        syscalls.fsconfig(context, "source", "morph")
        for path in reversed(lower):
            _set_directory(context, "lowerdir+", os.fspath(path))
        for key, value in options.items():
            _set_directory(context, key, value)
        if options and is_user_namespace():
            syscalls.fsflag(context, "userxattr")
        syscalls.fscreate(context)
        mounted = syscalls.fsmount(context)
    finally:
        os.close(context)
    try:
        syscalls.attach(mounted, os.fspath(target))
    finally:
        os.close(mounted)


def _set_directory(context: int, key: str, path: str) -> None:
    """Name a directory by a descriptor, which the kernel looks up at once.

    The kernel takes no long names, and shows those that it got in every list of mounts: bubblewrap
    reads that list several times for each command, and builds can see it.
    """
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.fsconfig(context, key, f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _mount_at_once(
    lower: Sequence[Path], target: Path, options: dict[str, str], scratch: Path
) -> None:
    names = scratch / "lower"
    names.mkdir()
    before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for number, path in enumerate(lower):
            (names / f"{number:x}").symlink_to(path)
        for key, value in options.items():
            (names / key).symlink_to(value)
        os.chdir(names)
        data = "lowerdir=" + ":".join(f"{number:x}" for number in reversed(range(len(lower))))
        data += "".join(f",{key}={key}" for key in options)
        if options and is_user_namespace():
            data += ",userxattr"
        assert len(data) < _PAGE
        flags = 0 if options else syscalls.MS_RDONLY
        syscalls.mount("morph", os.fspath(target), "overlay", flags, data)
    finally:
        os.fchdir(before)
        os.close(before)
        for entry in os.listdir(names):
            (names / entry).unlink()
        names.rmdir()
