"""Copying the tree of a system to another machine."""

from __future__ import annotations

import re
import stat
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO

from morphlib import process
from morphlib.errors import MorphError, Reason
from morphlib.writeexts.devices import Device
from morphlib.writeexts.remote import Remote
from morphlib.writeexts.ssh import rsync_command
from morphlib.writeexts.transfer import Progress, tell_progress
from morphlib.writeexts.tree import Tree

_PERCENT = re.compile(rb"\s(\d{1,3})%\s")

# Each line: mode, uid, gid, type, major, minor, path. The files there stand for the nodes.
_MAKE_DEVICES = """
set -eu
cd -- "$1"
while read -r mode uid gid type major minor path; do
    rm -f -- "$path"
    mknod -m "$mode" -- "$path" "$type" "$major" "$minor"
    chown "$uid:$gid" -- "$path"
done
"""


def send_tree(
    remote: Remote,
    tree: Tree,
    target: str,
    options: Sequence[str],
    *,
    devices: Mapping[str, Device],
    tell: Callable[[str], None],
) -> None:
    """Copy all of the tree into the directory `target` there, which has nothing else in the end.

    `options` are those of rsync; `devices` are the nodes that empty files of the tree stand for.
    Raises MorphError if that fails.
    """
    argv = rsync_command(
        remote.host, tree.root, target, ["--info=progress2", "--no-human-readable", *options]
    )
    with tempfile.TemporaryFile() as complaints:
        child = process.spawn(argv, stdout=process.PIPE, stderr=complaints.fileno())
        with child:
            assert child.stdout is not None
            try:
                _follow(child.stdout, tell_progress(tell, "Transferring the system"))  # type: ignore[arg-type]
            except BaseException:
                child.terminate()
                raise
            status = child.wait()
        if status != 0:
            complaints.seek(0)
            raise remote.failure(f"rsync to {target}", status, complaints.read())
    make_devices(remote, tree, target, devices)


def xattr_options(remote: Remote) -> tuple[str, ...]:
    """The option to keep extended attributes, such as capabilities, if rsync there knows them."""
    has_xattrs = re.search(r"(?<!no )xattrs", remote.output("rsync", "--version"))
    return ("--xattrs",) if has_xattrs else ()


def _follow(stream: BinaryIO, progress: Progress) -> None:
    """Tell of the figures that rsync prints, each over the other on one line."""
    while piece := stream.read1(4096):  # type: ignore[attr-defined]
        found = _PERCENT.findall(piece)
        if found:
            progress(int(found[-1]), 100)


def make_devices(remote: Remote, tree: Tree, target: str, devices: Mapping[str, Device]) -> None:
    """Make the device nodes in a copy of the tree that an ordinary user could only stand in for."""
    lines = [
        f"{stat.S_IMODE(device.mode):o} {device.uid} {device.gid} "
        f"{'b' if stat.S_ISBLK(device.mode) else 'c'} {device.major} {device.minor} ./{path}\n"
        for path, device in sorted(devices.items())
        if _stands_for_device(tree, path)
    ]
    if lines:
        remote.script(
            _MAKE_DEVICES,
            target,
            stdin="".join(lines).encode("utf-8", "surrogateescape"),
            what="making device nodes",
        )


def _stands_for_device(tree: Tree, path: str) -> bool:
    """Whether it is still there, and no link of the tree would lead the other side elsewhere."""
    place = tree.place(path)
    if place != tree.root / path or place.is_symlink() or not place.is_file():
        return False
    if "\n" in path or path != path.strip():
        raise MorphError(f"can't make the device node {path!r}", reason=Reason.DEPLOY)
    return place.stat().st_size == 0
