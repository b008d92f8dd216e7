"""One transaction: changes to trees in memory, and then all of them on the disk, or none."""

from __future__ import annotations

from collections.abc import Iterable

from morphlib.images.btrfs.bookkeeping import Bookkeeper, Books
from morphlib.images.btrfs.copying import copy_data, runs
from morphlib.images.btrfs.editing import EditedTree
from morphlib.images.btrfs.freespace import FreeSpace
from morphlib.images.btrfs.fstree import Piece
from morphlib.images.btrfs.layout import (
    CHUNK_TREE,
    CSUM_SIZE,
    CSUM_TREE,
    DEV_TREE,
    EXTENT_CSUM,
    EXTENT_CSUM_OBJECTID,
    EXTENT_TREE,
    FREE_SPACE_TREE,
    HEADER_SIZE,
    ITEM,
    ROOT_ITEM,
    SECTOR,
    UUID_TREE,
    Header,
    Key,
)
from morphlib.images.btrfs.references import References
from morphlib.images.btrfs.roots import RootItem
from morphlib.images.btrfs.superblock import (
    COMPAT_RO_FREE_SPACE_TREE,
    COMPAT_RO_FREE_SPACE_TREE_VALID,
)
from morphlib.images.btrfs.trees import Item, Node, StoredTree, TreeRoot, Trees, items_of
from morphlib.images.btrfs.volume import Volume, understanding
from morphlib.images.btrfs.writable import BACKED_UP, changed_superblocks
from morphlib.images.btrfs.writing import DataWriter, write_blocks

_FREE_SPACE_TREE_IS_VALID = COMPAT_RO_FREE_SPACE_TREE | COMPAT_RO_FREE_SPACE_TREE_VALID


