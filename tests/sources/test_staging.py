from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from morphlib.errors import MorphError
from morphlib.sources.aliases import Aliases
from morphlib.sources.mirrors import MirrorCache
from morphlib.sources.model import SourceRef, StagedSource
from morphlib.sources.pool import GitSource, stage_source
from tests.sources.repositories import TIME, Repository, snapshot


def stage(
    mirrors: MirrorCache, repository: Repository, into: Path, url: str | None = None
) -> StagedSource:
    url = url or str(repository.path)
    commit = repository.head
    mirrors.obtain(url, [commit])
    source = GitSource(SourceRef("x:y", url, "master", commit, repository.tree))
    return stage_source(source, mirrors, Aliases(), into)


def bind(staged: StagedSource, into: Path) -> None:
    """What the sandbox does with mounts."""
    for directory, below in staged.binds:
        (into / below).rmdir()
        (into / below).symlink_to(directory)


def in_tree(into: Path, *arguments: str, stdin: bytes | None = None) -> str:
    tree = Repository.__new__(Repository)
    tree.path = into
    return tree.git(*arguments, stdin=stdin)


@pytest.fixture
def rich(repository: Repository) -> Repository:
    (repository.path / "run").write_text("#!/bin/sh\n")
    (repository.path / "run").chmod(0o755)
    (repository.path / "link").symlink_to("hello")
    repository.commit({"z" * 200: "", "é/ü": "x"})
    repository.git("tag", "-a", "-m", "a", "v1")
    repository.commit({"hello": "hello, world\n"})
    return repository


def test_git_works_in_the_staged_tree(
    mirrors: MirrorCache, rich: Repository, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    staged = stage(mirrors, rich, out)
    assert staged.commit_time == TIME
    bind(staged, out)
    assert in_tree(out, "rev-parse", "HEAD") == rich.head
    assert in_tree(out, "status", "--porcelain", "--ignored") == ""
    assert in_tree(out, "describe", "--always", "--dirty") == rich.head[:12]
    assert in_tree(out, "log", "--format=%H") == rich.git("log", "--format=%H")
    assert in_tree(out, "for-each-ref") == ""
    assert in_tree(out, "remote") == ""
    assert in_tree(out, "ls-files", "-s") == rich.git("ls-files", "-s")
    in_tree(out, "fsck", "--connectivity-only")
    patch = rich.git("format-patch", "--stdout", "-1", "-R").encode() + b"\n"
    in_tree(out, "apply", stdin=patch)
    assert in_tree(out, "status", "--porcelain") == "M hello"
    in_tree(out, "checkout", "-q", ".")
    in_tree(out, "am", "-q", stdin=patch)
    assert (out / "hello").read_text() == "hello\n"
    in_tree(out, "commit", "-q", "--allow-empty", "-m", "another")
    assert in_tree(out, "rev-list", "--count", "HEAD") == "5"


def test_submodules_are_clean_in_the_staged_tree(
    mirrors: MirrorCache, rich: Repository, tmp_path: Path
) -> None:
    top = Repository(tmp_path / "top")
    top.commit_submodules([("m", "m", str(rich.path), rich.head)])
    mirrors.obtain(str(rich.path), [rich.head])
    out = tmp_path / "out"
    bind(stage(mirrors, top, out), out)
    assert in_tree(out, "status", "--porcelain") == ""
    assert in_tree(out / "m", "rev-parse", "HEAD") == rich.head
    (out / "m/hello").write_text("changed")
    assert in_tree(out, "status", "--porcelain") == "M m"


def test_same_bytes_wherever_and_whatever_else_the_mirror_holds(
    mirrors: MirrorCache, rich: Repository, tmp_path: Path
) -> None:
    clone = tmp_path / "some" / "where else"
    clone.parent.mkdir()
    rich.git("clone", "-q", ".", str(clone))
    first = tmp_path / "first"
    stage(mirrors, rich, first)
    more = Repository.__new__(Repository)
    more.path = clone
    more.git("checkout", "-q", "-b", "more")
    for number in range(20):
        more.commit({f"file{number}": str(number)})
    more.git("checkout", "-q", "master")
    old = os.umask(0o007)
    try:
        second = tmp_path / "another place" / "second"
        second.parent.mkdir()
        stage(MirrorCache(tmp_path / "other gits"), more, second)
        third = tmp_path / "third"
        stage(mirrors, more, third, more.url)
    finally:
        os.umask(old)
    assert snapshot(first) == snapshot(second) == snapshot(third)
    assert {time for _, time, _ in snapshot(first).values()} == {TIME * 10**9}
    for mode, _, content in snapshot(first).values():
        assert str(tmp_path).encode() not in content
        assert mode & 0o022 == 0 or mode & 0o170000 == 0o120000


def test_no_hooks_configuration_or_reflogs_come_along(
    mirrors: MirrorCache, rich: Repository, tmp_path: Path
) -> None:
    rich.git("config", "core.sshCommand", "touch canary")
    hook = rich.path / ".git/hooks/post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\ntouch canary\n")
    hook.chmod(0o755)
    stage(mirrors, rich, tmp_path / "out", rich.url)
    names = {path.name for path in (tmp_path / "out/.git").iterdir()}
    assert names == {"HEAD", "config", "index", "mirror-objects", "objects", "refs"}
    assert "canary" not in (tmp_path / "out/.git/config").read_text()
    assert not list(tmp_path.rglob("canary"))


