"""Images as `btrfs check` sees them, which needs no root."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphlib.errors import MorphError, Reason
from morphlib.images.btrfs import space, superblock
from morphlib.images.btrfs.create import create_image, least_size, write_reserved
from morphlib.images.btrfs.layout import name_hash
from morphlib.images.btrfs.model import Directory, Entry, File, Node, Snapshot, Subvolume, Symlink
from tests.images.btrfs_images import FSID, SIZE, TIME, check, image_of, make
from tests.ordinary import run_as_ordinary_user


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    path = tmp_path / "tree"
    path.mkdir()
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "image"


def dump(image: Path, number: int) -> str:
    command = ["btrfs", "inspect-internal", "dump-tree", "-t", str(number), str(image)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_nothing(image: Path) -> None:
    check(make(image, []))
    assert image.stat().st_size == SIZE
    assert image.stat().st_blocks * 512 < 1 << 20


def test_one_file(image: Path) -> None:
    check(make(image, [File("file", b"x")]))


def test_label_and_uuid(image: Path) -> None:
    create_image(image, SIZE, [], fsid=FSID, time=TIME, label="baserock")
    done = subprocess.run(
        ["blkid", "-p", "-o", "export", image], capture_output=True, text=True, check=True
    )
    assert f"UUID={FSID}" in done.stdout
    assert "LABEL=baserock" in done.stdout
    check(image)


@pytest.mark.parametrize("node_size", [4096, 8192, 16384, 65536])
@pytest.mark.parametrize("copies", [1, 2])
def test_many_files(tree: Path, image: Path, node_size: int, copies: int) -> None:
    """Several levels of nodes, and more than one checksum item."""
    for number in range(2500):
        (tree / f"file-{number}").write_bytes(b"%d" % number * number)
    entries = [Subvolume("system", tree)]
    check(make(image, entries, 128 << 20, node_size=node_size, metadata_copies=copies))


def test_deep_directories(tree: Path, image: Path) -> None:
    below = tree
    for number in range(500):
        below = below / f"d{number}"
        below.mkdir()
    (below / "file").write_text("deep")
    check(image_of(tree, image))


def test_long_names(tree: Path, image: Path) -> None:
    for number in range(300):
        (tree / f"{number:0255}").write_text("x")
    (tree / "link").symlink_to("t" * 4095)
    os.close(os.open(os.fsencode(tree) + b"/\xff\xfe", os.O_CREAT))
    check(image_of(tree, image))


def test_names_with_the_same_hash(tree: Path, image: Path) -> None:
    first, second = colliding_names()
    (tree / first).write_text("first")
    (tree / second).mkdir()
    os.setxattr(tree, f"user.{first}".encode(), b"1")
    check(image_of(tree, image))
    assert dump(image, 256).count(f"DIR_ITEM {name_hash(first.encode())}") == 1


def colliding_names() -> tuple[str, str]:
    seen: dict[int, str] = {}
    for number in range(1 << 20):
        name = hashlib.md5(b"%d" % number).hexdigest()[:12]
        before = seen.setdefault(name_hash(name.encode()), name)
        if before != name:
            return before, name
    raise AssertionError


def test_sparse_files(tree: Path, image: Path) -> None:
    with (tree / "large").open("wb") as file:
        file.write(b"start")
        file.seek(1 << 40)
        file.write(b"far away" * 1000)
        file.truncate(1 << 41)
    with (tree / "hole").open("wb") as file:
        file.truncate(1 << 30)
    with (tree / "ragged").open("wb") as file:
        for number in range(50):
            file.seek(number * 100_000)
            file.write(b"x" * 5000)
    check(image_of(tree, image))
    assert image.stat().st_blocks * 512 < 4 << 20


def test_large_files(tree: Path, image: Path) -> None:
    """Extents end at 128 MiB, and before the second superblock."""
    with (tree / "large").open("wb") as file:
        for _ in range(300):
            file.write(random.randbytes(1 << 20))
    check(image_of(tree, image, 512 << 20))
    text = dump(image, 256)
    assert "nr 134217728" in text
    assert f"disk byte {(64 << 20) + (64 << 10)} " in text


@pytest.mark.parametrize("copies", [1, 2])
def test_more_than_a_chunk_holds(
    tree: Path, image: Path, monkeypatch: pytest.MonkeyPatch, copies: int
) -> None:
    """Of data and of trees, where chunks are small instead of all the rest being large."""
    monkeypatch.setattr(space, "_LARGEST_CHUNK", 8 << 20)
    for number in range(9000):
        (tree / f"{number:0200}").write_bytes(b"x" * (number % 3000))
    (tree / "large").write_bytes(random.randbytes(70 << 20))
    entries: list[Entry] = [Subvolume("system", tree), Snapshot("run", "system")]
    check(make(image, entries, 256 << 20, node_size=4096, metadata_copies=copies))
    chunks = dump(image, 3)
    assert chunks.count("type DATA|single") > 8
    assert chunks.count("type METADATA") > 1


def test_more_names_than_an_item_holds(tree: Path, image: Path) -> None:
    (tree / "other").mkdir()
    (tree / "file").write_text("one of many")
    for number in range(1500):
        os.link(tree / "file", tree / f"a-long-name-for-a-link-{number}")
        if number < 40:
            os.link(tree / "file", tree / "other" / f"{number}")
    check(image_of(tree, image))
    assert "INODE_EXTREF" in dump(image, 256)


def test_special_files(tree: Path, image: Path) -> None:
    os.mkfifo(tree / "fifo")
    for name in ("console", "disk", "was-a-directory", "was-a-file"):
        (tree / name).touch()
    (tree / "was-a-directory").unlink()
    (tree / "was-a-directory" / "below").mkdir(parents=True)
    nodes = {
        "console": Node(0o20620, 0, 5, os.makedev(5, 1)),
        "disk": Node(0o60660, 0, 6, os.makedev(259, 300)),
        "was-a-directory": Node(0o100644),
        "was-a-file": Node(0o40755),
        "not-there": Node(0o100644),
    }
    check(make(image, [Subvolume("system", tree, nodes=nodes)]))
    text = dump(image, 256)
    assert "mode 20620 links 1 uid 0 gid 5 rdev 5242881" in text
    assert "name: below" not in text
    assert "not-there" not in text


def test_type_of_node_must_be_told(tree: Path, image: Path) -> None:
    (tree / "console").touch()
    with pytest.raises(MorphError, match=r"console: mode 620 has no type"):
        make(image, [Subvolume("system", tree, nodes={"console": Node(0o620)})])


def test_extended_attributes(tree: Path, image: Path) -> None:
    (tree / "file").touch()
    for number in range(50):
        os.setxattr(tree / "file", f"user.number-{number}", b"v" * number)
    check(image_of(tree, image))
    assert dump(image, 256).count("XATTR_ITEM") == 50


@pytest.mark.parametrize("files", [0, 3, 3000])
@pytest.mark.parametrize("snapshots", [1, 200])
def test_snapshots(tree: Path, image: Path, files: int, snapshots: int) -> None:
    """Of trees that are one leaf, and of larger ones; more than an item has references of."""
    for number in range(files):
        (tree / f"file-{number}").write_bytes(b"x" * 5000)
    taken = [Snapshot(f"run-{number}", "orig") for number in range(snapshots)]
    entries: list[Entry] = [
        Subvolume("orig", tree),
        *taken,
        Snapshot("again", "run-0", read_only=True),
    ]
    check(make(image, entries))


def test_snapshot_shares_what_there_is(tree: Path, tmp_path: Path) -> None:
    for number in range(1000):
        (tree / f"file-{number}").write_bytes(b"x" * 5000)
    alone = make(tmp_path / "alone", [Subvolume("orig", tree)])
    both = make(tmp_path / "both", [Subvolume("orig", tree), Snapshot("run", "orig")])
    more = used(both) - used(alone)
    assert more == 16384


def used(image: Path) -> int:
    return superblock.Superblock.unpack(image.read_bytes()[65536 : 65536 + 4096]).bytes_used


def test_nested_subvolumes(tree: Path, image: Path) -> None:
    (tree / "mnt").mkdir()
    entries: list[Entry] = [
        Directory("systems"),
        Subvolume("systems/one", tree, read_only=True),
        Subvolume("systems/one/mnt/two"),
        Directory("systems/one/mnt/two/inner", 0o1777, 1, 2),
        Subvolume("systems/one/mnt/two/inner/three", tree, mode=0o700, uid=3, gid=4),
        Snapshot("systems/snapshot", "systems/one"),
    ]
    check(make(image, entries))


def test_entries_replace_what_is_in_trees(tree: Path, image: Path) -> None:
    (tree / "etc").mkdir()
    (tree / "etc" / "fstab").write_text("of the tree")
    (tree / "link").symlink_to("etc")
    os.link(tree / "etc" / "fstab", tree / "fstab-too")
    entries: list[Entry] = [
        Subvolume("system", tree),
        File("system/etc/fstab", b"of the entry"),
        Directory("system/etc"),
        Directory("system/srv"),
        Symlink("system/link", "elsewhere"),
    ]
    check(make(image, entries))
    text = dump(image, 256)
    assert "name: srv" in text
    data = image.read_bytes()
    assert b"of the entry" in data
    assert b"of the tree" in data  # under the other name


def test_emptied_directories(tree: Path, image: Path) -> None:
    for name in ("kept", "emptied"):
        (tree / name).mkdir()
        (tree / name / f"in-{name}").touch()
    check(make(image, [Subvolume("system", tree, emptied=frozenset({"emptied"}))]))
    text = dump(image, 256)
    assert "name: emptied" in text
    assert "name: in-kept" in text
    assert "name: in-emptied" not in text


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([File("a/b", b"")], r"'a/b'.*is not there"),
        ([File("a", b""), File("a/b", b"")], r"'a/b'.*is not there"),
        ([Directory("a"), File("a", b"")], r"'a'.*no file can replace"),
        ([File("a", b""), Directory("a")], r"'a'.*no directory"),
        ([Directory("a"), Subvolume("a")], r"'a'.*already"),
        ([File("../a", b"")], "no path"),
        ([File("/a", b"")], "no path"),
        ([File("", b"")], "no path"),
        ([File("a" * 256, b"")], "255 bytes"),
        ([Symlink("a", "")], "target"),
        ([Symlink("a", "b" * 20000)], "target"),
        ([Snapshot("a", "b")], "no subvolume b"),
        ([Subvolume("a"), Snapshot("b", "a"), File("a/c", b"")], "shares"),
        ([Subvolume("a"), Snapshot("b", "a"), File("b/c", b"")], "shares"),
        ([Subvolume("a", Path("/not/there"))], r"can't read /not/there"),
        ([Subvolume("a", Path("/etc/passwd"))], r"can't read /etc/passwd: Not a directory"),
    ],
)
def test_entries_that_do_not_fit(image: Path, entries: list[Entry], message: str) -> None:
    with pytest.raises(MorphError, match=message):
        make(image, entries)
    assert not image.exists()


def test_size_that_is_too_small(tree: Path, image: Path) -> None:
    (tree / "file").write_bytes(random.randbytes(20 << 20))
    entries = [Subvolume("system", tree)]
    least = least_size(entries)
    assert 20 << 20 < least < 52 << 20
    with pytest.raises(MorphError, match=str(least)) as caught:
        make(image, entries, least - 4096)
    assert caught.value.reason == Reason.SPACE
    assert list(image.parent.iterdir()) == [tree]
    check(make(image, entries, least))


@pytest.mark.parametrize("size", [0, 4096, (16 << 20) + 5, (64 << 20) + (64 << 10), 300 << 30])
def test_sizes(image: Path, size: int) -> None:
    """Of no size, of an uneven one, where a superblock has just no room, and of a large one."""
    least = least_size([])
    if size < least:
        with pytest.raises(MorphError, match=str(least)):
            make(image, [], size)
        return
    check(make(image, [], size))
    assert image.stat().st_size == size


def test_inside_of_a_larger_file(tree: Path, image: Path, tmp_path: Path) -> None:
    (tree / "file").write_bytes(b"content" * 10_000)
    offset, size = 3 << 20, 96 << 20
    around = random.randbytes(1 << 20) * 100
    image.write_bytes(around)
    entries = [Subvolume("system", tree)]
    create_image(image, size, entries, fsid=FSID, time=TIME, offset=offset, reserved=b"boot")
    content = image.read_bytes()
    assert content[:offset] == around[:offset]
    assert content[offset + size :] == around[offset + size :]
    assert content[offset : offset + (64 << 10)] == b"boot".ljust(64 << 10, b"\0")
    alone = tmp_path / "alone"
    alone.write_bytes(content[offset : offset + size])
    check(alone)


def test_file_that_is_too_short(image: Path) -> None:
    image.write_bytes(bytes(1 << 20))
    with pytest.raises(MorphError, match="ends before"):
        create_image(image, SIZE, [], fsid=FSID, time=TIME, offset=0)
    assert image.read_bytes() == bytes(1 << 20)


def test_nothing_is_replaced(image: Path) -> None:
    image.write_text("precious")
    with pytest.raises(MorphError, match="File exists"):
        make(image, [])
    assert image.read_text() == "precious"


def test_reserved_bytes(image: Path) -> None:
    create_image(image, SIZE, [], fsid=FSID, time=TIME, reserved=b"b" * 65536)
    assert image.read_bytes()[:65536] == b"b" * 65536
    write_reserved(image, b"c" * 512, at=65024)
    assert image.read_bytes()[65000:65536] == b"b" * 24 + b"c" * 512
    for at in (65025, -1):
        with pytest.raises(MorphError, match="65536 bytes"):
            write_reserved(image, b"c" * 512, at=at)
    with pytest.raises(MorphError, match="can't write"):
        write_reserved(image.with_name("nothing"), b"c")
    check(image)
    with pytest.raises(MorphError, match="65536 bytes"):
        create_image(image, SIZE, [], fsid=FSID, time=TIME, reserved=bytes(65537))


def test_is_the_same_each_time_and_for_everybody(tree: Path, tmp_path: Path) -> None:
    for number in (3, 1, 2):
        (tree / f"file-{number}").write_bytes(b"%d" % number * 9999)
        os.utime(tree / f"file-{number}", ns=(1, 683074800_123456789))
    os.link(tree / "file-1", tree / "a-link")
    os.utime(tree, ns=(0, 0))
    first = image_of(tree, tmp_path / "first").read_bytes()
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy, symlinks=True)
    (copy / "a-link").unlink()
    os.link(copy / "file-1", copy / "a-link")
    os.utime(copy, ns=(0, 0))
    assert image_of(copy, tmp_path / "second").read_bytes() == first
    code = """
