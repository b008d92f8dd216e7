"""Archives: the same bytes whenever, and nothing that leads out when they are unpacked."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from morphlib.build.archive import write_tar
from morphlib.build.members import MTIME, Member, file_member, walk_tree
from morphlib.build.unpack import check_tar, unpack_tar
from morphlib.errors import MorphError, Reason
from tests.build.isolation import Failed, in_namespace, list_tree


def _make_tree(root: Path) -> None:
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin").chmod(0o750)
    (root / "usr/bin/tool").write_bytes(b"x" * 1000)
    (root / "usr/bin/tool").chmod(0o4755)
    (root / "usr/bin/alias").hardlink_to(root / "usr/bin/tool")
    (root / "usr/bin/link").symlink_to("/absolute/target")
    (root / "empty").write_bytes(b"")
    os.mkfifo(root / "fifo", 0o640)
    (root / "block").write_bytes(b"y" * 512)
    long = root / ("d" * 90) / ("e" * 90)
    long.mkdir(parents=True)
    (long / "file").write_bytes(b"long")
    (root / "long-link").symlink_to("t" * 150)
    os.close(os.open(os.fsencode(root) + b"/\xff\xfe", os.O_CREAT))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    _make_tree(root)
    return root


def test_tarfile_reads_what_was_written(tree: Path, tmp_path: Path) -> None:
    members = walk_tree(tree)
    written = write_tar(tmp_path / "a.tar", tree, members)
    data = (tmp_path / "a.tar").read_bytes()
    assert written.size == len(data)
    assert written.digest == hashlib.sha256(data).hexdigest()
    with tarfile.open(tmp_path / "a.tar", errorlevel=2) as archive:
        infos = archive.getmembers()
    assert [info.name for info in infos] == [member.path for member in members]
    by_name = {info.name: info for info in infos}
    for member, info in zip(members, infos, strict=True):
        assert info.mode == stat.S_IMODE(member.mode)
        assert (info.uid, info.gid, info.uname, info.gname) == (member.uid, member.gid, "", "")
        assert info.mtime == MTIME
    assert by_name["usr/bin/tool"].islnk()
    assert by_name["usr/bin/tool"].linkname == "usr/bin/alias"
    assert by_name["long-link"].linkname == "t" * 150
    assert by_name["fifo"].isfifo()


def test_tar_reads_what_was_written(tree: Path, tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", tree, walk_tree(tree))
    listed = subprocess.run(
        ["tar", "tf", tmp_path / "a.tar"], capture_output=True, check=True
    ).stdout.splitlines()
    assert listed[0] == b"./"
    assert b"usr/bin/tool" in listed


def test_header_equals_that_of_tarfile(tree: Path, tmp_path: Path) -> None:
    members = [member for member in walk_tree(tree) if len(member.path) < 90]
    members = [member for member in members if len(member.target or "") < 90]
    write_tar(tmp_path / "a.tar", tree, members)
    data = (tmp_path / "a.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        for info in archive:
            header = data[info.offset : info.offset + 512]
            if info.name == ".":
                continue  # tarfile takes the slash off that
            assert header == info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"), info.name


def test_equal_trees_give_equal_bytes(tmp_path: Path) -> None:
    digests: set[str] = set()
    for name in ("one", "two"):
        root = tmp_path / name
        root.mkdir()
        _make_tree(root)
        os.utime(root / "empty", (len(digests) + 1, 5))
        digests.add(write_tar(tmp_path / "t.tar", root, walk_tree(root)).digest)
    assert len(digests) == 1


def test_devices_and_content_from_data(tmp_path: Path) -> None:
    device = Member("dev/null", stat.S_IFCHR | 0o666, 1, 2, device=os.makedev(1, 3))
    members = [Member("dev", stat.S_IFDIR | 0o755), device, file_member("etc", b"text", 0o555)]
    write_tar(tmp_path / "a.tar", tmp_path, members)
    with tarfile.open(tmp_path / "a.tar") as archive:
        node = archive.getmember("dev/null")
        assert node.ischr()
        assert (node.devmajor, node.devminor, node.mode, node.uid) == (1, 3, 0o666, 1)
        content = archive.extractfile("etc")
        assert content is not None
        assert content.read() == b"text"


def test_huge_numbers(tmp_path: Path) -> None:
    owner = 4_000_000
    write_tar(tmp_path / "a.tar", tmp_path, [Member("d", stat.S_IFDIR | 0o700, owner, owner)])
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert archive.getmember("d").uid == owner


def test_file_that_shrinks_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"123")
    (member,) = [m for m in walk_tree(tmp_path) if m.path == "f"]
    with pytest.raises(MorphError, match="became shorter"):
        write_tar(tmp_path / "a.tar", tmp_path, [member._replace(size=1000)])


def test_sockets_are_refused(tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as any_socket:
        any_socket.bind(str(tmp_path / "s"))
        with pytest.raises(MorphError, match="Unsupported type: 's' is a socket"):
            walk_tree(tmp_path)


def test_unpacking_gives_the_same_tree(place: Path, user: int) -> None:
    def check() -> None:
        root = place / "tree"
        root.mkdir()
        _make_tree(root)
        walk_tree(root, normalise=True)
        write_tar(place / "a.tar", root, walk_tree(root))
        unpack_tar(place / "a.tar", place / "again")
        listed = [(m.path, m.mode, m.uid, m.gid, m.size, m.target) for m in walk_tree(root)]
        again = place / "again"
        assert [
            (m.path, m.mode, m.uid, m.gid, m.size, m.target) for m in walk_tree(again)
        ] == listed
        assert (again / "usr/bin/tool").samefile(again / "usr/bin/alias")
        assert {path.lstat().st_mtime for path in again.rglob("*")} == {MTIME}

    in_namespace(check, user=user)


def _tar(path: Path, *infos: tuple[str, bytes, str]) -> Path:
    """An archive of (name, type, link target) members."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, kind, target in infos:
            info = tarfile.TarInfo(name)
            info.name = name
            info.type, info.linkname, info.mode = kind, target, 0o755
            info.uid, info.gid = os.getuid(), os.getgid()
            data = b"data" if kind == tarfile.REGTYPE else b""
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


