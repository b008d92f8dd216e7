"""The roots of sandboxes: mounting what a build sees where it sees it."""

# Plain text paths here: making Path objects takes longer than the system calls.
# ruff: noqa: PTH102, PTH103, PTH114, PTH115, PTH116, PTH120, PTH211

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from morphlib.build import syscalls
from morphlib.build.merging import resolve

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}

#: What a root made of this machine's tools has of it. Everything else is hidden: people's files,
#: caches, sockets of services.
HOST_DIRECTORIES = (
    "bin",
    "sbin",
    "lib",
    "lib32",
    "lib64",
    "libx32",
    "usr",
    "etc",
    "opt",
    "gnu",
    "nix",
    "var/lib/dpkg",
)

#: Of these, what is hidden nevertheless: root's secrets, which a build that root runs could read.
HOST_SECRETS = (
    "etc/NetworkManager/system-connections",
    "etc/apt/auth.conf",
    "etc/apt/auth.conf.d",
    "etc/gshadow",
    "etc/gshadow-",
    "etc/ipsec.secrets",
    "etc/kubernetes",
    "etc/krb5.keytab",
    "etc/letsencrypt",
    "etc/openvpn",
    "etc/pki/tls/private",
    "etc/ppp",
    "etc/security/opasswd",
    "etc/shadow",
    "etc/shadow-",
    "etc/ssh",
    "etc/ssl/private",
    "etc/sudoers",
    "etc/sudoers.d",
    "etc/wireguard",
)


class RootKind(StrEnum):
    READ_ONLY = "read-only"  # a tree, nothing of which can be changed
    WRITABLE = "writable"  # a tree that can be changed
    HOST = "host"  # the tools of this machine, read-only


class MountKind(StrEnum):
    WRITABLE = "writable"  # a directory of the host that can be written to
    READ_ONLY = "read-only"  # a directory or file of the host
    TEMPORARY = "temporary"  # an empty directory in memory


@dataclass(frozen=True, slots=True)
class Mount:
    """Something at the path `target` of a sandbox. `source` is a path of the host, if any."""

    kind: MountKind
    target: str
    source: Path | None = None

    def as_arguments(self) -> list[str]:
        """The same for bubblewrap."""
        if self.source is None:
            return ["--tmpfs", self.target]
        option = "--bind" if self.kind is MountKind.WRITABLE else "--ro-bind"
        return [option, os.fspath(self.source), self.target]


def mount_root(root: Path, kind: RootKind, mounts: Sequence[Mount]) -> None:
    """Mount a sandbox's root over the directory `root`, with `mounts`, /dev and /dev/shm in it.

    Where the root can't be changed, the directories to mount on must be there. Raises OSError.
    """
    top = os.fspath(root)
    covered = False
    sources: list[int | None] = []
    try:
        # Opened first: a source may be below what is going to be covered.
        sources += [_open_source(mount) for mount in mounts]
        if kind is RootKind.HOST:
            _mount_tmpfs(top, "mode=755")
        else:
            _attach(syscalls.open_tree(top), top, read_only=kind is RootKind.READ_ONLY)
        covered = True
        _fill_root(top, kind, mounts, sources)
    except OSError:
        if covered:
            unmount_root(root)
        raise
    finally:
        for source in sources:
            if source is not None:
                os.close(source)


def _fill_root(
    top: str, kind: RootKind, mounts: Sequence[Mount], sources: Sequence[int | None]
) -> None:
    if kind is RootKind.HOST:
        _mount_host(top)
    can_change = kind is not RootKind.READ_ONLY
    _mount_devices(_target(top, "dev", make=can_change))
    if can_change:
        _target(top, "proc", make=True)
    for mount, source in zip(mounts, sources, strict=True):
        target = _target(top, mount.target, make=can_change, like=source)
        if source is None:
            _mount_tmpfs(target, "mode=1777")
        else:
            syscalls.attach(source, target)
    if kind is RootKind.HOST:
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_RDONLY
        syscalls.mount("none", top, None, syscalls.MS_BIND | syscalls.MS_REMOUNT | flags)


