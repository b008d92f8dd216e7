"""Trees as lines: those of members and those of trees agree, whoever makes them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from morphlib.build import layers as layers_module
from morphlib.build import treelines
from morphlib.build.archive import write_tar
from morphlib.build.layers import layer_from_tar, load_layer
from morphlib.build.members import MTIME_NS, walk_tree
from morphlib.build.treelines import UnfitTreeError, lines_of_members, lines_of_tree
from tests.build.isolation import in_child

_DIRECTORIES, _FILES = 24, 10
#: Of what a test alters, some is found before another process comes to help, some by that one.
_VICTIMS = range(0, _DIRECTORIES, 3)


@pytest.fixture(autouse=True)
def helped(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let another process help with small trees too. Gives its process id, where one does."""
    pids: list[int] = []
    fork = os.fork

    def noted_fork() -> int:
        pid = fork()
        pids.append(pid)
        return pid

    monkeypatch.setattr(treelines, "_MANY_FILES", 40)
    monkeypatch.setattr(os, "fork", noted_fork)
    return pids


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree that a layer could have, with many files and with strange ones."""
    top = tmp_path / "tree"
    for number in range(_DIRECTORIES):
        directory = top / f"usr/share/d{number}" / "deep"
        directory.mkdir(parents=True)
        for each in range(_FILES):
            (directory / f"file{each}").write_bytes(b"x" * each)
    (top / "with\nnewline").write_bytes(b"1")
    Path(os.fsdecode(os.fsencode(top) + b"/no-utf-8-\xff")).write_bytes(b"")
    (top / "usr.d").mkdir()
    (top / "usr.d/setuid").write_bytes(b"")
    (top / "usr.d/setuid").chmod(0o4755)
    (top / "link").symlink_to("/usr/share")
    (top / "usr/dangling").symlink_to("nowhere\nat all")
    os.mkfifo(top / "fifo", 0o600)
    _settle(top)
    return top


def _settle(top: Path) -> None:
    for directory, _, files in os.walk(top, topdown=False):
        for name in files:
            os.utime(Path(directory, name), ns=MTIME_NS, follow_symlinks=False)
        for entry in Path(directory).iterdir():
            os.utime(entry, ns=MTIME_NS, follow_symlinks=False)
        os.utime(directory, ns=MTIME_NS)


@pytest.mark.parametrize("may_fork", [False, True])
def test_lines_of_a_tree_are_those_of_its_members(
    tree: Path, may_fork: bool, helped: list[int]
) -> None:
    expected = lines_of_members(walk_tree(tree))
    assert len(expected) > _DIRECTORIES * _FILES
    assert lines_of_tree(str(tree), may_fork=may_fork) == expected
    assert len(helped) == may_fork


def _touch(path: Path) -> None:
    os.utime(path)


def _listen(path: Path) -> None:
    import socket

    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        before = Path.cwd()
        os.chdir(path.parent)  # names of sockets are short
        try:
            listener.bind(path.name)
        finally:
            os.chdir(before)
    os.utime(path, ns=MTIME_NS)
    os.utime(path.parent, ns=MTIME_NS)


@pytest.mark.parametrize("alter", [_touch, _listen])
@pytest.mark.parametrize("number", _VICTIMS)
@pytest.mark.parametrize("may_fork", [False, True])
def test_what_no_layer_has_is_refused(
    tree: Path, alter: Callable[[Path], None], number: int, may_fork: bool
) -> None:
    """Whichever of the two processes comes across it."""
    alter(tree / f"usr/share/d{number}/deep/file7")
    with pytest.raises(UnfitTreeError):
        lines_of_tree(str(tree), may_fork=may_fork)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # nobody is left over


@pytest.mark.parametrize("number", _VICTIMS)
def test_alterations_are_noticed_by_either_process(tree: Path, tmp_path: Path, number: int) -> None:
    tar = tmp_path / "tree.tar"
    write_tar(tar, tree, walk_tree(tree))
    directory = layer_from_tar(tar, tmp_path / "x.d").directory
    layers_module._loaded.clear()
    assert load_layer(directory, may_fork=True) is not None
    victim = directory / f"root/usr/share/d{number}/deep/file7"
    victim.write_bytes(b"longer than it was")
    os.utime(victim, ns=MTIME_NS)
    layers_module._loaded.clear()
    assert load_layer(directory, may_fork=True) is None
    assert load_layer(directory) is None


def test_interrupted_work_leaves_no_process(tree: Path) -> None:
    """The other process is gone when the one that it helps is told to end."""

    def interrupted() -> None:
        def leave(signum: int, frame: object) -> None:
            raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, leave)
        for milliseconds in range(1, 20):
            signal.setitimer(signal.ITIMER_REAL, milliseconds / 1000)
            try:
                lines_of_tree(str(tree), may_fork=True)
                time.sleep(0.05)
            except KeyboardInterrupt:
                pass
            with pytest.raises(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)

    in_child(interrupted)
