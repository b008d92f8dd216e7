"""Whatever links a tree has, nothing that is done to it touches what is around it."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from morphlib.errors import MorphError
from morphlib.writeexts.tree import Tree

NAMES = st.sampled_from(["a", "b", "c"])
STEPS = st.sampled_from(["a", "b", "c", "..", ".", ""])
PATHS = st.lists(STEPS, min_size=1, max_size=5).map("/".join)
ENTRIES = st.dictionaries(
    st.lists(NAMES, min_size=1, max_size=3).map("/".join),
    st.just("directory") | st.just("file") | PATHS | PATHS.map(lambda path: f"/{path}"),
    max_size=6,
)
ACTIONS = st.sampled_from(["write", "replace", "append", "mkdir", "link", "remove", "change"])


def fill(root: Path, entries: dict[str, str]) -> None:
    for path, what in sorted(entries.items()):
        place = root / path
        if any(each.is_symlink() for each in [place, *place.parents]):
            continue  # this is where the tree is made, and must not lead out itself
        with suppress(FileExistsError, NotADirectoryError):
            place.parent.mkdir(parents=True, exist_ok=True)
            if what == "directory":
                place.mkdir()
            elif what == "file":
                place.write_text("of the tree")
            else:
                place.symlink_to(what or ".")


def act(tree: Tree, action: str, path: str) -> None:
    match action:
        case "write":
            tree.write(path, "new", mode=0o4755)
        case "replace":
            tree.write(path, "new", follow=False)
        case "append":
            tree.append_lines(path, ["new"])
        case "mkdir":
            tree.make_directory(path, mode=0o700)
        case "link":
            tree.make_symlink(path, "../../a")
        case "remove":
            tree.remove(path)
        case "change":
            tree.change(path, mode=0o711, owner=(0, 0))


def surroundings(root: Path) -> dict[Path, tuple[int, ...]]:
    """What is beside a tree, with all that changes when it is touched, but for reading."""
    found = {path: path.lstat() for path in root.parent.rglob("*") if path != root}
    return {
        path: (is_.st_mode, is_.st_uid, is_.st_ino, is_.st_size, is_.st_mtime_ns, is_.st_ctime_ns)
        for path, is_ in found.items()
        if root not in path.parents
    }


@settings(max_examples=150, deadline=None)
@given(ENTRIES, st.lists(st.tuples(ACTIONS, PATHS), min_size=1, max_size=4))
def test_nothing_leads_out(entries: dict[str, str], actions: list[tuple[str, str]]) -> None:
    around = Path(tempfile.mkdtemp(prefix="morph-tests-"))
    try:
        root = around / "tree"
        root.mkdir()
        for name in ("a", "b", "c"):
            (around / name).mkdir()
            (around / name / "a").write_text("outside")
        before = surroundings(root)
        fill(root, entries)
        for action, path in actions:
            with suppress(MorphError):
                act(Tree(root), action, path)
        assert surroundings(root) == before
        # Absolute targets of links in the tree:
        assert not any(Path("/", name).exists() for name in ("a", "b", "c"))
    finally:
        shutil.rmtree(around)
