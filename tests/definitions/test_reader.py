from __future__ import annotations

import os
from pathlib import Path

import pytest

from morphlib.definitions import DirectoryReader, MappingReader, load_all
from morphlib.definitions.reader import SIZE_LIMIT
from tests.definitions.helpers import failure, ignore
from tests.ordinary import ordinary_user


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "definitions"
    (root / "strata" / "core").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("private")
    (root / "VERSION").write_text("version: 8\n")
    (root / "DEFAULTS").write_text("")
    (root / "strata" / "core.morph").write_text("core")
    (root / "strata" / "core" / "zlib.morph").write_text("zlib")
    return root


def test_reads_files_and_lists_them_sorted_without_git(root: Path) -> None:
    reader = DirectoryReader(root)
    assert list(reader.paths()) == [
        "DEFAULTS",
        "VERSION",
        "strata/core.morph",
        "strata/core/zlib.morph",
    ]
    assert reader.read("strata/core/zlib.morph") == b"zlib"


@pytest.mark.parametrize("path", ["none", "none/x", "VERSION/x", "strata/core/none.morph"])
def test_what_is_not_there_is_none(root: Path, path: str) -> None:
    assert DirectoryReader(root).read(path) is None


@pytest.mark.parametrize(
    "path",
    ["../secret", "strata/../../secret", "/etc/passwd", "", "a\0b", ".git/config", "strata/.git/x"],
)
def test_paths_that_lead_out_are_refused(root: Path, path: str) -> None:
    assert "Path" in failure(lambda: DirectoryReader(root).read(path)).message
    assert "Path" in failure(lambda: MappingReader({path: b"x"}).read(path)).message


@pytest.mark.parametrize(
    ("link", "target", "path"),
    [
        ("out.morph", "../secret", "out.morph"),
        ("out.morph", "/etc/passwd", "out.morph"),
        ("up", "..", "up/secret"),
        ("strata/up", "../..", "strata/up/secret"),
        ("git.morph", ".git/config", "git.morph"),
        ("away", "/etc", "away/passwd"),
    ],
)
def test_symlinks_that_lead_out_are_refused(root: Path, link: str, target: str, path: str) -> None:
    (root / link).symlink_to(target)
    message = failure(lambda: DirectoryReader(root).read(path)).message
    assert message == f"{path} is a symlink that leads out of the repository"


def test_symlinks_inside_are_followed(root: Path) -> None:
    (root / "again.morph").symlink_to("strata/core.morph")
    (root / "alias").symlink_to("strata")
    reader = DirectoryReader(root)
    assert reader.read("again.morph") == b"core"
    assert reader.read("alias/core/zlib.morph") == b"zlib"
    assert "alias/core.morph" not in list(reader.paths())


def test_symlinks_to_nothing_are_not_there(root: Path) -> None:
    (root / "gone.morph").symlink_to("nowhere")
    assert DirectoryReader(root).read("gone.morph") is None


def test_symlinks_in_circles_are_told(root: Path) -> None:
    (root / "circle.morph").symlink_to("circle.morph")
    message = failure(lambda: DirectoryReader(root).read("circle.morph")).message
    assert message.startswith("circle.morph can't be read: ")


def test_a_root_that_is_a_symlink(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    (root / "again.morph").symlink_to("strata/core.morph")
    reader = DirectoryReader(tmp_path / "link")
    assert reader.read("again.morph") == b"core"


def test_a_pipe_is_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "pipe.morph")
    message = failure(lambda: DirectoryReader(root).read("pipe.morph")).message
    assert message == "pipe.morph is not a file"


def test_a_folder_is_not_a_file(root: Path) -> None:
    message = failure(lambda: DirectoryReader(root).read("strata/core")).message
    assert message == "strata/core is not a file"


def test_too_large_a_file_is_told(root: Path) -> None:
    with (root / "large.morph").open("wb") as file:
        file.truncate(SIZE_LIMIT + 1)
    assert "is larger than" in failure(lambda: DirectoryReader(root).read("large.morph")).message


def test_a_file_that_may_not_be_read_is_told() -> None:
    with ordinary_user() as root:
        (root / "closed.morph").write_text("x")
        (root / "closed.morph").chmod(0)
        message = failure(lambda: DirectoryReader(root).read("closed.morph")).message
    assert message == "closed.morph can't be read: Permission denied"


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert (
        "can't be listed"
        in failure(lambda: list(DirectoryReader(tmp_path / "none").paths())).message
    )


def test_a_symlink_that_leads_out_is_one_error_among_others(root: Path) -> None:
    (root / "strata" / "core.morph").unlink()
    (root / "strata" / "core" / "zlib.morph").write_text("name: zlib\nkind: chunk")
    (root / "out.morph").symlink_to("../secret")
    error = failure(lambda: load_all(DirectoryReader(root), warn=ignore))
    assert str(error) == "out.morph: out.morph is a symlink that leads out of the repository"
