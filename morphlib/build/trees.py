"""Laying out what stacked layers come to as a tree of its own, by hard links or copies."""

# Plain text paths here: making Path objects takes longer than the system calls.
# ruff: noqa: PTH101, PTH102, PTH115, PTH211

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from morphlib.build.layers import Layer, copy_file, layer_in_making, set_owner
from morphlib.build.members import MTIME_NS, Member, walk_tree
from morphlib.build.merging import Arrangement, Merged, merge


def lay_out(layers: Sequence[Layer], into: Path, *, writable: bool) -> None:
    """Make the tree `into` of layers that are fit to be stacked.

    Files become hard links to those of the layers, or copies if the tree is to be `writable` or on
    another file system. Raises OSError.
    """
    merged = merge([layer.index for layer in layers])
    roots = [os.fspath(layer.root) + "/" for layer in layers]
    top = os.fspath(into) + "/"
    os.mkdir(top, 0o755)
    directories = sorted(merged.directories)
    for path in directories:
        os.mkdir(top + path, 0o700)
    links = _Links(copy=writable)
    for path, position in merged.others.items():
        links.add(roots[position] + path, top + path)
    for path in reversed(directories):
        _adopt(roots[merged.directories[path]] + path, top + path)
    deciding = [root for root, layer in zip(roots, layers, strict=True) if layer.index.has_top]
    if deciding:
        _adopt(deciding[-1], top)
    os.utime(top, ns=MTIME_NS)


def _adopt(source: str, full: str) -> None:
    """Give a directory owner, mode and time of another."""
    found = os.lstat(source)
    os.chown(full, found.st_uid, found.st_gid)
    os.chmod(full, stat.S_IMODE(found.st_mode))
    os.utime(full, ns=MTIME_NS)


class _Links:
    """Makes hard links, or copies where these can't or must not be made."""

    def __init__(self, *, copy: bool) -> None:
        self.copy = copy
        self._copies: dict[tuple[int, int], str] = {}

    def add(self, source: str, full: str) -> None:
        if not self.copy:
            try:
                os.link(source, full, follow_symlinks=False)
                return
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM):
                    raise
        self._copy(source, full)

    def _copy(self, source: str, full: str) -> None:
        found = os.lstat(source)
        inode = (found.st_dev, found.st_ino)
        known = self._copies.get(inode)
        if known is not None:
            os.link(known, full, follow_symlinks=False)
            return
        if found.st_nlink > 1:
            self._copies[inode] = full
        if stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(source), full)
            os.chown(full, found.st_uid, found.st_gid, follow_symlinks=False)
            os.utime(full, ns=MTIME_NS, follow_symlinks=False)
            return
        member = Member("", found.st_mode, found.st_uid, found.st_gid)
        if stat.S_ISFIFO(found.st_mode):
            os.mkfifo(full, 0o600)
            set_owner(full, member)
            os.utime(full, ns=MTIME_NS)
        else:
            copy_file(source, full, member)


def fold_stacked(layers: Sequence[Layer], into: Path) -> Layer:
    """Make one layer of several that are fit to be stacked, by hard links.

    Safe when several processes do it at once. Raises MorphError.
    """
    with layer_in_making(into) as making:
        lay_out(layers, making.root, writable=False)
        devices = merged_devices(layers)
        has_top = any(layer.index.has_top for layer in layers)
        members = _with_devices(walk_tree(making.root), devices)
        making.finish(members, devices, has_top=has_top)
    return making.layer


def _with_devices(members: Sequence[Member], devices: Sequence[Member]) -> list[Member]:
    nodes = {device.path: device for device in devices}
    return [nodes.get(member.path, member) for member in members]


def merged_devices(layers: Sequence[Layer], merged: Merged | None = None) -> tuple[Member, ...]:
    """The device nodes of stacked layers that no later layer hides."""
    if not any(layer.index.devices for layer in layers):
        return ()
    merged = merged or merge([layer.index for layer in layers])
    nodes = [
        device
        for position, layer in enumerate(layers)
        for path, device in layer.index.devices.items()
        if merged.others.get(path) == position
    ]
    return tuple(sorted(nodes, key=lambda device: device.path))


def rearrange_layer(
    layer: Layer, arrangement: Arrangement, below: Sequence[Layer], into: Path
) -> Layer:
    """Make a layer that has the files of another at the places of an arrangement.

    Directories that `layer` does not have are made like those of the layers `below`. Raises
    MorphError.
    """
    source = os.fspath(layer.root) + "/"
    with layer_in_making(into) as making:
        making.root.mkdir(0o755)
        _adopt(source, making.top)
        devices = []
        links = _Links(copy=False)
        directories: list[tuple[str, str]] = []
        for place, path in arrangement.entries:
            full = making.top + place
            if path is None or path in layer.index.directories:
                origin = source + path if path is not None else donor(place, below)
                os.mkdir(full, 0o700)
                directories.append((origin, full))
                continue
            links.add(source + path, full)
            if path in layer.index.devices:
                devices.append(layer.index.devices[path]._replace(path=place))
        for origin, full in reversed(directories):
            _adopt(origin, full)
        members = _with_devices(walk_tree(making.root), devices)
        making.finish(members, devices, has_top=layer.index.has_top)
    return making.layer


def donor(path: str, below: Sequence[Layer]) -> str:
    """The directory that shows at a path of stacked layers."""
    layer = next(each for each in reversed(below) if path in each.index.directories)
    return os.fspath(layer.root / path)
