"""Timestamped lines, for what is no terminal and for those who like them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from morphlib.events import (
    AnyEvent,
    BuildOutput,
    SourceFailed,
    SourceFinished,
    SourceStarted,
)
from morphlib.progress.lines import Line, describe
from morphlib.text import make_printable


class PlainReporter:
    """Writes `YYYY-MM-DD HH:MM:SS TEXT` in UTC, flushed after each line.

    Lines about a source that is being built carry the prefix `[Build I/N] [SOURCE] `. With `quiet`
    only errors are written; `debug` adds chatty lines and overrides `quiet`. Warnings go to
    `warn`. The whole log of a failed build is written too, unless it was shown as it came
    (`logs_shown`).
    """

    def __init__(
        self,
        output: TextIO,
        warn: Callable[[str], None],
        *,
        quiet: bool = False,
        debug: bool = False,
        logs_shown: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._output = output
        self._warn = warn
        self._levels = {"error"}
        if debug or not quiet:
            self._levels.add("normal")
        if debug:
            self._levels.add("chatty")
        self._logs_shown = logs_shown
        self._clock = clock
        self._prefixes: dict[str, str] = {}

    def __call__(self, event: AnyEvent) -> None:
        # Others build side by side, and not in an order that would count.
        if isinstance(event, SourceStarted | SourceFinished) and not event.worker:
            prefix = f"[Build {event.index}/{event.total}] [{event.name}] "
            self._prefixes[event.name] = prefix
        if isinstance(event, BuildOutput):
            self._output.write(event.text)
            self._output.flush()
        for number, line in enumerate(describe(event)):
            # What helps to mend a failure comes last, where it is seen.
            if number == 1 and isinstance(event, SourceFailed) and not self._logs_shown:
                self._copy_log(event.log)
            if line.level == "warning":
                self._warn(line.text)
            elif line.level in self._levels:
                self._write(line)

    def close(self) -> None:
        self._output.flush()

    def _write(self, line: Line) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self._clock()))
        prefix = self._prefixes.get(line.source, "")
        self._output.write(f"{stamp} {prefix}{make_printable(line.text)}\n")
        self._output.flush()

    def _copy_log(self, log: str) -> None:
        try:
            # A log holds whatever a build printed; what is shown is always valid text.
            with Path(log).open(encoding="utf-8", errors="backslashreplace") as lines:
                for line in lines:
                    self._output.write(line)
        except OSError as error:
            self._warn(f"can't read build log {log}: {error.strerror}")
            return
        self._output.write("\n")
        self._output.flush()