import sys
from pathlib import Path
from morphlib.images.btrfs.model import File, Subvolume
from tests.images.btrfs_images import make
entries = [Subvolume("system"), File("system/file", b"content" * 1000)]
assert make(Path("image"), entries).read_bytes() == Path(sys.argv[1]).read_bytes()
"""
    entries: list[Entry] = [Subvolume("system"), File("system/file", b"content" * 1000)]
    with tempfile.NamedTemporaryFile() as shared:
        shared.write(make(tmp_path / "third", entries).read_bytes())
        shared.flush()
        Path(shared.name).chmod(0o644)
        run_as_ordinary_user(code, shared.name)


def test_unreadable_files_are_told() -> None:
    code = """
from pathlib import Path
from morphlib.errors import MorphError
from tests.images.btrfs_images import image_of
Path("tree").mkdir()
for size in (1, 10000):
    Path("tree/secret").write_bytes(bytes(size))
    Path("tree/secret").chmod(0)
    try:
        image_of(Path("tree"), Path("image"))
    except MorphError as error:
        assert str(error) == "can't read tree/secret: Permission denied", error
    else:
        raise AssertionError
    assert not Path("image").exists()
    Path("tree/secret").unlink()
"""
    run_as_ordinary_user(code)


def shorten(path: Path) -> None:
    path.write_bytes(bytes(9_000))


def rewrite(path: Path) -> None:
    path.write_bytes(bytes(10_000))
    os.utime(path, ns=(0, 0))


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shorten, "file changes while"),
        (rewrite, "file changes while"),
        (replace_by_fifo, "can't read .*/file"),
        (replace_by_link, "can't read .*/file"),
        (Path.unlink, "can't read .*/file"),
    ],
)
def test_tree_that_changes_is_told(
    tree: Path,
    image: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], None],
    message: str,
) -> None:
    """Here, between looking for what there is and copying it."""
    (tree / "file").write_bytes(bytes(10_000))
    truncate = os.truncate

    def truncate_and_change(fd: int, size: int) -> None:
        truncate(fd, size)
        change(tree / "file")

    monkeypatch.setattr(os, "truncate", truncate_and_change)
    with pytest.raises(MorphError, match=message):
        image_of(tree, image)
    assert not image.exists()


def test_killing_leaves_nothing(tree: Path, image: Path) -> None:
    with (tree / "large").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 600 << 20)
    code = """
