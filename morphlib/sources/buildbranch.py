"""Definitions as they are in a checkout, where other machines can fetch them: a pushed branch.

The branch holds a commit with the checkout's local changes. The user's own branches, index and work
tree are left alone; only objects are added to the repository.
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from morphlib.errors import MorphError, Reason
from morphlib.process import ProcessError, run
from morphlib.sources.checkoutstate import CheckoutState, read_state
from morphlib.sources.git import git_environment

#: Who makes the commits, which nobody keeps.
_AUTHOR = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Morph"), ("EMAIL", "morph@localhost"))
}


@dataclass(frozen=True, slots=True)
class BuildBranch:
    """`ref` is the name that the branch has at `origin`, whose URL this is."""

    origin: str
    ref: str
    commit: str
    original: str  # the branch that is checked out


@contextmanager
def pushed_branch(root: Path, prefix: str, *, keep: bool = False) -> Iterator[BuildBranch]:
    """A branch at the remote `origin` of the checkout, with its local changes.

    It is removed at the end, unless it is to be kept. Raises MorphError.
    """
    state = read_state(root)
    if state.origin is None:
        raise MorphError(
            f"{root} has no remote called origin, from which other machines could take it",
            reason=Reason.SOURCE,
            hint='Add one with "git remote add origin URL", or give --repo and --ref.',
        )
    ref = f"refs/heads/{prefix}/{secrets.token_hex(16)}"
    _check_ref(ref)
    commit = _commit_changes(root, state)
    branch = BuildBranch(state.origin, ref, commit, state.branch or "HEAD")
    _push(root, f"{commit}:{ref}")
    try:
        yield branch
    finally:
        if not keep:
            _push(root, f":{ref}", tidies=True)


def _commit_changes(root: Path, state: CheckoutState) -> str:
    """A commit with what is in the work tree: HEAD itself if nothing is changed."""
    if not state.is_changed:
        return state.commit
    with tempfile.TemporaryDirectory(prefix="morph-index-") as directory:
        extra = {**_AUTHOR, "GIT_INDEX_FILE": f"{directory}/index"}
        _git(root, ["read-tree", state.commit], extra)
        names = "".join(f"{name}\0" for name in (*state.tracked, *state.added))
        command = ["update-index", "--add", "--remove", "-z", "--stdin"]
        _git(root, command, extra, stdin=os.fsencode(names))
        tree = _git(root, ["write-tree"], extra)
        message = "Local changes, to be built by other machines"
        return _git(root, ["commit-tree", "-p", state.commit, "-m", message, tree], extra)


def _push(root: Path, spec: str, *, tidies: bool = False) -> None:
    try:
        _git(root, ["push", "--quiet", "--no-verify", "origin", spec], {}, tidies=tidies)
    except MorphError as error:
        raise MorphError(
            f"can't push to the remote origin of {root}: {error.message}",
            reason=Reason.SOURCE,
            hint="Temporary branches have to be pushed for other machines to build what is here."
            " With --local-changes=ignore what was pushed before is built.",
        ) from error


def _git(
    root: Path,
    arguments: Sequence[str],
    extra: Mapping[str, str],
    stdin: bytes | None = None,
    *,
    tidies: bool = False,
) -> str:
    ceiling = {"GIT_CEILING_DIRECTORIES": str(root.absolute().parent)}
    environment = git_environment(extra={**ceiling, **extra})
    try:
        done = run(["git", *arguments], env=environment, cwd=root, stdin=stdin, tidies=tidies)
    except ProcessError as error:
        raise MorphError(error.message, reason=Reason.SOURCE) from error
    return done.stdout.decode().strip()


def _check_ref(ref: str) -> None:
    if not re.fullmatch(r"refs/heads/[A-Za-z0-9_][A-Za-z0-9_./-]*", ref) or ".." in ref:
        raise MorphError(
            f"{ref} can't be the name of a branch",
            reason=Reason.CONFIG,
            hint="Change the setting build-ref-prefix.",
        )
