"""Free space of a filesystem, and taking it: only what is free in the state on the disk.

What a transaction frees stays as it is until the next one, so that the old state stays whole.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right, insort
from collections.abc import Iterator, Mapping
from itertools import pairwise

from morphlib.errors import MorphError, Reason
from morphlib.images.btrfs.blockgroups import Group, Run, subtract
from morphlib.images.btrfs.extents import BlockGroup, DevExtent
from morphlib.images.btrfs.layout import (
    BLOCK_GROUP_DATA,
    BLOCK_GROUP_ITEM,
    BLOCK_GROUP_METADATA,
    BLOCK_GROUP_SYSTEM,
    DEV_EXTENT,
    EXTENT_ITEM,
    MAX_EXTENT,
    METADATA_ITEM,
    STRIPE_LEN,
)
from morphlib.images.btrfs.superblock import Chunk, Stripe
from morphlib.images.btrfs.trees import StoredTree, items_of
from morphlib.images.btrfs.volume import Volume, understanding

_MIB = 1 << 20
_LARGEST_DATA, _LARGEST_METADATA = 1 << 30, 256 * _MIB

#: What kernels keep for themselves, in blocks of trees.
_SPARE = 512


class FreeSpace:
    """Everything raises MorphError; that there is no room with Reason.SPACE."""

    def __init__(self, volume: Volume, extents: StoredTree, devices: StoredTree) -> None:
        self._volume = volume
        self._node_size = volume.superblock.node_size
        self.groups = self._read_groups(extents)
        self._starts = [group.start for group in self.groups]
        self._read_extents(extents)
        self._unallocated, self.device_used = self._read_devices(devices)
        self._blocks = {
            kind: self._block_addresses(kind) for kind in (BLOCK_GROUP_METADATA, BLOCK_GROUP_SYSTEM)
        }
        self._data: list[tuple[int, int]] = []  # a heap: length (negative) and start of runs
        for group in self.groups:
            if group.flags & BLOCK_GROUP_DATA:
                self._offer(group)
        #: How much data is still to come, so that chunks are made large enough.
        self.expected = 0

    def _read_groups(self, tree: StoredTree) -> list[Group]:
        sizes = dict(self._volume.chunks())
        found = []
        for key, data in tree.items():
            if key.type != BLOCK_GROUP_ITEM:
                continue
            with understanding(self._volume, key):
                item = BlockGroup.unpack(data)
            chunk = sizes.pop(key.objectid, None)
            if chunk is None or chunk.length != key.offset or chunk.type != item.flags:
                raise self._volume.damaged(f"the block group at {key.objectid} has no chunk")
            found.append(Group(key.objectid, chunk, item.used, item.flags))
        if sizes:
            raise self._volume.damaged(f"the chunk at {min(sizes)} has no block group")
        return found

    def _read_extents(self, tree: StoredTree) -> None:
        used: dict[int, list[Run]] = {start: [] for start in self._starts}
        for (objectid, kind, offset), _ in tree.items():
            if kind == METADATA_ITEM:
                length = self._node_size
            elif kind == EXTENT_ITEM:
                length = offset
            else:
                continue
            group = self.group_of(objectid)
            if objectid + length > group.end:
                raise self._volume.damaged(f"the extent at {objectid} reaches out of its group")
            used[group.start].append((objectid, objectid + length))
        for group in self.groups:
            runs = used[group.start]
            if any(one[1] > two[0] for one, two in pairwise(runs)):
                raise self._volume.damaged(f"extents of the group {group.start} overlap")
            if sum(end - start for start, end in runs) != group.used:
                raise self._volume.damaged(f"the group {group.start} has not what it says")
            group.before = subtract([(group.start, group.end)], runs)

    def _read_devices(self, tree: StoredTree) -> tuple[list[Run], int]:
        """What no chunk has of the disk, and how much of it chunks have."""
        device = self._volume.superblock.dev_item
        used: list[Run] = []
        for key, data in items_of(tree, device.devid, DEV_EXTENT):
            with understanding(self._volume, key):
                used.append((key.offset, key.offset + DevExtent.unpack(data).length))
        whole = [(_MIB, device.total_bytes // STRIPE_LEN * STRIPE_LEN)]
        return subtract(whole, used), sum(end - start for start, end in used)

    def group_of(self, address: int) -> Group:
        index = bisect_right(self._starts, address) - 1
        if index < 0 or address >= self.groups[index].end:
            raise self._volume.damaged(f"no block group has the address {address}")
        return self.groups[index]

    @property
    def new_groups(self) -> list[Group]:
        return [group for group in self.groups if group.is_new]

    # ---- Blocks of trees ---------------------------------------------------------------------

    def block(self, *, system: bool = False) -> int:
        """An address for a block of a tree, which is given once."""
        kind = BLOCK_GROUP_SYSTEM if system else BLOCK_GROUP_METADATA
        found = next(self._blocks[kind], None)
        if found is None and not system:
            size = max(8 * _MIB, self._volume.superblock.total_bytes // 20)
            self._add_chunk(kind, min(size, _LARGEST_METADATA), self._node_size)
            self._blocks[kind] = self._block_addresses(kind, only_new=True)
            found = next(self._blocks[kind], None)
        if found is None:
            raise self._full("blocks of trees", self._node_size)
        return found

    def _block_addresses(self, kind: int, *, only_new: bool = False) -> Iterator[int]:
        groups = [group for group in self.groups if group.flags & kind]
        for group in groups[-1:] if only_new else groups:
            for start, end in group.usable():
                # Aligned to their size, as newer kernels want it.
                first = -(-start // self._node_size) * self._node_size
                yield from range(first, end - self._node_size + 1, self._node_size)

    def check_spare(self, used: Mapping[int, int]) -> None:
        """Raise MorphError if kernels could write no more, with so much of each group in use.

        They need some room for trees even to remove files. What makes room is never refused.
        """
        groups = [group for group in self.groups if group.flags & BLOCK_GROUP_METADATA]
        after = sum(used[group.start] for group in groups)
        if after <= sum(group.used for group in groups):
            return
        spare = sum(group.chunk.length for group in groups) - after
        spare += sum(end - start for start, end in self._unallocated) // 2
        missing = _SPARE * self._node_size - spare
        if missing > 0:
            raise self._full("blocks of trees", missing)

    # ---- Data --------------------------------------------------------------------------------

    def take(self, length: int) -> list[tuple[int, int]]:
        """Addresses and lengths of extents for `length` bytes, a multiple of the sector size."""
        found = []
        self.expected = max(self.expected, length)
        while length:
            if not self._data:
                room = sum(end - start for start, end in self._unallocated)
                spare = min(room, self._volume.superblock.total_bytes // 10) // 4
                size = min(self.expected + spare, _LARGEST_DATA)
                self._offer(self._add_chunk(BLOCK_GROUP_DATA, size, self.expected))
            size, start = heapq.heappop(self._data)
            part = min(-size, length, MAX_EXTENT)
            if part < -size:
                heapq.heappush(self._data, (size + part, start + part))
            found.append((start, part))
            length -= part
            self.expected -= part
        return found

    def _offer(self, group: Group) -> None:
        for start, end in group.usable():
            heapq.heappush(self._data, (start - end, start))

    # ---- Chunks ------------------------------------------------------------------------------

    def _add_chunk(self, kind: int, size: int, needed: int) -> Group:
        """A new chunk of `size` bytes, or of less if there is no room for that."""
        like = next((group for group in self.groups if group.flags & kind), None)
        flags = like.flags if like is not None else kind
        copies = len(like.chunk.stripes) if like is not None else 1
        size = -(-size // _MIB) * _MIB
        while True:
            places = self._places(size, copies)
            if places or size <= _MIB:
                break
            size = max(_MIB, size // 2 // _MIB * _MIB)
        if not places:
            raise self._full("data" if kind == BLOCK_GROUP_DATA else "blocks of trees", needed)
        self._unallocated = subtract(self._unallocated, [(at, at + size) for at in places])
        device = self._volume.superblock.dev_item
        stripes = tuple(Stripe(device.devid, at, device.uuid) for at in places)
        start = -(-max(group.end for group in self.groups) // _MIB) * _MIB
        group = Group(start, Chunk(size, flags, stripes), 0, flags, is_new=True)
        group.before = [(start, group.end)]
        self._volume.add_chunk(start, group.chunk)
        insort(self.groups, group, key=lambda each: each.start)
        self._starts = [each.start for each in self.groups]
        self.device_used += copies * size
        return group

    def _places(self, size: int, copies: int) -> list[int]:
        found: list[int] = []
        for start, end in self._unallocated:
            while len(found) < copies and end - start >= size:
                found.append(start)
                start += size
        return found if len(found) == copies else []

    def _full(self, what: str, needed: int) -> MorphError:
        return MorphError(
            f"there is no room on {self._volume.path}: {needed} bytes more are needed for {what}",
            reason=Reason.SPACE,
            hint="Remove versions that are not needed, or enlarge the file system",
        )
