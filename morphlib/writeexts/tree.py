"""The tree of an unpacked system, handled so that nothing in it leads out of it.

What is in a tree was made by other people's builds: `etc/fstab` may be a symlink to the host's. All
paths here are relative to the tree and resolved as if it was the root; an absolute path or link
target begins at the tree.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from morphlib.errors import MorphError, Reason
from morphlib.rooted import resolve_in

_PIECE = 1 << 20
_NO_IDS = "needs more subordinate ids than this user has (see /etc/subuid and /etc/subgid)"


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree at `root`. Paths that come back are on the host and stay below it."""

    root: Path

    @classmethod
    def at(cls, name: str | os.PathLike[str]) -> Tree:
        """The tree in a directory. Raises MorphError if that is none."""
        root = Path(name)
        if not root.is_dir():
            raise MorphError(f"{root} is not a directory", reason=Reason.DEPLOY)
        return cls(root)

    def resolve(self, path: str) -> Path:
        """Where `path` really is, symlinks followed, the last one too. It may not exist."""
        return resolve_in(self.root, path)

    def place(self, path: str) -> Path:
        """Where the entry `path` itself is: a symlink there is not followed."""
        directory, _, name = path.strip("/").rpartition("/")
        if name in ("", ".", ".."):
            raise MorphError(f"{path!r} names no file", reason=Reason.DEPLOY)
        return resolve_in(self.root, directory) / name

    def exists(self, path: str) -> bool:
        return self.resolve(path).exists()

    def is_file(self, path: str) -> bool:
        return stat.S_ISREG(mode) if (mode := self._mode(path)) is not None else False

    def is_directory(self, path: str) -> bool:
        return stat.S_ISDIR(mode) if (mode := self._mode(path)) is not None else False

    def _mode(self, path: str) -> int | None:
        try:
            return self.resolve(path).lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read(self, path: str) -> bytes:
        """The content of a regular file. Raises MorphError if there is none."""
        if not self.is_file(path):
            raise MorphError(f"the system has no file /{path.lstrip('/')}", reason=Reason.DEPLOY)
        return self.resolve(path).read_bytes()

    def read_text(self, path: str) -> str:
        """Text; bytes that are no UTF-8 survive when it is written again."""
        return self.read(path).decode("utf-8", "surrogateescape")

    def write(
        self,
        path: str,
        content: bytes | str,
        *,
        mode: int | None = None,
        owner: tuple[int, int] | None = None,
        follow: bool = True,
    ) -> Path:
        """Write a file, aside and renamed into place; parents are made, mode 0755.

        A symlink in its place is followed inside the tree (with `follow`; otherwise replaced).
        `mode` and `owner` (uid, gid) default to those of the file that is replaced, or to 0644 and
        0:0. Raises MorphError if something else than a file is there.
        """
        data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
        target = self.resolve(path) if follow else self.place(path)
        try:
            self._make_parents(target)
            before = _regular(target)
            if mode is None:
                mode = stat.S_IMODE(before.st_mode) if before else 0o644
            if owner is None:
                owner = (before.st_uid, before.st_gid) if before else (0, 0)
            aside = _aside(target)
            fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()  # writing later would drop set-user-id bits
                _give(fd, owner)
                os.fchmod(fd, mode)
            aside.rename(target)
        except OSError as error:
            raise _cannot("write", path, error) from error
        return target

    def append_lines(self, path: str, lines: Iterable[str], **how: int | tuple[int, int]) -> Path:
        """Add lines to a text file, which is made if it is not there. Takes what `write` takes."""
        text = self.read_text(path) if self.is_file(path) else ""
        if text and not text.endswith("\n"):
            text += "\n"
        text += "".join(f"{line}\n" for line in lines)
        return self.write(path, text, **how)  # type: ignore[arg-type]

    def make_directory(
        self, path: str, *, mode: int = 0o755, owner: tuple[int, int] = (0, 0)
    ) -> Path:
        """A directory; what is there already stays as it is. Raises MorphError if no directory."""
        place = self.resolve(path)
        try:
            self._make_parents(place)
            if not place.is_dir():
                place.mkdir()
                _give(place, owner)
                place.chmod(mode)
        except OSError as error:
            raise _cannot("make directory", path, error) from error
        return place

    def make_symlink(self, path: str, target: str, *, owner: tuple[int, int] = (0, 0)) -> Path:
        """A symlink at `path`; a file or symlink that is there is replaced. Parents are made.

        `target` is written as it is: who follows it later does so with care. Raises MorphError if
        something else is there.
        """
        place = self.place(path)
        try:
            self._make_parents(place)
            _regular(place)
            aside = _aside(place)
            aside.symlink_to(target)
            if os.geteuid() == 0:
                os.lchown(aside, *owner)
            aside.rename(place)
        except OSError as error:
            raise _cannot("make symlink", path, error) from error
        return place

    def change(self, path: str, *, mode: int, owner: tuple[int, int]) -> None:
        """Give a file or directory that is there (symlinks followed) an owner and a mode."""
        place = self.resolve(path)
        try:
            _give(place, owner)
            place.chmod(mode)
        except OSError as error:
            raise _cannot("change", path, error) from error

    def remove(self, path: str) -> None:
        """Remove the entry `path`, a symlink itself; it may be missing. Not for directories."""
        try:
            self.place(path).unlink(missing_ok=True)
        except OSError as error:
            raise _cannot("remove", path, error) from error

    def rename(self, path: str, name: str) -> None:
        """Give an entry another name in the same directory; what had it before is replaced."""
        place = self.place(path)
        try:
            place.rename(place.with_name(name))
        except OSError as error:
            raise _cannot("rename", path, error) from error

    def copy_in(self, source: Path, path: str, *, mode: int | None = None) -> Path:
        """Copy a file of the host into the tree."""
        try:
            content = source.read_bytes()
            mode = stat.S_IMODE(source.stat().st_mode) if mode is None else mode
        except OSError as error:
            raise MorphError(
                f"can't read {source}: {error.strerror}", reason=Reason.DEPLOY
            ) from error
        return self.write(path, content, mode=mode, owner=(0, 0))

    def copy_out(self, path: str, target: Path) -> None:
        """Copy a regular file of the tree to the host. Raises MorphError if there is none."""
        source = self.resolve(path)
        if not self.is_file(path):
            raise MorphError(f"the system has no file /{path.lstrip('/')}", reason=Reason.DEPLOY)
        with source.open("rb") as reading, target.open("wb") as writing:
            shutil.copyfileobj(reading, writing, _PIECE)

    def first_file(self, paths: Iterable[str]) -> str | None:
        """The first of some paths that is a regular file (or leads to one)."""
        return next((path for path in paths if self.is_file(path)), None)

    def _make_parents(self, place: Path) -> None:
        missing = []
        parent = place.parent
        while not parent.is_dir() and parent != self.root:
            missing.append(parent)
            parent = parent.parent
        for directory in reversed(missing):
            directory.mkdir()
            _give(directory, (0, 0))
            directory.chmod(0o755)


def _regular(path: Path) -> os.stat_result | None:
    """What is there, if it is a file or about to be replaced as a symlink."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(found.st_mode):
        return None
    if not stat.S_ISREG(found.st_mode):
        raise FileExistsError(17, "something else than a file is there")
    return found


def _aside(target: Path) -> Path:
    """A name beside a target that nothing has. Whoever changes a tree is alone with it."""
    aside = target.with_name("." + os.fsdecode(os.fsencode(target.name)[:200]) + ".morph-new")
    aside.unlink(missing_ok=True)
    return aside


def _give(what: int | Path, owner: tuple[int, int]) -> None:
    """Change the owner, unless it is so already: by hand, extensions may run as anybody."""
    found = os.stat(what)  # noqa: PTH116 (a descriptor, or a path)
    if (found.st_uid, found.st_gid) != owner and os.geteuid() == 0:
        try:
            os.chown(what, *owner)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise OSError(errno.EINVAL, f"owner {owner[0]}:{owner[1]} {_NO_IDS}") from error


def _cannot(what: str, path: str, error: OSError) -> MorphError:
    return MorphError(
        f"can't {what} /{path.lstrip('/')} in the system: {error.strerror or error}",
        reason=Reason.DEPLOY,
    )
