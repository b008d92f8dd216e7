"""Copies a system into a directory."""

from __future__ import annotations

import os
from pathlib import Path

from morphlib.errors import MorphError, Reason
from morphlib.process import run
from morphlib.writeexts.aside import check_way, new_directory
from morphlib.writeexts.extension import WriteExtension
from morphlib.writeexts.parameters import Parameters
from morphlib.writeexts.tree import Tree

_COPY = ("cp", "-a", "--reflink=auto", "--no-target-directory", "--remove-destination", "--")


class WriteSysroot(WriteExtension):
    description = """
        Copy the system into a directory, with owners, modes, times, links and extended
        attributes. A directory that is not there yet, or is empty, appears when all is copied; one
        that has something in it is merged with the system, whose files win.
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
        if not _is_filled(target):
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
        if _is_filled(target):
            run([*_COPY, tree.root, target])
            return
        with new_directory(target, parents=True) as part:
            run([*_COPY, tree.root, part])


def _is_filled(directory: Path) -> bool:
    return directory.is_dir() and any(directory.iterdir())


WRITE = WriteSysroot()
