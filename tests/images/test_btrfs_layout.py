"""What mkfs.btrfs writes is understood, and packed again it is the same."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from morphlib.images.btrfs import extents, inodes, layout, roots, superblock
from morphlib.images.btrfs.layout import Key


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    tree = tmp_path_factory.mktemp("tree")
    (tree / "directory").mkdir()
    (tree / "directory" / "data").write_bytes(os.urandom(100_000))
    (tree / "small").write_text("hello")
    (tree / "link").symlink_to("small")
    os.link(tree / "small", tree / "again")
    os.setxattr(tree / "small", "user.colour", b"blue")
    for number in range(500):
        (tree / f"file-{number}").touch()
    path = tmp_path_factory.mktemp("images") / "image"
    with path.open("wb") as file:
        file.truncate(128 << 20)
    subprocess.run(["mkfs.btrfs", "-q", "-r", tree, "-L", "label", path], check=True)
    return path.read_bytes()


class Filesystem:
    """All items of all trees of an image."""

    def __init__(self, image: bytes) -> None:
        self._image = image
        self.superblock = superblock.Superblock.unpack(image[65536 : 65536 + superblock.SIZE])
        self._chunks = dict(self.superblock.system_chunks)
        self._chunks |= {
            key.offset: superblock.Chunk.unpack(data)
            for key, data in self._tree(self.superblock.chunk_root)
            if key.type == layout.CHUNK_ITEM
        }

    def _tree(self, at: int) -> Iterator[tuple[Key, bytes]]:
        start = max(each for each in self._chunks if each <= at)
        place = at - start + self._chunks[start].stripes[0].offset
        block = self._image[place : place + self.superblock.node_size]
        assert layout.is_whole(block)
        header = layout.Header.unpack(block)
        assert header.bytenr == at
        if header.level == 0:
            yield from ((key, bytes(data)) for key, data in layout.leaf_items(block))
            return
        for child in layout.node_children(block):
            below = list(self._tree(child.blockptr))
            assert below[0][0] == child.key
            yield from below

    def items(self) -> Iterator[tuple[Key, bytes]]:
        yield from self._tree(self.superblock.chunk_root)
        for key, data in self._tree(self.superblock.root):
            yield key, data
            if key.type == layout.ROOT_ITEM:
                yield from self._tree(roots.RootItem.unpack(data).bytenr)


def packed_again(key: Key, data: bytes) -> bytes:
    match key.type:
        case layout.INODE_ITEM:
            return inodes.InodeItem.unpack(data).pack()
        case layout.DIR_ITEM | layout.DIR_INDEX | layout.XATTR_ITEM:
            return b"".join(each.pack() for each in inodes.DirItem.unpack_all(data))
        case layout.INODE_REF:
            return b"".join(each.pack() for each in inodes.InodeRef.unpack_all(data))
        case layout.EXTENT_DATA:
            return inodes.FileExtent.unpack(data).pack()
        case layout.ROOT_ITEM:
            return roots.RootItem.unpack(data).pack()
        case layout.EXTENT_ITEM:
            return extents.Extent.unpack(data, is_metadata_item=False).pack()
        case layout.METADATA_ITEM:
            return extents.Extent.unpack(data, is_metadata_item=True).pack()
        case layout.BLOCK_GROUP_ITEM:
            return extents.BlockGroup.unpack(data).pack()
        case layout.FREE_SPACE_INFO:
            return extents.FreeSpaceInfo.unpack(data).pack()
        case layout.DEV_EXTENT:
            return extents.DevExtent.unpack(data).pack()
        case layout.DEV_ITEM:
            return superblock.DevItem.unpack(data).pack()
        case layout.CHUNK_ITEM:
            return superblock.Chunk.unpack(data).pack()
        case layout.EXTENT_CSUM | layout.FREE_SPACE_EXTENT | layout.UUID_SUBVOL:
            return data
    raise AssertionError(key)


def test_items(image: bytes) -> None:
    kinds = set()
    for key, data in Filesystem(image).items():
        assert packed_again(key, data) == data, key
        kinds.add(key.type)
    assert {layout.XATTR_ITEM, layout.EXTENT_DATA, layout.UUID_SUBVOL, layout.DEV_ITEM} <= kinds


def test_hashes_of_names(image: bytes) -> None:
    found = 0
    for key, data in Filesystem(image).items():
        if key.type in (layout.DIR_ITEM, layout.XATTR_ITEM):
            names = [each.name for each in inodes.DirItem.unpack_all(data)]
            assert {layout.name_hash(name) for name in names} == {key.offset}
            found += len(names)
    assert found > 500


def test_superblock(image: bytes) -> None:
    block = image[65536 : 65536 + superblock.SIZE]
    assert layout.is_whole(block)
    assert not layout.is_whole(block[:-1] + b"\1")
    read = superblock.Superblock.unpack(block)
    assert read.label == b"label"
    assert read.total_bytes == len(image)
    again = read.pack()
    assert layout.is_whole(again)
    assert superblock.Superblock.unpack(again) == read
    chunks = 0x32B + sum(17 + chunk.size for _, chunk in read.system_chunks)
    assert again[32:chunks] == block[32:chunks]


@pytest.mark.parametrize("device", [os.makedev(8, 1), os.makedev(4095, 1 << 19)])
def test_device_numbers(device: int) -> None:
    assert inodes.decode_rdev(inodes.encode_rdev(device)) == device
    assert inodes.encode_rdev(os.makedev(8, 1)) == 0x800001
