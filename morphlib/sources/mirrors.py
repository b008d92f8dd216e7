"""Bare mirrors of repositories, kept in a cache that several processes share.

Layout of the directory (CACHEDIR/gits):

    NAME/             the mirror of a URL: every ref under its own name. NAME is the URL with each
                      character that is no letter, digit, % or _ turned into _
    NAME-DIGEST/      the same where NAME already belongs to another URL (a-b and a_b get the same
                      name), or is too long for a file name; DIGEST is of the URL
    NAME.lock         held (flock) by whoever clones or fetches; it tells when that last worked
                      (URL digest and nanoseconds), so that who waited for it need not fetch again
    tmp-*             clones under way, each locked by who makes it

A mirror appears by a rename when it is complete. Readers take no lock: objects are only added, and
nothing ever runs gc on a mirror. `file://` repositories are used where they are, and never changed.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from morphlib.errors import MorphError, Reason, raise_all
from morphlib.events import Listener, Status, silence
from morphlib.process import ProcessError
from morphlib.sources.freshness import note_success, read_success, url_digest
from morphlib.sources.mirror import Mirror
from morphlib.sources.mirrorgit import (
    check_object_format,
    clone_mirror,
    fetch_all,
    origin_of,
    read_origin,
    write_mirror_config,
)
from morphlib.sources.names import check_ref, check_url, is_sha1, local_path, quote_url

if TYPE_CHECKING:
    from morphlib.cache.locks import Lock

_MAX_NAME = 200
_TEMPORARY = "tmp-"

#: How many repositories are fetched at once. They wait for servers, not for processors.
PARALLEL_FETCHES = 8


class MirrorCache:
    """The mirrors of one cache directory. Threads and processes may share it."""

    def __init__(
        self,
        directory: Path,
        *,
        tarball_server: str = "",
        no_git_update: bool = False,
        listener: Listener = silence,
    ) -> None:
        self.directory = directory
        self._tarball_server = tarball_server
        self._no_update = no_git_update
        self._listener = listener
        self._guard = threading.Lock()
        self._mirrors: dict[str, Mirror] = {}
        self._updated: set[str] = set()  # fetched or cloned in this run
        self._in_process: dict[str, threading.Lock] = {}
        self._swept = False

    def has(self, url: str) -> bool:
        """Is there a mirror of `url` (or is it a local repository, which needs none)?"""
        return self._open(url) is not None

    def get(self, url: str) -> Mirror:
        """The mirror of `url` as it is, without network. Raises MorphError if there is none."""
        mirror = self._open(url)
        if mirror is None:
            raise MorphError(
                f"Repository {url} is not cached yet",
                reason=Reason.SOURCE,
                hint="Run again without --no-git-update." if self._no_update else None,
            )
        return mirror

    def obtain(self, url: str, refs: Sequence[str] = ()) -> Mirror:
        """The mirror of `url`, cloned if need be, and updated if need be for `refs`.

        The network is used if there is no mirror, if a commit id is missing in it, or, once in a
        run, for a ref that is not a full commit id. Whether the refs exist then is for
        `Mirror.resolve` to say. Raises MorphError if the repository can't be had.
        """
        for ref in refs:
            check_ref(ref)
        mirror = self._open(url)
        if self._no_update or (mirror is not None and not mirror.is_mirror):
            return self.get(url)
        if mirror is not None and not self._needs_update(mirror, refs):
            self._chat(f"Not updating git repository {url}: it has all refs that are needed")
            return mirror
        started = time.time_ns()
        with self._lock_of(url), self._lock_file(url) as held:
            mirror = self._open(url)
            if mirror is None:
                mirror = self._clone(url)
            elif self._needs_update(mirror, refs):
                if read_success(held, url) < started or self._lacks(mirror, refs):
                    self._update(mirror, refs)
            else:
                return mirror
            note_success(held, url)
            with self._guard:
                self._updated.add(url)
        return mirror

    def obtain_many(self, wanted: Mapping[str, Sequence[str]]) -> dict[str, Mirror]:
        """`obtain` for several repositories (URL -> refs) at once. Raises all errors together."""
        found, errors = self.try_obtain_many(wanted)
        raise_all(errors.values())
        return found

    def try_obtain_many(
        self, wanted: Mapping[str, Sequence[str]]
    ) -> tuple[dict[str, Mirror], dict[str, MorphError]]:
        """Like `obtain_many`, with what failed (by URL) given back instead of raised."""
        found: dict[str, Mirror] = {}
        errors: dict[str, MorphError] = {}

        def obtain(url: str) -> None:
            try:
                found[url] = self.obtain(url, wanted[url])
            except MorphError as error:
                errors[url] = error

        for_each(obtain, list(wanted))
        return {u: found[u] for u in wanted if u in found}, {
            u: errors[u] for u in wanted if u in errors
        }

    def _open(self, url: str) -> Mirror | None:
        """The mirror of `url` if there is one. Raises MorphError for a hostile URL, or for a
        `file://` URL without a repository."""
        mirror = self._mirrors.get(url)
        if mirror is not None:
            return mirror
        check_url(url)
        path = local_path(url)
        if path is not None:
            mirror = Mirror(url, _find_local(url, path), is_mirror=False)
        else:
            for candidate in self._candidates(url):
                if read_origin(candidate) == origin_of(url):
                    mirror = Mirror(url, candidate)
                    break
        if mirror is not None:
            with self._guard:
                mirror = self._mirrors.setdefault(url, mirror)
        return mirror

    def _candidates(self, url: str) -> Iterable[Path]:
        """Where the mirror of `url` may be, best first."""
        name = quote_url(url)
        if len(name) <= _MAX_NAME:
            yield self.directory / name
        yield self.directory / f"{name[:_MAX_NAME]}-{url_digest(url)}"

    def _needs_update(self, mirror: Mirror, refs: Sequence[str]) -> bool:
        if mirror.url in self._updated:
            return False  # what is not there now will not be there in a moment
        return any(not is_sha1(ref) for ref in refs) or self._lacks(mirror, refs)

    @staticmethod
    def _lacks(mirror: Mirror, refs: Sequence[str]) -> bool:
        return any(is_sha1(ref) and not mirror.has(ref) for ref in refs)

    def _lock_of(self, url: str) -> threading.Lock:
        """Keeps threads of this process from waiting for each other in the kernel."""
        with self._guard:
            return self._in_process.setdefault(url, threading.Lock())

    def _lock_file(self, url: str) -> Lock:
        from morphlib.cache.locks import acquire

        self._make_directory()
        # By the plain name, so that URLs which compete for it exclude each other.
        held = acquire(self.directory / f"{quote_url(url)[:_MAX_NAME]}.lock")
        assert held is not None
        return held

    def _make_directory(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MorphError(
                f"Can't make {self.directory}: {error.strerror}", reason=Reason.CACHE
            ) from error
        with self._guard:
            swept, self._swept = self._swept, True
        if not swept:
            self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        """Remove what killed runs were cloning: what nobody holds the lock of."""
        from morphlib.cache.locks import acquire_directory

        for path in self.directory.glob(_TEMPORARY + "*"):
            try:
                held = acquire_directory(path, blocking=False)
            except MorphError:
                continue  # gone meanwhile, or another user's
            if held is not None:
                with held:
                    shutil.rmtree(path, ignore_errors=True)

    def _clone(self, url: str) -> Mirror:
        from morphlib.cache.locks import make_locked_directory

        self._tell(f"Cloning {url}")
        temporary, held = make_locked_directory(self.directory, _TEMPORARY)
        try:
            with held:
                self._fill(url, temporary)
                path = next(path for path in self._candidates(url) if not path.exists())
                temporary.chmod(0o755)
                temporary.rename(path)
        except StopIteration:
            raise MorphError(
                f"The place for the mirror of {url} in {self.directory} is taken",
                reason=Reason.CACHE,
                hint=f"Remove {list(self._candidates(url))[-1]}.",
            ) from None
        except OSError as error:
            raise MorphError(
                f"Can't store the mirror of {url}: {error.strerror}", reason=Reason.CACHE
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        mirror = Mirror(url, path)
        with self._guard:
            self._mirrors[url] = mirror
        return mirror

    def _fill(self, url: str, into: Path) -> None:
        """Make a mirror in an empty directory, from a tarball or by cloning."""
        reasons = []
        if self._tarball_server:
            self._chat(f"Trying to seed the mirror of {url} from {self._tarball_server}")
            from morphlib.sources.seeding import seed_mirror

            try:
                seed_mirror(self._tarball_server, quote_url(url), into)
                write_mirror_config(into, url)
                fetch_all(into, url)
                return
            except MorphError as error:
                reasons.append(str(error))
                self._tell("Using git clone.")
                _empty(into)
        try:
            clone_mirror(url, into)
            check_object_format(into, url)
            write_mirror_config(into, url)
        except ProcessError as error:
            reasons.append(str(error))
            raise MorphError(
                f"Cannot find remote git repository: {url}\n" + indent("\n".join(reasons)),
                reason=Reason.SOURCE,
                hint="Check the address, and that it can be reached from here.",
            ) from error

    def _update(self, mirror: Mirror, refs: Sequence[str]) -> None:
        what = f"ref {refs[0]}" if len(refs) == 1 else f"{len(refs)} refs"
        self._tell(f"Updating {mirror.url} for {what}")
        try:
            fetch_all(mirror.path, mirror.url)
        except ProcessError as error:
            raise MorphError(
                f"Failed to update cached version of repo {mirror.url}\n" + indent(str(error)),
                reason=Reason.SOURCE,
                hint="Use --no-git-update to build from the mirror as it is.",
            ) from error

    def _tell(self, text: str) -> None:
        self._listener(Status(text=text))

    def _chat(self, text: str) -> None:
        self._listener(Status(text=text, level="chatty"))


def for_each(action: Callable[[str], None], items: Sequence[str]) -> None:
    """Do `action` for each item, several at a time."""
    if len(items) <= 1:
        for item in items:
            action(item)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(PARALLEL_FETCHES, thread_name_prefix="fetch") as pool:
        for _ in pool.map(action, items):
            pass


def indent(text: str) -> str:
    return "\n".join("    " + line for line in text.splitlines())


def _find_local(url: str, path: Path) -> Path:
    from morphlib.sources.objects import common_directory, find_git_directory

    found = find_git_directory(path)
    if found is None:
        raise MorphError(
            f"Cannot find remote git repository: {url}\n    {path} is no git repository",
            reason=Reason.SOURCE,
        )
    check_object_format(common_directory(found), url)
    return found


def _empty(directory: Path) -> None:
    for entry in os.scandir(directory):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            Path(entry.path).unlink()
