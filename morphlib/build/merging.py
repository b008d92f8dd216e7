"""What comes of unpacking layers one after the other, worked out from their indexes alone.

The rules of unpacking: directories merge; a directory that meets a symlink to a directory goes into
what that leads to; a directory replaces anything else; what is no directory replaces what is none,
but gives way to a directory and to a symlink to one.

Overlayfs follows these by itself but for symlinks to directories, and for files that meet earlier
directories. Layers that have such conflicts with earlier ones need to be rearranged first, which
`arrange` plans. What it returns, stacked, is what unpacking gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from morphlib.build.layers import LayerIndex
from morphlib.build.members import parents

_MOST_LINKS = 40  # as the kernel: more symlinks on the way to one file are a loop

#: For each layer's serial, the serials of earlier layers that it goes well with.
_harmless: dict[int, set[int]] = {}
_NONE: set[int] = set()


@dataclass(frozen=True, slots=True)
class Arrangement:
    """A layer's members at other places: (path in the new layer, path in the old one).

    Sorted, without the top. A path of None is a directory that only other layers have, but that
    something of this one goes into.
    """

    entries: tuple[tuple[str, str | None], ...]


def clashes(earlier: LayerIndex, later: LayerIndex) -> frozenset[str]:
    """The paths at which stacking two layers may differ from unpacking them."""
    known = _harmless.setdefault(later.serial, set())
    if earlier.serial in known:
        return frozenset()
    found = (later.directories & earlier.others) | (later.others & earlier.directories)
    for path in earlier.links.keys() & later.others:
        if later.links.get(path) != earlier.links[path]:
            found |= {path}
    if not found:
        known.add(earlier.serial)
    return found


class Stack:
    """Layers that can be stacked as they are, so far. The last one wins."""

    def __init__(self) -> None:
        self.indexes: list[LayerIndex] = []
        self._serials: set[int] = set()

    def push(self, index: LayerIndex) -> None:
        self.indexes.append(index)
        self._serials.add(index.serial)

    def kind(self, path: str) -> str | None:
        """What is at a path: None, "directory", "other", or "link:" and a symlink's target."""
        for index in reversed(self.indexes):
            if path in index.directories:
                return "directory"
            if path in index.links:
                return "link:" + index.links[path]
            if path in index.others:
                return "other"
        return None

    def clashes_with(self, index: LayerIndex) -> bool:
        """May the next layer have to be rearranged?"""
        if self._serials <= _harmless.get(index.serial, _NONE):
            return False
        # All of them, no short cut: what is found harmless is remembered.
        found = [clashes(earlier, index) for earlier in self.indexes]
        return any(found)

    def arrange(self, index: LayerIndex) -> Arrangement | None:
        """How the next layer must be rearranged; None if it can stay as it is."""
        clashing: set[str] = set()
        for earlier in self.indexes:
            clashing |= clashes(earlier, index)
        if not any(self._may_change(index, path) for path in clashing):
            return None
        arrangement = _Rearranging(self, index).arrange()
        unchanged = all(place == path for place, path in arrangement.entries)
        if unchanged and len(arrangement.entries) == len(index.directories) + len(index.others):
            return None
        return arrangement

    def _may_change(self, index: LayerIndex, path: str) -> bool:
        """Can what a layer has at a path end up elsewhere, or nowhere? Where a symlink leads to
        depends on the rest of the layer as well."""
        kind = self.kind(path)
        if kind == "directory":
            return path in index.others
        return (
            kind is not None
            and kind.startswith("link:")
            and kind != "link:" + index.links.get(path, "\0")
        )


def resolve(kind: Callable[[str], str | None], path: str) -> str | None:
    """The directory that a path leads to, inside of the root; None if it leads to none.

    An absolute target starts at the root again, and the root is its own parent.
    """
    pending = path.split("/")[::-1]
    at: list[str] = []
    links = 0
    while pending:
        part = pending.pop()
        if part in ("", "."):
            continue
        if part == "..":
            del at[-1:]
            continue
        found = kind("/".join([*at, part]))
        if found == "directory":
            at.append(part)
        elif found is not None and found.startswith("link:"):
            links += 1
            if links > _MOST_LINKS:
                return None
            target = found.removeprefix("link:")
            if target.startswith("/"):
                at.clear()
            pending.extend(target.split("/")[::-1])
        else:
            return None
    return "/".join(at) or "."


class _Rearranging:
    """Unpacks one layer, in thought, on top of a stack."""

    def __init__(self, stack: Stack, index: LayerIndex) -> None:
        self.stack = stack
        self.index = index
        self.places = {".": "."}  # directory of the layer -> where it goes
        self.entries: dict[str, str | None] = {}
        self.kinds: dict[str, str] = {}

    def kind(self, path: str) -> str | None:
        return self.kinds.get(path) or self.stack.kind(path)

    def arrange(self) -> Arrangement:
        for path in sorted(self.index.directories | self.index.others):
            parent, _, name = path.rpartition("/")
            place = self.places[parent or "."]
            candidate = name if place == "." else f"{place}/{name}"
            if path in self.index.directories:
                self._put_directory(path, candidate)
            else:
                self._put_other(path, candidate)
        for path in list(self.entries):
            for parent in parents(path):
                if parent in self.entries:
                    break
                self.entries[parent] = None
        return Arrangement(tuple(sorted(self.entries.items(), key=lambda entry: entry[0])))

    def _put_directory(self, path: str, candidate: str) -> None:
        kind = self.kind(candidate)
        target = None
        if kind is not None and kind.startswith("link:"):
            target = resolve(self.kind, candidate)
        place = target or candidate
        self.places[path] = place
        if place != ".":
            self.entries[place] = path
            self.kinds[place] = "directory"

    def _put_other(self, path: str, candidate: str) -> None:
        kind = self.kind(candidate)
        if kind == "directory":
            return
        if kind is not None and kind.startswith("link:") and resolve(self.kind, candidate):
            return
        self.entries[candidate] = path
        link = self.index.links.get(path)
        self.kinds[candidate] = "other" if link is None else "link:" + link


@dataclass(frozen=True, slots=True)
class Merged:
    """What a stack comes to: for each path, the position in the stack of the layer it is from."""

    directories: Mapping[str, int]
    others: Mapping[str, int]


def merge(indexes: Sequence[LayerIndex]) -> Merged:
    """The members of stacked layers, which `Stack.arrange` has found, or made, fit for it."""
    directories: dict[str, int] = {}
    others: dict[str, int] = {}
    for position, index in enumerate(indexes):
        for path in index.directories:
            others.pop(path, None)
            directories[path] = position
        for path in index.others:
            if path not in directories:
                others[path] = position
    return Merged(directories, others)
