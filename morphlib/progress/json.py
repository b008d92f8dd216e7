"""The event stream as JSON, one object a line, for programs that watch a build."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

import msgspec

from morphlib.events import AnyEvent
from morphlib.text import make_valid


class JsonReporter:
    """Writes each event as one line of JSON with `time`, seconds since the epoch, in front.

    All events are written, whether quiet or not: who reads them can choose.
    """

    def __init__(self, output: TextIO, *, clock: Callable[[], float] = time.time) -> None:
        self._output = output
        self._clock = clock
        self._encoder = msgspec.json.Encoder()

    def __call__(self, event: AnyEvent) -> None:
        fields = {"time": round(self._clock(), 3), **msgspec.to_builtins(event)}
        try:
            line = self._encoder.encode(fields)
        except UnicodeEncodeError:
            line = self._encoder.encode(make_valid(fields))
        self._output.write(line.decode() + "\n")
        self._output.flush()

    def close(self) -> None:
        self._output.flush()
