"""Trees with changes that are not written yet."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator

from morphlib.images.btrfs.inodes import EXTENT_INLINE, FileExtent
from morphlib.images.btrfs.layout import EXTENT_DATA, Key
from morphlib.images.btrfs.references import References, data_user
from morphlib.images.btrfs.rewriting import Rewriter, Rewritten
from morphlib.images.btrfs.trees import Data, Item, StoredTree, TreeRoot, Trees
from morphlib.images.btrfs.volume import understanding


class EditedTree:
    """A tree in which items can be set and removed. Everything raises MorphError."""

    def __init__(
        self, trees: Trees, references: References, allocate: Callable[[], int], root: TreeRoot
    ) -> None:
        self._trees = trees
        self._references = references
        self._allocate = allocate
        self._generation = trees.volume.superblock.generation + 1
        self.root = root
        self._edits: dict[Key, Data | None] = {}
        self._sorted: list[Key] | None = []
        #: How many blocks it has more than before.
        self.growth = 0

    @property
    def is_changed(self) -> bool:
        return self.root.generation == self._generation or bool(self._edits)

    def set(self, key: Key, data: Data) -> None:
        self._edit(key, data)

    def remove(self, key: Key) -> None:
        self._edit(key, None)

    def _edit(self, key: Key, data: Data | None) -> None:
        if key not in self._edits:
            self._sorted = None
        self._edits[key] = data

    def _edited_keys(self) -> list[Key]:
        if self._sorted is None:
            self._sorted = sorted(self._edits)
        return self._sorted

    def items(self, first: Key, last: Key) -> Iterator[Item]:
        """With all edits up to now."""
        stored = self._trees.items(self.root, first, last)
        if not self._edits:
            yield from stored
            return
        keys = self._edited_keys()
        keys = keys[bisect_left(keys, first) : bisect_right(keys, last)]
        edits = [(key, self._edits[key]) for key in keys]
        at = 0
        for key, data in stored:
            while at < len(edits) and edits[at][0] < key:
                yield from _kept(edits[at])
                at += 1
            if at < len(edits) and edits[at][0] == key:
                yield from _kept(edits[at])
                at += 1
            else:
                yield key, data
        for edit in edits[at:]:
            yield from _kept(edit)

    def last_until(self, key: Key) -> Item | None:
        """The last item that is not after `key`."""
        keys = self._edited_keys()
        until = key
        while True:
            stored = self._trees.last_until(self.root, until)
            edits = (each for each in reversed(keys[: bisect_right(keys, until)]))
            edited = next((each for each in edits if self._edits[each] is not None), None)
            if stored is not None and stored[0] in self._edits:
                if edited is None or edited < stored[0]:
                    until = _before(stored[0])
                    continue
                stored = None
            if edited is None or (stored is not None and stored[0] > edited):
                return stored
            data = self._edits[edited]
            assert data is not None
            return edited, data

    def flush(self) -> None:
        """Make blocks of the edits. They get their users."""
        if not self._edits:
            return
        edits = [(key, self._edits[key]) for key in self._edited_keys()]
        before = StoredTree(self._trees, self.root)
        done = self._rewriter().rewrite(self.root, edits)
        for bytenr, node in done.replaced:
            self._references.replace(self.root.owner, bytenr, node)
        for key, data in edits:
            if key.type == EXTENT_DATA:
                for _, old in before.items(key, key):
                    self._use(key, old, -1)
                if data is not None:
                    self._use(key, data, +1)
        for bytenr, _ in done.replaced:
            if not self._references.use(bytenr).users:
                self._trees.fresh.pop(bytenr, None)
        self._adopt(done)
        self._edits, self._sorted = {}, []

    def fill(self, items: Iterable[Item]) -> None:
        """Make a new tree of sorted items, instead of one that has no blocks yet."""
        kept = list(items)
        done = self._rewriter().build(kept)
        for key, data in kept:
            if key.type == EXTENT_DATA:
                self._use(key, data, +1)
        self._adopt(done)

    def _rewriter(self) -> Rewriter:
        return Rewriter(self._trees, self.root.owner, self._generation, self._allocate)

    def _adopt(self, done: Rewritten) -> None:
        for bytenr, node in done.fresh.items():
            self._references.add_block(bytenr, node.level, self.root.owner)
        self._trees.fresh |= done.fresh
        self.root = done.root
        self.growth += len(done.fresh) - len(done.replaced)

    def _use(self, key: Key, data: Data, by: int) -> None:
        with understanding(self._trees.volume, key):
            extent = FileExtent.unpack(data)
        if extent.type != EXTENT_INLINE and extent.disk_bytenr:
            user = data_user(self.root.owner, key, extent)
            self._references.change(extent.disk_bytenr, user, by)


def _kept(edit: tuple[Key, Data | None]) -> Iterator[Item]:
    key, data = edit
    if data is not None:
        yield key, data


def _before(key: Key) -> Key:
    """The key right before this one."""
    most = (1 << 64) - 1
    if key.offset:
        return key._replace(offset=key.offset - 1)
    if key.type:
        return Key(key.objectid, key.type - 1, most)
    return Key(max(key.objectid - 1, 0), 255 if key.objectid else 0, most if key.objectid else 0)
