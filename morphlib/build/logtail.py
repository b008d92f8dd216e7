"""Showing a build log while it grows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

_INTERVAL = 0.1  # seconds between looks at the log
_MOST = 1 << 16  # bytes that are told at once


class LogTail:
    """Tells what is appended to a file, while the context lasts, in whole lines.

    `tell` is called with text in which bytes that are no UTF-8 stand as backslash escapes, also
    from a thread. `catch_up` tells at once what is there.
    """

    def __init__(self, log: Path, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._rest = b""
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._file = log.open("rb")
        self._thread = threading.Thread(target=self._follow, name="log", daemon=True)

    def __enter__(self) -> LogTail:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        with self._file:
            self.catch_up()
        if self._rest:
            self._tell_bytes(self._rest + b"\n")

    def catch_up(self) -> None:
        with self._lock:
            while data := self._file.read(_MOST):
                whole, newline, rest = (self._rest + data).rpartition(b"\n")
                # A line that does not end is shown in pieces.
                told, self._rest = (
                    (whole + newline, rest) if len(rest) < _MOST else (whole + newline + rest, b"")
                )
                if told:
                    self._tell_bytes(told)

    def _tell_bytes(self, data: bytes) -> None:
        self._tell(data.decode("utf-8", "backslashreplace"))

    def _follow(self) -> None:
        while not self._ended.wait(_INTERVAL):
            self.catch_up()
