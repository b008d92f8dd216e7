"""How long steps took on workers, kept for the order in which later builds do them."""

from __future__ import annotations

from distbuild.connection import reactor
from distbuild.daemon import in_thread
from distbuild.graphs import GraphSource
from morphlib.cache.records import BuildRecord, Records

#: Far more than run at a time.
_MOST_JOBS = 20_000


class Durations:
    """Measures jobs from their start until they are built; transfers do not count."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._begun: dict[str, tuple[GraphSource, float]] = {}

    def begin(self, job: str, source: GraphSource) -> None:
        self._begun[job] = (source, reactor.seconds())
        if len(self._begun) > _MOST_JOBS:  # of lost workers, nobody tells how theirs ended
            del self._begun[next(iter(self._begun))]

    def elapsed(self, job: str) -> float:
        """Seconds since a job began; 0 for one that is over, or began before a restart."""
        begun = self._begun.get(job)
        return 0.0 if begun is None else reactor.seconds() - begun[1]

    def end(self, job: str, *, is_built: bool) -> None:
        """A job ended. Of those that failed, nothing is to be learnt."""
        begun = self._begun.pop(job, None)
        if begun is not None and is_built:
            source, since = begun
            record = BuildRecord(
                source.key, source.name, source.kind.value, reactor.seconds() - since
            )
            in_thread(self._records.add, record)