class Transaction:
    """Everything raises MorphError. Nothing is written before `commit` writes."""

    def __init__(self, volume: Volume, *, time: int) -> None:
        self.volume = volume
        self.time = time
        self.generation = volume.superblock.generation + 1
        self.trees = Trees(volume)
        extents = self._stored(EXTENT_TREE)
        self.space = FreeSpace(volume, extents, self._stored(DEV_TREE))
        self.references = References(volume, extents, self.generation)
        self.roots = self._edited(self.trees.root)
        self._opened: dict[int, EditedTree] = {}
        self.pieces: list[Piece] = []

    def _stored(self, tree: int) -> StoredTree:
        root = self.trees.tree(tree)
        if root is None:
            raise self.volume.damaged(f"there is no tree {tree}")
        return StoredTree(self.trees, root)

    def _edited(self, root: TreeRoot) -> EditedTree:
        return EditedTree(self.trees, self.references, self.space.block, root)

    def tree(self, tree: int) -> EditedTree:
        """A tree by its id: that of a subvolume, of checksums or of UUIDs."""
        found = self._opened.get(tree)
        if found is None:
            found = self._opened[tree] = self._edited(self._stored(tree).root)
        return found

    def has_tree(self, tree: int) -> bool:
        return tree in self._opened or self.trees.tree(tree) is not None

    def new_tree(self, tree: int, items: Iterable[Item]) -> EditedTree:
        """A new subvolume's tree, of sorted items. It needs a root item."""
        found = self._opened[tree] = self._edited(TreeRoot(tree, 0, 0, self.generation))
        found.fill(items)
        return found

    def copy_tree(self, tree: int, origin: int) -> EditedTree:
        """A tree that shares all with another but the topmost block. It needs a root item."""
        source = self.tree(origin)
        source.flush()
        root = source.root
        node = self.trees.node(root.bytenr, root.level, root.generation)
        bytenr = self.space.block()
        copy = Node(tree, node.level, self.generation, node.keys, node.items, node.children)
        self.trees.fresh[bytenr] = copy
        self.references.add_block(bytenr, node.level, tree)
        self.references.change_below(copy, +1, tree=tree)
        made = self._edited(TreeRoot(tree, bytenr, node.level, self.generation))
        self._opened[tree] = made
        return made

    def forget_tree(self, tree: int) -> None:
        self._opened.pop(tree, None)

    def root_item(self, tree: int) -> tuple[Key, RootItem]:
        for key, data in items_of(self.roots, tree, ROOT_ITEM):
            with understanding(self.volume, key):
                return key, RootItem.unpack(data)
        raise self.volume.damaged(f"the tree {tree} has no root item")

    # ---- All of it on the disk ---------------------------------------------------------------

    def commit(self) -> None:
        for tree in list(self._opened.values()):
            tree.flush()
        pieces = self._pieces()
        sums = self._change_sums(pieces)
        for number in (CSUM_TREE, UUID_TREE):
            if number in self._opened:
                self._opened[number].flush()
        for number, tree in self._opened.items():
            if tree.is_changed:
                self._note_root(number, tree)
        superblock = self.volume.superblock
        kept = [DEV_TREE, EXTENT_TREE]
        if superblock.compat_ro_flags & _FREE_SPACE_TREE_IS_VALID == _FREE_SPACE_TREE_IS_VALID:
            kept.append(FREE_SPACE_TREE)
        late = {number: self._late_root(number) for number in kept}
        self.roots.flush()
        header = self._chunk_header()
        roots = {number: self._stored(number).root for number in kept}
        roots[CHUNK_TREE] = self.trees.chunk_root
        books = Bookkeeper(
            self.trees, self.space, self.references, roots, header.chunk_tree_uuid
        ).settle()
        self.space.check_spare(books.used)
        for number, content in late.items():
            content[:] = self._root_of(number, books)
        sums[:] = copy_data(DataWriter(self.volume), pieces)
        self.volume.sync()
        fresh = dict(self.trees.fresh)
        for done in books.trees.values():
            fresh |= done.fresh
        write_blocks(self.volume, header.chunk_tree_uuid, self.generation, fresh)
        self.volume.sync()
        written = changed_superblocks(
            self.volume,
            root=self.roots.root,
            chunk_root=books.root(CHUNK_TREE),
            used=sum(books.used.values()),
            device_used=self.space.device_used,
            others=self._current_roots(books),
        )
        for place, content_of in written:
            self.volume.pwrite(place, content_of)
            self.volume.sync()

    def _current_roots(self, books: Books) -> dict[int, TreeRoot]:
        found = {number: self._stored(number).root for number in BACKED_UP}
        found |= {number: tree.root for number, tree in self._opened.items()}
        return found | {number: done.root for number, done in books.trees.items()}

    def _pieces(self) -> list[Piece]:
        """New data that is in use, by address."""
        uses = self.references.uses
        found = [each for each in self.pieces if uses[each.bytenr].users]
        return sorted(found, key=lambda each: each.bytenr)

    def _change_sums(self, pieces: list[Piece]) -> memoryview:
        """Let the tree of checksums have items for new data, and none for what nobody uses.

        Gives the new ones, all in one, to be filled in when the data is read.
        """
        for use in list(self.references.uses.values()):
            if use.level is None and use.before and not use.users:
                self._remove_sums(use.bytenr, use.bytenr + use.length)
        found = memoryview(bytearray(sum(each.length for each in pieces) // SECTOR * CSUM_SIZE))
        size = self.volume.superblock.node_size - HEADER_SIZE - 2 * ITEM.size
        most = min(size // CSUM_SIZE - 1, 4096)  # as kernels have it
        at = 0
        for start, length in runs(pieces):
            for offset in range(0, length // SECTOR, most):
                count = min(most, length // SECTOR - offset)
                key = Key(EXTENT_CSUM_OBJECTID, EXTENT_CSUM, start + offset * SECTOR)
                self.tree(CSUM_TREE).set(key, found[at : at + count * CSUM_SIZE])
                at += count * CSUM_SIZE
        return found

    def _remove_sums(self, start: int, end: int) -> None:
        tree = self.tree(CSUM_TREE)
        first = Key(EXTENT_CSUM_OBJECTID, EXTENT_CSUM, start)
        before = tree.last_until(first)
        found = list(tree.items(first, first._replace(offset=end - 1)))
        if before is not None and before[0][:2] == first[:2] and before[0] < first:
            found.insert(0, before)
        for key, data in found:
            until = key.offset + len(data) // CSUM_SIZE * SECTOR
            if until <= start:
                continue
            tree.remove(key)
            if key.offset < start:
                tree.set(key, data[: (start - key.offset) // SECTOR * CSUM_SIZE])
            if until > end:
                rest = data[(end - key.offset) // SECTOR * CSUM_SIZE :]
                tree.set(key._replace(offset=end), rest)

    def _note_root(self, number: int, tree: EditedTree) -> None:
        key, item = self.root_item(number)
        changed = self._with_root(item, tree.root, tree.growth)
        if item.root_dirid:
            changed = changed._replace(ctransid=self.generation, ctime=(self.time, 0))
        self.roots.set(key, changed.pack())

    def _with_root(self, item: RootItem, root: TreeRoot, growth: int) -> RootItem:
        return item._replace(
            generation=root.generation,
            bytenr=root.bytenr,
            level=root.level,
            bytes_used=max(item.bytes_used + growth * self.volume.superblock.node_size, 0),
        )

    def _late_root(self, number: int) -> memoryview:
        """The root item of a tree that is made last: room that is filled in then."""
        key, item = self.root_item(number)
        content = memoryview(bytearray(item.pack()))
        self.roots.set(key, content)
        return content

    def _root_of(self, number: int, books: Books) -> bytes:
        done = books.trees[number]
        _, item = self.root_item(number)
        return self._with_root(item, done.root, len(done.fresh) - len(done.replaced)).pack()

    def _chunk_header(self) -> Header:
        at = self.trees.chunk_root.bytenr
        place = self.volume.places(at, HEADER_SIZE)
        blocks = (self.volume.pread(each, HEADER_SIZE) for each in place)
        found = (Header.unpack(each) for each in blocks if len(each) == HEADER_SIZE)
        for header in found:
            if header.fsid == self.volume.superblock.fsid:
                return header
        raise self.volume.damaged("the chunk tree can't be read")
