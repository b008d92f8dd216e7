"""Copies a system into a directory."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

from morphlib.cache.trees import mount_points
from morphlib.errors import MorphError, Reason
from morphlib.process import run
from morphlib.writeexts.aside import ENDING_WITH_US, check_way, new_directory
from morphlib.writeexts.base import Base, UnknownChangeError, read_base, read_changes
from morphlib.writeexts.basetar import write_changes_tar
from morphlib.writeexts.extension import WriteExtension
from morphlib.writeexts.merging import merged_directory
from morphlib.writeexts.parameters import Parameters
from morphlib.writeexts.tree import Tree

_UNPACK = (
    *ENDING_WITH_US,
    "tar",
    "--extract",
    "--force-local",
    "--preserve-permissions",
    "--same-owner",
    "--numeric-owner",
    "--xattrs",
    "--xattrs-include=*",
)
_COPY = (
    *ENDING_WITH_US,
    "cp",
    "-a",
    "--reflink=auto",
    "--no-target-directory",
    "--remove-destination",
    "--",
)


class WriteSysroot(WriteExtension):
    description = """
        Copy the system into a directory, with owners, modes, times, links and extended
        attributes. A directory that is not there yet, or is empty, appears when all is copied. One
        that has something in it, or mounted on it, is merged with the system, whose files win: all
        is copied to a hidden directory inside of it, for which there must be room, and then file
        after file takes its place. If that fails while it is copied nothing has changed; if it is
        killed later, some files are old ones until it is deployed again.
        """
    location_help = """
        Path of the directory, relative to the definitions if not starting with /; directories on
        the way are made.
        """
    wrong_mode = "Cannot upgrade a sysroot deployment"

    def check(self, location: str, given: Parameters) -> None:
        target = Path(location)
        if target.exists() and not target.is_dir():
            raise MorphError(f"{location} is there and no directory", reason=Reason.DEPLOY)
        if not _is_merged_with(target):
            check_way(target)
        elif target.samefile("/"):
            raise MorphError(
                f"{location} is this machine's own system, which is not written over",
                reason=Reason.DEPLOY,
            )
        elif not os.access(target, os.W_OK | os.X_OK):
            raise MorphError(f"{location} can't be written to", reason=Reason.DEPLOY)

    def write(self, tree: Tree, location: str, given: Parameters) -> None:
        target = Path(location)
        self.check(location, given)
        base = read_base(self.environment)
        merged = _is_merged_with(target)
        with merged_directory(target) if merged else new_directory(target, parents=True) as part:
            if base is None or not _copy_base(base, part):
                run([*_COPY, tree.root, part])


def _is_merged_with(target: Path) -> bool:
    """Nothing can take the place of a directory that has something in it, or mounted on it."""
    if not target.is_dir():
        return False
    return any(target.iterdir()) or target.resolve() in mount_points()


def _copy_base(base: Base, target: Path) -> bool:
    """Copy what the system was before, and then what was changed. False if that is not known, or
    has holes, which a tar on the way would fill: the image of a disk inside of a system."""
    try:
        changes = read_changes(base.changes)
    except (UnknownChangeError, OSError):
        return False
    if any(_has_holes(changes.directory / path, found) for path, found in changes.entries.items()):
        return False
    run([*_COPY, base.tree, target])
    for path in changes.entries:
        if path not in changes.gone and not _is_directory(target / path):
            _remove(target / path)  # a directory takes its place
    for path in sorted(changes.gone):
        _remove(target / path)
    for path in sorted(changes.emptied):
        directory = target / path
        if _is_directory(directory):
            for entry in directory.iterdir():
                _remove(entry)
    with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
        write_changes_tar(changes, Path(archive.name))
        run([*_UNPACK, f"--file={archive.name}", f"--directory={target}"])
    return True


def _has_holes(path: Path, found: os.stat_result) -> bool:
    if not stat.S_ISREG(found.st_mode) or found.st_blocks * 512 >= found.st_size:
        return False
    with path.open("rb") as file:  # it may be compressed, or small and kept elsewhere
        return os.lseek(file.fileno(), 0, os.SEEK_HOLE) < found.st_size


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _remove(path: Path) -> None:
    if _is_directory(path):
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()


WRITE = WriteSysroot()
