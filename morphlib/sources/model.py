"""Values of this stage: what a repository and a ref stand for, and what a build gets of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Resolved:
    """A commit and its tree, 40 hexadecimal digits each."""

    commit: str
    tree: str


@dataclass(frozen=True, slots=True)
class SourceRef:
    """A repository and ref as written in definitions, with the exact commit that they mean."""

    repo: str
    url: str  # to fetch from: `repo` with its alias expanded
    ref: str
    commit: str
    tree: str


@dataclass(frozen=True, slots=True)
class Submodule:
    """An entry of `.gitmodules` for which the tree really has a commit. `url` is as written."""

    name: str
    path: str
    url: str
    commit: str


@dataclass(frozen=True, slots=True)
class StagedSource:
    """A source tree that was laid out.

    `binds` are (directory of this machine, path below the tree): the sandbox binds each directory,
    read-only, so that git finds the objects there. `commit_time` is in seconds since the epoch.
    """

    commit_time: int
    binds: tuple[tuple[Path, str], ...]
