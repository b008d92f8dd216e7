"""The trees that say what is in use: extents and block groups, free space, chunks, the device.

They say so of their own blocks, too. So they are made again until nothing changes any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from morphlib.errors import MorphError, Reason
from morphlib.images.btrfs.blockgroups import Group, Run, add, subtract
from morphlib.images.btrfs.extents import (
    EXTENT_IS_TREE_BLOCK,
    BlockGroup,
    DevExtent,
    Extent,
    FreeSpaceInfo,
    Reference,
)
from morphlib.images.btrfs.freespace import FreeSpace
from morphlib.images.btrfs.layout import (
    BLOCK_GROUP_ITEM,
    CHUNK_ITEM,
    CHUNK_TREE,
    DEV_EXTENT,
    DEV_ITEM,
    DEV_ITEMS,
    DEV_TREE,
    EXTENT_TREE,
    FIRST_CHUNK,
    FREE_SPACE_EXTENT,
    FREE_SPACE_INFO,
    FREE_SPACE_TREE,
    METADATA_ITEM,
    TREE_BLOCK_REF,
    Key,
)
from morphlib.images.btrfs.references import References
from morphlib.images.btrfs.rewriting import Edit, Rewriter, Rewritten
from morphlib.images.btrfs.trees import LAST_KEY, Data, StoredTree, TreeRoot, Trees, find

_ATTEMPTS = 400
_PATIENCE = 25  # attempts, before leaves are packed more loosely


@dataclass(frozen=True, slots=True)
class Books:
    """What the trees are to be, and how much of each block group is in use."""

    trees: dict[int, Rewritten]
    used: dict[int, int]

    def root(self, tree: int) -> TreeRoot:
        return self.trees[tree].root


@dataclass(frozen=True, slots=True)
class _State:
    """What an attempt knows of the blocks of these trees: owner and level of new ones."""

    placed: dict[int, tuple[int, int]] = field(default_factory=dict)
    freed: frozenset[int] = frozenset()
    groups: int = 0


class Bookkeeper:
    """`roots` are those of the trees that there are. Everything raises MorphError."""

    def __init__(
        self,
        trees: Trees,
        space: FreeSpace,
        references: References,
        roots: dict[int, TreeRoot],
        chunk_tree_uuid: bytes,
    ) -> None:
        self._trees = trees
        self._space = space
        self._references = references
        self._roots = roots
        self._chunk_tree_uuid = chunk_tree_uuid
        self._generation = trees.volume.superblock.generation + 1
        self._node_size = trees.volume.superblock.node_size
        self._pools: dict[bool, list[int]] = {False: [], True: []}
        self._loosened = 0
        # The users of extents change no more.
        self._changes = dict(references.new_items())
        uses = [use for use in references.uses.values() if bool(use.users) != bool(use.before)]
        self._taken, self._freed = (
            [(use.bytenr, use.bytenr + use.length) for use in uses if bool(use.users) == is_used]
            for is_used in (True, False)
        )

    def settle(self) -> Books:
        state = _State()
        for attempt in range(1, _ATTEMPTS):
            if attempt % _PATIENCE == 0:
                self._loosened += self._node_size // 32
            books, after = self._attempt(state)
            if after == state:
                return books
            state = after
        raise MorphError(
            f"the trees of the btrfs on {self._trees.volume.path} can't be planned",
            reason=Reason.DEPLOY,
        )

    def _attempt(self, state: _State) -> tuple[Books, _State]:
        taken, freed = self._runs(state)
        groups = list(self._space.groups)
        used = {
            group.start: group.used + _length(taken[group.start]) - _length(freed[group.start])
            for group in groups
        }
        edits = {tree: dict[Key, Data | None]() for tree in self._roots}
        edits[EXTENT_TREE] = dict(self._extents(state))
        for group in groups:
            if group.is_new or used[group.start] != group.used:
                key = Key(group.start, BLOCK_GROUP_ITEM, group.chunk.length)
                edits[EXTENT_TREE][key] = BlockGroup(used[group.start], group.flags).pack()
        if FREE_SPACE_TREE in self._roots:
            for group in groups:
                if group.is_new or taken[group.start] or freed[group.start]:
                    runs = subtract(add(group.before, freed[group.start]), taken[group.start])
                    edits[FREE_SPACE_TREE].update(self._free_space(group, runs))
        for group in self._space.new_groups:
            edits[CHUNK_TREE] |= self._chunk(group)
            edits[DEV_TREE] |= self._device_extents(group)
        placed: dict[int, tuple[int, int]] = {}
        replaced: set[int] = set()
        done: dict[int, Rewritten] = {}
        supply = {system: self._supply(system) for system in (False, True)}
        for tree, root in self._roots.items():
            done[tree] = self._rewrite(root, edits[tree], supply[tree == CHUNK_TREE].__next__)
            placed |= {at: (tree, node.level) for at, node in done[tree].fresh.items()}
            replaced |= {bytenr for bytenr, _ in done[tree].replaced}
        after = _State(placed, frozenset(replaced), len(self._space.groups))
        return Books(done, used), after

    def _supply(self, system: bool) -> Iterator[int]:
        """The same addresses for each attempt, and new ones when they don't suffice."""
        pool = self._pools[system]
        at = 0
        while True:
            if at == len(pool):
                pool.append(self._space.block(system=system))
            yield pool[at]
            at += 1

    def _rewrite(
        self, root: TreeRoot, edits: dict[Key, Data | None], allocate: Callable[[], int]
    ) -> Rewritten:
        changes: list[Edit] = sorted(edits.items(), key=lambda edit: edit[0])
        rewriter = Rewriter(self._trees, root.owner, self._generation, allocate, self._loosened)
        return rewriter.rewrite(root, changes)

    def _runs(self, state: _State) -> tuple[dict[int, list[Run]], dict[int, list[Run]]]:
        """What is newly in use, and what is so no more, by block group."""
        size = self._node_size
        new = [(at, at + size) for at in state.placed]
        old = [(at, at + size) for at in state.freed]
        return self._by_group([*self._taken, *new]), self._by_group([*self._freed, *old])

    def _by_group(self, runs: list[Run]) -> dict[int, list[Run]]:
        found: dict[int, list[Run]] = {group.start: [] for group in self._space.groups}
        for run in runs:
            found[self._space.group_of(run[0]).start].append(run)
        return found

    def _extents(self, state: _State) -> Iterator[tuple[Key, Data | None]]:
        yield from self._changes.items()
        for bytenr in state.freed:
            for key in self._references.stored_items(bytenr):
                yield key, None
        for bytenr, (owner, level) in state.placed.items():
            reference = Reference(TREE_BLOCK_REF, owner)
            extent = Extent(1, self._generation, EXTENT_IS_TREE_BLOCK, (reference,))
            yield Key(bytenr, METADATA_ITEM, level), extent.pack()

    def _free_space(self, group: Group, runs: list[Run]) -> dict[Key, Data | None]:
        """Free space as extents, whatever it was noted as before."""
        tree = StoredTree(self._trees, self._roots[FREE_SPACE_TREE])
        last = Key(group.end - 1, 255, LAST_KEY.offset)
        before = {key: bytes(data) for key, data in tree.items(Key(group.start, 0, 0), last)}
        after = {
            Key(group.start, FREE_SPACE_INFO, group.chunk.length): FreeSpaceInfo(len(runs)).pack()
        }
        after |= {Key(start, FREE_SPACE_EXTENT, end - start): b"" for start, end in runs}
        edits: dict[Key, Data | None] = {key: None for key in before if key not in after}
        edits |= {key: data for key, data in after.items() if before.get(key) != data}
        return edits

    def _chunk(self, group: Group) -> dict[Key, Data | None]:
        key = Key(DEV_ITEMS, DEV_ITEM, self._trees.volume.superblock.dev_item.devid)
        device = find(StoredTree(self._trees, self._roots[CHUNK_TREE]), key)
        if device is None:
            raise self._trees.volume.damaged("the device is missing in the chunk tree")
        used = self._space.device_used.to_bytes(8, "little")
        changed = bytes(device[:16]) + used + bytes(device[24:])
        return {key: changed, Key(FIRST_CHUNK, CHUNK_ITEM, group.start): group.chunk.pack()}

    def _device_extents(self, group: Group) -> dict[Key, Data | None]:
        extent = DevExtent(group.start, group.chunk.length, self._chunk_tree_uuid).pack()
        return {
            Key(stripe.devid, DEV_EXTENT, stripe.offset): extent for stripe in group.chunk.stripes
        }


def _length(runs: list[Run]) -> int:
    return sum(end - start for start, end in runs)
