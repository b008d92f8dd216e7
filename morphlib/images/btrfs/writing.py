"""Bytes at logical addresses, in all their copies: blocks of trees, and data of files."""

from __future__ import annotations

from collections.abc import Mapping

from morphlib.images.btrfs.btree import LeafPacker
from morphlib.images.btrfs.layout import Block
from morphlib.images.btrfs.trees import Node
from morphlib.images.btrfs.volume import Volume


def write_blocks(
    volume: Volume, chunk_tree_uuid: bytes, generation: int, nodes: Mapping[int, Node]
) -> None:
    """Write blocks of trees to their addresses. Raises MorphError."""
    superblock = volume.superblock
    make = Block(superblock.node_size, superblock.fsid, chunk_tree_uuid, generation)
    for bytenr, node in sorted(nodes.items()):
        block = _pack(make, bytenr, node)
        for place in volume.places(bytenr, len(block)):
            volume.pwrite(place, block)


def _pack(make: Block, bytenr: int, node: Node) -> bytes:
    if node.level:
        return make.node(bytenr, node.owner, node.level, node.children)
    packer = LeafPacker(make.node_size)
    for key, data in zip(node.keys, node.items, strict=True):
        packer.add(*key, bytes(data))
    (leaf,) = packer.finish()
    return make.leaf(bytenr, node.owner, leaf.items, leaf.nritems, leaf.contents)


class DataWriter:
    """Writes data to all its copies."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume

    def write(self, data: bytes | memoryview, at: int) -> None:
        view = memoryview(data)
        while view:
            size = min(len(view), self._volume.rest(at))
            for place in self._volume.places(at, size):
                self._volume.pwrite(place, view[:size])
            view, at = view[size:], at + size
