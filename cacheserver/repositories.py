"""The git repositories of a directory, found by URL and kept open.

Nothing outside of the directory is ever opened, whatever the URL, and whatever symlinks or `.git`
files say. Opening a repository takes longer than most questions about it, so those used last stay
open.
"""

from __future__ import annotations

import hashlib
import resource
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pygit2

from morphlib.sources import objects  # switches off what libgit2 asks of owners
from morphlib.sources.mirrorgit import read_origin
from morphlib.sources.names import quote_url

_MAX_OPEN = 600
_MAX_NAME = 200  # of a mirror's directory, before a digest takes the place of the rest


class Repository(NamedTuple):
    """An open repository. libgit2 lets one thread at a time use it: hold `lock`."""

    path: Path
    git: pygit2.Repository
    lock: threading.Lock


class Repositories:
    """The repositories below `root`; `direct` says whether the path of a URL is that below root."""

    def __init__(self, root: Path, *, direct: bool) -> None:
        self._root = root
        self.direct = direct
        self._open: OrderedDict[str, tuple[tuple[int, int], Repository]] = OrderedDict()
        self._guard = threading.Lock()

    def find(self, url: str) -> Repository | None:
        """The repository of a URL, None if there is none here."""
        with self._guard:
            kept = self._open.get(url)
            if kept is not None:
                self._open.move_to_end(url)
        if kept is not None and kept[0] == _identity(kept[1].path):
            return kept[1]
        found = self._look_up(url)
        with self._guard:
            if found is None:
                self._open.pop(url, None)
                return None
            self._open[url] = (_identity(found.path) or (0, 0), found)
            if len(self._open) > _MAX_OPEN:
                self._open.popitem(last=False)
        return found

    def _look_up(self, url: str) -> Repository | None:
        for relative in self._candidates(url):
            git_dir = self._find_git_directory(relative)
            if git_dir is None or (not self.direct and _is_mirror_of_other(git_dir, url)):
                continue
            try:
                flags = pygit2.enums.RepositoryOpenFlag.NO_SEARCH
                flags |= pygit2.enums.RepositoryOpenFlag.NO_DOTGIT
                return Repository(git_dir, pygit2.Repository(str(git_dir), flags), threading.Lock())
            except (pygit2.GitError, OSError, ValueError, KeyError):
                continue
        return None

    def _candidates(self, url: str) -> Iterator[str]:
        """Paths below the root at which the repository may be."""
        if self.direct:
            path = path_below_root(url)
            if path is not None:
                yield from (path, path + ".git")
            return
        name = quote_url(url)
        if len(name) <= _MAX_NAME:
            yield from (name, name + ".git")
        digest = hashlib.sha256(url.encode()).hexdigest()[:16]
        yield f"{name[:_MAX_NAME]}-{digest}"

    def _find_git_directory(self, relative: str) -> Path | None:
        """The git directory of the repository at a path, None if any of it is not below root."""
        try:
            root = self._root.resolve(strict=True)
            path = (root / relative).resolve(strict=True)
            if root not in path.parents:
                return None
            git_dir = objects.find_git_directory(path)
            if git_dir is None:
                return None
            inside = (git_dir.resolve(strict=True), objects.common_directory(git_dir).resolve())
        except (OSError, ValueError, RuntimeError):
            return None
        return inside[0] if all(root in each.parents for each in inside) else None


def path_below_root(url: str) -> str | None:
    """The path part of a URL as one below a directory, None if it could lead elsewhere."""
    try:
        path = urlsplit(url).path.strip("/")
    except ValueError:
        return None
    parts = path.split("/")
    if not path or "\0" in path or any(part in ("", ".", "..") for part in parts):
        return None
    return path


def _is_mirror_of_other(git_dir: Path, url: str) -> bool:
    """Is it Morph's mirror of another URL whose mirror would have the same name?"""
    origin = read_origin(git_dir)
    return origin is not None and origin != url and quote_url(origin) == quote_url(url)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def allow_many_files() -> None:
    """Let this process have as many files open as the system permits, and packs a share of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else 65536
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, 65536), hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    pygit2.settings.mwindow_file_limit = max(16, soft // 4)
