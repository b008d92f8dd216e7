"""The newest output of each job, as its worker sent it. In memory, and no more than fits there."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

#: Bytes of one job, and of all together.
MOST_OF_ONE, MOST_OF_ALL = 1 << 20, 64 << 20


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What is kept of a log: `data` begins at byte `start` of all that came."""

    start: int
    data: bytes

    @property
    def end(self) -> int:
        return self.start + len(self.data)


@dataclass(slots=True)
class _Log:
    pieces: deque[bytes] = field(default_factory=deque)
    start: int = 0
    size: int = 0


class JobLogs:
    """Old output goes first within a job. Of jobs, those go that were silent for longest."""

    def __init__(self, of_one: int = MOST_OF_ONE, of_all: int = MOST_OF_ALL) -> None:
        self._of_one, self._of_all = of_one, of_all
        self._logs: dict[str, _Log] = {}
        self.size = 0

    def add(self, job: str, data: bytes, offset: int | None = None) -> bool:
        """`offset` counts the bytes that the job had said before, where that is known. Says whether
        this is new: workers repeat what they keep to a controller that was away."""
        log = self._logs.get(job)
        if not data or (log is not None and offset is not None and offset < log.start + log.size):
            return False
        log = self._logs.pop(job, None) or _Log()
        self._logs[job] = log  # the last is that which spoke last
        if offset is not None and offset > log.start + log.size:  # something was lost in between
            self.size -= log.size
            log.pieces.clear()
            log.start, log.size = offset, 0
        log.pieces.append(data)
        log.size += len(data)
        self.size += len(data)
        while log.size > self._of_one and len(log.pieces) > 1:
            self._drop(log)
        while self.size > self._of_all and len(self._logs) > 1:
            oldest = next(iter(self._logs))
            self.size -= self._logs.pop(oldest).size
        return True

    def _drop(self, log: _Log) -> None:
        gone = len(log.pieces.popleft())
        log.start += gone
        log.size -= gone
        self.size -= gone

    def end(self, job: str) -> int:
        """How many bytes came from a job, as far as is known; 0 from one that said nothing."""
        log = self._logs.get(job)
        return 0 if log is None else log.start + log.size

    def read(self, job: str, since: int = 0) -> Excerpt:
        """What is kept from byte `since` on."""
        log = self._logs.get(job)
        if log is None:
            return Excerpt(0, b"")
        skipped = max(0, since - log.start)
        data = b"".join(log.pieces)
        return Excerpt(log.start + min(skipped, len(data)), data[skipped:])
