"""Records of builds: how long each source took, and what it needed, for estimates and ordering.

An SQLite database beside the cache. It is a convenience: a build never fails for its sake. What
can't be written is told once and left; a damaged database is moved aside and a new one begun.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from morphlib.cache.locks import Lock, lock
from morphlib.errors import MorphError
from morphlib.events import Listener, Status, silence

# Loading SQLite takes longer than resolving a small system, and a build that has nothing to do
# needs no records: functions that use the module import it.
if TYPE_CHECKING:
    import sqlite3

SCHEMA_VERSION = 1

_KEPT_PER_NAME = 50
_RECENT = 5  # builds of which an estimate takes the median
_BUSY_SECONDS = 10.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS builds (
    id INTEGER PRIMARY KEY,
    cache_key TEXT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    finished REAL NOT NULL,     -- seconds since the epoch
    succeeded INTEGER NOT NULL,
    duration REAL NOT NULL,     -- seconds, as are cpu and the values of steps
    cpu REAL NOT NULL,
    peak_memory INTEGER NOT NULL,  -- bytes
    steps TEXT NOT NULL         -- JSON: {step: seconds}
);
CREATE INDEX IF NOT EXISTS builds_by_name ON builds (kind, name, id);
CREATE INDEX IF NOT EXISTS builds_by_key ON builds (cache_key, id);
"""
_ESTIMATE = """
WITH wanted AS (
    SELECT DISTINCT json_extract(value, '$[0]') AS name, json_extract(value, '$[1]') AS cache_key
    FROM json_each(:wanted)
), found AS (
    SELECT wanted.name, duration, builds.cache_key = wanted.cache_key AS exact,
        ROW_NUMBER() OVER (
            PARTITION BY wanted.name, builds.cache_key = wanted.cache_key ORDER BY id DESC
        ) AS age
    FROM wanted JOIN builds ON builds.kind = :kind AND builds.name = wanted.name
    WHERE succeeded
)
SELECT name, duration, exact FROM found WHERE age <= :recent
"""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """One build of one source. Times are seconds, `finished` since the epoch, memory bytes."""

    key: str
    name: str
    kind: str
    duration: float
    cpu: float = 0.0
    peak_memory: int = 0
    steps: Mapping[str, float] = field(default_factory=dict)
    succeeded: bool = True
    finished: float = field(default_factory=time.time)


