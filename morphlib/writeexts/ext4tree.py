"""A tree as what an ext4 file system is filled with."""

from __future__ import annotations

import stat
from itertools import count
from pathlib import Path

from morphlib.images.ext4 import (
    BLOCK,
    FIRST_INODE,
    LOST_FOUND_INODE,
    ROOT_INODE,
    Geometry,
    Script,
    fitting_size,
)
from morphlib.writeexts.entries import Entries, Entry, groups_of_names

_IN_INODE = 60  # bytes of a symlink's target
_ROOM = 1.02  # for what lies between the blocks of files
_SPARE_INODES = 1024


def geometry(entries: Entries, size: int) -> Geometry:
    """How large a file system for a tree is: of `size` bytes, or as large as needed (0)."""
    blocks = int(sum(_blocks(path, entry) for path, entry in entries.items()) * _ROOM)
    names = sum(-(-(len(path.encode("utf-8", "replace")) + 12) // 4) * 4 for path in entries)
    blocks += 2 * names // BLOCK
    inodes = len(entries) + FIRST_INODE + _SPARE_INODES
    fit = size or fitting_size(blocks, inodes)
    return Geometry(fit, max(inodes, fit // (4 * BLOCK)))


def _blocks(path: str, entry: Entry) -> int:
    blocks = 1 if entry.attributes else 0
    if entry.is_directory:
        return blocks + 1
    if entry.is_symlink:
        return blocks + (len(entry.target) >= _IN_INODE)
    return blocks + -(-entry.size // BLOCK)


def script_for(entries: Entries, values: Path) -> Script:
    """The commands that put a tree into an empty file system.

    `values` is a directory for the values of extended attributes. Raises MorphError for names that
    can't be.
    """
    script = Script()
    names = groups_of_names(entries)
    numbers = count()
    inodes: dict[str, int] = {".": ROOT_INODE}
    where = ""
    for path, entry in entries.items():
        directory, _, name = path.rpartition("/")
        if path != "." and directory != where:
            script.enter(directory)
            where = directory
        first = names.get(path, (path,))[0]
        if first != path:
            script.link(inodes[first], name)
            continue
        inode = ROOT_INODE if path == "." else _create(script, path, name, entry)
        inodes[path] = inode
        if path in names:
            script.links(inode, len(names[path]))
        script.attributes(inode, entry.mode, entry.uid, entry.gid, entry.mtime)
        for attribute, value in entry.attributes:
            file = values / str(next(numbers))
            file.write_bytes(value)
            script.extended(inode, attribute, file)
    return script


def _create(script: Script, path: str, name: str, entry: Entry) -> int:
    if entry.is_directory:
        return LOST_FOUND_INODE if path == "lost+found" else script.directory(name)
    if entry.is_symlink:
        return script.symlink(name, entry.target)
    if entry.is_device:
        return script.device(name, entry.mode, entry.device)
    if stat.S_ISFIFO(entry.mode):
        return script.fifo(name)
    return script.file(entry.source, name)
