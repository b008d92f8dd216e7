"""Fetching artifacts from another cache server, for a client that asks for it.

Only servers that the settings name are connected to, and nothing that they redirect to. What comes
is kept only if it is what the other server's digest says, and all of it or nothing.
"""

from __future__ import annotations

import http.client
import logging
import re
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from cacheserver.uploads import UploadError, Uploads, check_names, read_signatures
from morphlib.cache.digests import parse_digest
from morphlib.cache.names import SIGNATURES_SUFFIX
from morphlib.cache.signatures import LARGEST
from morphlib.cache.temporaries import remove_files

_LENGTH = re.compile(r"[0-9]{1,18}")
_log = logging.getLogger("morph.cacheserver")


class PullError(Exception):
    """What is wanted can't be fetched; `status` is that of the answer."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class MissingError(PullError):
    """The other server does not have it."""


class TooLargeError(PullError):
    """It is more than it may be."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A server: name or address, and port; port 0 stands for all ports."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_origin(text: str, default_port: int) -> Origin:
    """`HOST`, `HOST:PORT`, `[ADDRESS]:PORT` or a bare IPv6 address. Raises ValueError."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(text)
        port = rest[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    if not host or not host.isascii() or any(c <= " " or c in "/@?#\\%\x7f" for c in host):
        raise ValueError(text)
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(text)
    return Origin(host.lower(), int(port) if port else default_port)


class Puller:
    """Fetches into one store, from the servers in `allowed`."""

    def __init__(self, uploads: Uploads, allowed: Iterable[str], *, timeout: float) -> None:
        """Raises ValueError for an allowed server that is none."""
        self._uploads = uploads
        self._allowed = frozenset(parse_origin(text, 0) for text in allowed)
        self._timeout = timeout

    def pull(self, host: str, key: str, suffixes: Sequence[str]) -> list[str]:
        """Fetch `KEY.SUFFIX` for all suffixes, and publish them together. Returns their names.

        Raises PullError, UploadError, BadNameError, or MorphError when the disk refuses.
        """
        names = list(dict.fromkeys(f"{key}.{suffix}" for suffix in suffixes))
        check_names(key, dict.fromkeys(names, ""))
        origin = self._check_origin(host)
        files: dict[str, Path] = {}
        digests: dict[str, str] = {}
        # One connection for all: many artifacts are small.
        connection = http.client.HTTPConnection(origin.host, origin.port, timeout=self._timeout)
        try:
            with closing(connection):
                for name in names:
                    files[name], digests[name] = self._fetch(connection, origin, name)
                self._fetch_signatures(connection, origin, key + SIGNATURES_SUFFIX, files, digests)
            self._uploads.publish(key, files, digests)
        finally:
            remove_files(files.values())
        return names

    def _check_origin(self, host: str) -> Origin:
        try:
            origin = parse_origin(host, 80)
        except ValueError as error:
            raise PullError(400, f"{host!r} is no HOST:PORT") from error
        if not self._allowed & {origin, Origin(origin.host, 0)}:
            raise PullError(403, f"{origin} is none of the servers to fetch from")
        return origin

    def _fetch_signatures(
        self,
        connection: http.client.HTTPConnection,
        origin: Origin,
        name: str,
        files: dict[str, Path],
        digests: dict[str, str],
    ) -> None:
        """They come along unasked, if the other server has them: nobody else knows who built it,
        and nobody asks again once the artifacts are here."""
        if name in files:
            return
        try:
            path, digest = self._fetch(connection, origin, name, LARGEST)
        except MissingError as error:
            _log.debug("%s", error)
            return
        except TooLargeError:
            path = None
        if path is not None and read_signatures(path) is not None:
            files[name], digests[name] = path, digest
            return
        _log.warning("%s from %s holds no signatures: left out", name, origin)
        if path is not None:
            remove_files([path])

    def _fetch(
        self,
        connection: http.client.HTTPConnection,
        origin: Origin,
        name: str,
        largest: int | None = None,
    ) -> tuple[Path, str]:
        """A temporary file with the artifact, and its SHA-256. The connection is opened again
        where the other server closed it."""
        try:
            connection.request("GET", f"/1.0/artifacts?filename={quote(name)}")
            response = connection.getresponse()
            length = response.headers.get("Content-Length", "")
            digest = parse_digest(response.headers.get("Repr-Digest", ""))
            if response.status != 200:
                kind = MissingError if response.status == 404 else PullError
                raise kind(502, f"{origin} answers {response.status} for {name}")
            if not _LENGTH.fullmatch(length) or digest is None:
                raise PullError(502, f"{origin} tells no length and digest of {name}")
            if largest is not None and int(length) > largest:
                raise TooLargeError(502, f"{name} from {origin} has {length} bytes")
            return self._uploads.receive(response, int(length), digest), digest
        except (OSError, http.client.HTTPException) as error:
            raise PullError(502, f"can't fetch {name} from {origin}: {error}") from error
        except UploadError as error:
            raise PullError(502, f"{name} from {origin} is not taken: {error}") from error
