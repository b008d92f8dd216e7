"""What threads do beside the builds: fetching sources or artifacts, sending artifacts.

Each of the three has threads of its own: a slow server must not keep sources from being fetched.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Literal

from morphlib.errors import MorphError, Reason
from morphlib.graph.model import Source

What = Literal["source", "artifacts", "sent"]
#: Sources for which it is done at a time.
MOST: Mapping[What, int] = {"source": 4, "artifacts": 4, "sent": 4}
_DOING: Mapping[What, tuple[str, Reason]] = {
    "source": ("fetch", Reason.SOURCE),
    "artifacts": ("fetch", Reason.CACHE),
    "sent": ("send", Reason.CACHE),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How something went; `duration` in seconds."""

    what: What
    source: str  # its id
    error: MorphError | None
    duration: float


class Beside:
    """The threads of one build, while it is entered. `wakeup` can be read from when there is
    something to collect."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._outcomes: SimpleQueue[Outcome] = SimpleQueue()
        self._threads: dict[What, ThreadPoolExecutor] = {}
        self.wakeup, self._wake = -1, -1

    def __enter__(self) -> Beside:
        self.wakeup, self._wake = os.pipe()
        self._stack.callback(os.close, self.wakeup)
        self._stack.callback(os.close, self._wake)
        for what, count in MOST.items():
            threads = self._threads[what] = ThreadPoolExecutor(count, thread_name_prefix=what)
            self._stack.callback(threads.shutdown, wait=True, cancel_futures=True)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def start(self, what: What, source: Source, work: Callable[[Source], object]) -> None:
        """Do `work` for a source; `collect` tells how that went."""
        self._threads[what].submit(self._do, what, source, work)

    def _do(self, what: What, source: Source, work: Callable[[Source], object]) -> None:
        started = time.monotonic()
        error: MorphError | None = None
        try:
            work(source)
        except MorphError as caught:
            error = caught
        except Exception as caught:
            doing, reason = _DOING[what]
            message = f"can't {doing} {source.name}: {type(caught).__name__}: {caught}"
            error = MorphError(message, reason=reason)
        self._outcomes.put(Outcome(what, source.id, error, time.monotonic() - started))
        # Where the build ended meanwhile nobody waits for this any more.
        with contextlib.suppress(OSError):
            os.write(self._wake, b".")

    def collect(self) -> Iterator[Outcome]:
        """What ended since."""
        while not self._outcomes.empty():
            outcome = self._outcomes.get()
            os.read(self.wakeup, 1)
            yield outcome
