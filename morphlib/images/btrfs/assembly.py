"""All trees of a new image, from the subvolumes: counted, placed, and written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from morphlib.images.btrfs.btree import Item, Tree, pack
from morphlib.images.btrfs.copying import runs
from morphlib.images.btrfs.fstree import GENERATION, Piece, Subtree, build
from morphlib.images.btrfs.layout import (
    BLOCK_GROUP_METADATA,
    CHUNK_TREE,
    CSUM_TREE,
    DATA_RELOC_TREE,
    DEV_TREE,
    EXTENT_TREE,
    FREE_SPACE_TREE,
    ROOT_TREE,
    UUID_TREE,
    Block,
)
from morphlib.images.btrfs.planned import Root
from morphlib.images.btrfs.space import DataSpace, Group, Profile
from morphlib.images.btrfs.superblock import DevItem
from morphlib.images.btrfs.systemtrees import (
    DEVICE,
    Identity,
    chunk_items,
    csum_items,
    data_reloc_items,
    device_items,
    free_space_items,
    root_items,
    uuid_items,
)
from morphlib.images.btrfs.usage import block_items, data_items, group_items


class Contents:
    """What does not depend on how large the filesystem is: the subvolumes, and where data goes."""

    def __init__(self, roots: Sequence[Root], identity: Identity, profile: Profile) -> None:
        self.roots = roots
        self.identity = identity
        self.profile = profile
        self.space = DataSpace(profile.system.disk_end)
        self.subtrees: list[Subtree] = []
        for root in roots:
            if root.origin is None:
                self.subtrees.append(self._build(root))
        self.data_ranges = runs(self.pieces())

    def _build(self, root: Root) -> Subtree:
        snapshots = tuple(each.id for each in self.roots if _first_origin(each) is root)
        identity = self.identity
        return build(root, snapshots, identity.node_size, identity.time, self.space)

    def pieces(self) -> Iterator[Piece]:
        for subtree in self.subtrees:
            yield from subtree.pieces


def _first_origin(root: Root) -> Root | None:
    """The subvolume that a snapshot, or a snapshot of a snapshot, has its content from."""
    origin = root.origin
    while origin is not None and origin.origin is not None:
        origin = origin.origin
    return origin


@dataclass(slots=True)
class Assembly:
    """All trees and chunks, placed."""

    contents: Contents
    groups: list[tuple[Group, int]]  # with what is in use of each, in bytes; the system's first
    trees: dict[int, Tree]  # by the id of the root, also that of a snapshot; in order of addresses
    device: DevItem

    @property
    def end(self) -> int:
        """How many bytes the filesystem has to have."""
        return self.groups[-1][0].disk_end

    def set_csums(self, csums: bytes) -> None:
        """Put checksums into their tree, which only has the room for them so far."""
        identity, ranges = self.contents.identity, self.contents.data_ranges
        items = csum_items(identity, ranges, csums)
        self.trees[CSUM_TREE].leaves = pack(items, identity.node_size)

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """The bytes of all blocks of trees, with the address of each."""
        identity = self.contents.identity
        make = Block(identity.node_size, identity.fsid.bytes, identity.chunk_tree, GENERATION)
        for tree in _own(self.trees):
            yield from tree.blocks(make)


def assemble(contents: Contents, size: int | None) -> Assembly:
    """Place all trees in a filesystem of `size` bytes; None: in the smallest one.

    The extent tree has an item for each block, those of its own too. So it is packed again until
    its size comes out even. Where `size` does not do, the result is for the smallest one.
    """
    identity = contents.identity
    node_size = identity.node_size
    data = [item for each in contents.subtrees for item in data_items(each, node_size)]
    trees = _trees(contents)
    trees[EXTENT_TREE] = Tree(EXTENT_TREE, pack(data, node_size), node_size)
    while True:
        groups = _groups(contents, trees, size)
        _place(trees, groups, node_size)
        placed = [block for tree in _own(trees) for block in tree.placed()]
        items = [*data, *block_items(placed, node_size), *group_items(groups)]
        items.sort()
        found = Tree(EXTENT_TREE, pack(items, node_size), node_size)
        if found.sizes == trees[EXTENT_TREE].sizes:
            trees[EXTENT_TREE].leaves = found.leaves
            break
        trees[EXTENT_TREE] = found
    device = DevItem(
        devid=DEVICE,
        total_bytes=groups[-1][0].disk_end if size is None else size,
        bytes_used=sum(group.length * group.copies for group, _ in groups),
        uuid=identity.device,
        fsid=identity.fsid.bytes,
    )
    chunks = chunk_items(device, (group for group, _ in groups), identity)
    trees[CHUNK_TREE].leaves = pack(chunks, node_size)
    trees[ROOT_TREE].leaves = pack(_root_items(contents, trees), node_size)
    return Assembly(contents, groups, trees, device)


def _own(trees: Mapping[int, Tree]) -> Iterator[Tree]:
    """Each tree once, those with snapshots too."""
    return (tree for number, tree in trees.items() if tree.owner == number)


def _trees(contents: Contents) -> dict[int, Tree]:
    """All trees, in the order in which they get addresses. Some are mere places yet."""
    identity = contents.identity

    def tree(owner: int, items: Iterable[Item] = ()) -> Tree:
        return Tree(owner, pack(items, identity.node_size), identity.node_size)

    found = {
        number: subtree.tree
        for subtree in contents.subtrees
        for number in (subtree.tree.owner, *subtree.tree.snapshots)
    }
    found[CSUM_TREE] = tree(CSUM_TREE, csum_items(identity, contents.data_ranges))
    found[UUID_TREE] = tree(UUID_TREE, uuid_items(identity, contents.roots))
    found[DATA_RELOC_TREE] = tree(DATA_RELOC_TREE, data_reloc_items(identity))
    for owner in (DEV_TREE, FREE_SPACE_TREE, ROOT_TREE, EXTENT_TREE, CHUNK_TREE):
        found[owner] = tree(owner)
    found[ROOT_TREE] = tree(ROOT_TREE, _root_items(contents, found))
    return found


def _root_items(contents: Contents, trees: Mapping[int, Tree]) -> Iterator[Item]:
    rooted = {
        number: tree
        for number, tree in trees.items()
        if number not in (ROOT_TREE, CHUNK_TREE)  # the superblock has these
    }
    return root_items(contents.identity, contents.roots, rooted)


def _groups(
    contents: Contents, trees: dict[int, Tree], size: int | None
) -> list[tuple[Group, int]]:
    """Chunks in which all trees have room, with what is in use of each.

    The trees about chunks become as large as these make them.
    """
    identity, profile = contents.identity, contents.profile
    node_size = identity.node_size
    start = contents.space.end
    room = None if size is None else size - start
    blocks = 0
    while True:
        groups = [(profile.system, trees[CHUNK_TREE].count * node_size), *contents.space.groups()]
        rest = blocks * node_size
        for group in profile.metadata(start, blocks, room):
            used = min(rest, group.room())
            groups.append((group, used))
            rest -= used
        alone = [group for group, _ in groups]
        nothing = DevItem(DEVICE, 0, 0, identity.device, identity.fsid.bytes)
        for owner, items in (
            (CHUNK_TREE, chunk_items(nothing, alone, identity)),
            (DEV_TREE, device_items(alone, identity)),
            (FREE_SPACE_TREE, free_space_items((group, group.free(n)) for group, n in groups)),
        ):
            trees[owner] = Tree(owner, pack(items, node_size), node_size)
        found = sum(tree.count for tree in _own(trees)) - trees[CHUNK_TREE].count
        in_chunk = trees[CHUNK_TREE].count * node_size
        if found == blocks and in_chunk == groups[0][1]:
            return groups
        blocks = found


def _place(trees: Mapping[int, Tree], groups: Sequence[tuple[Group, int]], node_size: int) -> None:
    trees[CHUNK_TREE].place(groups[0][0].addresses(node_size))
    addresses = (
        address
        for group, _ in groups
        if group.flags & BLOCK_GROUP_METADATA
        for address in group.addresses(node_size)
    )
    for tree in _own(trees):
        if tree.owner != CHUNK_TREE:
            tree.place(addresses)