class Records:
    """The database at `path`, made when first needed. Any number of processes may share it."""

    def __init__(self, path: Path, listener: Listener = silence) -> None:
        self.path = path
        self._listener = listener
        self._guard = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._pid = 0
        self._usable = True

    def add(self, record: BuildRecord) -> None:
        """Keep a record; those of the same kind and name beyond the last 50 are forgotten."""

        def insert(connection: sqlite3.Connection) -> None:
            steps = msgspec.json.encode(dict(record.steps)).decode()
            with connection:
                connection.execute(
                    "INSERT INTO builds (cache_key, name, kind, finished, succeeded, duration, cpu,"
                    " peak_memory, steps) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        record.key,
                        record.name,
                        record.kind,
                        record.finished,
                        record.succeeded,
                        record.duration,
                        record.cpu,
                        record.peak_memory,
                        steps,
                    ),
                )
                connection.execute(
                    "DELETE FROM builds WHERE kind = ? AND name = ? AND id <= (SELECT id FROM"
                    " builds WHERE kind = ? AND name = ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
                    (record.kind, record.name, record.kind, record.name, _KEPT_PER_NAME),
                )

        self._use(insert, None, create=True)

    def estimate(self, wanted: Iterable[tuple[str, str]], kind: str = "chunk") -> dict[str, float]:
        """Seconds that building each (name, key) should take, by name; unknown ones are left out.

        Builds of exactly that key decide if there are any, else other builds of that name: of the
        last five, the median. Failed builds do not count.
        """
        pairs = list(wanted)
        if not pairs:
            return {}
        parameters = {
            "wanted": msgspec.json.encode(pairs).decode(),
            "kind": kind,
            "recent": _RECENT,
        }

        def select(connection: sqlite3.Connection) -> dict[str, float]:
            exact: dict[str, list[float]] = {}
            similar: dict[str, list[float]] = {}
            for name, duration, is_exact in connection.execute(_ESTIMATE, parameters):
                (exact if is_exact else similar).setdefault(name, []).append(duration)
            chosen = similar | exact
            return {name: statistics.median(times) for name, times in chosen.items()}

        return self._use(select, {})

    def history(self, name: str, kind: str = "chunk") -> list[BuildRecord]:
        """All kept records of a source's builds, the latest first."""

        def select(connection: sqlite3.Connection) -> list[BuildRecord]:
            rows = connection.execute(
                "SELECT cache_key, name, kind, duration, cpu, peak_memory, steps, succeeded,"
                " finished FROM builds WHERE kind = ? AND name = ? ORDER BY id DESC",
                (kind, name),
            )
            return [_record_of(row) for row in rows]

        return self._use(select, [])

    def close(self) -> None:
        with self._guard:
            self._disconnect()

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # The database

    def _use(
        self, operation: Callable[[sqlite3.Connection], _T], otherwise: _T, *, create: bool = False
    ) -> _T:
        """The result of `operation`, or `otherwise` if there is no database to be had."""
        with self._guard:
            if not self._usable or not (create or self.path.exists()):
                return otherwise
            import sqlite3

            try:
                try:
                    return operation(self._connect())
                except sqlite3.DatabaseError as error:
                    if not _is_damage(error):
                        raise
                    self._move_aside()
                    return operation(self._connect())
            except (sqlite3.Error, OSError, MorphError, msgspec.DecodeError) as error:
                self._give_up(error)
                return otherwise

    def _connect(self) -> sqlite3.Connection:
        if self._connection is not None and self._pid == os.getpid():
            return self._connection
        import sqlite3

        # A connection must not be used across a fork: a child that inherited one opens its own.
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self.path, timeout=_BUSY_SECONDS, check_same_thread=False, isolation_level="IMMEDIATE"
        )
        try:
            # Two processes that begin a database at once would find it locked, without waiting.
            with self._only():
                self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection, self._pid = connection, os.getpid()
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        import sqlite3

        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise sqlite3.NotSupportedError(f"it was made by a later Morph (format {version})")
        connection.execute("PRAGMA synchronous = NORMAL")
        if version < SCHEMA_VERSION:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )

    def _disconnect(self) -> None:
        if self._connection is not None and self._pid == os.getpid():
            self._connection.close()
        self._connection = None

    def _move_aside(self) -> None:
        """Give way to a fresh database, unless another process did so just now."""
        self._disconnect()
        with self._only():
            if not self._is_damaged():
                return
            aside = self.path.with_name(self.path.name + ".damaged")
            self.path.rename(aside)
            for suffix in ("-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        self._tell(
            f"the records of earlier builds were damaged; they are now in {aside}, and new ones "
            "are begun"
        )

    def _only(self) -> AbstractContextManager[Lock]:
        """One process at a time makes or replaces the database."""
        return lock(self.path.with_name(self.path.name + ".lock"), remove=True)

    def _is_damaged(self) -> bool:
        if not self.path.exists():
            return False
        import sqlite3

        connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS)
        try:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            return bool(verdict != "ok")
        except sqlite3.DatabaseError as error:
            return _is_damage(error)
        finally:
            connection.close()

    def _give_up(self, error: Exception) -> None:
        self._usable = False
        self._disconnect()
        self._tell(f"records of builds in {self.path} can't be used: {error}")

    def _tell(self, text: str) -> None:
        self._listener(Status(text=text, level="warning"))


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Is the database itself broken, rather than busy, full or out of reach?"""
    import sqlite3

    code: int = getattr(error, "sqlite_errorcode", 0)  # not set on errors that are our own
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _record_of(row: tuple[str, str, str, float, float, int, str, int, float]) -> BuildRecord:
    key, name, kind, duration, cpu, peak_memory, steps, succeeded, finished = row
    return BuildRecord(
        key=key,
        name=name,
        kind=kind,
        duration=duration,
        cpu=cpu,
        peak_memory=peak_memory,
        steps=msgspec.json.decode(steps, type=dict[str, float]),
        succeeded=bool(succeeded),
        finished=finished,
    )
