"""The user's definitions: a checkout with its local changes, or a commit of a repository.

Local changes are read where they are. No branch, commit, index or work tree is ever written.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from morphlib.errors import MorphError, Reason
from morphlib.events import Listener, Status
from morphlib.sources.aliases import Aliases
from morphlib.sources.checkoutstate import CheckoutState, not_a_checkout, read_state
from morphlib.sources.mirrors import MirrorCache
from morphlib.sources.names import check_url

if TYPE_CHECKING:
    from morphlib.definitions.reader import FileReader


@dataclass(frozen=True)
class DefinitionsSource:
    """Where definitions are read from.

    `repo` is the URL of a checkout's origin (empty if it has none), or the repository as the user
    wrote it. `ref` is the branch, "HEAD" if none is checked out, or the ref as written. `commit`
    and `tree` are HEAD's even where local changes are read on top (`changed`). `root` is the
    checkout, None for a repository.
    """

    reader: FileReader
    repo: str
    ref: str
    commit: str
    tree: str
    root: Path | None
    changed: bool


class CheckoutReader:
    """Files of a checkout as the user sees them.

    These are the files of the checked-out commit with the content that the work tree has (or
    without, if deleted there), and new files whose name ends in `.morph`.
    """

    def __init__(self, root: Path, state: CheckoutState) -> None:
        self._root = os.path.realpath(root)
        self._deleted = state.deleted
        self._commit = state.commit
        self._paths = dict.fromkeys([*state.tracked, *state.added])
        for path in state.deleted:
            self._paths.pop(path, None)
        self._safe_directories: dict[str, bool] = {}

    def paths(self) -> Iterable[str]:
        """Every file, relative to the root."""
        return self._paths.keys()

    def read(self, path: str) -> bytes | None:
        """The content of the file at `path`, None if there is none.

        Raises MorphError if it can't be read, or is (or is below) a symlink that leads out.
        """
        path = posixpath.normpath(path)
        if path not in self._paths:
            return self._read_through_link(path) if self._is_below_link(path) else None
        try:
            if self._is_plain_directory(posixpath.dirname(path)):
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                fd = os.open(f"{self._root}/{path}", flags)
                with os.fdopen(fd, "rb", buffering=0) as file:
                    return file.read() if stat.S_ISREG(os.fstat(fd).st_mode) else None
        except (NotADirectoryError, IsADirectoryError):
            return None
        except FileNotFoundError:
            return self._read_committed(path)
        except OSError as error:
            import errno

            if error.errno != errno.ELOOP:
                raise self._read_error(path, error) from error
        return self._read_through_link(path)

    def _is_plain_directory(self, directory: str) -> bool:
        """Is no part of `directory` a symlink?"""
        known = self._safe_directories.get(directory)
        if known is None:
            full = f"{self._root}/{directory}" if directory else self._root
            known = os.path.realpath(full) == full
            self._safe_directories[directory] = known
        return known

    def _is_below_link(self, path: str) -> bool:
        """Is a directory on the way to `path` a symlink that is one of the files?"""
        parts = path.split("/")
        ways = ("/".join(parts[:depth]) for depth in range(1, len(parts)))
        return any(way in self._paths and (Path(self._root) / way).is_symlink() for way in ways)

    def _read_through_link(self, path: str) -> bytes | None:
        full = os.path.realpath(f"{self._root}/{path}")
        inside = os.path.relpath(full, self._root)
        if inside.split("/")[0] in ("..", ".git"):
            raise MorphError(
                f"{path} is a symlink that leads out of the repository", reason=Reason.DEFINITION
            )
        # What it leads to has to be a file of the definitions by itself. A link to itself is none.
        is_file = inside in self._paths and not Path(full).is_symlink()
        return self.read(inside) if is_file else None

    def _read_committed(self, path: str) -> bytes | None:
        """What the commit has where the work tree leaves the file out (a sparse checkout)."""
        if path in self._deleted:
            return None
        from morphlib.sources.objects import FILE, ObjectReader, find_git_directory

        git_dir = find_git_directory(Path(self._root))
        if git_dir is None:
            return None
        objects = ObjectReader(git_dir)
        entry = objects.find(objects.tree_of(self._commit), path)
        return objects.blob(entry.id) if entry and entry.kind == FILE else None

    @staticmethod
    def _read_error(path: str, error: OSError) -> MorphError:
        return MorphError(f"Can't read {path}: {error.strerror}", reason=Reason.DEFINITION)


def find_checkout(start: Path) -> Path:
    """The root of the git checkout that `start` is in. Raises MorphError if there is none."""
    at = start.absolute()
    for directory in (at, *at.parents):
        if os.path.lexists(directory / ".git"):
            return directory
    raise not_a_checkout(f"{start} is in none")


def open_checkout(
    root: Path,
    *,
    local_changes: Literal["include", "ignore"],
    mirrors: MirrorCache,
    listener: Listener,
) -> DefinitionsSource:
    """The definitions of a checkout.

    With "include" they are those of its work tree. With "ignore" they are those of the checked-out
    commit, which has to be in the remote `origin`. Raises MorphError.
    """
    if local_changes == "ignore":
        return _open_pushed(root, mirrors)
    listener(Status(text="Looking for uncommitted changes, to include them"))
    state = read_state(root)
    return DefinitionsSource(
        reader=CheckoutReader(root, state),
        repo=state.origin or "",
        ref=state.branch or "HEAD",
        commit=state.commit,
        tree=state.tree,
        root=root,
        changed=state.is_changed,
    )


def open_ref(repo: str, ref: str, *, mirrors: MirrorCache, aliases: Aliases) -> DefinitionsSource:
    """The definitions at a ref of a repository (a URL, or an alias form). Raises MorphError."""
    url = check_url(aliases.pull_url(repo))
    mirror = mirrors.obtain(url, [ref])
    try:
        resolved = mirror.resolve(ref)
    except MorphError as error:
        if error.reason is not Reason.NOT_FOUND:
            raise
        raise MorphError(
            f"Ref {ref} was not found in repo {url}",
            reason=Reason.NOT_FOUND,
            hint="Check the name, and that it has been pushed.",
        ) from error
    reader = mirror.reader(resolved.tree)
    return DefinitionsSource(reader, repo, ref, resolved.commit, resolved.tree, None, False)


def path_in_checkout(root: Path, argument: str, cwd: Path) -> str:
    """A path given on the command line, seen from `cwd`, as one relative to `root` (with '/').

    Raises MorphError if it leads out of the checkout.
    """
    full = os.path.normpath(cwd / argument)
    real = Path(full).parent.resolve() / Path(full).name
    for path, base in ((Path(full), Path(os.path.normpath(root))), (real, root.resolve())):
        if path != base and path.is_relative_to(base):
            return path.relative_to(base).as_posix()
    raise MorphError(
        f"File {argument} is not in repo {root}",
        reason=Reason.NOT_FOUND,
        hint="Name a file of the checkout that you are in.",
    )


def _open_pushed(root: Path, mirrors: MirrorCache) -> DefinitionsSource:
    state = read_state(root, with_changes=False)
    where = f"The checked-out commit {state.commit}"
    if state.origin is None:
        raise MorphError(
            f"{where} can't be looked up, for {root} has no remote called origin",
            reason=Reason.SOURCE,
            hint='Add one with "git remote add origin URL", or use --local-changes=include.',
        )
    mirror = mirrors.obtain(check_url(state.origin), [state.commit])
    if not mirror.has(state.commit):
        raise MorphError(
            f'{where} wasn\'t found in the "origin" remote {state.origin}',
            reason=Reason.NOT_FOUND,
            hint="Push it, or build from the checkout as it is with --local-changes=include.",
        )
    tree = mirror.resolve(state.commit).tree
    return DefinitionsSource(
        reader=mirror.reader(tree),
        repo=state.origin,
        ref=state.branch or "HEAD",
        commit=state.commit,
        tree=tree,
        root=root,
        changed=False,
    )
