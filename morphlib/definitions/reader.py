"""Where the text of definitions comes from: a folder, or anything else that can answer by path.

Paths are relative to the root of the definitions repository, with forward slashes.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from morphlib.errors import Location, MorphError, Reason

#: No definition comes near this; it bounds what a hostile repository can make us read.
SIZE_LIMIT = 8 * 1024 * 1024


class FileReader(Protocol):
    """The files of one definitions repository, at one commit or as they lie in a folder."""

    def read(self, path: str) -> bytes | None:
        """The content of a file, or None where there is no such file.

        Raises MorphError for a path that leads out of the repository, by itself or by symlinks,
        and for a file that can't be read.
        """
        ...

    def paths(self) -> Iterable[str]:
        """The path of every file."""
        ...


class MappingReader:
    """Files that are in memory already."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def read(self, path: str) -> bytes | None:
        """The content of a file, or None where there is no such file."""
        check_inside(path)
        return self._files.get(path)

    def paths(self) -> Iterable[str]:
        """The path of every file, sorted."""
        return sorted(self._files)


class DirectoryReader:
    """The files below a folder, as they are now. Never reads through a symlink that leads out."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._real_root: str | None = None
        self._plain_folders: dict[str, bool] = {"": True}

    def read(self, path: str) -> bytes | None:
        """The content of a file, or None where there is no such file.

        Raises MorphError where the path leads out of the folder, and where the file is there but
        can't be read (no permission, not an ordinary file, larger than SIZE_LIMIT).
        """
        check_inside(path)
        try:
            return self._read(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _refusal(path, f"{path} can't be read: {error.strerror}") from error

    def paths(self) -> Iterator[str]:
        """The path of every file and symlink, sorted. What is in `.git` is left out.

        Raises MorphError where a folder can't be listed.
        """
        folders = [""]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(f"{self._root}/{folder}") as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError as error:
                where = folder or self._root
                raise _refusal(where, f"{where} can't be listed: {error.strerror}") from error
            below = []
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if not entry.is_dir(follow_symlinks=False):
                    yield path
                elif entry.name != ".git":
                    self._plain_folders[path] = True
                    below.append(path)
            folders.extend(reversed(below))

    def _read(self, path: str) -> bytes:
        # Most files are ordinary files in ordinary folders, which costs no look at the real path.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        plain = self._is_plain(path.rpartition("/")[0])
        try:
            descriptor = os.open(f"{self._root}/{path}", flags | (os.O_NOFOLLOW if plain else 0))
        except OSError as error:
            if not (plain and error.errno == errno.ELOOP):
                raise
            plain = False
            descriptor = os.open(f"{self._root}/{path}", flags)
        try:
            if not plain:
                self._check_real_path(path, str(Path(f"/proc/self/fd/{descriptor}").readlink()))
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _refusal(path, f"{path} is not a file")
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(SIZE_LIMIT + 1)
        finally:
            os.close(descriptor)
        if len(content) > SIZE_LIMIT:
            raise _refusal(path, f"{path} is larger than {SIZE_LIMIT} bytes")
        return content

    def _is_plain(self, folder: str) -> bool:
        """Whether neither a folder nor one that it lies in is a symlink."""
        known = self._plain_folders.get(folder)
        if known is None:
            known = self._is_plain(folder.rpartition("/")[0]) and not stat.S_ISLNK(
                os.lstat(f"{self._root}/{folder}").st_mode
            )
            self._plain_folders[folder] = known
        return known

    def _check_real_path(self, path: str, real: str) -> None:
        if self._real_root is None:
            self._real_root = os.path.realpath(self._root)
        inside = real.startswith(self._real_root.rstrip("/") + "/")
        if not inside or real.startswith(f"{self._real_root}/.git/"):
            raise _refusal(path, f"{path} is a symlink that leads out of the repository")


def check_inside(path: str) -> None:
    """Refuse a path that can't name a file of the repository: raises MorphError."""
    problem = problem_with_path(path)
    if problem:
        raise _refusal(path.replace("\0", "\\0"), f"Path {path!r} {problem}")


def problem_with_path(path: str) -> str | None:
    """Why a path can't name a file of the repository, or None where it can."""
    if not path:
        return "is empty"
    if path.startswith("/"):
        return "is absolute; paths are relative to the root of the definitions repository"
    if "\0" in path or "\n" in path:
        return "contains a NUL or newline"
    parts = path.split("/")
    if ".." in parts:
        return "contains '..', so it may lead out of the definitions repository"
    if ".git" in parts:
        return "leads into .git"
    return None


def _refusal(path: str, message: str) -> MorphError:
    return MorphError(message, reason=Reason.DEFINITION, location=Location(path))
