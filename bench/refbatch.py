"""Asking the cache server for many refs at once."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pygit2

from morphlib.errors import MorphError, Reason
from morphlib.sources.remote import RemoteResolver

_TIME = 1_400_000_000


def make_repositories(directory: Path, count: int, refs: int) -> list[tuple[str, str]]:
    """Make that many repositories with that many refs in all, branches, tags and commits in turn.

    What to ask for is returned: (URL, ref).
    """
    stamp = directory / f"made-{count}-{refs}"
    if not stamp.exists():
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
    wanted = []
    who = pygit2.Signature("A U Thor", "author@example.com", _TIME, 0)
    for number in range(count):
        path = directory / f"repo-{number}.git"
        is_new = not path.exists()
        git = pygit2.init_repository(str(path), bare=True)
        own = range(number, refs, count)
        if is_new:
            _fill(git, who, len(own))
        for index in range(len(own)):
            branch = f"branch-{index}"
            commit = git.references[f"refs/heads/{branch}"].target
            wanted.append(
                (f"git://bench/repo-{number}", (branch, f"tag-{index}", str(commit))[index % 3])
            )
    stamp.touch()
    return wanted


def _fill(git: pygit2.Repository, who: pygit2.Signature, count: int) -> None:
    parents: list[pygit2.Oid] = []
    for index in range(count):
        blob = git.create_blob(f"file {index}\n".encode())
        tree = git.TreeBuilder()
        tree.insert("file", blob, pygit2.enums.FileMode.BLOB)
        commit = git.create_commit(
            f"refs/heads/branch-{index}", who, who, "made", tree.write(), parents
        )
        kind = pygit2.enums.ObjectType.COMMIT
        git.create_tag(f"tag-{index}", commit, kind, who, "made")
        parents = [commit]


def ask(url: str, wanted: list[tuple[str, str]], times: int) -> list[float]:
    """The seconds that each of `times` requests for all refs took, by Morph's own client.

    Raises MorphError unless all are answered.
    """
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        found = RemoteResolver(url).resolve(wanted)
        seconds.append(time.perf_counter() - begin)
        if len(found) != len(wanted):
            raise MorphError(
                f"{len(found)} of {len(wanted)} refs were answered", reason=Reason.BUILD
            )
    return seconds
