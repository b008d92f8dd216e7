"""Changing btrfs images: judged by `btrfs check`, the kernel and the reader."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphlib.errors import MorphError, Reason
from morphlib.images.btrfs import volume as volumes
from morphlib.images.btrfs.layout import ROOT_ITEM, Key, checksum
from morphlib.images.btrfs.model import (
    Change,
    Directory,
    Entry,
    File,
    Node,
    Removal,
    Snapshot,
    Subvolume,
    Symlink,
)
from morphlib.images.btrfs.reader import Image
from morphlib.images.btrfs.transaction import Transaction
from morphlib.images.btrfs.upgrade import upgrade_image
from tests.images.btrfs_images import TIME, facts, make, tree_blocks
from tests.images.btrfs_images import check as judge
from tests.mounting import mounted, needs_root

LATER = TIME + 1000
SIZE = 72 << 20


def content(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def fill(tree: Path, *, files: int = 300, seed: int = 0) -> Path:
    """A tree with files of all sizes, links, and more."""
    for name in ("etc", "usr/bin", "usr/lib", "var/empty", "dev"):
        (tree / name).mkdir(parents=True)
    (tree / "etc" / "fstab").write_text("nothing\n")
    (tree / "etc" / "mtab").symlink_to("../proc/mounts")
    for number in range(files):
        path = tree / "usr" / "lib" / f"file-{number}"
        path.write_bytes(content(seed + number, number * 41))
        os.utime(path, ns=(0, 10**18 + number))
    (tree / "usr" / "bin" / "large").write_bytes(content(seed + 1000, 2_500_000))
    for number in range(5):
        os.link(tree / "usr" / "bin" / "large", tree / "usr" / "bin" / f"link-{number}")
    with (tree / "var" / "sparse").open("wb") as file:
        file.truncate(9_000_000)
        file.seek(4_000_000)
        file.write(content(seed + 1001, 10_000))
    os.setxattr(tree / "usr" / "bin" / "large", "user.colour", b"blue")
    (tree / "usr" / "bin" / "large").chmod(0o4755)
    return tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return fill(tmp_path / "tree")


@pytest.fixture
def image(tree: Path, tmp_path: Path) -> Path:
    """A system as Morph makes it."""
    return make(
        tmp_path / "image",
        [
            *(Directory("systems"), Directory("systems/one")),
            *(Subvolume("systems/one/orig", tree), File("systems/one/orig/etc/fstab", b"mine\n")),
            *(Snapshot("systems/one/run", "systems/one/orig"), Symlink("systems/default", "one")),
            *(Directory("state"), Subvolume("state/home")),
        ],
        SIZE,
    )


def version(label: str, tree: Path, like: str | None = None) -> list[Change]:
    start = f"systems/{label}"
    return [
        Directory(start),
        Subvolume(f"{start}/orig", tree, like=like, emptied=frozenset({"var/empty"})),
        File(f"{start}/orig/etc/fstab", b"completed\n", 0o640, 1, 2),
        Directory(f"{start}/orig/state"),
        Snapshot(f"{start}/run", f"{start}/orig"),
        File(f"{start}/kernel", content(7, 100_000)),
        Symlink("systems/default", label),
    ]


def check(image: Path) -> None:
    """As for images that Morph makes; but kernels may have left a cache that is no longer right."""
    judge(image, but="cache and super generation don't match, space cache will be invalidated")


def upgrade(image: Path, *changes: Change, time: int = LATER) -> None:
    upgrade_image(image, changes, time=time)
    check(image)


def used(image: Path) -> int:
    command = ["btrfs", "inspect-internal", "dump-super", str(image)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return next(int(line.split()[1]) for line in shown.splitlines() if "bytes_used" in line)


def contents(image: Path, path: str = "") -> dict[str, tuple[object, ...]]:
    """All that the reader finds below a path."""
    found: dict[str, tuple[object, ...]] = {}
    with Image(image) as opened:
        for name, seen in opened.walk(path):
            whole = f"{path}/{name}"
            data: object = None
            if stat.S_ISREG(seen.mode):
                data = opened.read_file(whole)
            elif stat.S_ISLNK(seen.mode):
                data = opened.readlink(whole)
            xattrs = opened.xattrs(whole, follow=False)
            numbers = (seen.mode, seen.uid, seen.gid, seen.nlink, seen.size, seen.rdev)
            found[name] = (*numbers, seen.mtime_ns, data, tuple(xattrs.items()))
    return found


def expected(tree: Path) -> dict[str, object]:
    return {
        str(path.relative_to(tree)): path.read_bytes() if path.is_file() else None
        for path in tree.rglob("*")
        if not path.is_symlink()
    }


def test_a_version_is_added(image: Path, tree: Path) -> None:
    before = contents(image, "systems/one/orig")
    (tree / "usr" / "lib" / "file-7").write_bytes(b"changed")
    (tree / "new").write_bytes(content(77, 50_000))
    upgrade(image, *version("two", tree))
    assert contents(image, "systems/one/orig") == before
    with Image(image) as found:
        assert found.readlink("systems/default") == "two"
        for name in ("orig", "run"):
            for path, data in expected(tree).items():
                seen = found.stat(f"systems/two/{name}/{path}")
                there = (tree / path).stat()
                if path == "etc/fstab":
                    data = b"completed\n"
                    assert (seen.mode, seen.uid, seen.gid) == (stat.S_IFREG | 0o640, 1, 2)
                elif path != "etc":
                    assert (seen.mode, seen.mtime_ns) == (there.st_mode, there.st_mtime_ns)
                if data is not None:
                    assert found.read_file(f"systems/two/{name}/{path}") == data
            assert found.stat(f"systems/two/{name}/usr/bin/link-3").nlink == 6
            assert found.xattrs(f"systems/two/{name}/usr/bin/link-3") == {"user.colour": b"blue"}
        assert found.stat("systems/two/kernel").mtime_ns == LATER * 10**9
        one, two = (
            next(each for each in found.subvolumes() if each.path == f"systems/two/{name}")
            for name in ("orig", "run")
        )
        assert two.parent_uuid == one.uuid


def test_many_versions_come_and_go(image: Path, tree: Path) -> None:
    sizes = [used(image)]
    for number in range(6):
        (tree / "usr" / "lib" / "file-9").write_bytes(content(number, 9000))
        changes = version(f"v{number}", tree, "systems/one/orig")
        if number >= 2:
            old = f"systems/v{number - 2}"
            changes += [Removal(f"{old}/orig"), Removal(f"{old}/run"), Removal(f"{old}/kernel")]
            changes += [Removal(old)]
        upgrade(image, *changes)
        sizes.append(used(image))
    assert sizes[-1] - sizes[2] < 200_000
    with Image(image) as found:
        assert found.listdir("systems") == ["default", "one", "v4", "v5"]
        assert found.read_file("systems/default/run/usr/lib/file-9") == content(5, 9000)


def test_equal_files_share_data(image: Path, tree: Path) -> None:
    before = used(image)
    upgrade(image, *version("two", tree, "systems/one/orig"))
    assert used(image) - before < 400_000  # the trees, the kernel
    (tree / "usr" / "bin" / "large").write_bytes(content(5, 2_500_000))
    before = used(image)
    upgrade(image, *version("three", tree, "systems/two/run"))
    assert 2_500_000 < used(image) - before < 3_000_000
    with Image(image) as found:
        assert found.read_file("systems/three/run/usr/bin/link-1") == content(5, 2_500_000)
        assert found.read_file("systems/two/run/usr/bin/link-1") == content(1000, 2_500_000)
        sparse = list(found.read_pieces("systems/three/run/var/sparse"))
        assert sum(len(each.data) for each in sparse) < 20_000


def test_same_input_gives_same_bytes(image: Path, tree: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copyfile(image, tmp_path / "copy"))
    for path in (image, copy):
        upgrade_image(path, version("two", tree, "systems/one/run"), time=LATER)
    assert image.read_bytes() == copy.read_bytes()


def test_filesystem_in_a_partition(image: Path, tree: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    around = content(3, 1 << 20)
    disk.write_bytes(around + image.read_bytes() + around)
    upgrade_image(disk, version("two", tree), time=LATER, offset=1 << 20)
    data = disk.read_bytes()
    assert (data[: 1 << 20], data[-(1 << 20) :]) == (around, around)
    image.write_bytes(data[1 << 20 : -(1 << 20)])
    check(image)
    with Image(image) as found:
        assert found.read_file("systems/default/run/etc/fstab") == b"completed\n"


def test_nothing_to_do(image: Path) -> None:
    before = image.read_bytes()
    upgrade_image(image, [], time=LATER)
    assert image.read_bytes() == before


# ---- Files, directories, removals ------------------------------------------------------------


def test_files_are_replaced(image: Path) -> None:
    orig = "systems/one/orig"
    upgrade(
        image,
        File(f"{orig}/usr/bin/link-2", b"short"),
        File(f"{orig}/usr/lib/file-3", content(4, 300_000)),
        Symlink(f"{orig}/usr/lib/file-4", "file-3"),
        File(f"{orig}/etc/mtab", b"no link"),
        Directory("systems", mode=0o700),
        Directory("state/home/user", mode=0o700, uid=1000, gid=1001),
        File("state/home/user/.profile", b"", 0o600, 1000, 1001),
    )
    with Image(image) as found:
        assert found.read_file(f"{orig}/usr/bin/link-2") == b"short"
        assert found.stat(f"{orig}/usr/bin/link-1").nlink == 5
        assert found.read_file(f"{orig}/usr/bin/large") == content(1000, 2_500_000)
        assert found.read_file(f"{orig}/usr/lib/file-4") == content(4, 300_000)
        assert found.read_file(f"{orig}/etc/mtab") == b"no link"
        assert found.stat("systems").mode == stat.S_IFDIR | 0o755
        user = found.stat("state/home/user")
        assert (user.mode, user.uid, user.gid) == (stat.S_IFDIR | 0o700, 1000, 1001)
        # A snapshot of it stays as it was.
        assert found.stat("systems/one/run/usr/bin/link-1").nlink == 6
        assert found.read_file("systems/one/run/usr/lib/file-3") == content(3, 123)


def test_removals(image: Path) -> None:
    upgrade(
        image,
        Removal("systems/one/orig/usr/bin/link-2"),
        *(Removal(f"systems/one/orig/usr/bin/link-{number}") for number in (0, 1, 3, 4)),
        Removal("systems/one/orig/usr/bin/large"),
        Removal("systems/one/orig/usr/bin"),
        Removal("systems/default"),
        Removal("state/home"),
        Removal("state"),
        File("state", b"a file now"),
    )
    with Image(image) as found:
        assert found.listdir("") == ["state", "systems"]
        assert found.listdir("systems") == ["one"]
        assert found.listdir("systems/one/orig/usr") == ["lib"]
        assert found.read_file("systems/one/run/usr/bin/link-2") == content(1000, 2_500_000)
    before = used(image)
    upgrade(image, Removal("systems/one/run"))
    assert before - used(image) > 2_500_000
    upgrade(image, Removal("systems/one/orig"))
    assert used(image) < 1_000_000


def test_what_is_made_can_go_again(image: Path, tree: Path) -> None:
    before = used(image)
    upgrade(
        image,
        Subvolume("a", tree),
        Snapshot("b", "a"),
        File("b/etc/fstab", b"b"),
        Snapshot("c", "b"),
        Removal("b"),
        File("d", content(1, 100_000)),
        Removal("d"),
        Removal("a"),
        File("c/etc/fstab", b"c"),
    )
    with Image(image) as found:
        assert next(each.path for each in found.subvolumes()) == "c"
        assert found.read_file("c/etc/fstab") == b"c"
        assert found.read_file("c/usr/bin/large") == content(1000, 2_500_000)
    upgrade(image, Removal("c"))
    assert used(image) == before


def test_subvolumes_in_subvolumes(image: Path, tree: Path) -> None:
    upgrade(image, Subvolume("a"), Subvolume("a/b", tree, mode=0o711, uid=3), Snapshot("s", "a"))
    with Image(image) as found:
        assert found.listdir("s/b") == []
        assert "etc" in found.listdir("a/b")
        assert (found.stat("a/b").mode & 0o777, found.stat("a/b").uid) == (0o711, 3)
    with pytest.raises(MorphError, match="other subvolumes lie in it"):
        upgrade_image(image, [Removal("a")], time=LATER)
    upgrade(image, Removal("s/b"), Removal("a/b"), Removal("a"), Removal("s"))


def test_nodes_stand_in(image: Path, tree: Path) -> None:
    (tree / "dev" / "null").touch()
    node = Node(stat.S_IFCHR | 0o666, rdev=os.makedev(1, 3))
    upgrade(image, Subvolume("x", tree, nodes={"dev/null": node}, read_only=True))
    with Image(image) as found:
        seen = found.stat("x/dev/null")
        assert (seen.mode, seen.rdev) == (node.mode, node.rdev)
        assert found.subvolumes()[-1].read_only


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (Subvolume("systems/one"), "something is there already"),
        (Snapshot("state", "systems/one/orig"), "something is there already"),
        (Snapshot("new", "state"), "there is no subvolume state to take it of"),
        (Snapshot("new", "nowhere"), "there is no subvolume nowhere"),
        (Subvolume("new", like="nowhere"), "there is no nowhere to share data with"),
        (Directory("systems/default"), "something is there that is no directory"),
        (File("systems/one", b""), "something is there that no file can replace"),
        (File("systems/one/orig", b""), "something is there that no file can replace"),
        (Symlink("nowhere/link", "x"), "the directory that it is to be in is not there"),
        (File("systems/default/orig/x", b""), "the directory that it is to be in is not there"),
        (Symlink("link", ""), "its target is empty or too long"),
        (Symlink("link", "x" * 5000), "its target is empty or too long"),
        (File("", b""), "that is no path"),
        (File("a/../b", b""), "that is no path"),
        (File("n" * 256, b""), "names have 255 bytes at most"),
        (Removal("nowhere"), "it is not there"),
        (Removal("systems"), "the directory is not empty"),
        (Subvolume("new", Path("/nowhere")), "can't read /nowhere"),
    ],
)
def test_what_can_not_be_changes_nothing(image: Path, change: Change, message: str) -> None:
    before = image.read_bytes()
    with pytest.raises(MorphError, match=message):
        upgrade_image(image, [File("first", b"one"), change], time=LATER)
    assert image.read_bytes() == before


# ---- Room ------------------------------------------------------------------------------------


def test_chunks_are_added_where_there_is_room(image: Path, tree: Path) -> None:
    for number in range(10):
        (tree / f"big-{number}").write_bytes(content(number, 3_000_000))
    upgrade(image, *version("two", tree))
    with Image(image) as found:
        assert found.read_file("systems/two/run/big-9") == content(9, 3_000_000)


def test_no_room_is_told_before_anything_is_changed(image: Path, tree: Path) -> None:
    with (tree / "huge").open("wb") as file:
        for number in range(7):
            file.write(content(number, 10_000_000))
    before = image.read_bytes()
    with pytest.raises(MorphError, match=r"there is no room on .* bytes more are needed") as caught:
        upgrade_image(image, version("two", tree), time=LATER)
    assert caught.value.reason is Reason.SPACE
    assert image.read_bytes() == before


@pytest.mark.parametrize("size", [41, 2000])
def test_it_is_filled_until_nothing_fits(tmp_path: Path, size: int) -> None:
    """What there is stays whole, also when the last bit of room is taken, for data or trees."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(1, 400):
        (tree / f"{number}").write_bytes(content(number, min(number * size, 15_000)))
    (tree / "large").write_bytes(content(0, size * 1000))
    image = make(tmp_path / "image", [Directory("v")], 40 << 20)
    count = 0
    with pytest.raises(MorphError, match="there is no room"):
        for count in range(100):
            upgrade_image(image, [Subvolume(f"v/{count}", tree)], time=LATER)
    check(image)
    assert count >= 1
    with Image(image) as found:
        assert len(found.listdir("v")) == count
        for number in range(count):
            assert found.read_file(f"v/{number}/large") == content(0, size * 1000)
    # What is removed makes room for others.
    upgrade(image, Removal("v/0"))
    upgrade(image, Subvolume("v/next", tree))


