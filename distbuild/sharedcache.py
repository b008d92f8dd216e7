"""The shared cache, as a controller uses it. Everything here waits, and belongs into threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from distbuild.addresses import Address
from distbuild.graphs import GraphSource
from morphlib.cache.remote import Access, RemoteArtifacts
from morphlib.cache.signing import TrustedKeys, load_trusted_keys
from morphlib.cache.trust import find_whole
from morphlib.errors import MorphError, Reason
from morphlib.events import AnyEvent, Status

#: Seconds that the cache has to connect, and to bring one source over.
_CONNECT_SECONDS, _PULL_SECONDS = 10.0, 3600.0
#: What a cache server says of a file that is not what its digest says.
_LIE = "is not taken"
#: How it answers where its disk is full.
_NO_ROOM = 507


class TransferError(Exception):
    """A result was not brought over. `hopeless`: trying again is no use."""

    def __init__(self, reason: str, *, hopeless: bool = False) -> None:
        super().__init__(reason)
        self.hopeless = hopeless


@dataclass(frozen=True, slots=True)
class SharedCache:
    """`reading` and `writing` are the URLs of two servers over one directory. With `trusted` keys,
    what nobody signed counts as absent; workers, which use it, look closer. `certificate` and
    `authorities` are PEM files for servers with TLS."""

    reading: str
    writing: str
    token: str = ""
    trusted: TrustedKeys | None = None
    certificate: Path | None = None
    authorities: Path | None = None

    def url_of(self, name: str) -> str:
        from urllib.parse import quote

        return f"{_root(self.reading)}/1.0/artifacts?filename={quote(name)}"

    def present(self, sources: Sequence[GraphSource]) -> frozenset[str]:
        """The keys of the sources that are there, whole. Raises MorphError."""
        problems: list[str] = []

        def note(event: AnyEvent) -> None:
            if isinstance(event, Status) and event.level == "warning":
                problems.append(event.text)

        access = Access("", self.certificate, self.authorities)
        remote = RemoteArtifacts(self.reading, access=access, trusted=self.trusted, listener=note)
        found = find_whole(remote, {source.key: source.files for source in sources})
        if remote.is_dead:
            raise MorphError(f"Failed to annotate build graph: {problems[0]}", reason=Reason.CACHE)
        return found

    def pull(self, worker: Address, source: GraphSource) -> None:
        """Let the shared cache fetch what a worker built. Raises TransferError.

        It compares digests with what the worker's cache server says, and takes all or nothing.
        """
        if source.logs:
            try:
                self._pull(worker, source.key, (*source.files, *source.logs))
            except TransferError as error:
                if error.hopeless:
                    raise
            else:
                return
        # A log is worth having, but nothing depends on it.
        self._pull(worker, source.key, source.files)

    def _pull(self, worker: Address, key: str, names: Sequence[str]) -> None:
        from urllib3 import PoolManager, Timeout
        from urllib3.exceptions import HTTPError

        suffixes = [name.removeprefix(f"{key}.") for name in names]
        body = {"host": str(worker), "cacheid": key, "artifacts": suffixes}
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        timeout = Timeout(connect=_CONNECT_SECONDS, read=_PULL_SECONDS)
        try:
            files = {"cert_file": self.certificate, "ca_certs": self.authorities}
            tls: dict[str, Any] = {
                name: str(path) for name, path in files.items() if path is not None
            }
            with PoolManager(timeout=timeout, **tls) as pool:
                reply = pool.request(
                    "POST",
                    f"{_root(self.writing)}/1.0/fetch",
                    body=msgspec.json.encode(body),
                    headers=headers,
                    retries=False,
                    redirect=False,
                )
                said = reply.data[:2000].decode("utf-8", "backslashreplace").strip()
        except HTTPError as error:
            raise TransferError(f"{self.writing}: {error}") from error
        if reply.status == _NO_ROOM:
            raise TransferError(f"the shared cache at {self.writing} has no room left")
        if reply.status != 200:
            raise TransferError(
                f"{self.writing} answers {reply.status}: {said}", hopeless=_LIE in said
            )


def open_shared_cache(
    reading: str,
    writing: str,
    token_file: Path | None,
    trusted_keys: Path | None = None,
    *,
    certificate: Path | None = None,
    authorities: Path | None = None,
) -> SharedCache:
    """Check the settings, so that mistakes show when a daemon starts. Raises MorphError."""
    for setting, url in (("artifact-cache-server", reading), ("writeable-cache-server", writing)):
        if not url.startswith(("http://", "https://")):
            raise MorphError(
                f"{setting} has to be the URL of a cache server, not {url!r}",
                reason=Reason.CONFIG,
                hint=f"For example {setting} = http://cache:8080/.",
            )
    token = ""
    if token_file is not None:
        try:
            token = token_file.read_text().strip()
        except (OSError, ValueError) as error:
            raise MorphError(
                f"can't read the token in {token_file}: {error}", reason=Reason.CONFIG
            ) from error
    trusted = None if trusted_keys is None else load_trusted_keys(trusted_keys)
    return SharedCache(reading, writing, token, trusted, certificate, authorities)


def _root(url: str) -> str:
    """The server of a URL: requests go to /1.0 there, whatever path the URL has."""
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