FILE, LINK, HARD, DIRECTORY = (
    tarfile.REGTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.DIRTYPE,
)


@pytest.mark.parametrize(
    "infos",
    [
        [("/etc/passwd", FILE, "")],
        [("../outside", FILE, "")],
        [("a/../../outside", FILE, "")],
        [("link", LINK, ".."), ("link/outside", FILE, "")],
        [("link", LINK, "/tmp"), ("link/outside", DIRECTORY, "")],
        [("file", FILE, ""), ("file/below", FILE, "")],
        [("hard", HARD, "../outside")],
        [("hard", HARD, "/etc/passwd")],
        [("link", LINK, "/etc/passwd"), ("hard", HARD, "link")],
        [("hard", HARD, "nowhere")],
        [("d", DIRECTORY, ""), ("d", FILE, "")],
        [("d/f", FILE, ""), ("d", LINK, "/")],
    ],
)
def test_hostile_archives_are_refused(tmp_path: Path, infos: list[tuple[str, bytes, str]]) -> None:
    (tmp_path / "outside").write_text("mine")
    tar = _tar(tmp_path / "a.tar", *infos)
    with pytest.raises(MorphError, match="is damaged") as caught:
        unpack_tar(tar, tmp_path / "into")
    assert caught.value.reason is Reason.CACHE
    assert (tmp_path / "outside").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar", "into", "outside"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "n" * 256),
        ("name", "n/" * 2100 + "n"),
        ("uid", 1 << 32),
        ("gid", -2),
        ("size", -1024),
        ("devmajor", 1 << 20),
        ("linkname", ""),
        ("linkname", "a\0b"),
        ("linkname", "x" * 5000),
    ],
)
def test_what_can_not_be_is_refused_before_it_is_unpacked(
    tmp_path: Path, field: str, value: str | int
) -> None:
    info = tarfile.TarInfo("f")
    info.type = {"devmajor": tarfile.CHRTYPE, "linkname": tarfile.SYMTYPE}.get(field, FILE)
    setattr(info, field, value)
    if field == "linkname":
        info.pax_headers = {"linkpath": str(value)}
    tar = tmp_path / "a.tar"
    tar.write_bytes(info.tobuf(tarfile.GNU_FORMAT if field != "linkname" else tarfile.PAX_FORMAT))
    with tar.open("ab") as file:
        file.write(bytes(2048))
    for look in (check_tar, lambda tar: unpack_tar(tar, tmp_path / "into")):
        with pytest.raises(MorphError, match="is damaged"):
            look(tar)


