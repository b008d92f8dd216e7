"""Any sequence of changes to a btrfs image does what it says, or is refused as a whole."""

from __future__ import annotations

import copy
import random
import stat
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphlib.errors import MorphError, Reason
from morphlib.images.btrfs.model import (
    Change,
    Directory,
    File,
    Removal,
    Snapshot,
    Subvolume,
    Symlink,
)
from morphlib.images.btrfs.reader import Image
from morphlib.images.btrfs.upgrade import upgrade_image
from tests.images.btrfs_images import TIME, check, make


class WrongError(Exception):
    """What can't be done."""


@dataclass
class Node:
    """What is to be at a path: a directory, or a subvolume, has children."""

    content: bytes | str | None = None
    children: dict[str, Node] = field(default_factory=dict)
    is_subvolume: bool = False

    @property
    def is_directory(self) -> bool:
        return self.content is None

    def snapshot(self) -> Node:
        """As others see it inside of a snapshot: without the subvolumes in it."""
        if not self.is_directory:
            return Node(self.content)
        return Node(
            children={
                name: Node() if child.is_subvolume else child.snapshot()
                for name, child in self.children.items()
            }
        )

    def has_subvolumes(self) -> bool:
        below = self.children.values()
        return any(each.is_subvolume or each.has_subvolumes() for each in below)


def apply(top: Node, change: Change, source: Node) -> None:
    """Change what is to be there. Raises WrongError."""
    *above, name = change.path.split("/")
    parent = top
    for each in above:
        parent = parent.children.get(each, Node(b""))
    if not parent.is_directory:
        raise WrongError
    there = parent.children.get(name)
    match change:
        case Directory():
            if there is not None and not there.is_directory:
                raise WrongError
            parent.children.setdefault(name, Node())
        case File() | Symlink():
            if there is not None and there.is_directory:
                raise WrongError
            content = change.content if isinstance(change, File) else change.target
            parent.children[name] = Node(content)
        case Subvolume():
            if there is not None:
                raise WrongError
            new = copy.deepcopy(source) if change.source else Node()
            new.is_subvolume = True
            parent.children[name] = new
        case Snapshot():
            origin = top
            for each in change.of.split("/"):
                origin = origin.children.get(each, Node(b""))
            if there is not None or not origin.is_subvolume:
                raise WrongError
            new = origin.snapshot()
            new.is_subvolume = True
            parent.children[name] = new
        case Removal():
            if there is None or (there.is_subvolume and there.has_subvolumes()):
                raise WrongError
            if there.is_directory and there.children and not there.is_subvolume:
                raise WrongError
            del parent.children[name]


def flat(node: Node, start: str = "") -> dict[str, bytes | str | None]:
    found: dict[str, bytes | str | None] = {}
    for name, child in node.children.items():
        found[f"{start}{name}"] = child.content
        found |= flat(child, f"{start}{name}/")
    return found


def seen(image: Path) -> dict[str, bytes | str | None]:
    found: dict[str, bytes | str | None] = {}
    with Image(image) as opened:
        for path, status in opened.walk(""):
            content: bytes | str | None = None
            if stat.S_ISREG(status.mode):
                content = opened.read_file(path)
            elif stat.S_ISLNK(status.mode):
                content = opened.readlink(path)
            found[path] = content
    return found


def read_tree(directory: Path) -> Node:
    node = Node()
    for path in directory.iterdir():
        node.children[path.name] = read_tree(path) if path.is_dir() else Node(path.read_bytes())
    return node


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("source") / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    for number in range(60):
        data = random.Random(number).randbytes(number * 200)
        (tree / ("a" if number % 2 else ".") / f"file-{number}").write_bytes(data)
    (tree / "b").write_bytes(b"b")
    return tree


def changes(source: Path) -> st.SearchStrategy[Change]:
    names = st.sampled_from(["a", "b", "file-59", "n" * 200])
    paths = st.lists(names, min_size=1, max_size=3).map("/".join)
    contents = st.builds(
        lambda seed, size: random.Random(seed).randbytes(size),
        st.integers(0, 3),
        st.sampled_from([0, 10, 400, 3000, 70_000]),
    )
    return st.one_of(
        st.builds(Directory, paths),
        st.builds(File, paths, contents),
        st.builds(Symlink, paths, st.sampled_from(["x", "y" * 300])),
        st.builds(
            Subvolume,
            paths,
            st.sampled_from([None, source]),
            like=st.sampled_from([None, "a", "b", "origin"]),
        ),
        st.builds(Snapshot, paths, st.sampled_from(["a", "b", "origin", "a/b"])),
        st.builds(Removal, paths),
    )


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_sequences_of_changes(
    source: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    image = tmp_path_factory.getbasetemp() / "changed"
    image.unlink(missing_ok=True)
    make(image, [Subvolume("origin", source)], 40 << 20, node_size=4096)
    tree = read_tree(source)
    top = Node(children={"origin": copy.deepcopy(tree)})
    top.children["origin"].is_subvolume = True
    for transaction in data.draw(
        st.lists(st.lists(changes(source), min_size=1, max_size=5), min_size=1, max_size=6)
    ):
        after = copy.deepcopy(top)
        try:
            for change in transaction:
                if isinstance(change, Subvolume) and change.like and change.like not in flat(top):
                    raise WrongError
                apply(after, change, tree)
        except WrongError:
            with pytest.raises(MorphError) as caught:
                upgrade_image(image, transaction, time=TIME)
            assert caught.value.reason is Reason.DEPLOY
        else:
            upgrade_image(image, transaction, time=TIME)
            top = after
        assert seen(image) == flat(top)
    check(image)
