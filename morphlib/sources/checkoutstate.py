"""What git says about a checkout: HEAD, its files, and how the work tree differs from it.

Asked of git with its own check of who owns the repository in force, since `git status` runs filters
that the repository's configuration names.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1, sha256
from pathlib import Path
from typing import TYPE_CHECKING

from morphlib.errors import MorphError, Reason
from morphlib.process import PIPE, quote, spawn
from morphlib.sources.git import git_environment

if TYPE_CHECKING:
    from subprocess import Popen  # noqa: TID251  (the type of what `spawn` gives)

_SUFFIX = ".morph"


@dataclass(frozen=True, slots=True)
class CheckoutState:
    """A checkout at one moment. Paths are relative to its root."""

    commit: str
    tree: str
    branch: str | None  # None: HEAD is detached
    origin: str | None  # URL of the remote `origin`
    tracked: tuple[str, ...]  # files of the commit
    deleted: frozenset[str]  # of these, which are gone from the work tree
    added: tuple[str, ...]  # definitions that the commit does not have
    is_changed: bool


@dataclass(frozen=True, slots=True)
class _Changes:
    """What `git status` told."""

    commit: str
    branch: str | None
    touched: tuple[str, ...]  # tracked in commit or index, and not the same everywhere
    untracked: tuple[str, ...]


def read_state(root: Path, *, with_changes: bool = True) -> CheckoutState:
    """Look at the checkout at `root`. Without `with_changes` only at HEAD and the remote.

    Raises MorphError if it is no checkout, has no commit yet, or git refuses to read it.
    """
    status = ["status", "--porcelain=v2", "-z", "--branch", "--no-renames", "--no-ahead-behind"]
    status += ["--ignore-submodules=all", f"--untracked-files={'all' if with_changes else 'no'}"]
    commands = [
        ["rev-parse", "--is-inside-work-tree", "--show-prefix", "HEAD^{tree}"],
        ["ls-tree", "-r", "-z", "--full-tree", "HEAD"],
        status,
        ["ls-files", "-v", "-z"],
        ["config", "--get", "remote.origin.url"],
    ]
    about, listing, told, flags, origin = _run_side_by_side(root, commands)
    changes = parse_status(told.decode("utf-8", "surrogateescape"))
    inside, *prefix, tree = about.decode("utf-8", "surrogateescape").split()
    if inside != "true" or prefix:
        raise not_a_checkout(f"git says that the work tree of {root} is elsewhere")
    ids = _read_tree_listing(listing)
    tracked = tuple(ids)
    known = set(tracked)
    untracked = [path for path in changes.untracked if path.endswith(_SUFFIX)]
    new = [path for path in changes.touched if path not in known and path.endswith(_SUFFIX)]
    changed = [path for path in changes.touched if path in known]
    if with_changes:
        changed += _find_concealed(root, _split(flags), ids)
    return CheckoutState(
        commit=changes.commit,
        tree=tree,
        branch=changes.branch,
        origin=origin.decode("utf-8", "surrogateescape").removesuffix("\n") or None,
        tracked=tracked,
        deleted=frozenset(path for path in changed if not os.path.lexists(root / path)),
        added=tuple(sorted(p for p in {*untracked, *new} - known if os.path.lexists(root / p))),
        is_changed=bool(changed or untracked or new),
    )


def parse_status(text: str) -> _Changes:
    """Read what `git status --porcelain=v2 -z --branch` prints."""
    commit, branch = "", None
    touched: list[str] = []
    untracked: list[str] = []
    for record in text.split("\0"):
        match record[:2]:
            case "1 ":
                touched.append(record.split(" ", 8)[8])
            case "u ":
                touched.append(record.split(" ", 10)[10])
            case "? ":
                untracked.append(record[2:])
            case "# ":
                _, key, value = record.split(" ", 2)
                if key == "branch.oid":
                    commit = value
                elif key == "branch.head" and value != "(detached)":
                    branch = value
            case _:
                pass
    return _Changes(commit, branch, tuple(touched), tuple(untracked))


def _run_side_by_side(root: Path, commands: Sequence[Sequence[str]]) -> list[bytes]:
    """What each git command prints; the last one may fail and counts as empty then."""
    # Never a repository further up, should the one at `root` turn out to be none.
    environment = git_environment(extra={"GIT_CEILING_DIRECTORIES": str(root.absolute().parent)})
    processes = [
        spawn(["git", *command], env=environment, cwd=root, stdout=PIPE, stderr=PIPE)
        for command in commands
    ]
    results = [process.communicate() for process in processes]
    for process, command, (_, stderr) in zip(
        processes[:-1], commands[:-1], results[:-1], strict=True
    ):
        if process.returncode != 0:
            raise _explain(root, process, command, stderr.decode("utf-8", "replace").strip())
    return [stdout for stdout, _ in results]


def _explain(root: Path, process: Popen[bytes], command: Sequence[str], message: str) -> MorphError:
    if "dubious ownership" in message:
        return MorphError(
            f"Git refuses the checkout {root}, which belongs to somebody else",
            reason=Reason.SOURCE,
            hint=f"If you trust it: git config --global --add safe.directory {root}",
        )
    if "not a git repository" in message or "invalid gitfile" in message:
        return not_a_checkout(f"git rejects {root}: {message}")
    if "must be run in a work tree" in message:
        return not_a_checkout(f"{root} has no work tree")
    if "unknown revision" in message or "Not a valid object name HEAD" in message:
        return MorphError(
            f"The checkout {root} has no commit yet",
            reason=Reason.SOURCE,
            hint="Commit VERSION and the definitions first.",
        )
    what = quote(["git", *command])
    return MorphError(
        f"{what} failed in {root} (exit status {process.returncode}): {message}",
        reason=Reason.SOURCE,
    )


def _read_tree_listing(listing: bytes) -> dict[str, str]:
    """Path -> object id of what `git ls-tree -r -z` prints."""
    entries = (entry.partition("\t") for entry in _split(listing))
    return {path: about.rpartition(" ")[2] for about, _, path in entries}


def _find_concealed(root: Path, flags: Sequence[str], ids: Mapping[str, str]) -> list[str]:
    """Files whose changes `git status` keeps quiet about, as the index says that it should.

    `flags` are lines of `git ls-files -v`: a small letter is for "assume unchanged", S for "skip
    worktree", which is what a sparse checkout gives the files that it leaves out.
    """
    found = []
    for line in flags:
        flag, path = line[0], line[2:]
        if path in ids and (flag.islower() or flag == "S"):
            if os.path.lexists(root / path):
                if _object_id(root / path, len(ids[path])) != ids[path]:
                    found.append(path)
            elif flag.upper() != "S":
                found.append(path)
    return found


def _object_id(path: Path, length: int) -> str | None:
    """The id that git gives what is at `path` as it lies there, without filters."""
    try:
        content = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
    except OSError:
        return None
    data = b"blob %d\0" % len(content) + content
    digest = sha1(data, usedforsecurity=False) if length == 40 else sha256(data)
    return digest.hexdigest()


def _split(listing: bytes) -> tuple[str, ...]:
    return tuple(listing.decode("utf-8", "surrogateescape").split("\0")[:-1])


def not_a_checkout(why: str) -> MorphError:
    return MorphError(
        f"This command must be run from inside a Git repository ({why})",
        reason=Reason.NOT_FOUND,
        hint="Change into a checkout of definitions, or use --repo and --ref.",
    )
