"""Reading btrfs images that mkfs.btrfs and the kernel made."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphlib.errors import MorphError, Reason
from morphlib.images.btrfs.layout import checksum
from morphlib.images.btrfs.reader import Image, SubvolumeInfo, is_btrfs
from tests.images.btrfs_images import tree_blocks
from tests.mounting import mounted, needs_root

SIZE = 128 << 20
PRIMARY, MIRROR = 64 << 10, 64 << 20


def mkfs(path: Path, *options: str | Path, size: int = SIZE) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.btrfs", "-q", *options, path], check=True)
    return path


def content(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With enough in it for trees of several levels."""
    top = tmp_path_factory.mktemp("tree")
    for number in range(30):
        directory = top / f"d{number:02}"
        directory.mkdir()
        for each in range(50):
            (directory / f"file-{each}").write_bytes(content(each, each * 90))
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "b" / "large").write_bytes(content(1, 3_000_001))
    (top / "a" / "relative").symlink_to("b/large")
    (top / "a" / "absolute").symlink_to("/a/b")
    (top / "a" / "up").symlink_to("../a/b/../relative")
    (top / "loop").symlink_to("loop")
    (top / "dangling").symlink_to("nowhere")
    (top / "empty").touch()
    (top / os.fsdecode(b"caf\xe9")).write_bytes(b"latin")
    (top / ("n" * 255)).touch()
    return top


