"""Adding lines to a table in /etc that belongs to root."""

from __future__ import annotations

from collections.abc import Iterable

from morphlib.errors import MorphError, Reason
from morphlib.writeexts.tree import Tree


def append_values(tree: Tree, path: str, values: Iterable[str]) -> None:
    """Append a line for each value, sorted by code points, to a file that is made if missing.

    It gets owner 0:0 and mode 0644 in any case. Raises MorphError if its directory is missing.
    """
    directory = path.rpartition("/")[0]
    if not tree.is_directory(directory):
        raise MorphError(f"the system has no directory /{directory}", reason=Reason.DEPLOY)
    tree.append_lines(path, sorted(values), mode=0o644, owner=(0, 0))