def test_headers_without_end_are_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("long")
    info.type = tarfile.GNUTYPE_LONGNAME
    (tmp_path / "a.tar").write_bytes(info.tobuf() * 3000 + bytes(1024))
    with pytest.raises(MorphError, match="is damaged"):
        check_tar(tmp_path / "a.tar")


def test_later_member_replaces_a_symlink_rather_than_writing_through_it(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("mine")
    tar = _tar(tmp_path / "a.tar", ("f", LINK, "../outside"), ("f", FILE, ""))
    unpack_tar(tar, tmp_path / "into")
    assert (tmp_path / "outside").read_text() == "mine"
    assert (tmp_path / "into/f").read_text() == "data"


def test_missing_parents_are_made(tmp_path: Path) -> None:
    unpack_tar(_tar(tmp_path / "a.tar", ("a/b/c", FILE, "")), tmp_path / "into")
    assert list_tree(tmp_path / "into")["a"][0] == stat.S_IFDIR | 0o755


@pytest.mark.parametrize("size", [0, 300, 512, 700, 1024, 1300])
def test_truncated_archives_are_refused(tmp_path: Path, size: int) -> None:
    tar = _tar(tmp_path / "a.tar", ("one", FILE, ""), ("two", FILE, ""))
    with tar.open("r+b") as file:
        file.truncate(size)
    with pytest.raises(MorphError, match="is damaged"):
        unpack_tar(tar, tmp_path / "into")


def test_altered_header_is_refused(tmp_path: Path) -> None:
    tar = _tar(tmp_path / "a.tar", ("one", FILE, ""), ("two", FILE, ""))
    data = bytearray(tar.read_bytes())
    data[1024] ^= 1
    tar.write_bytes(data)
    with pytest.raises(MorphError, match="is damaged"):
        unpack_tar(tar, tmp_path / "into")


def test_device_nodes_are_returned_not_made(tmp_path: Path) -> None:
    device = Member("null", stat.S_IFCHR | 0o666, device=os.makedev(1, 3))
    mine = device._replace(uid=os.getuid(), gid=os.getgid())
    write_tar(tmp_path / "a.tar", tmp_path, [mine])
    assert unpack_tar(tmp_path / "a.tar", tmp_path / "into") == (mine,)
    assert (tmp_path / "into/null").lstat().st_size == 0
    assert stat.S_ISREG((tmp_path / "into/null").lstat().st_mode)


def test_owners_that_can_not_be_had_are_told(place: Path, user: int) -> None:
    def check() -> None:
        write_tar(place / "a.tar", place, [file_member("f", b"")._replace(uid=3_000_000_000)])
        unpack_tar(place / "a.tar", place / "into")

    if user == 0:
        in_namespace(check, user=user)  # root has all owners
        return
    with pytest.raises(Failed, match="subordinate ids"):
        in_namespace(check, user=user)