def unmount_root(root: Path) -> None:
    """Undo `mount_root`."""
    syscalls.unmount(os.fspath(root))


def _open_source(mount: Mount) -> int | None:
    if mount.source is None:
        return None
    fd = syscalls.open_tree(os.fspath(mount.source))
    if mount.kind is MountKind.READ_ONLY:
        syscalls.make_read_only(fd)
    return fd


def _attach(fd: int, target: str, *, read_only: bool = False) -> None:
    try:
        if read_only:
            syscalls.make_read_only(fd)
        syscalls.attach(fd, target)
    finally:
        os.close(fd)


def _mount_tmpfs(target: str, options: str) -> None:
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
    syscalls.mount("tmpfs", target, "tmpfs", flags, options)


def _mount_devices(dev: str) -> None:
    """A minimal /dev, with /dev/shm and pseudo-terminals of its own."""
    syscalls.mount("tmpfs", dev, "tmpfs", syscalls.MS_NOSUID, "mode=755")
    for name in _DEVICES:
        os.close(os.open(f"{dev}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        # Read-only is the node alone: uid 0 of a build that root runs could give the machine's own
        # another mode or owner. What the device takes it takes nevertheless.
        node = syscalls.open_tree(f"/dev/{name}", recursive=False)
        _attach(node, f"{dev}/{name}", read_only=True)
    for name, target in _DEVICE_LINKS.items():
        os.symlink(target, f"{dev}/{name}")
    for name in ("pts", "shm"):
        os.mkdir(f"{dev}/{name}")
    flags = syscalls.MS_NOSUID | syscalls.MS_NOEXEC
    syscalls.mount("devpts", f"{dev}/pts", "devpts", flags, "newinstance,ptmxmode=0666,mode=620")
    _mount_tmpfs(f"{dev}/shm", "mode=1777")
    remount = syscalls.MS_BIND | syscalls.MS_REMOUNT | syscalls.MS_RDONLY | syscalls.MS_NOSUID
    syscalls.mount("none", dev, None, remount)


def _mount_host(top: str) -> None:
    for name in HOST_DIRECTORIES:
        place, source = f"{top}/{name}", f"/{name}"
        try:
            found = os.lstat(source)
        except FileNotFoundError:
            continue
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(source), place)
        elif stat.S_ISDIR(found.st_mode):
            os.mkdir(place)
            _attach(syscalls.open_tree(source), place, read_only=True)
    for name in HOST_SECRETS:
        _hide(f"{top}/{name}")
    for name in ("run", "home", "root", "var/tmp", "tmp", "dev", "proc"):
        os.makedirs(f"{top}/{name}", exist_ok=True)


def _hide(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            _mount_tmpfs(path, "mode=755")
        elif not os.path.islink(path):
            _attach(syscalls.open_tree("/dev/null", recursive=False), path, read_only=True)


def kind_in(root: str | Path, path: str) -> str | None:
    """What is at a path inside of a root: see `Stack.kind`. The path itself may have no symlinks
    but at its end."""
    full = f"{root}/{path}"
    try:
        mode = os.lstat(full).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        return "directory"
    if stat.S_ISLNK(mode):
        return "link:" + os.readlink(full)
    return "other"


def _target(top: str, path: str, *, make: bool, like: int | None = None) -> str:
    """Where a path inside of a root really is: its symlinks never lead out.

    With `make` a missing directory, or file if a file is to be mounted, is made.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    place = ""
    for number, part in enumerate(parts):
        inside = f"{place}/{part}".lstrip("/")
        found = kind_in(top, inside)
        is_file = (
            number == len(parts) - 1
            and like is not None
            and not stat.S_ISDIR(os.stat(like).st_mode)
        )
        if is_file and found != "link":
            if found is None and make:
                os.close(os.open(f"{top}/{inside}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
            return f"{top}/{inside}"
        if found is None and make:
            os.mkdir(f"{top}/{inside}")
        resolved = resolve(partial(kind_in, top), inside)
        if resolved is None:
            raise OSError(errno.ENOTDIR, "No directory to mount on", f"{top}/{inside}")
        place = "" if resolved == "." else resolved
    return f"{top}/{place}"
