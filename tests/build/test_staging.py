"""Staging areas come to what unpacking their layers one after the other gives."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from morphlib.build import layers as layers_module
from morphlib.build import overlay, staging, syscalls
from morphlib.build.layers import Layer, Part, layers_from_install
from morphlib.build.members import MTIME, Member, walk_tree
from morphlib.build.overlay import OverlayUnavailable
from morphlib.build.removal import remove_tree
from morphlib.build.staging import fold_layers, prepare_layers, stage, stage_writable
from tests.build.isolation import in_namespace, list_tree, make_layer

#: A tree: path -> permissions of a directory, bytes of a file, or target of a symlink.
Tree = dict[str, int | bytes | str]


def _fill(tree: Tree, top: Path) -> None:
    for path in sorted(tree):
        node, full = tree[path], top / path
        if isinstance(node, int):
            full.mkdir(exist_ok=True)
            full.chmod(node)
        elif isinstance(node, bytes):
            full.write_bytes(node)
        else:
            full.symlink_to(node)


def _unpack(trees: Sequence[Tree], root: Path) -> None:
    """The plain way, on a real file system."""
    root.mkdir()
    for tree in trees:
        for path in sorted(tree):
            parent = _enter(root, os.path.dirname(path))  # noqa: PTH120  (text)
            assert parent is not None
            _put(root, parent / os.path.basename(path), tree[path])  # noqa: PTH119  (text)


def _put(root: Path, full: Path, node: int | bytes | str) -> None:
    inside = str(full.relative_to(root))
    existing = _enter(root, inside) if os.path.lexists(full) else None
    if isinstance(node, int):
        if existing is None:
            full.unlink(missing_ok=True)
            full.mkdir()
            existing = full
        if existing != root:
            existing.chmod(node)
    elif existing is None:
        full.unlink(missing_ok=True)
        if isinstance(node, bytes):
            full.write_bytes(node)
        else:
            full.symlink_to(node)


def _enter(root: Path, path: str, limit: int = 41) -> Path | None:
    """The directory that a path inside of `root` leads to, links and all; None if to none."""
    at: list[str] = []
    pending = path.split("/")
    while pending:
        part = pending.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            at = at[:-1]
            continue
        full = root.joinpath(*at, part)
        if full.is_symlink():
            limit -= 1
            if limit <= 0:
                return None
            target = os.readlink(full)  # noqa: PTH115  (text)
            at = [] if target.startswith("/") else at
            pending = target.split("/") + pending
        elif full.is_dir():
            at.append(part)
        else:
            return None
    return root.joinpath(*at)


_names = st.sampled_from(["a", "b", "c", "lib", "a-b"])
_targets = st.sampled_from(
    [
        "a",
        "b",
        "/a",
        "/lib",
        "../b",
        "..",
        "/",
        ".",
        "a/b",
        "../../..",
        "c/../a",
        "lib/a",
        "nowhere",
    ]
)
_leaves = st.one_of(st.binary(max_size=2), _targets)
_nodes = st.recursive(
    _leaves, lambda inner: st.dictionaries(_names, inner, max_size=4), max_leaves=8
)


def _flatten(nested: object, prefix: str = "") -> Tree:
    assert isinstance(nested, dict)
    tree: Tree = {}
    for name, node in nested.items():
        if isinstance(node, dict):
            # Something that differs, so that it shows whose directory counts.
            tree[prefix + name] = 0o700 + len(node)
            tree |= _flatten(node, f"{prefix}{name}/")
        else:
            tree[prefix + name] = node
    return tree


_trees = st.dictionaries(_names, _nodes, min_size=1, max_size=4).map(_flatten)

Way = Callable[[list[Layer], Path], dict[str, tuple[int, str | bytes]]]


def _by_overlay(layers: list[Layer], work: Path) -> dict[str, tuple[int, str | bytes]]:
    with stage(layers, [], work) as staged:
        assert staged.fallback is None
        return list_tree(staged.root)


def _by_writable_overlay(layers: list[Layer], work: Path) -> dict[str, tuple[int, str | bytes]]:
    with stage_writable(layers, work) as staged:
        assert staged.fallback is None
        return list_tree(staged.root)


def _by_links(layers: list[Layer], work: Path) -> dict[str, tuple[int, str | bytes]]:
    with stage(layers, [], work, use_overlay=False) as staged:
        assert staged.fallback == "overlay mounts are switched off"
        return list_tree(staged.root)


def _by_folding(layers: list[Layer], work: Path) -> dict[str, tuple[int, str | bytes]]:
    folded = fold_layers(layers, work.parent / "folded.d")
    return list_tree(folded.root)


@pytest.mark.parametrize("way", [_by_overlay, _by_writable_overlay, _by_links, _by_folding])
def test_hostile_trees_give_what_unpacking_gives(way: Way) -> None:
    @settings(
        max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(st.lists(_trees, min_size=1, max_size=4))
    def check(trees: list[Tree]) -> None:
        _check_same(trees, way)

    in_namespace(check)


def _check_same(trees: list[Tree], way: Way) -> None:
    place = Path(tempfile.mkdtemp(prefix="morph-test-"))
    try:
        _unpack(trees, place / "expected")
        layers = [
            make_layer(place, f"k{number}", partial(_fill, tree))
            for number, tree in enumerate(trees)
        ]
        work = place / "work"
        work.mkdir()
        assert way(layers, work) == list_tree(place / "expected"), trees
        assert list(work.iterdir()) == []
    finally:
        layers_module._loaded.clear()
        remove_tree(place)


def _layers(place: Path, *trees: Tree) -> list[Layer]:
    return [
        make_layer(place / "layers", f"k{number}", partial(_fill, tree))
        for number, tree in enumerate(trees)
    ]


def _work(place: Path) -> Path:
    (place / "work").mkdir()
    return place / "work"


def test_directory_goes_into_what_a_symlink_leads_to(place: Path, user: int) -> None:
    def check() -> None:
        layers = _layers(
            place,
            {"usr": 0o755, "usr/lib": 0o755, "lib": "usr/lib"},
            {"lib": 0o755, "lib/libc.so": b"c"},
        )
        with stage(layers, [], _work(place)) as staged:
            assert (staged.root / "lib").is_symlink()
            assert (staged.root / "usr/lib/libc.so").read_bytes() == b"c"

    in_namespace(check, user=user)


def test_layers_without_conflict_stay_as_they_are(tmp_path: Path) -> None:
    layers = _layers(tmp_path, {"a": 0o755, "a/x": b"1"}, {"a": 0o755, "a/x": b"2", "b": "a"})
    assert list(prepare_layers(layers)) == layers


def test_only_the_layer_in_conflict_is_rearranged_and_kept(tmp_path: Path) -> None:
    layers = _layers(
        tmp_path,
        {"usr": 0o755, "usr/lib": 0o755, "lib": "usr/lib"},
        {"lib": 0o755, "lib/x": b"x"},
        {"etc": 0o755},
    )
    first = prepare_layers(layers)
    assert [one is two for one, two in zip(first, layers, strict=True)] == [True, False, True]
    assert first[1].directory.name.startswith("k1.placed-")
    # A file is never copied.
    assert (first[1].root / "usr/lib/x").samefile(layers[1].root / "lib/x")
    layers_module._loaded.clear()
    staging._prepared.clear()
    assert prepare_layers(layers)[1].directory == first[1].directory


def test_mount_points_hide_what_is_there(place: Path, user: int) -> None:
    def check() -> None:
        layers = _layers(place, {"tmp": "/etc", "etc": 0o755, "dev": b"file", "proc": 0o700})
        with stage(layers, ["tmp", "dev", "proc", "dev/shm"], _work(place)) as staged:
            for path in ("tmp", "dev", "proc", "dev/shm"):
                assert stat.S_ISDIR((staged.root / path).lstat().st_mode)

    in_namespace(check, user=user)


def test_staging_area_can_not_be_written(place: Path, user: int) -> None:
    def check() -> str | None:
        with stage(_layers(place, {"a": b""}), [], _work(place)) as staged:
            try:
                (staged.root / "a").write_text("x")
            except OSError as error:
                return error.strerror
        return "written"

    assert in_namespace(check, user=user) == "Read-only file system"


def test_changes_of_a_writable_area_do_not_reach_its_layers(place: Path, user: int) -> None:
    def check() -> None:
        (layer,) = _layers(place, {"a": b"before", "d": 0o755, "d/x": b""})
        with stage_writable([layer], _work(place)) as staged:
            (staged.root / "a").write_bytes(b"after")
            remove_tree(staged.root / "d")
            (staged.root / "d").mkdir()
            assert list((staged.root / "d").iterdir()) == []
            assert (staged.root / "a").read_bytes() == b"after"
        assert (layer.root / "a").read_bytes() == b"before"
        assert (layer.root / "d/x").exists()

    in_namespace(check, user=user)


def test_copies_are_made_where_a_writable_overlay_is_not_to_be_had(
    tmp_path: Path,
) -> None:
    (layer,) = _layers(tmp_path, {"a": b"before"})
    with stage_writable([layer], _work(tmp_path), use_overlay=False) as staged:
        assert staged.fallback
        (staged.root / "a").write_bytes(b"after")
    assert (layer.root / "a").read_bytes() == b"before"


def test_hard_links_are_no_danger_to_layers_when_mount_points_are_made(
    tmp_path: Path,
) -> None:
    (layer,) = _layers(tmp_path, {"dev": b"file", "tmp": "/etc"})
    with stage([layer], ["dev", "tmp"], _work(tmp_path), use_overlay=False) as staged:
        assert (staged.root / "dev").is_dir()
        assert not (staged.root / "tmp").is_symlink()
    assert (layer.root / "dev").read_bytes() == b"file"


@pytest.mark.parametrize("one_by_one", [True, False])
def test_both_interfaces_of_the_kernel(place: Path, user: int, one_by_one: bool) -> None:
    def check() -> list[str]:
        lower = []
        for number in range(300):
            directory = place / ("long" * 20) / f"{number}"
            directory.mkdir(parents=True)
            (directory / f"f{number}").touch()
            (directory / "same").write_text(str(number))
            lower.append(directory)
        root, scratch = place / "root", place / "scratch"
        root.mkdir()
        scratch.mkdir()
        try:
            overlay.mount_overlay(lower, root, scratch=scratch, one_by_one=one_by_one)
        except OverlayUnavailable as error:
            if one_by_one and "Invalid argument" in str(error):
                return ["an older kernel"]
            raise
        assert (root / "same").read_text() == "299"
        names = sorted(os.listdir(root))
        syscalls.unmount(str(root))
        assert list(scratch.iterdir()) == []
        return names

    names = in_namespace(check, user=user)
    if names == ["an older kernel"]:
        pytest.skip("this kernel lacks lowerdir+ (it came with 6.5)")
    assert len(names) == 301


def test_more_layers_than_fit_are_folded(tmp_path: Path) -> None:
    def check() -> None:
        staging._MOST = 4
        trees: list[Tree] = [{f"f{n}": b"", "last": str(n).encode()} for n in range(9)]
        layers = _layers(tmp_path, *trees)
        assert len(prepare_layers(layers)) == 4
        with stage(layers, [], _work(tmp_path)) as staged:
            assert (staged.root / "last").read_bytes() == b"8"
            assert len(list(staged.root.iterdir())) == 10

    in_namespace(check)


def test_folding_twice_gives_the_same_layer(tmp_path: Path) -> None:
    layers = _layers(tmp_path, {"a": b"1"}, {"b": b"2"})
    first = fold_layers(layers, tmp_path / "f.d")
    assert fold_layers(layers, tmp_path / "f.d") is first


def test_devices_that_show(tmp_path: Path) -> None:
    def device(path: str) -> Member:
        return Member(path, stat.S_IFCHR | 0o666, device=os.makedev(1, 3))

    layers: list[Layer] = []
    for number, paths in enumerate([("hidden", "null"), ("null",)]):
        install = tmp_path / f"install{number}"
        install.mkdir()
        if number:
            (install / "hidden").write_text("file")
        members = walk_tree(install, normalise=True)
        chosen = (*members, *map(device, paths))
        part = Part(f"k{number}.d", tuple(sorted(chosen)))
        layers += layers_from_install(install, [part], tmp_path, members=members)

    def check() -> list[str]:
        with stage(layers, [], _work(tmp_path)) as staged:
            return [each.path for each in staged.devices]

    assert in_namespace(check) == ["null"]


def test_everything_has_the_time_of_artifacts(place: Path, user: int) -> None:
    def check() -> set[float]:
        layers = _layers(
            place,
            {"usr": 0o755, "usr/lib": 0o755, "lib": "usr/lib"},
            {"lib": 0o755, "lib/x": b"x"},
        )
        with stage(layers, [], _work(place)) as staged:
            return {path.lstat().st_mtime for path in staged.root.rglob("*")}

    assert in_namespace(check, user=user) == {MTIME}
