"""Local changes where other machines can fetch them, and nothing of the user's touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from morphlib.errors import MorphError
from morphlib.sources.buildbranch import pushed_branch
from tests.sources.repositories import Repository, snapshot


@pytest.fixture
def checkout(tmp_path: Path) -> Repository:
    """A checkout with an origin that has its commit."""
    origin = Repository(tmp_path / "origin", "--bare")
    checkout = Repository(tmp_path / "checkout")
    checkout.commit({"a.morph": "a\n", "b.morph": "b\n", "data": "1\n"})
    checkout.git("remote", "add", "origin", str(origin.path))
    checkout.git("push", "-q", "origin", "HEAD:refs/heads/main")
    return checkout


def branches(checkout: Repository) -> dict[str, str]:
    """What the origin has: ref -> commit."""
    lines = checkout.git("ls-remote", "--heads", "origin").splitlines()
    return {ref: commit for commit, ref in (line.split("\t") for line in lines)}


def seen(checkout: Repository) -> Callable[[], object]:
    """What the user sees of the checkout: files, index, branches."""

    def look() -> object:
        files = {
            name: content
            for name, (_, _, content) in snapshot(checkout.path).items()
            if not name.startswith(".git/")
        }
        index = (checkout.path / ".git" / "index").read_bytes()
        return files, index, checkout.git("for-each-ref"), checkout.git("stash", "list")

    return look


def test_a_branch_has_what_is_in_the_work_tree(checkout: Repository) -> None:
    checkout.write({"a.morph": "changed\n", "new/c.morph": "new\n", "notes": "mine\n"})
    (checkout.path / "b.morph").unlink()
    look = seen(checkout)
    before = look()
    with pushed_branch(checkout.path, "me/builds") as branch:
        assert branch.ref.startswith("refs/heads/me/builds/")
        assert branches(checkout)[branch.ref] == branch.commit
        names = checkout.git("ls-tree", "-r", "--name-only", branch.commit).split()
        # Untracked files count if they are definitions.
        assert names == ["a.morph", "data", "new/c.morph"]
        assert checkout.git("show", f"{branch.commit}:a.morph").strip() == "changed"
        assert checkout.git("rev-parse", f"{branch.commit}^").strip() == checkout.head
    assert list(branches(checkout)) == ["refs/heads/main"]
    assert look() == before


def test_what_is_unchanged_is_pushed_as_it_is(checkout: Repository) -> None:
    checkout.commit({"a.morph": "committed, not pushed\n"})
    with pushed_branch(checkout.path, "builds") as branch:
        assert branch.commit == checkout.head
        assert branches(checkout)[branch.ref] == checkout.head


def test_a_branch_is_removed_when_a_build_fails_and_kept_on_demand(checkout: Repository) -> None:
    with pytest.raises(ZeroDivisionError), pushed_branch(checkout.path, "builds"):
        raise ZeroDivisionError
    assert list(branches(checkout)) == ["refs/heads/main"]
    with pushed_branch(checkout.path, "builds", keep=True) as branch:
        pass
    assert branch.ref in branches(checkout)


def test_hooks_do_not_run(checkout: Repository) -> None:
    hook = checkout.path / ".git" / "hooks" / "pre-push"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    with pushed_branch(checkout.path, "builds") as branch:
        assert branch.ref in branches(checkout)


def test_what_can_not_be_pushed_is_told(checkout: Repository) -> None:
    for prefix in ("../x", "-x", "a b", ""):
        with pytest.raises(MorphError, match="can't be the name of a branch"):
            pushed_branch(checkout.path, prefix).__enter__()
    checkout.git("remote", "set-url", "origin", str(checkout.path / "nowhere"))
    with pytest.raises(MorphError, match="can't push to the remote origin"):
        pushed_branch(checkout.path, "builds").__enter__()
    checkout.git("remote", "remove", "origin")
    with pytest.raises(MorphError, match="has no remote called origin"):
        pushed_branch(checkout.path, "builds").__enter__()
