from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from morphlib.errors import MorphError
from morphlib.writeexts.aside import new_directory, new_file

ROOT = Path(__file__).parents[2]


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "image"
    target.write_text("old")
    with new_file(target, mode=0o640) as part:
        part.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o7777 == 0o640
    assert names(tmp_path) == ["image"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_stays_of_a_failure(tmp_path: Path, failure: type[BaseException]) -> None:
    (tmp_path / "image").write_text("old")
    with pytest.raises(failure), new_file(tmp_path / "image") as part:
        part.write_text("half")
        raise failure
    with pytest.raises(failure), new_directory(tmp_path / "root") as directory:
        (directory / "closed").mkdir(mode=0o500)
        raise failure
    assert (tmp_path / "image").read_text() == "old"
    assert names(tmp_path) == ["image"]


def test_a_symlink_is_followed(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to("far/image")
    with new_file(tmp_path / "link") as part:
        part.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "far/image").read_text() == "new"


def test_what_is_no_file_is_written_as_it_is(tmp_path: Path) -> None:
    with new_file(Path("/dev/null")) as part:
        part.write_text("gone")
    assert Path("/dev/null").is_char_device()


def test_a_pipe_that_has_no_name(tmp_path: Path) -> None:
    program = """
from pathlib import Path
from morphlib.writeexts.aside import new_file
with new_file(Path("/dev/stdout")) as part, part.open("wb") as file:
    file.write(b"through")
"""
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"through"


def test_what_is_there_can_be_left_alone(tmp_path: Path) -> None:
    (tmp_path / "image").write_text("old")
    with (
        pytest.raises(MorphError, match="it is there already"),
        new_file(tmp_path / "image", replace=False),
    ):
        pass
    with (
        pytest.raises(MorphError, match="it is there already"),
        new_file(tmp_path / "late", replace=False) as part,
    ):
        part.write_text("new")
        (tmp_path / "late").write_text("somebody else's")
    with new_file(tmp_path / "fresh", replace=False) as part:
        part.write_text("new")
    assert (tmp_path / "late").read_text() == "somebody else's"
    assert (tmp_path / "fresh").read_text() == "new"
    assert names(tmp_path) == ["fresh", "image", "late"]


def test_a_directory_appears_when_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new", "deep/down"):
        with new_directory(tmp_path / name, parents=True) as part:
            (part / "x").write_text("x")
            assert not (tmp_path / name / "x").exists()
        assert names(tmp_path / name) == ["x"]
    with pytest.raises(MorphError, match="no empty directory"), new_directory(tmp_path / "new"):
        pass
    with pytest.raises(MorphError, match="no empty directory"), new_directory(tmp_path / "a"):
        (tmp_path / "a").write_text("somebody else's")
    assert names(tmp_path) == ["a", "deep", "empty", "new"]


def test_places_that_can_not_be_written_are_told(tmp_path: Path) -> None:
    with pytest.raises(MorphError, match="is not a directory"), new_file(tmp_path / "a/b"):
        pass
    with pytest.raises(MorphError, match="it is a directory"), new_file(tmp_path):
        pass
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(MorphError, match="can't write"), new_file(tmp_path / "circle"):
        pass
    with new_file(tmp_path / "a/b", parents=True) as part:
        part.write_text("")
    assert names(tmp_path / "a") == ["b"]


KILLED = """
import os, signal, sys
from pathlib import Path
from morphlib.writeexts.aside import new_directory, new_file
with new_directory(Path(sys.argv[1], "root")) as tree, new_file(Path(sys.argv[1], "image")) as part:
    (tree / "x").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_leavings_of_the_killed_are_removed_and_of_the_living_kept(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
    assert killed.returncode == -signal.SIGKILL
    left = names(tmp_path)
    assert len(left) == 2
    with new_file(tmp_path / "image") as first, new_file(tmp_path / "image") as second:
        assert first.exists()
        assert second.exists()
        with new_directory(tmp_path / "root") as tree:
            assert set(names(tmp_path)).isdisjoint(left)
            (tree / "y").write_text("y")
    assert names(tmp_path) == ["image", "root"]


def test_long_names(tmp_path: Path) -> None:
    name = "ä" * 127
    with new_file(tmp_path / name) as part:
        part.write_text("x")
    assert names(tmp_path) == [name]


def test_a_signal_just_after_something_was_made_leaves_nothing(tmp_path: Path) -> None:
    script = """
import os, signal, sys, tempfile
from pathlib import Path
from morphlib.writeexts.aside import new_file
from morphlib.writeexts.signals import ended_by_signals

make = tempfile.mkstemp

def make_and_be_ended(*arguments):
    made = make(*arguments)
    os.kill(os.getpid(), signal.SIGTERM)
    return made

tempfile.mkstemp = make_and_be_ended
with ended_by_signals(), new_file(Path(sys.argv[1]) / "f"):
    print("goes on")
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, ""), done.stderr
    assert list(tmp_path.iterdir()) == []
