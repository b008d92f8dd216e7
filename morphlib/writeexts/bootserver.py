"""Directories that machines boot from, here or on another machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from morphlib.cache.trees import delete_tree
from morphlib.errors import MorphError, Reason
from morphlib.process import run
from morphlib.writeexts.aside import new_file
from morphlib.writeexts.devices import Device
from morphlib.writeexts.pxe import Address
from morphlib.writeexts.remote import Remote
from morphlib.writeexts.remotetree import send_tree, xattr_options
from morphlib.writeexts.tree import Tree

Tell = Callable[[str], None]

_PUT = """
set -eu
mkdir -p "${1%/*}"
cat >"$1.morph-new"
chmod 644 "$1.morph-new"
mv "$1.morph-new" "$1"
"""
_READ = '[ ! -e "$1" ] || { cat "$1"; exit 44; }'
_IS_THERE = 44
_LIST = '[ ! -d "$1" ] || ls -A "$1"'
_RSYNC = ("--archive", "--hard-links", "--numeric-ids", "--delete")


class Place(Protocol):
    """A directory. Paths are relative to it; they are made by us and plain."""

    address: Address

    def check(self) -> None:
        """Raises MorphError unless it can be written to."""

    def put(self, path: str, content: bytes) -> None:
        """Write a file, at once for all that look."""

    def read(self, path: str) -> bytes | None: ...

    def put_files(self, path: str, files: Mapping[str, Path]) -> None:
        """Make a directory with these files and nothing else."""

    def put_tree(self, path: str, tree: Tree, devices: Mapping[str, Device], tell: Tell) -> None:
        """Make a directory a copy of a tree."""

    def remove(self, path: str) -> None:
        """Remove a file or a directory, which need not be there."""

    def names(self, path: str) -> list[str]:
        """What is in a directory, which need not be there."""


def place_at(address: Address, scratch: Path) -> Place:
    """The directory that an address names. `scratch` is an empty directory for us."""
    return There(address, scratch) if address.host else Here(address)


class Here:
    """A directory of this machine."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._top = Path(address.path)

    def check(self) -> None:
        if not (self._top.is_dir() and os.access(self._top, os.W_OK)):
            raise MorphError(
                f"{self._top} is no directory that can be written to", reason=Reason.DEPLOY
            )

    def put(self, path: str, content: bytes) -> None:
        with new_file(self._top / path, parents=True) as part:
            part.write_bytes(content)

    def read(self, path: str) -> bytes | None:
        try:
            return (self._top / path).read_bytes()
        except FileNotFoundError:
            return None

    def put_files(self, path: str, files: Mapping[str, Path]) -> None:
        directory = self._top / path
        delete_tree(directory)
        directory.mkdir(parents=True)
        for name, source in files.items():
            with new_file(directory / name) as part:
                shutil.copyfile(source, part)

    def put_tree(self, path: str, tree: Tree, devices: Mapping[str, Device], tell: Tell) -> None:
        if not is_root_of_machine():
            raise MorphError(
                f"only root can put a tree into {self._top}: its owners would be others to who "
                "mounts it",
                reason=Reason.DEPLOY,
                hint="deploy as root, or let PXEBOOT_ROOTFS_RSYNC_ADDRESS name a host",
            )
        target = self._top / path
        delete_tree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        run(["cp", "-a", "--reflink=auto", "--no-target-directory", "--", tree.root, target])

    def remove(self, path: str) -> None:
        target = self._top / path
        if target.is_dir() and not target.is_symlink():
            delete_tree(target)
        else:
            target.unlink(missing_ok=True)

    def names(self, path: str) -> list[str]:
        directory = self._top / path
        return sorted(os.listdir(directory)) if directory.is_dir() else []


class There:
    """A directory of another machine, which has rsync."""

    def __init__(self, address: Address, scratch: Path) -> None:
        self.address = address
        self._remote = Remote(address.host)
        self._scratch = scratch

    def check(self) -> None:
        self._remote.check_reachable()
        if not self._remote.succeeds(
            "test", "-d", self.address.path, "-a", "-w", self.address.path
        ):
            raise MorphError(
                f"{self.address.path} on {self._remote} is no directory that can be written to",
                reason=Reason.DEPLOY,
            )
        if self._remote.missing_programs("rsync"):
            raise MorphError(f"{self._remote} does not have rsync", reason=Reason.DEPLOY)

    def _full(self, path: str) -> str:
        return f"{self.address.path}/{path}"

    def put(self, path: str, content: bytes) -> None:
        full = self._full(path)
        self._remote.script(_PUT, full, stdin=content, what=f"writing {full}")

    def read(self, path: str) -> bytes | None:
        full = self._full(path)
        done = self._remote.script(_READ, full, check=False, what=f"reading {full}")
        if done.status == _IS_THERE:
            return done.stdout
        if done.status != 0:
            raise self._remote.failure(f"reading {full}", done.status, done.stderr)
        return None

    def put_files(self, path: str, files: Mapping[str, Path]) -> None:
        staged = self._scratch / "files"
        delete_tree(staged)
        staged.mkdir(mode=0o755)
        for name, source in files.items():
            shutil.copyfile(source, staged / name)
            (staged / name).chmod(0o644)
        self._send(Tree(staged), path, ("--recursive", "--perms", "--delete"), {}, _say_nothing)

    def put_tree(self, path: str, tree: Tree, devices: Mapping[str, Device], tell: Tell) -> None:
        options = (*_RSYNC, *xattr_options(self._remote))
        self._send(tree, path, options, devices, tell)

    def _send(
        self,
        tree: Tree,
        path: str,
        options: tuple[str, ...],
        devices: Mapping[str, Device],
        tell: Tell,
    ) -> None:
        full = self._full(path)
        self._remote.run("mkdir", "-p", full)
        send_tree(self._remote, tree, full, options, devices=devices, tell=tell)

    def remove(self, path: str) -> None:
        self._remote.run("rm", "-rf", "--", self._full(path))

    def names(self, path: str) -> list[str]:
        full = self._full(path)
        done = self._remote.script(_LIST, full, what=f"looking into {full}")
        return done.stdout.decode("utf-8", "surrogateescape").splitlines()


def _say_nothing(text: str) -> None:
    """Small files are there at once."""


def is_root_of_machine() -> bool:
    """Whether owners that we give are those that everybody sees."""
    if os.geteuid() != 0:
        return False
    try:
        return Path("/proc/self/uid_map").read_text().split() == ["0", "0", str(2**32 - 1)]
    except OSError:
        return True