def test_borrowed_objects_and_shallow_clones(
    mirrors: MirrorCache, rich: Repository, tmp_path: Path
) -> None:
    borrower = tmp_path / "borrower"
    rich.git("clone", "-q", "--shared", ".", str(borrower))
    shallow = tmp_path / "shallow"
    rich.git("clone", "-q", "--depth=1", rich.url, str(shallow))
    for path, count, binds in ((borrower, "3", 2), (shallow, "1", 1)):
        repository = Repository.__new__(Repository)
        repository.path = path
        out = tmp_path / f"out-{path.name}"
        staged = stage(mirrors, repository, out, repository.url)
        assert len(staged.binds) == binds
        bind(staged, out)
        assert in_tree(out, "rev-list", "--count", "HEAD") == count
        assert in_tree(out, "status", "--porcelain") == ""


def test_mirror_of_a_borrower_stands_alone(
    mirrors: MirrorCache, rich: Repository, tmp_path: Path
) -> None:
    borrower = tmp_path / "borrower"
    rich.git("clone", "-q", "--shared", ".", str(borrower))
    mirrors.obtain(str(borrower), ["master"])
    commit, tree = rich.head, rich.tree
    shutil.rmtree(rich.path)
    shutil.rmtree(borrower)
    source = GitSource(SourceRef("x", str(borrower), "master", commit, tree))
    assert len(stage_source(source, mirrors, Aliases(), tmp_path / "out").binds) == 1
    assert (tmp_path / "out/hello").read_text() == "hello, world\n"


def test_what_was_not_fetched(mirrors: MirrorCache, repository: Repository, tmp_path: Path) -> None:
    url = str(repository.path)
    source = GitSource(SourceRef("a:b", url, "v7", "1" * 40, "2" * 40))
    with pytest.raises(MorphError, match=r"Failed to check out ref v7 of a:b: .*not cached yet"):
        stage_source(source, mirrors, Aliases(), tmp_path / "out")
    mirrors.obtain(url)
    with pytest.raises(MorphError, match="Failed to check out ref v7 of a:b"):
        stage_source(source, mirrors, Aliases(), tmp_path / "out")


def test_identity_is_the_tree(repository: Repository) -> None:
    source = GitSource(SourceRef("a", "u", "r", repository.head, repository.tree))
    assert source.identity() == {"tree": repository.tree}
    assert source.kind == "git"