@pytest.fixture(scope="module")
def image(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small blocks, so that the trees are high."""
    path = tmp_path_factory.mktemp("image") / "image"
    return mkfs(path, "--rootdir", tree, "-n", "4096", "-L", "some label")


def test_everything_is_as_in_the_tree(tree: Path, image: Path) -> None:
    with Image(image) as found:
        walked = dict(found.walk(""))
        expected = sorted(
            os.path.relpath(Path(at, name), tree)
            for at, directories, names in os.walk(tree)
            for name in [*directories, *names]
        )
        assert sorted(walked) == expected
        for name, seen in walked.items():
            there = (tree / name).lstat()
            assert (seen.mode, seen.uid, seen.gid) == (there.st_mode, there.st_uid, there.st_gid)
            assert seen.mtime_ns // 10**9 == there.st_mtime_ns // 10**9
            if stat.S_ISREG(seen.mode):
                assert seen.size == there.st_size
                assert found.read_file(name) == (tree / name).read_bytes()
            elif stat.S_ISLNK(seen.mode):
                assert found.readlink(name) == str((tree / name).readlink())


def test_walk_goes_by_depth_and_name(image: Path) -> None:
    with Image(image) as found:
        names = [name for name, _ in found.walk("a")]
        assert names == ["absolute", "b", "b/large", "relative", "up"]
        assert found.listdir("a") == ["absolute", "b", "relative", "up"]
        assert found.listdir("/a//b/.") == ["large"]


def test_filesystem_tells_of_itself(image: Path) -> None:
    shown = subprocess.run(
        ["btrfs", "inspect-internal", "dump-super", image], check=True, capture_output=True
    )
    fields = dict(
        line.split(None, 1) for line in shown.stdout.decode().splitlines() if "\t" in line
    )
    with Image(image) as found:
        assert str(found.fsid) == fields["fsid"].strip()
        assert found.label == "some label"
        assert found.size == SIZE
        assert found.subvolumes() == ()
    assert is_btrfs(image)


def test_filesystem_may_begin_anywhere(tree: Path, image: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20) + image.read_bytes())
    assert not is_btrfs(disk)
    assert is_btrfs(disk, offset=1 << 20)
    with Image(disk, offset=1 << 20) as found:
        assert found.read_file("a/b/large") == (tree / "a/b/large").read_bytes()


def test_symlinks_are_followed(tree: Path, image: Path) -> None:
    large = (tree / "a/b/large").read_bytes()
    with Image(image) as found:
        for path in ("a/relative", "a/absolute/large", "a/up", "../../a/b/large", "/a/up"):
            assert found.resolve(path) == "a/b/large"
            assert found.read_file(path) == large
        assert stat.S_ISLNK(found.stat("a/relative", follow=False).mode)
        assert stat.S_ISREG(found.stat("a/relative").mode)
        assert stat.S_ISDIR(found.stat("a/absolute/", follow=False).mode)
        assert found.resolve("") == found.resolve("/") == ""
        assert not found.exists("dangling")
        assert found.exists("dangling", follow=False)
        with pytest.raises(MorphError, match=r"loop on .* too many symlinks"):
            found.stat("loop")


def test_what_is_not_there(image: Path) -> None:
    with Image(image) as found:
        for path in ("nowhere", "a/nowhere", "empty/x", "empty/", "a/b/large/.."):
            assert not found.exists(path)
            with pytest.raises(MorphError, match="there is no") as caught:
                found.stat(path)
            assert caught.value.reason is Reason.NOT_FOUND
        with pytest.raises(MorphError, match=r"empty on .* is no directory"):
            found.listdir("empty")
        with pytest.raises(MorphError, match=r"a on .* is no file"):
            found.read_file("a")
        with pytest.raises(MorphError, match=r"a on .* is no symlink"):
            found.readlink("a")


def test_no_btrfs(tmp_path: Path) -> None:
    path = tmp_path / "image"
    for data in (b"", bytes(1 << 20)):
        path.write_bytes(data)
        assert not is_btrfs(path)
        with pytest.raises(MorphError, match="there is no btrfs on"):
            Image(path)
    with pytest.raises(MorphError, match=r"can't open .*nowhere: No such file or directory"):
        Image(tmp_path / "nowhere")


# ---- What the kernel makes -------------------------------------------------------------------


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def kernels_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = mkfs(tmp_path_factory.mktemp("kernel") / "image", size=512 << 20)
    with mounted(path) as top:
        (top / "systems" / "one").mkdir(parents=True)
        orig = top / "systems" / "one" / "orig"
        run("btrfs", "subvolume", "create", orig)
        (orig / "etc").mkdir()
        (orig / "etc" / "fstab").write_text("old\n")
        run("btrfs", "subvolume", "create", orig / "inner")
        (orig / "inner" / "deep").write_text("in there\n")
        run("btrfs", "subvolume", "snapshot", "-r", orig, top / "systems" / "one" / "run")
        (orig / "etc" / "fstab").write_text("new\n")
        (top / "systems" / "default").symlink_to("one")
        run("btrfs", "subvolume", "create", top / "gone")
        run("btrfs", "subvolume", "delete", "-c", top / "gone")

        files = top / "files"
        files.mkdir()
        with (files / "sparse").open("wb") as file:
            file.truncate(1 << 40)
            file.seek(1 << 39)
            file.write(b"in the middle")
        with (files / "holes").open("wb") as file:
            for number in range(20):
                file.seek(number * 100_000)
                file.write(content(number, 5000))
            file.truncate(2_500_000)
        with (files / "preallocated").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 1 << 20)
            file.seek(123_456)
            file.write(b"written")
        (files / "unsummed").touch()
        run("chattr", "+C", files / "unsummed")
        (files / "unsummed").write_bytes(content(3, 100_000))
        with (files / "fragments").open("wb") as file:
            for number in range(600):
                file.seek((number * 7919) % 600 * 4096)
                file.write(content(number, 4096))
                file.flush()
                os.fdatasync(file.fileno()) if number % 50 == 0 else None
        os.setxattr(files / "holes", "user.one", b"first")
        os.setxattr(files / "holes", "user.two", content(9, 3000))
        os.mknod(files / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(files / "block", stat.S_IFBLK | 0o600, os.makedev(259, 70_000))
        os.mkfifo(files / "fifo")
        os.link(files / "holes", files / "again")
        os.chown(files / "again", 1000, 2000)
        os.utime(files / "again", ns=(5, 1_234_567_890_123_456_789))
        os.utime(files / "fifo", ns=(5, -1_500_000_000))
    yield path


@pytest.fixture
def kernels(kernels_image: Path) -> Iterator[Image]:
    with Image(kernels_image) as found:
        yield found


@needs_root
def test_subvolumes_and_snapshots(kernels: Image) -> None:
    found = {each.path: each for each in kernels.subvolumes()}
    assert list(found) == ["systems/one/orig", "systems/one/orig/inner", "systems/one/run"]
    orig, inner, snapshot = found.values()
    assert isinstance(orig, SubvolumeInfo)
    assert snapshot.parent_uuid == orig.uuid
    assert (orig.parent, inner.parent, snapshot.parent) == (5, orig.id, 5)
    assert (orig.read_only, snapshot.read_only) == (False, True)
    assert orig.parent_uuid is None
    assert kernels.read_file("systems/default/orig/etc/fstab") == b"new\n"
    assert kernels.read_file("systems/default/run/etc/fstab") == b"old\n"
    assert kernels.resolve("systems/default/orig") == "systems/one/orig"
    assert kernels.stat("systems/one/run").subvolume == snapshot.id
    assert not kernels.exists("gone")


@needs_root
def test_a_subvolume_inside_is_an_empty_directory_in_a_snapshot(kernels: Image) -> None:
    assert kernels.read_file("systems/one/orig/inner/deep") == b"in there\n"
    assert kernels.listdir("systems/one/run/inner") == []
    assert stat.S_ISDIR(kernels.stat("systems/one/run/inner").mode)
    assert not kernels.exists("systems/one/run/inner/deep")
    walked = [name for name, _ in kernels.walk("systems")]
    assert walked == [
        *("default", "one", "one/orig", "one/orig/etc", "one/orig/etc/fstab"),
        *("one/orig/inner", "one/orig/inner/deep"),
        *("one/run", "one/run/etc", "one/run/etc/fstab", "one/run/inner"),
    ]


@needs_root
@pytest.mark.parametrize("name", ["holes", "preallocated", "unsummed", "fragments", "again"])
def test_files_of_all_kinds(kernels: Image, kernels_image: Path, name: str) -> None:
    with mounted(kernels_image, options="ro") as top:
        assert kernels.read_file(f"files/{name}") == (top / "files" / name).read_bytes()


@needs_root
def test_a_sparse_file_costs_nothing(kernels: Image) -> None:
    assert kernels.stat("files/sparse").size == 1 << 40
    (piece,) = kernels.read_pieces("files/sparse")
    assert piece.offset == 1 << 39
    assert bytes(piece.data) == b"in the middle".ljust(4096, b"\0")
    with pytest.raises(MorphError, match="too large"):
        kernels.read_file("files/sparse")


@needs_root
def test_inodes_keep_what_they_are(kernels: Image) -> None:
    names = {"user.one": b"first", "user.two": content(9, 3000)}
    assert kernels.xattrs("files/again") == names
    assert kernels.xattrs("files") == {}
    again, holes = kernels.stat("files/again"), kernels.stat("files/holes")
    assert again == holes
    assert (again.uid, again.gid, again.nlink) == (1000, 2000, 2)
    assert again.mtime_ns == 1_234_567_890_123_456_789
    assert kernels.stat("files/fifo").mtime_ns == -1_500_000_000
    assert kernels.stat("files/null").rdev == os.makedev(1, 3)
    assert kernels.stat("files/block").rdev == os.makedev(259, 70_000)
    kinds = [stat.S_IFMT(kernels.stat(f"files/{name}").mode) for name in ("null", "block", "fifo")]
    assert kinds == [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO]


@needs_root
def test_compressed_files(tmp_path: Path) -> None:
    image = mkfs(tmp_path / "image")
    text = b"".join(b"line %d of many\n" % number for number in range(100_000))
    with mounted(image, options="compress-force=zlib") as top:
        (top / "text").write_bytes(text)
        (top / "short").write_bytes(b"short " * 300)
        run("cp", "--reflink=always", top / "text", top / "copy")
        with (top / "copy").open("r+b") as file:
            file.seek(300_000)
            file.write(b"changed")
    with mounted(image, options="compress-force=zstd") as top:
        (top / "zstd").write_bytes(text)
    with Image(image) as found:
        assert found.read_file("text") == text
        assert found.read_file("short") == b"short " * 300
        assert found.read_file("copy") == text[:300_000] + b"changed" + text[300_007:]
        with pytest.raises(MorphError, match="compressed with zstd"):
            found.read_file("zstd")


@needs_root
def test_subvolumes_may_be_the_default_and_lie_deep(tmp_path: Path) -> None:
    image = mkfs(tmp_path / "image")
    with mounted(image) as top:
        where = top
        for number in range(12):
            where = where / f"plain{number}" / f"sub{number}"
            where.parent.mkdir()
            run("btrfs", "subvolume", "create", where)
        (where / "here").write_text("found\n")
        run("btrfs", "subvolume", "set-default", where)
        path = str(where.relative_to(top))
    with Image(image) as found:
        assert found.read_file(f"{path}/here") == b"found\n"
        assert max((each.path for each in found.subvolumes()), key=len) == path
        assert len(found.subvolumes()) == 12


# ---- What can't be read ----------------------------------------------------------------------


@needs_root
def test_several_devices_are_refused(tmp_path: Path) -> None:
    paths = [mkfs(tmp_path / name) for name in ("one", "two")]
    run("mkfs.btrfs", "-q", "-f", "-m", "raid1", "-d", "single", *paths)
    with pytest.raises(MorphError, match="one of 2 devices"):
        Image(paths[0])


def test_other_checksums_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MorphError, match="checksums"):
        Image(mkfs(tmp_path / "image", "--csum", "sha256"))


def change_superblock(image: Path, at: int, data: bytes) -> None:
    """Change a place of all superblocks; their checksums are made right."""
    with image.open("r+b") as file:
        for start in (PRIMARY, MIRROR):
            file.seek(start)
            block = bytearray(file.read(4096))
            block[at : at + len(data)] = data
            block[:4] = checksum(bytes(block[32:]))
            file.seek(start)
            file.write(block)


@pytest.mark.parametrize(
    ("at", "data", "message"),
    [
        (0xBC, (1 << 11).to_bytes(8, "little"), "features that are not known here: raid1c34"),
        (0xBC, (1 << 40).to_bytes(8, "little"), "features that are not known here: number 40"),
        (0x90, (65536).to_bytes(4, "little"), "sectors of 65536 bytes"),
        (0x94, (5).to_bytes(4, "little"), "damaged: blocks of trees can't have 5 bytes"),
        (0xA0, (99).to_bytes(4, "little"), "damaged"),
        (0xC6, b"\x09", "damaged"),
        (0x50, (5).to_bytes(8, "little"), "damaged"),
        (0x48, (99).to_bytes(8, "little"), "damaged"),
    ],
)
def test_superblocks_that_make_no_sense(tmp_path: Path, at: int, data: bytes, message: str) -> None:
    path = mkfs(tmp_path / "image")
    change_superblock(path, at, data)
    with pytest.raises(MorphError, match=message), Image(path) as found:
        found.listdir("")


# ---- Damage ----------------------------------------------------------------------------------


def everything(path: Path) -> dict[str, object]:
    with Image(path) as found:
        return {
            name: (seen, found.read_file(name) if stat.S_ISREG(seen.mode) else b"")
            for name, seen in found.walk("")
        }


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


@pytest.fixture
def copy(image: Path, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(image, tmp_path / "copy"))


def test_second_superblock_is_good(image: Path, copy: Path) -> None:
    overwrite(copy, PRIMARY, bytes(4096))
    assert everything(copy) == everything(image)
    overwrite(copy, MIRROR + 500, b"x")
    with pytest.raises(MorphError, match="no superblock is whole"):
        Image(copy)


def test_one_copy_of_trees_is_enough(image: Path, copy: Path) -> None:
    """All first copies are damaged."""
    count = 0
    for first, second in tree_blocks(image):
        assert first != second
        overwrite(copy, first + 200 * (count % 20), b"damaged!")
        count += 1
    assert count > 500
    assert everything(copy) == everything(image)


def test_damaged_data_is_not_given(image: Path, copy: Path, tree: Path) -> None:
    data = (tree / "a/b/large").read_bytes()
    at = image.read_bytes().find(data[4096:8192])
    overwrite(copy, at + 5, b"\0" if data[4096 + 5] else b"x")
    with Image(copy) as found:
        with pytest.raises(MorphError, match="does not have its checksum"):
            found.read_file("a/b/large")
        assert found.read_file("d01/file-49") == content(49, 49 * 90)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of it in single copies, and nearly all of it in use."""
    top = tmp_path_factory.mktemp("small")
    tree = top / "tree"
    (tree / "directory").mkdir(parents=True)
    for number in range(40):
        (tree / "directory" / f"file{number}").write_bytes(content(number, number * 200))
    (tree / "link").symlink_to("directory")
    return mkfs(
        *(top / "image", "--rootdir", tree, "--shrink", "-m", "single", "-n", "4096"),
        size=64 << 20,
    )


@pytest.fixture(scope="module")
def used(small: Path) -> list[int]:
    """Sectors that are not all zeroes."""
    data = small.read_bytes()
    return [at for at in range(0, len(data), 4096) if any(data[at : at + 4096])]


@contextmanager
def changed(path: Path, changes: Mapping[int, bytes]) -> Iterator[None]:
    """Sectors at these places have other content for a while."""
    with path.open("r+b", buffering=0) as file:
        before = {at: os.pread(file.fileno(), 4096, at) for at in changes}
        for at, sector in changes.items():
            os.pwrite(file.fileno(), sector, at)
        try:
            yield
        finally:
            for at, sector in before.items():
                os.pwrite(file.fileno(), sector, at)


def sector_at(path: Path, at: int) -> bytearray:
    with path.open("rb") as file:
        file.seek(at)
        return bytearray(file.read(4096))


@pytest.fixture(scope="module")
def expected(small: Path) -> dict[str, object]:
    return everything(small)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_damage_is_told_or_harmless(
    small: Path, used: list[int], expected: dict[str, object], data: st.DataObject
) -> None:
    places = data.draw(st.lists(st.sampled_from(used), min_size=1, max_size=3, unique=True))
    changes = {}
    for place in places:
        bit = data.draw(st.integers(0, 4096 * 8 - 1))
        sector = sector_at(small, place)
        sector[bit // 8] ^= 1 << bit % 8
        changes[place] = bytes(sector)
    with changed(small, changes):
        try:
            found = everything(small)
        except MorphError as error:
            assert "is damaged" in error.message or "there is no btrfs" in error.message
        else:
            assert found == expected


@pytest.fixture(scope="module")
def blocks(small: Path) -> list[int]:
    """Superblock and blocks of trees."""
    return [PRIMARY, *(each for places in tree_blocks(small) for each in places)]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_nonsense_with_right_checksums_ends(
    small: Path, blocks: list[int], data: st.DataObject
) -> None:
    """Whatever it is taken for, it ends in a MorphError or in something that can be read."""
    places = data.draw(st.lists(st.sampled_from(blocks), min_size=1, max_size=3, unique=True))
    changes = {}
    for place in places:
        block = sector_at(small, place)
        at = data.draw(st.integers(32, 4088))
        new = data.draw(st.one_of(st.binary(min_size=1, max_size=8), st.just(b"\xff" * 8)))
        block[at : at + len(new)] = new
        block[:4] = checksum(bytes(block[32:]))
        changes[place] = bytes(block)
    with changed(small, changes):
        try:
            found = everything(small)
        except MorphError as error:
            assert str(small) in error.message
        else:
            assert isinstance(found, dict)
