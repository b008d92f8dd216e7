"""Images as kernels see them."""

from __future__ import annotations

import os
import random
import stat
import subprocess
from pathlib import Path

import pytest

from morphlib.images.btrfs.create import create_image, least_size
from morphlib.images.btrfs.model import Directory, Entry, File, Node, Snapshot, Subvolume, Symlink
from tests.images.btrfs_images import FSID, TIME, check, facts, make
from tests.mounting import mounted, needs_root

pytestmark = needs_root

SIZE = 256 << 20


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With one of each that systems have."""
    tree = tmp_path_factory.mktemp("trees") / "tree"
    for name in ("etc", "usr/bin", "var/empty", "home/user", "dev", "mnt"):
        (tree / name).mkdir(parents=True)
    (tree / "etc" / "fstab").write_text("LABEL=root / btrfs\n")
    (tree / "etc" / "mtab").symlink_to("../proc/self/mounts")
    (tree / "usr" / "bin" / "passwd").write_bytes(random.randbytes(70_000))
    (tree / "usr" / "bin" / "passwd").chmod(0o4755)
    (tree / "var" / "empty").chmod(0o1777)
    with (tree / "var" / "sparse").open("wb") as file:
        file.seek(10 << 20)
        file.write(b"data")
        file.truncate(20 << 20)
    for number in range(1500):
        path = tree / "home" / "user" / f"file-{number}"
        path.write_bytes(random.randbytes(random.randrange(1, 9000)))
        os.utime(path, ns=(0, random.randrange(-(10**18), 10**18)))
        os.lchown(path, number, number * 2)
    for number in range(1200):
        os.link(tree / "etc" / "fstab", tree / "home" / f"link-with-a-long-name-{number}")
    os.setxattr(tree / "usr" / "bin" / "passwd", "user.colour", b"blue")
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(tree / "usr" / "bin" / "passwd", "security.capability", capability)
    (tree / "dev" / "null").touch()
    os.mkfifo(tree / "dev" / "initctl")
    os.mknod(tree / "dev" / "console", 0o20620, os.makedev(5, 1))
    os.mknod(tree / "dev" / "disk", 0o60660, os.makedev(259, 300_000))
    os.lchown(tree / "etc" / "mtab", 7, 8)
    os.utime(tree / "etc" / "mtab", ns=(0, 5), follow_symlinks=False)
    os.utime(tree, ns=(0, 123_456_789_012))
    return tree


def test_all_is_kept(tree: Path, tmp_path: Path) -> None:
    entries: list[Entry] = [
        Directory("systems"),
        Subvolume("systems/orig", tree),
        Snapshot("systems/run", "systems/orig"),
    ]
    image = make(tmp_path / "image", entries, SIZE)
    with mounted(image) as top:
        expected = facts(tree)
        assert facts(top / "systems" / "orig") == expected
        assert facts(top / "systems" / "run") == expected
        sparse = top / "systems" / "run" / "var" / "sparse"
        assert sparse.stat().st_blocks == 8
    check(image)


def test_goes_on_to_work(tree: Path, tmp_path: Path) -> None:
    """Subvolume and snapshot part ways, names that are there are found, blocks are set free."""
    entries: list[Entry] = [
        Subvolume("orig", tree),
        Snapshot("run", "orig"),
        Snapshot("other", "orig"),
    ]
    image = make(tmp_path / "image", entries, SIZE)
    before = facts(tree)
    with mounted(image, options="rw,commit=1") as top:
        for number in range(500):
            (top / "run" / "home" / "user" / f"file-{number}").unlink()
            (top / "run" / "home" / f"link-with-a-long-name-{number}").unlink()
            (top / "run" / f"new-{number}").write_bytes(bytes(number * 10))
        with (top / "run" / "usr" / "bin" / "passwd").open("r+b") as file:
            file.seek(30_000)
            file.write(b"changed")
        run("btrfs", "subvolume", "delete", top / "other")
        run("btrfs", "subvolume", "snapshot", top / "run", top / "again")
        run("btrfs", "subvolume", "sync", top)
    check(image)
    with mounted(image) as top:
        assert facts(top / "orig") == before
        assert not (top / "other").exists()
        assert len(list((top / "again" / "home" / "user").iterdir())) == 1000
        run("btrfs", "balance", "start", "--full-balance", top)
        run("btrfs", "scrub", "start", "-B", top)
    check(image)


def run(*argv: str | Path) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def test_nothing_is_wrong_for_scrub(tree: Path, tmp_path: Path) -> None:
    image = make(tmp_path / "image", [Subvolume("orig", tree)], SIZE)
    with mounted(image) as top:
        assert "no errors found" in run("btrfs", "scrub", "start", "-B", top)


def test_subvolumes(tree: Path, tmp_path: Path) -> None:
    entries: list[Entry] = [
        Directory("systems", 0o710, 1, 2),
        Subvolume("systems/orig", tree),
        Subvolume("systems/orig/mnt/inner", mode=0o1700, uid=3, gid=4),
        File("systems/orig/mnt/inner/file", b"content", 0o640, 5, 6),
        Snapshot("systems/run", "systems/orig", read_only=True),
        Symlink("default", "systems/run", 7, 8),
    ]
    image = make(tmp_path / "image", entries, SIZE)
    with mounted(image) as top:
        listed = run("btrfs", "subvolume", "list", top).splitlines()
        assert [line.split()[1] for line in listed] == ["256", "257", "258"]
        assert [line.split()[-1] for line in listed] == [
            "systems/orig",
            "systems/orig/mnt/inner",
            "systems/run",
        ]
        uuids = run("btrfs", "subvolume", "list", "-u", "-q", top).splitlines()
        orig, inner, snapshot = (line.split() for line in uuids)
        assert snapshot[snapshot.index("parent_uuid") + 1] == orig[orig.index("uuid") + 1]
        assert inner[inner.index("parent_uuid") + 1] == "-"
        assert run("btrfs", "property", "get", top / "systems/run", "ro") == "ro=true\n"
        assert run("btrfs", "property", "get", top / "systems/orig", "ro") == "ro=false\n"
        assert ownership(top / "systems") == (0o40710, 1, 2, TIME)
        assert ownership(top / "systems/orig/mnt/inner") == (0o41700, 3, 4, TIME)
        assert ownership(top / "systems/orig/mnt/inner/file") == (0o100640, 5, 6, TIME)
        assert ownership(top / "default") == (0o120777, 7, 8, TIME)
        assert (top / "systems/orig/mnt/inner/file").read_bytes() == b"content"
        assert list((top / "systems/run/mnt/inner").iterdir()) == []
        with pytest.raises(OSError, match="Read-only"):
            (top / "systems/run/new").touch()
        run("btrfs", "property", "set", "-f", top / "systems/run", "ro", "false")
        (top / "systems/run/new").touch()
        run("btrfs", "subvolume", "delete", top / "systems/orig/mnt/inner")
        run("btrfs", "subvolume", "delete", top / "systems/orig")
    check(image)


def ownership(path: Path) -> tuple[int, int, int, int]:
    found = path.lstat()
    return found.st_mode, found.st_uid, found.st_gid, int(found.st_mtime)


def test_nodes_and_emptied_directories(tree: Path, tmp_path: Path) -> None:
    nodes = {"dev/null": Node(0o20666, 0, 3, os.makedev(1, 3)), "etc": Node(0o40700, 1, 2)}
    entries = [Subvolume("orig", tree, emptied=frozenset({"home/user"}), nodes=nodes)]
    with mounted(make(tmp_path / "image", entries, SIZE)) as top:
        null = (top / "orig" / "dev" / "null").stat()
        assert (null.st_mode, null.st_gid, null.st_rdev) == (0o20666, 3, os.makedev(1, 3))
        assert stat.S_IMODE((top / "orig" / "etc").stat().st_mode) == 0o700
        assert (top / "orig" / "etc" / "fstab").exists()
        assert list((top / "orig" / "home" / "user").iterdir()) == []
        (top / "orig" / "dev" / "null").write_text("nothing")


@pytest.mark.parametrize("node_size", [4096, 16384, 65536])
def test_least_size_can_be_used(tree: Path, tmp_path: Path, node_size: int) -> None:
    """There is room for a little; more than that is an error, but breaks nothing."""
    entries: list[Entry] = [Subvolume("orig", tree), Snapshot("run", "orig")]
    size = least_size(entries, node_size=node_size)
    image = make(tmp_path / "image", entries, size, node_size=node_size)
    with mounted(image) as top:
        (top / "run" / "small").write_text("small")
        assert facts(top / "orig") == facts(tree)
        with pytest.raises(OSError, match="No space left"):
            (top / "run" / "large").write_bytes(random.randbytes(64 << 20))
    check(image)


def test_at_an_offset(tree: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(random.randbytes(1 << 20) * 300)
    create_image(
        image, SIZE, [Subvolume("orig", tree)], fsid=FSID, time=TIME, offset=9 << 20, label="root"
    )
    with mounted(image, offset=9 << 20) as top:
        assert run("btrfs", "filesystem", "label", top) == "root\n"
        assert facts(top / "orig") == facts(tree)
        assert "no errors found" in run("btrfs", "scrub", "start", "-B", top)


@pytest.mark.parametrize("node_size", [4096, 65536])
def test_other_sizes_of_nodes(tree: Path, tmp_path: Path, node_size: int) -> None:
    entries: list[Entry] = [Subvolume("orig", tree), Snapshot("run", "orig")]
    image = make(tmp_path / "image", entries, SIZE, node_size=node_size, metadata_copies=1)
    with mounted(image) as top:
        assert facts(top / "run") == facts(tree)
        (top / "run" / "new").write_text("new")
    check(image)


def test_on_a_block_device(tree: Path, tmp_path: Path) -> None:
    """One that had another file system."""
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(SIZE)
    run("mkfs.ext4", "-q", disk)
    device = Path(run("losetup", "--find", "--show", disk).strip())
    try:
        create_image(device, SIZE, [Subvolume("orig", tree)], fsid=FSID, time=TIME, offset=0)
    finally:
        run("losetup", "--detach", device)
    check(disk)
    assert run("blkid", "-p", "-s", "TYPE", "-o", "value", disk) == "btrfs\n"
    with mounted(disk) as top:
        assert facts(top / "orig") == facts(tree)
