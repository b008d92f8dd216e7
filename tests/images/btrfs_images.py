"""Making images of btrfs in tests, and judging them."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import UUID

from morphlib.images.btrfs.create import create_image
from morphlib.images.btrfs.model import Entry, Subvolume

FSID = UUID("01234567-89ab-cdef-0123-456789abcdef")
TIME = 683074800
SIZE = 64 << 20


def make(
    path: Path,
    entries: Sequence[Entry],
    size: int = SIZE,
    *,
    node_size: int = 16384,
    metadata_copies: int = 2,
) -> Path:
    create_image(
        *(path, size, entries),
        fsid=FSID,
        time=TIME,
        node_size=node_size,
        metadata_copies=metadata_copies,
    )
    return path


def image_of(tree: Path, image: Path, size: int = SIZE) -> Path:
    """An image with `tree` in the subvolume `system`."""
    return make(image, [Subvolume("system", tree)], size)


def check(image: Path, *, but: str = "\0") -> None:
    """Let `btrfs check` look at all there is, also at whether data has the checksums it should.

    It may say `but`.
    """
    command = ["btrfs", "check", "--check-data-csum", str(image)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).replace(but, "")
    assert done.returncode == 0, said
    assert "no error found" in said, said
    for word in ("warning", "mismatch", "invalid", "bad"):
        assert word not in said.lower(), said


def tree_blocks(image: Path) -> Iterator[list[int]]:
    """Where the copies of the blocks of all trees are."""
    shown = subprocess.run(
        ["btrfs", "inspect-internal", "dump-tree", image], check=True, capture_output=True
    ).stdout
    lines = shown.decode("utf-8", "replace").splitlines()
    chunks: list[tuple[int, int, list[int]]] = []
    blocks: set[int] = set()
    for line in lines:
        words = line.split()
        if "CHUNK_ITEM" in line and words[0] == "item":
            chunks.append((int(words[5].rstrip(")")), 0, []))
        elif words[:1] == ["length"] and words[2:3] == ["owner"]:
            chunks[-1] = (chunks[-1][0], int(words[1]), [])
        elif words[:1] == ["stripe"] and words[2] == "devid":
            chunks[-1][2].append(int(words[5]))
        elif words[:1] in (["leaf"], ["node"]) and words[2] in ("items", "level"):
            blocks.add(int(words[1]))
    for block in sorted(blocks):
        for start, length, stripes in chunks:
            if start <= block < start + length:
                yield [each + block - start for each in stripes]


def facts(directory: Path) -> dict[str, tuple[object, ...]]:
    """What is to be the same of a tree and of its copy, by path."""
    found: dict[str, tuple[object, ...]] = {}
    for path in (directory, *sorted(directory.rglob("*"))):
        status = path.lstat()
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = path.readlink()
        links = 0 if stat.S_ISDIR(status.st_mode) else status.st_nlink
        xattrs = {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
            if name != "security.selinux"
        }
        found[str(path.relative_to(directory))] = (
            *(status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns),
            *(status.st_rdev, links, content, xattrs),
        )
    return found