import sys
from pathlib import Path
from tests.images.btrfs_images import image_of
print("starting", flush=True)
image_of(Path(sys.argv[1]), Path(sys.argv[2]), 1 << 30)
print("done", flush=True)
"""
    argv = [sys.executable, "-c", code, str(tree), str(image)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout is not None
        assert maker.stdout.readline() == "starting\n"
        while not written(maker.pid):
            assert maker.poll() is None
        maker.send_signal(signal.SIGKILL)
        assert maker.stdout.read() == ""
    assert list(image.parent.iterdir()) == [tree]


@pytest.mark.parametrize("fails", [False, True])
def test_where_files_must_have_names(
    tree: Path, image: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """On file systems that know no O_TMPFILE."""
    real_open = os.open

    def open_named(path: str | Path, flags: int, *args: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real_open(path, flags, *args)

    monkeypatch.setattr(os, "open", open_named)
    if fails:
        monkeypatch.setattr(os, "pwrite", no_room)
        with pytest.raises(MorphError, match="No space left") as caught:
            image_of(tree, image)
        assert caught.value.reason == Reason.SPACE
        assert list(image.parent.iterdir()) == [tree]
    else:
        check(image_of(tree, image))
        assert set(image.parent.iterdir()) == {tree, image}


def no_room(fd: int, data: bytes, at: int) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def written(pid: int) -> int:
    counters = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(counters["write_bytes"]) >> 24


names = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=40)
files = st.integers(0, 300_000)
trees = st.recursive(
    st.one_of(files, st.binary(min_size=1, max_size=3)),
    lambda below: st.dictionaries(names.filter(lambda name: name not in (".", "..")), below),
    max_leaves=30,
)


@settings(max_examples=25, deadline=None)
@given(
    tree=st.dictionaries(st.sampled_from("abcdef"), trees),
    snapshots=st.integers(0, 3),
    links=st.dictionaries(names, st.integers(1, 300), max_size=2),
)
def test_any_tree(tree: dict[str, object], snapshots: int, links: dict[str, int]) -> None:
    with tempfile.TemporaryDirectory(prefix="morph-test-") as directory:
        top = Path(directory, "tree")
        build(top, {**tree, "links": {}})
        for name, count in links.items():
            (top / "linked").write_bytes(b"x" * count)
            for number in range(count):
                os.link(top / "linked", top / "links" / f"{name[:10]}-{number}-{count}")
            (top / "linked").unlink()
        taken = [Snapshot(f"snapshot-{number}", "orig") for number in range(snapshots)]
        entries: list[Entry] = [Subvolume("orig", top), *taken]
        size = least_size(entries, node_size=4096)
        check(make(Path(directory, "image"), entries, size, node_size=4096))


def build(place: Path, what: object) -> None:
    """Numbers are sizes of files, bytes targets of symlinks."""
    if isinstance(what, int):
        place.write_bytes(random.randbytes(what))
    elif isinstance(what, bytes):
        place.symlink_to(what.hex())
    else:
        assert isinstance(what, dict)
        place.mkdir()
        for name, below in what.items():
            build(place / name, below)
