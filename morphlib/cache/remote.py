"""Artifacts on a cache server: which there are, and bringing them here.

Nothing that a server says is believed without a check. A file comes with a digest (`Repr-Digest`,
RFC 9530) and is what that says, or it is not taken; a transfer that breaks off goes on where it
ended; a server that can't be reached, or crawls, is left alone for the rest of the run. Threads may
share an object of the class.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote, urlsplit

from morphlib.cache.failures import explain_failure
from morphlib.cache.transfer import PASSING, Patience, RefusedError, Transfer, UnfinishedError
from morphlib.errors import MorphError, Reason
from morphlib.events import Listener, Status, silence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from urllib3 import BaseHTTPResponse, PoolManager

    from morphlib.cache.connections import Sockets
    from morphlib.cache.signing import TrustedKeys

# The library that makes requests takes longer to import than many runs take: it is imported where a
# request is made.

_BLOCK = 1 << 20
_MAX_REPLY = 64 << 20
_CONNECTIONS = 8
_LATER = (408, 429, 502, 503, 504)  # statuses that ask to come again, whatever the server
_LONGEST_TOLD = 500  # characters of what went wrong, some of which the server sent
_OLD_SERVER = (400, 404, 405, 500, 501)  # what servers without the batched request may answer


@dataclass(frozen=True, slots=True)
class Access:
    """What a server wants to see: `token` goes with what writes, `certificate` (a PEM file with
    its key) with every connection. Its own certificate is checked with the `authorities` (a PEM
    file), those of the machine where there are none."""

    token: str = ""
    certificate: Path | None = None
    authorities: Path | None = None


class RemoteArtifacts:
    """The artifacts of the cache server at `url`."""

    def __init__(
        self,
        url: str,
        *,
        access: Access | None = None,
        trusted: TrustedKeys | None = None,
        listener: Listener = silence,
        patience: Patience | None = None,
    ) -> None:
        """`trusted`: the keys that have to have signed what is used; None if none has to.

        Raises MorphError unless the URL is one of http or https.
        """
        if not _is_server(url):
            raise MorphError(
                f"{url} is not a url of a cache server",
                reason=Reason.CONFIG,
                hint="Write http://HOST:PORT/ (or https).",
            )
        self.url = url.rstrip("/")
        self.trusted = trusted
        self._access = access or Access()
        self._listener = listener
        self._patience = patience or Patience()
        self._guard = threading.Lock()
        self._pool: PoolManager | None = None
        self._sockets: Sockets | None = None
        self._is_dead = False

    @property
    def is_dead(self) -> bool:
        """Whether the server failed, or was stopped using."""
        return self._is_dead

    def stop(self) -> None:
        """Ask no more; what is being asked, fetched or sent fails at once."""
        with self._guard:
            self._is_dead = True
            if self._sockets is not None:
                self._sockets.cut()

    # What is there

    def find(self, names: Sequence[str]) -> frozenset[str]:
        """Which of the files the server has. Failures are told, never raised; one request."""
        if not names or self._is_dead:
            return frozenset()
        try:
            return self.ask(names)
        except MorphError as error:
            self._give_up(error.message)
            return frozenset()
        finally:
            self.close()  # builders are forked next, and would keep connections open

    def ask(self, names: Sequence[str]) -> frozenset[str]:
        """Which of the files the server has. Raises MorphError (CACHE)."""
        try:
            return self._find(names)
        except (OSError, ValueError, RecursionError) as error:
            raise MorphError(
                f"Can't ask {self.url} for artifacts: {error}",
                reason=Reason.CACHE,
                hint="Is that the address, and does the server run?",
            ) from error

    def _find(self, names: Sequence[str]) -> frozenset[str]:
        body = json.dumps(list(names)).encode()
        headers = {"Content-Type": "application/json"}
        status, reply = self._ask(
            "POST", "/1.0/artifacts", body=body, headers=headers, passing=_LATER
        )
        if status == 200:
            found = json.loads(reply)
            if not isinstance(found, dict):
                raise ValueError("the reply is no JSON object")
            return frozenset(name for name in names if found.get(name) is True)
        if status not in _OLD_SERVER:
            raise ValueError(f"it answers {status}")
        # Servers that know no other request are asked one by one, as long as they have something.
        heads = ((name, self._ask("HEAD", _artifact(name))[0]) for name in names)
        return frozenset(name for name, status in heads if status == 200)

    # Fetching

    def fetch(self, name: str, into: Path, *, largest: int | None = None) -> str:
        """Fetch a file to the path `into`, where nothing is yet. Returns its SHA-256 (hex).

        A file of more than `largest` bytes is not taken. Raises MorphError, and leaves nothing at
        `into` then: NOT_FOUND, CACHE for a server that fails or lies, SPACE.
        """
        try:
            with explain_failure(f"store {name}", into.parent), into.open("xb") as file:
                return self._fetch(name, file, largest)
        except BaseException:
            into.unlink(missing_ok=True)
            raise

    def _fetch(self, name: str, file: BinaryIO, largest: int | None) -> str:
        transfer = Transfer(name, file, self._patience, largest=largest)
        for pause in self._pauses():
            if self._is_dead:
                break
            time.sleep(pause)
            try:
                with self._open("GET", _artifact(name), headers=transfer.headers()) as response:
                    if transfer.take(response):
                        return transfer.digest
            except RefusedError as error:
                self._give_up(error.message)
                raise
            except (UnfinishedError, ConnectionError) as error:
                last = str(error)
                self._chat(f"Fetching {name} from {self.url} failed: {last}")
        if self._is_dead:
            last = "the server failed before"
        elif not transfer.began:
            self._give_up(f"Can't fetch artifacts from {self.url}: {last}")
        raise _failed(name, self.url, last)

    # Uploading

    def upload(self, key: str, files: Mapping[str, tuple[Path, str]]) -> None:
        """Send files of a source, each with its SHA-256 (hex); all appear there at once.

        Raises MorphError (CACHE) with what to do.
        """
        try:
            for path, digest in files.values():
                self._stage(path, digest)
            body = json.dumps({name: digest for name, (_, digest) in files.items()}).encode()
            headers = {"Content-Type": "application/json"}
            status, reply = self._ask(
                "POST",
                f"/1.0/sources/{quote(key)}",
                body=body,
                headers=headers,
                attempts=2,
                passing=PASSING,
            )
        except ConnectionError as error:
            self.stop()  # or it would be waited for with each further source
            raise _not_sent(key, self.url, str(error), "Does the server run?") from error
        except (OSError, ValueError) as error:
            raise _not_sent(key, self.url, str(error)) from error
        if status not in (200, 201):
            raise _not_sent(key, self.url, _why(status, reply))

    def _stage(self, path: Path, digest: str) -> None:
        target = f"/1.0/uploads/{digest}"
        attempts = self._patience.attempts
        if self._ask("GET", target, attempts=attempts, passing=_LATER)[0] == 200:
            return
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
            status, reply = self._ask(
                "PUT", target, body=file, headers=headers, attempts=2, passing=PASSING
            )
        if status not in (200, 201):
            raise OSError(_why(status, reply))

    # Requests

    def _ask(
        self,
        method: str,
        target: str,
        *,
        body: Any = None,
        headers: Mapping[str, str] = {},
        attempts: int = 1,
        passing: Collection[int] = (),
    ) -> tuple[int, bytes]:
        """A request with a small reply: its status and body. Raises OSError, ValueError.

        After answers that are `passing` it is made again, as often as there is patience for;
        where no answer comes, only `attempts` times.
        """
        for pause in self._pauses():
            time.sleep(pause)
            if hasattr(body, "seek"):
                body.seek(0)
            status, reply = self._ask_once(method, target, body, headers, attempts)
            if status not in passing:
                break
        return status, reply

    def _ask_once(
        self, method: str, target: str, body: Any, headers: Mapping[str, str], attempts: int
    ) -> tuple[int, bytes]:
        for pause in self._pauses(attempts):
            time.sleep(pause)
            try:
                with self._open(method, target, body=body, headers=headers) as response:
                    return response.status, self._read_all(response)
            except OSError as error:
                last = error
                if self._is_dead:
                    break
                if hasattr(body, "seek"):
                    body.seek(0)
        raise last

    def _read_all(self, response: BaseHTTPResponse) -> bytes:
        since = time.monotonic()
        reply = bytearray()
        while block := response.read1(_BLOCK):
            reply += block
            if len(reply) > _MAX_REPLY:
                raise ValueError("the reply is too long")
            took = time.monotonic() - since
            if self._patience.is_too_slow(len(reply), took):
                raise ConnectionError(f"it is too slow: {len(reply)} bytes in {took:.0f} s")
        return bytes(reply)

    @contextmanager
    def _open(
        self, method: str, target: str, *, body: Any = None, headers: Mapping[str, str] = {}
    ) -> Iterator[BaseHTTPResponse]:
        """Raises OSError for whatever goes wrong on the way."""
        from urllib3.exceptions import HTTPError

        given = {"Accept-Encoding": "identity", **headers}
        if self._access.token and not target.startswith("/1.0/artifacts"):
            given["Authorization"] = f"Bearer {self._access.token}"
        try:
            response = self._pool_of().request(
                method,
                self.url + target,
                body=body,
                headers=given,
                retries=False,
                redirect=False,
                preload_content=False,
            )
            try:
                yield response
            except BaseException:
                response.close()
                raise
            finally:
                response.release_conn()
        except HTTPError as error:
            raise ConnectionError(_plain(error)) from error

    def _pool_of(self) -> PoolManager:
        from morphlib.cache.connections import Sockets, make_pool

        with self._guard:
            if self._is_dead:
                raise ConnectionError("it is left alone since something failed")
            if self._pool is None:
                self._sockets = Sockets()
                self._pool = make_pool(
                    self._sockets,
                    connections=_CONNECTIONS,
                    connect=self._patience.connect,
                    read=self._patience.read,
                    **self._tls(),
                )
            return self._pool

    def _tls(self) -> dict[str, Any]:
        certificate, authorities = self._access.certificate, self._access.authorities
        found = {"cert_file": certificate, "ca_certs": authorities}
        return {name: os.fspath(path) for name, path in found.items() if path is not None}

    def _pauses(self, attempts: int | None = None) -> Iterator[float]:
        count = self._patience.attempts if attempts is None else attempts
        yield 0.0
        for number in range(count - 1):
            yield self._patience.pause * 2**number

    def close(self) -> None:
        """Close connections; new ones are made when they are needed."""
        with self._guard:
            if self._pool is not None:
                self._pool.clear()
                self._pool = None

    def _give_up(self, text: str) -> None:
        with self._guard:
            told, self._is_dead = self._is_dead, True
        if not told:
            self.warn(f"{text}; going on without it")

    def warn(self, text: str) -> None:
        """Tell something of the server to whoever uses it."""
        self._listener(Status(text=text, level="warning"))

    def _chat(self, text: str) -> None:
        self._listener(Status(text=text, level="chatty"))


def _is_server(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:  # such as brackets that are not closed
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _artifact(name: str) -> str:
    return f"/1.0/artifacts?filename={quote(name, safe='/')}"


def _plain(error: Exception) -> str:
    """What went wrong, without the names of objects that the library puts before it."""
    text = str(error)
    return (text.rpartition(">: ")[2] or text or type(error).__name__)[:_LONGEST_TOLD]


def _why(status: int, reply: bytes) -> str:
    try:
        told = json.loads(reply)
        text = str(told["error"]) if isinstance(told, dict) and "error" in told else ""
    except (ValueError, RecursionError):
        text = ""
    return f"it answers {status}" + (f": {text[:_LONGEST_TOLD]}" if text else "")


def _failed(name: str, url: str, why: str) -> MorphError:
    return MorphError(
        f"Failed to get the artifact {name} from the artifact cache {url}: {why}",
        reason=Reason.CACHE,
    )


def _not_sent(key: str, url: str, why: str, hint: str = "") -> MorphError:
    return MorphError(
        f"can't send what was built as {key[:12]} to {url}: {why}",
        reason=Reason.CACHE,
        hint=hint
        or "Does the server let you write? It has to run with --enable-writes, and wants a token "
        "unless it is for its own machine alone.",
    )
