"""What has to go on top of some layers to make a tree of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from morphlib.writeexts.entries import Entries, Entry, groups_of_names, parents, same_content


@dataclass(frozen=True, slots=True)
class Difference:
    """`entries` come on top, with the directories that they are in; `removed` are gone."""

    entries: Entries
    removed: tuple[str, ...]

    @property
    def is_nothing(self) -> bool:
        return not self.entries and not self.removed


def difference(tree: Entries, base: Entries) -> Difference:
    """What makes `tree` of `base`. Times alone make no difference."""
    removed = tuple(_removed(tree, base))
    wanted = set(_changed(tree, base))
    for path in [*wanted, *removed]:
        wanted.update(parents(path))
    return Difference({path: tree[path] for path in tree if path in wanted}, removed)


def _removed(tree: Entries, base: Entries) -> Iterator[str]:
    for path in base:
        if path in tree:
            continue
        directory = path.rpartition("/")[0] or "."
        # What is in a directory that is gone goes with it.
        if directory in tree and tree[directory].is_directory:
            yield path


def _changed(tree: Entries, base: Entries) -> Iterator[str]:
    names, names_before = groups_of_names(tree), groups_of_names(base)
    for path, entry in tree.items():
        before = base.get(path)
        if (
            before is None
            or names.get(path) != names_before.get(path)
            or _seen(entry) != _seen(before)
            or (entry.is_regular and not same_content(entry, before))
        ):
            yield path


def _seen(entry: Entry) -> tuple[object, ...]:
    return (
        entry.mode,
        entry.uid,
        entry.gid,
        entry.size,
        entry.target,
        entry.device,
        entry.attributes,
    )
