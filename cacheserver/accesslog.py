"""The access log: one JSON object a line for each request, when it is over."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from cacheserver.serving import Finished
from morphlib.errors import MorphError, Reason

_MAX_TEXT = 1000  # characters of what clients send


class AccessLog:
    """Writes to a file that is open already (`stream`), or to one at `path`."""

    def __init__(self, path: Path | None, stream: BinaryIO | None) -> None:
        """Raises MorphError (CONFIG) if the file can't be written."""
        self._path = path
        self._guard = threading.Lock()
        self._stream = stream
        self.reopen()

    def reopen(self) -> None:
        """Open the file at the path anew, after it was moved away."""
        if self._path is None:
            return
        try:
            fresh = self._path.open("ab", buffering=0)
        except OSError as error:
            raise MorphError(
                f"can't write {self._path}: {error.strerror}", reason=Reason.CONFIG
            ) from error
        with self._guard:
            old, self._stream = self._stream, fresh
        if old is not None:
            old.close()

    def write(self, finished: Finished) -> None:
        """A log that can't be written hurts nobody."""
        line = msgspec.json.encode(describe(finished, time.time())) + b"\n"
        with self._guard:
            if self._stream is not None:
                try:
                    self._stream.write(line)
                    self._stream.flush()
                except (OSError, ValueError):
                    pass


def describe(finished: Finished, now: float) -> dict[str, Any]:
    """What the log tells of a request. Absent parts are left out; no token ever gets in."""
    environ = finished.environ
    entry = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        "client": environ.get("REMOTE_ADDR", ""),
        "forwarded": environ.get("HTTP_X_FORWARDED_FOR", ""),  # as a proxy says, or anybody
        "method": environ.get("REQUEST_METHOD", ""),
        "path": environ.get("PATH_INFO", ""),
        "query": environ.get("QUERY_STRING", ""),
        "status": finished.status,
        "sent": finished.sent,
        "seconds": round(finished.seconds, 6),
        "received": int(environ.get("CONTENT_LENGTH") or 0),
        "range": environ.get("HTTP_RANGE", ""),
        "writer": environ.get("morph.writer", ""),
        "agent": environ.get("HTTP_USER_AGENT", ""),
        "why": environ.get("morph.why", ""),
    }
    shown = {
        name: value[:_MAX_TEXT] if isinstance(value, str) else value
        for name, value in entry.items()
        if value not in ("", 0) or name in ("status", "sent")
    }
    return shown if finished.complete else {**shown, "incomplete": True}