@needs_root
def test_a_full_one_can_be_used(tmp_path: Path) -> None:
    """The kernel can still remove something from it."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(3000):
        (tree / f"{number}").write_bytes(content(number, 1900))
    image = make(tmp_path / "image", [Directory("v")], 48 << 20)
    with pytest.raises(MorphError, match="there is no room"):
        for number in range(100):
            upgrade_image(image, [Subvolume(f"v/{number}", tree)], time=LATER)
    with mounted(image) as top:
        (top / "v" / "0" / "0").unlink()
        (top / "v" / "0" / "1").rename(top / "v" / "0" / "moved")
        (top / "v" / "new").mkdir()
    check(image)


# ---- Being killed ----------------------------------------------------------------------------


def test_whenever_it_is_killed_there_is_the_old_or_the_new(
    image: Path, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Path(shutil.copyfile(image, tmp_path / "before"))
    writes: list[tuple[int, bytes]] = []
    really = volumes.Volume.pwrite

    def record(self: volumes.Volume, at: int, data: bytes | memoryview) -> None:
        writes.append((at, bytes(data)))
        really(self, at, data)

    monkeypatch.setattr(volumes.Volume, "pwrite", record)
    changes: list[Change] = [*version("two", tree, "systems/one/orig"), Removal("systems/one/run")]
    upgrade_image(image, changes, time=LATER)
    old, new = contents(before), contents(image)
    assert old != new
    first = next(number for number, (at, _) in enumerate(writes) if at == 64 << 10)
    assert first == len(writes) - 2
    killed = tmp_path / "killed"
    shutil.copyfile(before, killed)
    cuts = {1, first // 2, first - 1, first, first + 1}
    with killed.open("r+b", buffering=0) as file:
        for number in range(len(writes) + 1):
            if number in cuts:
                check(killed)
                assert contents(killed) == (old if number <= first else new)
            if number < len(writes):
                at, data = writes[number]
                os.pwrite(file.fileno(), data[: len(data) // 2], at)
                if number in cuts and number != first:  # half a write
                    check(killed)
                    assert contents(killed) == (old if number <= first else new)
                os.pwrite(file.fileno(), data, at)
    assert killed.read_bytes() == image.read_bytes()


# ---- What the kernel makes -------------------------------------------------------------------


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def mkfs(path: Path, *options: str, size: int = 128 << 20) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    run("mkfs.btrfs", "-q", *options, path)
    return path


def populate(image: Path, tree: Path, *, options: str = "rw") -> None:
    """Versions with much that they share, and some history."""
    with mounted(image, options=options) as top:
        (top / "systems" / "one").mkdir(parents=True)
        orig, snapshot = top / "systems" / "one" / "orig", top / "systems" / "one" / "run"
        run("btrfs", "subvolume", "create", orig)
        run("cp", "-a", f"{tree}/.", orig)
        run("btrfs", "subvolume", "snapshot", orig, snapshot)
        run("btrfs", "subvolume", "snapshot", "-r", snapshot, top / "read-only")
        for number in range(0, 300, 3):
            (orig / "usr" / "lib" / f"file-{number}").write_bytes(content(number + 5, 3000))
            (snapshot / "usr" / "lib" / f"file-{number + 1}").unlink()
        os.sync()
        with (orig / "usr" / "bin" / "large").open("r+b") as file:
            file.seek(1_000_000)
            file.write(b"in the middle")
        run("cp", "--reflink=always", orig / "usr" / "bin" / "large", top / "copy")
        (top / "systems" / "default").symlink_to("one")
    check(image)


@needs_root
@pytest.mark.parametrize(
    "options",
    [
        [],
        ["-n", "4096"],
        ["-n", "65536", "-m", "single"],
        ["-d", "dup"],
        ["-O", "^no-holes"],
        ["-R", "^free-space-tree"],
    ],
    ids=str,
)
def test_the_kernel_goes_on_with_it(tmp_path: Path, tree: Path, options: list[str]) -> None:
    image = mkfs(tmp_path / "image", *options, size=400 << 20)
    populate(image, tree, options="space_cache=v1" if "^free-space-tree" in options else "rw")
    with mounted(image, options="ro") as top:
        before = {name: facts(top / name) for name in ("systems/one/run", "read-only")}
        large = (top / "copy").read_bytes()
    (tree / "usr" / "bin" / "large").write_bytes(large)
    size = used(image)
    upgrade(
        image,
        *version("two", tree, "systems/one/orig"),
        File("systems/one/orig/usr/lib/file-5", b"changed\n"),
        File("systems/one/orig/usr/bin/large", b"replaced\n"),
        Removal("systems/one/orig/usr/lib/file-17"),
        Snapshot("systems/one/again", "systems/one/orig"),
        File("systems/one/again/usr/lib/file-6", b"changed, too\n"),
    )
    assert used(image) - size < 2_000_000
    with mounted(image) as top:
        for name, seen in before.items():
            assert facts(top / name) == seen
        found, wanted = facts(top / "systems/two/run"), facts(tree)
        assert found.pop("etc/fstab")[6] == b"completed\n"
        for name in (".", "etc", "etc/fstab", "state"):
            found.pop(name, None)
            wanted.pop(name, None)
        assert found == wanted
        assert facts(top / "systems/two/orig").keys() == facts(top / "systems/two/run").keys()
        assert (top / "systems/one/again/usr/lib/file-5").read_bytes() == b"changed\n"
        assert not (top / "systems/one/again/usr/lib/file-17").exists()
        # The kernel changes what was made, takes snapshots of it, and removes what it was made of.
        run("cp", "-a", tree, top / "systems/two/run/copy")
        for number in range(0, 300, 2):
            (top / "systems/two/orig/usr/lib" / f"file-{number}").unlink()
        run("btrfs", "subvolume", "snapshot", top / "systems/two/run", top / "third")
        run("btrfs", "subvolume", "delete", "-c", top / "systems/one/orig")
        run("btrfs", "subvolume", "delete", "-c", top / "systems/two/orig")
        run("btrfs", "subvolume", "sync", top)
        if options != ["-R", "^free-space-tree"]:
            run("btrfs", "balance", "start", "--full-balance", top)
    check(image)
    upgrade(
        image,
        Removal("systems/one/run"),
        Removal("systems/two/run"),
        Removal("copy"),
        *version("three", tree, "third"),
    )
    upgrade(image, Removal("read-only"), Removal("systems/one/again"), Removal("third"))
    with mounted(image) as top:
        found = facts(top / "systems/three/run")
        assert {name: found[name] for name in wanted} == wanted
    check(image)


@needs_root
def test_compressed_files_are_shared(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    text = b"".join(b"line %d of many\n" % number for number in range(100_000))
    (tree / "text").write_bytes(text)
    image = mkfs(tmp_path / "image")
    with mounted(image, options="compress-force=zlib") as top:
        run("btrfs", "subvolume", "create", top / "one")
        (top / "one" / "text").write_bytes(text)
    size = used(image)
    upgrade(image, Subvolume("two", tree, like="one"))
    assert used(image) - size < 100_000
    with mounted(image) as top:
        assert (top / "two" / "text").read_bytes() == text


# ---- What is refused -------------------------------------------------------------------------


def refuse(image: Path, message: str) -> None:
    before = image.read_bytes()
    with pytest.raises(MorphError, match=message):
        upgrade_image(image, [File("x", b"")], time=LATER)
    assert image.read_bytes() == before


@needs_root
def test_a_filesystem_that_was_not_unmounted(tmp_path: Path) -> None:
    image, copy = mkfs(tmp_path / "image"), tmp_path / "copy"
    with mounted(image) as top:
        (top / "file").write_text("before")
        os.sync()
        with (top / "file").open("w") as file:
            file.write("stored\n")
            file.flush()
            os.fsync(file.fileno())
        shutil.copyfile(image, copy)
    refuse(copy, "was not unmounted.*\n.*Mount it once")
    with mounted(copy):
        pass
    upgrade(copy, File("x", b""))
    with Image(copy) as found:
        assert found.read_file("file") == b"stored\n"


@needs_root
def test_quotas(tmp_path: Path) -> None:
    image = mkfs(tmp_path / "image")
    with mounted(image) as top:
        run("btrfs", "quota", "enable", top)
    refuse(image, "has quotas.*\n.*btrfs quota disable")
    with mounted(image) as top:
        run("btrfs", "quota", "disable", top)
    upgrade(image, File("x", b""))


@needs_root
def test_the_default_subvolume_stays(tmp_path: Path) -> None:
    image = mkfs(tmp_path / "image")
    with mounted(image) as top:
        run("btrfs", "subvolume", "create", top / "sub")
        run("btrfs", "subvolume", "set-default", top / "sub")
    with pytest.raises(MorphError, match="what is mounted by default"):
        upgrade_image(image, [Removal("sub")], time=LATER)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (Key((1 << 64) - 4, 248, 0), "is being balanced.*\n.*btrfs balance"),
        (Key((1 << 64) - 8, ROOT_ITEM, 256), "was interrupted while being balanced"),
    ],
)
def test_balances(image: Path, key: Key, message: str) -> None:
    """The root tree gets what a kernel leaves there."""
    with closing(volumes.Volume(image, writable=True)) as opened:
        transaction = Transaction(opened, time=LATER)
        transaction.roots.set(key, bytes(439))
        transaction.commit()
    refuse(image, message)


def test_mixed_block_groups(tmp_path: Path) -> None:
    refuse(mkfs(tmp_path / "image", "--mixed"), "in the same block groups")


def change_superblock(image: Path, at: int, data: bytes) -> None:
    with image.open("r+b") as file:
        file.seek(64 << 10)
        block = bytearray(file.read(4096))
        block[at : at + len(data)] = data
        block[:4] = checksum(bytes(block[32:]))
        file.seek(64 << 10)
        file.write(block)


@pytest.mark.parametrize(
    ("at", "data", "message"),
    [
        (0xB4, (1 << 9).to_bytes(8, "little"), "not changed: it has number 9"),
        (0xB4, (1 << 3 | 3).to_bytes(8, "little"), "it has a block group tree"),
        (0x38, (1 << 32 | 1).to_bytes(8, "little"), "is a seed"),
        (0xBC, (0x241).to_bytes(8, "little"), "without skinny metadata"),
        (0x70, (1 << 40).to_bytes(8, "little"), "the image ends before the filesystem does"),
        (0x88, (2).to_bytes(8, "little"), "one of 2 devices"),
    ],
)
def test_other_filesystems(image: Path, at: int, data: bytes, message: str) -> None:
    change_superblock(image, at, data)
    refuse(image, message)


def test_the_first_superblock_counts(image: Path) -> None:
    with image.open("r+b") as file:
        file.seek(65 << 10)
        file.write(b"damage")
    refuse(image, "the first superblock .* is damaged")


def test_damaged_trees(image: Path) -> None:
    """Both copies of a block of the extent tree."""
    command = ["btrfs", "inspect-internal", "dump-tree", "-t", "extent", str(image)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    leaf = next(int(line.split()[1]) for line in shown.splitlines() if line.startswith("leaf"))
    with Image(image) as opened:
        places = opened._volume.places(leaf, 4096)
    assert places
    with image.open("r+b") as file:
        for place in places:
            file.seek(place + 1000)
            file.write(b"damage")
    refuse(image, "is damaged")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Path]:
    """An image with trees of several levels, and what is added to it."""
    top = tmp_path_factory.mktemp("small")
    tree = fill(top / "tree", files=60)
    entries: list[Entry] = [Subvolume("a", tree), Snapshot("b", "a"), File("f", b"f" * 9000)]
    image = make(top / "image", entries, 28 << 20, node_size=4096, metadata_copies=1)
    return image.read_bytes(), tree


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_nonsense_with_right_checksums_ends(
    small: tuple[bytes, Path], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """It is told, or what is changed has nothing to do with it."""
    before, tree = small
    image = tmp_path_factory.getbasetemp() / "nonsense"
    image.write_bytes(before)
    blocks = [64 << 10, *(each for places in tree_blocks(image) for each in places)]
    with image.open("r+b") as file:
        for place in data.draw(st.lists(st.sampled_from(blocks), min_size=1, max_size=3)):
            file.seek(place)
            block = bytearray(file.read(4096))
            at = data.draw(st.integers(32, 4088))
            new = data.draw(st.one_of(st.binary(min_size=1, max_size=8), st.just(b"\xff" * 8)))
            block[at : at + len(new)] = new
            block[:4] = checksum(bytes(block[32:]))
            file.seek(place)
            file.write(block)
    changes: list[Change] = [Subvolume("c", tree, like="a"), Snapshot("d", "c"), Removal("b")]
    changes += [File("a/etc/fstab", content(2, 5000)), Removal("f"), Directory("a/etc/x")]
    try:
        upgrade_image(image, changes, time=LATER)
    except MorphError as error:
        assert str(image) in error.message
