from __future__ import annotations

import os
from pathlib import Path

import pytest

from morphlib.errors import MorphError
from morphlib.sources.export import export_tree
from morphlib.sources.mirror import Mirror
from morphlib.sources.objects import ObjectReader
from tests.sources.repositories import Repository, snapshot


def reader_of(repository: Repository) -> ObjectReader:
    return Mirror(repository.url, repository.path / ".git").objects


def test_files_modes_links_and_times(repository: Repository, tmp_path: Path) -> None:
    (repository.path / "run").write_text("#!/bin/sh\n")
    (repository.path / "run").chmod(0o775)
    (repository.path / "deep/er").mkdir(parents=True)
    (repository.path / "deep/er/link").symlink_to("/nowhere/at all")
    (repository.path / os.fsdecode(b"latin-\xe9")).write_bytes(b"\xff\0")
    repository.commit({"empty": ""})
    old = os.umask(0o077)
    try:
        export_tree(reader_of(repository), repository.tree, tmp_path / "out", mtime=1234)
    finally:
        os.umask(old)
    found = snapshot(tmp_path / "out")
    assert {name: oct(mode & 0o7777) for name, (mode, _, _) in found.items()} == {
        ".": "0o755",
        "deep": "0o755",
        "deep/er": "0o755",
        "deep/er/link": "0o777",
        "empty": "0o644",
        "hello": "0o644",
        os.fsdecode(b"latin-\xe9"): "0o644",
        "run": "0o755",
        "src": "0o755",
        "src/main.c": "0o644",
    }
    assert {time for _, time, _ in found.values()} == {1234 * 10**9}
    assert found["deep/er/link"][2] == b"/nowhere/at all"
    assert found[os.fsdecode(b"latin-\xe9")][2] == b"\xff\0"


def test_filters_and_attributes_do_not_count(repository: Repository, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    repository.git("config", "filter.evil.smudge", f"touch {canary}; cat")
    repository.git("config", "filter.evil.clean", f"touch {canary}; cat")
    repository.git("config", "core.fsmonitor", f"touch {canary}")
    tree = repository.raw_tree(
        [
            ("100644", b".gitattributes", repository.blob(b"* filter=evil\n*.txt eol=crlf\n")),
            ("100644", b"a.txt", repository.blob(b"$Id$\nline\n")),
        ]
    )
    export_tree(reader_of(repository), tree, tmp_path / "out", mtime=1)
    assert (tmp_path / "out/a.txt").read_bytes() == b"$Id$\nline\n"
    assert not canary.exists()


@pytest.mark.parametrize(
    "name",
    [
        *(b".git", b".GIT", b".gIt", b"..", b".", b"", b"a/b", b"../escape", b"git~1", b"/abs"),
        *(b".git ", b".git.", ".g\u200cit".encode(), "\ufeff.git".encode(), b".git::$INDEX"),
    ],
)
@pytest.mark.parametrize("mode", ["100644", "40000", "120000", "160000"])
def test_hostile_names(repository: Repository, tmp_path: Path, name: bytes, mode: str) -> None:
    id = repository.tree if mode == "40000" else repository.blob(b"payload")
    tree = repository.raw_tree([(mode, name, id)])
    for hostile in (tree, repository.raw_tree([("40000", b"deep", tree)])):
        into = tmp_path / f"out-{hostile}" / "in"
        into.parent.mkdir()
        with pytest.raises(MorphError, match="Refusing tree"):
            export_tree(reader_of(repository), hostile, into, mtime=1)
        written = [path for path in tmp_path.rglob("*") if path.name == "escape"]
        assert not written and not (into / ".git").exists()


def test_name_twice_as_link_and_directory(repository: Repository, tmp_path: Path) -> None:
    """The classic: a symlink that leads out, and a directory of that name to write through it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    link = ("120000", b"a", repository.blob(os.fsencode(outside)))
    inner = repository.raw_tree([("100644", b"owned", repository.blob(b"x"))])
    directory = ("40000", b"a", inner)
    for number, entries in enumerate([[link, directory], [directory, link], [link, link]]):
        tree = repository.raw_tree(entries)
        with pytest.raises(MorphError, match="twice"):
            export_tree(reader_of(repository), tree, tmp_path / f"out{number}", mtime=1)
    file = ("100644", b"a", repository.blob(b"through the link"))
    with pytest.raises(MorphError, match="twice"):
        tree = repository.raw_tree([link, file])
        export_tree(reader_of(repository), tree, tmp_path / "out9", mtime=1)
    assert not list(outside.iterdir())


def test_tree_bomb_ends(repository: Repository, tmp_path: Path) -> None:
    tree = repository.raw_tree([("100644", b"f", repository.blob(b"x"))])
    for _ in range(10):
        tree = repository.raw_tree([("40000", b"%d" % n, tree) for n in range(10)])
    with pytest.raises(MorphError, match="more than 1000 entries"):
        export_tree(reader_of(repository), tree, tmp_path / "out", mtime=1, limit=1000)


@pytest.mark.parametrize("data", [b"100644 a", b"100644 a\0short", b"xyz a\0" + b"1" * 20])
def test_malformed_trees(repository: Repository, tmp_path: Path, data: bytes) -> None:
    tree = repository.git("hash-object", "-w", "-t", "tree", "--literally", "--stdin", stdin=data)
    with pytest.raises(MorphError, match=r"malformed|can't be read"):
        export_tree(reader_of(repository), tree, tmp_path / "out", mtime=1)


def test_too_long_path(repository: Repository, tmp_path: Path) -> None:
    tree = repository.raw_tree([("100644", b"f", repository.blob(b"x"))])
    for _ in range(30):
        tree = repository.raw_tree([("40000", b"d" * 200, tree)])
    with pytest.raises(MorphError, match="name too long"):
        export_tree(reader_of(repository), tree, tmp_path / "out", mtime=1)


def test_missing_object(repository: Repository, tmp_path: Path) -> None:
    tree = repository.raw_tree([("100644", b"f", "12" * 20)])
    with pytest.raises(MorphError, match=r"1212.* can't be read"):
        export_tree(reader_of(repository), tree, tmp_path / "out", mtime=1)


def test_only_into_an_empty_directory(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(MorphError, match="not empty"):
        export_tree(reader_of(repository), repository.tree, tmp_path / "full", mtime=1)
    with pytest.raises(MorphError, match="Can't lay out"):
        export_tree(reader_of(repository), repository.tree, tmp_path / "no/such", mtime=1)


@pytest.mark.parametrize(
    ("time", "expected"), [("-5", 0), ("99999999999", 2**31 - 1), ("1400000000", 1400000000)]
)
def test_commit_times(repository: Repository, time: str, expected: int) -> None:
    text = f"tree {repository.tree}\nauthor A <a> 1 +0000\ncommitter C <c> {time} +0000\n\nx\n"
    commit = repository.git(
        *("hash-object", "-w", "-t", "commit", "--literally", "--stdin"), stdin=text.encode()
    )
    assert reader_of(repository).commit_time(commit) == expected


def test_malformed_commits(repository: Repository) -> None:
    for text in ("tree x\n\n", "", f"tree {repository.tree}\n\ncommitter C <c> 7 +0000\n"):
        commit = repository.git(
            *("hash-object", "-w", "-t", "commit", "--literally", "--stdin"), stdin=text.encode()
        )
        with pytest.raises(MorphError, match="malformed"):
            reader_of(repository).commit_time(commit)
            reader_of(repository).resolve(commit)
