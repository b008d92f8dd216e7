"""Copies a directory of configuration into the system."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from morphlib.errors import MorphError, Reason
from morphlib.writeexts.extension import ConfigureExtension
from morphlib.writeexts.parameters import Parameters, text
from morphlib.writeexts.tree import Tree

SRC_CONFIG_DIR = text(
    "SRC_CONFIG_DIR",
    """The directory to copy, relative to the root of the definitions. Without it nothing is
    changed.""",
)


# A checkout has what the umask of whoever made it left; nobody else is to write to the system's.
_KEPT = 0o7755


class AddConfigFiles(ConfigureExtension):
    description = """
    Copy the contents of a directory into /etc.

    Files of the system with the same names get the new contents and keep their owners and modes.
    Others get the modes that they have there, but nobody except their owner, root, may write to
    them. Names at the top of the directory that start with a dot are left out.
    """
    parameters = (SRC_CONFIG_DIR,)

    def configure(self, tree: Tree, given: Parameters) -> None:
        if not given[SRC_CONFIG_DIR]:
            return
        source = Path(given[SRC_CONFIG_DIR])
        if not source.is_dir():
            raise MorphError(f"SRC_CONFIG_DIR {source} is not a directory", reason=Reason.DEPLOY)
        tree.make_directory("etc")
        copy_entries(tree, source, "etc", hidden=False)


def copy_entries(tree: Tree, source: Path, target: str, *, hidden: bool = True) -> None:
    """Copy what is in a directory of the host into one of the tree, by name.

    Raises MorphError for what is neither file, directory nor symlink, and where the tree has
    something of another kind.
    """
    for name in sorted(os.listdir(source)):
        if not hidden and name.startswith("."):
            continue
        entry, path = source / name, f"{target}/{name}"
        mode = entry.lstat().st_mode
        if stat.S_ISLNK(mode):
            tree.make_symlink(path, str(entry.readlink()))
        elif stat.S_ISDIR(mode):
            tree.make_directory(path, mode=mode & _KEPT)
            copy_entries(tree, entry, path)
        elif stat.S_ISREG(mode):
            kept = None if tree.is_file(path) else mode & _KEPT
            tree.write(path, entry.read_bytes(), mode=kept)
        else:
            raise MorphError(
                f"{entry} is neither file, directory nor symlink", reason=Reason.DEPLOY
            )


CONFIGURE = AddConfigFiles()
