"""One file on its way from a cache server, over as many attempts as it takes."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from morphlib.cache.digests import parse_digest
from morphlib.errors import MorphError, Reason

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

PASSING = (408, 429, 500, 502, 503, 504)  # statuses of what may go better a moment later
_BLOCK = 1 << 20
_LENGTH = re.compile(r"[0-9]{1,18}")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server is waited for. Times are seconds.

    A transfer is given up once it took `slow_after` and brought less than `slowest` bytes a second.
    """

    connect: float = 5.0
    read: float = 30.0
    attempts: int = 4
    pause: float = 0.25  # before the second attempt, and twice as long before each further one
    slow_after: float = 60.0
    slowest: int = 1024

    def is_too_slow(self, size: int, took: float) -> bool:
        return took > self.slow_after and size < took * self.slowest


class UnfinishedError(Exception):
    """A transfer broke off; what came stays and the next attempt goes on from there."""


class RefusedError(MorphError):
    """No further attempt makes sense."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"can't fetch {name}: {why}", reason=Reason.CACHE)


class TooLargeError(MorphError):
    """A file of more bytes than are wanted."""

    def __init__(self, name: str, size: int) -> None:
        super().__init__(f"can't fetch {name}: {size} bytes are too many", reason=Reason.CACHE)


class Transfer:
    """One file on its way, over as many attempts as it takes."""

    def __init__(
        self,
        name: str,
        file: BinaryIO,
        patience: Patience,
        clock: Callable[[], float] = time.monotonic,
        *,
        largest: int | None = None,
    ) -> None:
        self.name = name
        self.began = False
        self.digest = ""
        self._file = file
        self._patience = patience
        self._clock = clock
        self._largest = largest
        self._since = clock()
        self._tag = ""
        self._start_anew()

    def _start_anew(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._size = 0
        self._hash = hashlib.sha256()

    def headers(self) -> dict[str, str]:
        """Those of the next request: what is here already is not asked for again."""
        if not self._size or not self._tag:
            return {}
        return {"Range": f"bytes={self._size}-", "If-Range": self._tag}

    def take(self, response: BaseHTTPResponse) -> bool:
        """Take in a reply. Returns True once the file is whole and what its digest says.

        Raises UnfinishedError if another attempt may go better, MorphError if not.
        """
        if response.status == 404:
            raise MorphError(f"{self.name} is not on the server", reason=Reason.NOT_FOUND)
        if response.status in PASSING:
            raise UnfinishedError(f"it answers {response.status}")
        total = self._begin(response)
        if self._largest is not None and total > self._largest:
            # Whoever writes to the server may have put it there: it may have other things.
            raise TooLargeError(self.name, total)
        self.began = True
        while block := response.read1(_BLOCK):
            self._file.write(block)
            self._hash.update(block)
            self._size += len(block)
            if self._size > total:
                raise RefusedError(
                    self.name, f"the server sends more than the {total} bytes it told"
                )
            self._check_pace()
        self._file.flush()
        if self._size != total:
            raise UnfinishedError(f"{self._size} of {total} bytes came")
        if self._hash.hexdigest() != self.digest:
            digest = self._hash.hexdigest()
            self._start_anew()
            raise UnfinishedError(f"its SHA-256 is {digest}, not {self.digest} as the server says")
        return True

    def _begin(self, response: BaseHTTPResponse) -> int:
        """How long the whole file is; what came before is dropped if it does not go on there."""
        digest = parse_digest(response.headers.get("Repr-Digest", ""))
        if response.status not in (200, 206) or digest is None:
            what = f"answers {response.status}" if digest is not None else "tells no digest"
            raise RefusedError(self.name, f"the server {what}")
        if response.status == 206:
            match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if match is None or int(match[1]) != self._size or digest != self.digest:
                self._start_anew()
                self._tag = ""
                raise UnfinishedError("the file changed on the server meanwhile")
            return int(match[2])
        length = response.headers.get("Content-Length", "")
        if not _LENGTH.fullmatch(length):
            raise RefusedError(self.name, "the server does not say how long it is")
        self._start_anew()
        self.digest = digest
        self._tag = response.headers.get("ETag", "")
        return int(length)

    def _check_pace(self) -> None:
        took = self._clock() - self._since
        if self._patience.is_too_slow(self._size, took):
            raise RefusedError(
                self.name, f"the server is too slow: {self._size} bytes in {took:.0f} s"
            )
