"""A tree with something of everything that images keep, and what can be seen of such a tree."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path

TIME = 600_000_000
#: Device nodes: path -> mode with type, uid, gid, major, minor.
DEVICES = {
    "dev/null": (stat.S_IFCHR | 0o666, 0, 5, 1, 3),
    'dev/sp ace "x"\\': (stat.S_IFBLK | 0o640, 0, 6, 259, 70_000),
}


def fill(root: Path, *, nodes: bool = False, owners: bool = False) -> dict[str, str]:
    """Fill a tree. Returns the environment that tells of its device nodes, empty with `nodes`.

    Only root can give it `nodes` and `owners`.
    """
    (root / ".hidden").write_text("hidden")
    (root / "bin").mkdir()
    (root / "bin/tool").write_text("#!/bin/sh\n")
    (root / "bin/tool").chmod(0o4755)
    os.link(root / "bin/tool", root / "bin/same")
    (root / "lib").symlink_to("usr/lib")
    (root / "long").symlink_to("/etc/" + "x" * 200)
    os.mkfifo(root / "fifo", 0o600)
    (root / "big").write_bytes(os.urandom(10) * 70_000)
    (root / "empty").touch()
    with (root / "sparse").open("wb") as file:
        file.truncate(3 << 20)
        file.seek(2 << 20)
        file.write(b"here")
    for name in ('sp ace "q"', "ümläut", "back\\slash", "-dash", "#hash", "'quote'", "a  b "):
        (root / f"d{name}").mkdir()
        (root / f"d{name}" / name).write_text(name)
    (root / os.fsdecode(b"latin\xe9")).write_text("no UTF-8")
    (root / "many").mkdir()
    for number in range(300):
        (root / f"many/file-with-a-rather-long-name-{number}").write_text(f"{number}")
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    os.setxattr(root / "big", "user.note", b"\xff\0note\n")
    (root / "dev").mkdir()
    for path, (mode, uid, gid, major, minor) in DEVICES.items():
        if nodes:
            os.mknod(root / path, mode, os.makedev(major, minor))
            os.chown(root / path, uid, gid)
            (root / path).chmod(stat.S_IMODE(mode))
        else:
            (root / path).touch()
    if owners:
        os.chown(root / "big", 70_000, 100_000)
        os.chown(root / "lib", 7, 8, follow_symlinks=False)
        os.chown(root / "tmp", 9, 10)
    for each in sorted([root, *root.rglob("*")], reverse=True):
        os.utime(each, (TIME, TIME), follow_symlinks=False)
    if nodes:
        return {}
    names = ("mode", "uid", "gid", "major", "minor")
    table = root.with_name("devices")
    found = {path: dict(zip(names, device, strict=True)) for path, device in DEVICES.items()}
    table.write_text(json.dumps(found))
    return {"MORPH_DEVICE_TABLE": str(table)}


def seen(root: Path) -> dict[str, tuple[object, ...]]:
    """Path -> all that can be seen of it. Files with several names show their first."""
    found: dict[str, tuple[object, ...]] = {}
    first: dict[int, str] = {}
    for each in sorted([root, *root.rglob("*")]):
        path = str(each.relative_to(root))
        status = each.lstat()
        content: object = None
        if stat.S_ISREG(status.st_mode):
            digest = hashlib.sha256(each.read_bytes()).hexdigest()
            content = (digest, first.setdefault(status.st_ino, path), status.st_nlink)
        elif stat.S_ISLNK(status.st_mode):
            content = str(each.readlink())
        elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            content = status.st_rdev
        attributes = [
            (name, os.getxattr(each, name, follow_symlinks=False))
            for name in os.listxattr(each, follow_symlinks=False)
        ]
        owner = (status.st_mode, status.st_uid, status.st_gid)
        found[path] = (*owner, int(status.st_mtime), content, attributes)
    return found
