"""Layers: made whole or not at all, noticed when altered."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from morphlib.build import layers as layers_module
from morphlib.build.archive import write_tar
from morphlib.build.layers import (
    Layer,
    Part,
    layer_from_tar,
    layers_from_install,
    load_layer,
    separate_links,
)
from morphlib.build.members import (
    MTIME,
    Member,
    device_members,
    file_member,
    walk_tree,
    with_parents,
)
from morphlib.build.removal import remove_tree
from morphlib.build.split import split_members
from morphlib.errors import MorphError, Reason
from morphlib.graph.model import DeviceNode, SplitRule
from tests.build.isolation import in_child, in_namespace, list_tree, make_layer

RULES = (SplitRule("bins", (r"usr/bin/",)), SplitRule("rest", (r".*",)))


@pytest.fixture(autouse=True)
def nothing_loaded() -> None:
    layers_module._loaded.clear()


def _reload(layer: Layer) -> Layer | None:
    layers_module._loaded.clear()
    return load_layer(layer.directory)


def _install(directory: Path) -> Path:
    install = directory / "install"
    (install / "usr/bin").mkdir(parents=True)
    (install / "usr/bin/tool").write_bytes(b"tool")
    (install / "usr/share").mkdir()
    (install / "usr/share/doc").write_bytes(b"doc")
    (install / "usr/share/again").hardlink_to(install / "usr/share/doc")
    (install / "usr/bin/too").hardlink_to(install / "usr/share/doc")
    (install / "usr/bin/two").hardlink_to(install / "usr/share/doc")
    (install / "link").symlink_to("usr")
    (install / "usr/bin").chmod(0o711)
    return install


def _parts(install: Path, members: list[Member]) -> list[Part]:
    """Two artifacts, with their own files, of which each has links to one file."""
    present = {member.path: member for member in members}
    artifacts = {
        name: with_parents(chosen, [file_member(f"baserock/{name}.meta", b"{}")], present)
        for name, chosen in split_members(members, RULES).artifacts.items()
    }
    separate = separate_links(install, artifacts)
    return [Part(f"key.chunk.{name}.d", members) for name, members in separate.items()]


def _split_layers(directory: Path) -> tuple[list[Part], tuple[Layer, ...]]:
    install = _install(directory)
    members = walk_tree(install, normalise=True)
    parts = _parts(install, members)
    for part in parts:
        write_tar(directory / f"{part.name}.tar", install, part.members)
    return parts, layers_from_install(install, parts, directory / "layers", members=members)


def test_artifacts_of_one_layer_share_no_file(place: Path, user: int) -> None:
    def check() -> None:
        install = _install(place)
        members = walk_tree(install, normalise=True)
        parts = _parts(install, members)
        together = sorted({m.path: m for part in parts for m in part.members}.values())
        whole = Part("key.chunk.d", tuple(together))
        (layer,) = layers_from_install(install, [whole], place / "layers", members=members)
        root = layer.root
        assert (root / "usr/bin/too").samefile(root / "usr/bin/two")
        assert (root / "usr/share/doc").samefile(root / "usr/share/again")
        assert not (root / "usr/bin/too").samefile(root / "usr/share/doc")
        assert (root / "usr/bin/too").read_bytes() == b"doc"
        assert _reload(layer) is not None

    in_namespace(check, user=user)


def test_layers_are_what_their_archives_are(place: Path, user: int) -> None:
    def check() -> None:
        parts, layers = _split_layers(place)
        assert not (place / "install").exists()
        for part, layer in zip(parts, layers, strict=True):
            other = layer_from_tar(place / f"{part.name}.tar", place / "unpacked" / part.name)
            assert list_tree(layer.root) == list_tree(other.root)
            assert layer.index.directories == other.index.directories
            assert layer.index.others == other.index.others
            assert layer.index.links == other.index.links
            digests = [
                write_tar(place / "t.tar", each.root, walk_tree(each.root)[1:]).digest
                for each in (layer, other)
            ]
            # Hard links are the same ones, too.
            assert digests[0] == digests[1]

    in_namespace(check, user=user)


def test_whole_tree_becomes_a_layer_by_renaming(place: Path, user: int) -> None:
    def check() -> None:
        install = _install(place)
        inode = (install / "usr/bin").stat().st_ino
        members = walk_tree(install, normalise=True)
        present = {member.path: member for member in members}
        chosen = with_parents(members, [file_member("baserock/a.meta", b"{}")], present)
        (layer,) = layers_from_install(install, [Part("a.d", chosen)], place, members=members)
        assert (layer.root / "usr/bin").stat().st_ino == inode
        assert (layer.root / "baserock/a.meta").read_text() == "{}"
        assert {path.lstat().st_mtime for path in layer.root.rglob("*")} == {MTIME}
        assert _reload(layer) is not None

    in_namespace(check, user=user)


def test_own_file_takes_the_place_of_an_installed_one(place: Path, user: int) -> None:
    def check() -> None:
        install = place / "install"
        (install / "baserock").mkdir(parents=True)
        (install / "baserock/a.meta").symlink_to("/etc/passwd")
        members = walk_tree(install, normalise=True)
        present = {member.path: member for member in members}
        chosen = with_parents(members, [file_member("baserock/a.meta", b"{}")], present)
        (layer,) = layers_from_install(install, [Part("a.d", chosen)], place, members=members)
        assert not (layer.root / "baserock/a.meta").is_symlink()
        assert (layer.root / "baserock/a.meta").read_text() == "{}"

    in_namespace(check, user=user)


def _write(root: Path) -> None:
    (root / "f").write_text("tale")


def _touch(root: Path) -> None:
    (root / "f").touch()


def _chmod(root: Path) -> None:
    (root / "f").chmod(0o600)


def _add(root: Path) -> None:
    (root / "new").touch()


def _delete(root: Path) -> None:
    (root / "f").unlink()


def _redirect(root: Path) -> None:
    (root / "l").unlink()
    (root / "l").symlink_to("elsewhere")
    os.utime(root / "l", (MTIME, MTIME), follow_symlinks=False)
    os.utime(root, (MTIME, MTIME))


def _lengthen(root: Path) -> None:
    (root / "f").write_text("longer")
    os.utime(root / "f", (MTIME, MTIME))


@pytest.mark.parametrize("alter", [_write, _touch, _chmod, _add, _delete, _redirect, _lengthen])
def test_altered_layers_are_noticed(tmp_path: Path, alter: Callable[[Path], None]) -> None:
    def fill(install: Path) -> None:
        (install / "f").write_text("tree")
        (install / "l").symlink_to("f")

    layer = make_layer(tmp_path, "a", fill)
    assert _reload(layer) is not None
    alter(layer.root)
    assert _reload(layer) is None


def test_damaged_index_is_noticed(tmp_path: Path) -> None:
    layer = make_layer(tmp_path, "a", lambda top: None)
    (layer.directory / "index").write_bytes(b"\xc1")
    assert _reload(layer) is None


def test_missing_layer_is_none(tmp_path: Path) -> None:
    assert load_layer(tmp_path / "none.d") is None


def test_loaded_layer_is_the_same_object(tmp_path: Path) -> None:
    layer = make_layer(tmp_path, "a", lambda top: None)
    assert load_layer(layer.directory) is layer


def test_altered_layer_is_replaced_when_made_again(tmp_path: Path) -> None:
    tar = tmp_path / "a.tar"
    mine = file_member("f", b"good")._replace(uid=os.getuid(), gid=os.getgid())
    write_tar(tar, tmp_path, [mine])
    layer = layer_from_tar(tar, tmp_path / "a.d")
    (layer.root / "f").write_bytes(b"bad!")
    layers_module._loaded.clear()
    again = layer_from_tar(tar, tmp_path / "a.d")
    assert (again.root / "f").read_bytes() == b"good"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.d", "a.tar"]


def test_first_of_two_makers_wins(tmp_path: Path) -> None:
    tar = tmp_path / "a.tar"
    mine = file_member("f", b"")._replace(uid=os.getuid(), gid=os.getgid())
    write_tar(tar, tmp_path, [mine])
    first = in_child(lambda: layer_from_tar(tar, tmp_path / "a.d").root.stat().st_ino)
    assert layer_from_tar(tar, tmp_path / "a.d").root.stat().st_ino == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.d", "a.tar"]


def test_damaged_archive_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no archive at all")
    with pytest.raises(MorphError) as caught:
        layer_from_tar(tmp_path / "a.tar", tmp_path / "a.d")
    assert caught.value.reason is Reason.CACHE
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


def test_extended_attributes_do_not_get_into_layers(tmp_path: Path) -> None:
    def fill(install: Path) -> None:
        (install / "d").mkdir()
        try:
            os.setxattr(install / "d", "user.overlay.opaque", b"y")
        except OSError as error:
            pytest.skip(f"no extended attributes here: {error.strerror}")

    layer = make_layer(tmp_path, "a", fill)
    assert os.listxattr(layer.root / "d") == []


def test_file_systems_without_extended_attributes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, *, follow_symlinks: bool) -> list[str]:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), path)

    (tmp_path / "file").touch()
    monkeypatch.setattr(os, "listxattr", refuse)
    assert [member.path for member in walk_tree(tmp_path, normalise=True)] == [".", "file"]


def _node(filename: str, **changes: int | str) -> DeviceNode:
    values: dict[str, int | str] = {
        "type": "c",
        "filename": filename,
        "permissions": "0666",
        "major": 1,
        "minor": 3,
        "uid": 0,
        "gid": 0,
    }
    return DeviceNode(**(values | changes))  # type: ignore[arg-type]  # one of each, by name


def test_devices_keep_all_of_their_permissions(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (node,) = device_members([_node("/dev/null")], walk_tree(tmp_path))
    assert (node.path, stat.S_IMODE(node.mode)) == ("dev/null", 0o666)
    assert stat.S_ISCHR(node.mode)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (_node("/../dev/null"), "leads out"),
        (_node("/nowhere/null"), "not installed"),
        (_node("/link/null"), "not installed"),
        (_node("/dev/file"), "already"),
        (_node("/dev/x", type="q"), "unrecognized device type"),
        (_node("/dev/x", major=2**33), "no device is 8589934592:3"),
        (_node("/dev/x", minor=2**20), "no device is 1:1048576"),
        (_node("/dev/x", major=0, minor=0), "removed file"),
    ],
)
def test_impossible_devices(tmp_path: Path, node: DeviceNode, message: str) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/file").touch()
    (tmp_path / "link").symlink_to("dev")
    with pytest.raises(MorphError, match=message):
        device_members([node], walk_tree(tmp_path))


def test_devices_survive_layers(place: Path, user: int) -> None:
    def check() -> None:
        install = place / "install"
        (install / "dev").mkdir(parents=True)
        members = walk_tree(install, normalise=True)
        nodes = device_members([_node("/dev/null")], members)
        part = Part("a.d", (*members, *nodes))
        (layer,) = layers_from_install(install, [part], place, members=members)
        reloaded = _reload(layer)
        assert reloaded is not None
        assert reloaded.index.devices == {"dev/null": nodes[0]}
        assert "dev/null" in reloaded.index.others

    in_namespace(check, user=user)


def test_trees_nobody_can_enter_are_removed(place: Path, user: int) -> None:
    def check() -> None:
        inner = place / "tree/closed/inner"
        inner.mkdir(parents=True)
        (inner / "file").touch()
        inner.chmod(0)
        inner.parent.chmod(0)
        remove_tree(place / "tree")
        remove_tree(place / "tree")
        assert not (place / "tree").exists()

    in_child(check, user=user)


def test_removal_does_not_follow_symlinks(tmp_path: Path) -> None:
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep/file").touch()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/link").symlink_to(tmp_path / "keep")
    remove_tree(tmp_path / "tree")
    assert (tmp_path / "keep/file").exists()


def _make_deep_tree(top: Path) -> None:
    """Directories deeper than the kernel takes paths for."""

    def descend() -> None:
        os.chdir(top)
        for _ in range(3000):
            os.mkdir("deep")  # noqa: PTH102  (relative, to get deeper)
            os.chdir("deep")

    in_child(descend)


def test_deep_trees_are_removed(tmp_path: Path) -> None:
    _make_deep_tree(tmp_path)
    remove_tree(tmp_path / "deep")
    assert list(tmp_path.iterdir()) == []


def test_deep_trees_can_not_be_installed(tmp_path: Path) -> None:
    _make_deep_tree(tmp_path)
    with pytest.raises(MorphError, match="File name too long") as caught:
        walk_tree(tmp_path)
    assert caught.value.reason is Reason.BUILD
    remove_tree(tmp_path / "deep")
