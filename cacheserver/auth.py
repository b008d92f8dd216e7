"""Who may write: tokens, client certificates, or being on this machine; and who was turned away.

A server that has a token file takes writers that send `Authorization: Bearer TOKEN`. One that has
authorities for client certificates takes those that showed one. With both, both are needed. With
neither it listens at a loopback address and takes whoever is on this machine, except web pages:
a browser would carry a page's requests to this machine's ports as well.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cacheserver.settings import is_loopback
from morphlib.errors import MorphError, Reason

_log = logging.getLogger("morph.cacheserver")

_WINDOW = 60.0  # seconds over which the rate of failures is counted
_KEPT = 10_000  # failures within the window that are remembered
_MIN_TOKEN = 16  # characters


class NotAllowedError(Exception):
    """A request that may not write. `status` is that of the answer; the text is for the log."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True)
class Caller:
    """What a request tells of who sent it. Header names are in lower case."""

    address: str
    headers: Mapping[str, str]
    certificate: str | None = None  # subject of the verified client certificate


class TokenFile:
    """The tokens of a file, which is read again whenever it changes.

    Lines are NAME TOKEN; blank lines and those that begin with # are left out.
    """

    def __init__(self, path: Path) -> None:
        """Raises MorphError (CONFIG) for a file that can't be used or that others can read."""
        self.path = path
        self._guard = threading.Lock()
        self._stamp: tuple[int, ...] | None = None
        self._digests: dict[bytes, str] = {}
        self._load()

    def name_of(self, token: str) -> str | None:
        """The name beside a token, None if there is no such token."""
        with self._guard:
            try:
                self._load()
            except MorphError as error:
                _log.error("%s; nobody may write meanwhile", error)
                return None
            given = _digest(token)
            found = None
            # Every one is compared, so that the time taken tells nothing.
            for digest, name in self._digests.items():
                if hmac.compare_digest(digest, given):
                    found = name
            return found

    def _load(self) -> None:
        try:
            with self.path.open(encoding="utf-8") as file:
                status = os.fstat(file.fileno())
                stamp = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
                if stamp == self._stamp:
                    return
                lines = file.read(1 << 20).splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise _unusable(self.path, f"can't be read: {error}") from error
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise _unusable(self.path, "can be read by others", f"chmod 600 {self.path}")
        self._digests = dict(_parse_line(self.path, i, line) for i, line in _entries(lines))
        self._stamp = stamp


def _entries(lines: list[str]) -> list[tuple[int, str]]:
    stripped = ((number, line.strip()) for number, line in enumerate(lines, 1))
    return [(number, line) for number, line in stripped if line and not line.startswith("#")]


def _parse_line(path: Path, number: int, line: str) -> tuple[bytes, str]:
    words = line.split()
    if len(words) != 2 or len(words[1]) < _MIN_TOKEN:
        raise _unusable(
            path,
            f"line {number} is not NAME TOKEN",
            f"A token has at least {_MIN_TOKEN} characters: openssl rand -hex 32 makes one.",
        )
    return _digest(words[1]), words[0]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _unusable(path: Path, what: str, hint: str | None = None) -> MorphError:
    return MorphError(f"token file {path} {what}", reason=Reason.CONFIG, hint=hint)


@dataclass(slots=True)
class Failures:
    """Counts requests that were turned away, and logs them with their rate.

    The first of a window is logged, and then each time the number has doubled, so that a flood
    does not fill the log.
    """

    now: Callable[[], float] = time.monotonic
    _times: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def add(self, caller: Caller, why: str) -> None:
        with self._guard:
            now = self.now()
            self._times.append(now)
            while self._times[0] < now - _WINDOW:
                self._times.popleft()
            count = len(self._times)
        if count & (count - 1) == 0:
            _log.warning(
                "turned away a writer from %s: %s (%d in the last minute)",
                caller.address,
                why,
                count,
            )


class Gate:
    """Lets writers in, or raises NotAllowedError."""

    def __init__(self, tokens: TokenFile | None, *, needs_certificate: bool) -> None:
        self._tokens = tokens
        self._needs_certificate = needs_certificate

    def admit(self, caller: Caller) -> str:
        """The name of a caller that may write, for the log."""
        names = []
        if self._needs_certificate:
            if caller.certificate is None:
                raise NotAllowedError(403, "it showed no client certificate")
            names.append(caller.certificate)
        if self._tokens is not None:
            names.append(_check_token(self._tokens, caller))
        else:
            refuse_pages(caller)
        if not names:
            check_local(caller)
            names.append("local")
        return "+".join(names)


def _check_token(tokens: TokenFile, caller: Caller) -> str:
    scheme, _, token = caller.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise NotAllowedError(401, "it sent no token")
    name = tokens.name_of(token.strip())
    if name is None:
        raise NotAllowedError(401, "it sent a token that is not known")
    return name


def refuse_pages(caller: Caller) -> None:
    """Raises NotAllowedError if a browser sends the request: it says so, and for which page.

    A browser that has access, by a certificate or by being here, lends it to every page it shows.
    """
    for name in ("origin", "sec-fetch-site"):
        if name in caller.headers:
            raise NotAllowedError(403, f"it comes from a web page ({name})")


def check_local(caller: Caller) -> None:
    """Raises NotAllowedError unless the caller is on this machine.

    A page of another host that had its name point to this machine is told by the Host that it asks
    for, and a proxy on this machine by what it adds.
    """
    if not is_loopback(caller.address):
        raise NotAllowedError(403, "it is on another machine")
    for name in ("x-forwarded-for", "forwarded"):
        if name in caller.headers:
            raise NotAllowedError(403, f"it comes through a proxy ({name})")
    host = caller.headers.get("host", "")
    if host and not is_loopback(host_of(host)):
        raise NotAllowedError(403, "it asked for another host")


def host_of(host: str) -> str:
    """The name or address in `HOST`, `HOST:PORT` or `[HOST]:PORT`."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0] if host.count(":") == 1 else host
