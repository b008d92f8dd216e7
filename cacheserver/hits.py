"""What was asked for, and whether it was there, for people to look at.

Counts are kept in a hidden file among the artifacts, which several servers of one directory share.
One that may not write there counts since it was started.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import Counter as Downloads
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from cacheserver.catalogue import KINDS
from cacheserver.tallies import (
    MOST,
    Label,
    Rate,
    Tallies,
    Tally,
    common_name,
    decode_tallies,
    encode_tallies,
    fade,
    merge,
    rates,
)
from morphlib.cache.failures import explain_failure
from morphlib.cache.manifest import read_file
from morphlib.cache.store import ArtifactStore
from morphlib.cache.temporaries import remove_files
from morphlib.errors import MorphError

_log = logging.getLogger("morph.cacheserver")

FILE = ".hits"
_ONE_QUESTION = 600.0  # seconds in which further files of a source belong to the same question
_REMEMBERED = 10_000  # sources asked for lately
_LONGEST = 200  # characters of a name
_NAME = re.compile(rf"([0-9a-f]{{64}})\.({'|'.join(KINDS)})\.(.+)")


class Hits:
    """Counts questions after the artifacts of one store."""

    def __init__(self, store: ArtifactStore, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._guard = threading.Lock()
        self._hits = self._misses = 0
        self._downloads: Downloads[str] = Downloads()
        self._lately: OrderedDict[str, float] = OrderedDict()
        self._fresh: dict[Label, dict[int, Tally]] = {}
        self._saved: Tallies = {}
        try:
            self._saved = self._read()
        except MorphError as error:
            _log.warning("%s", error)

    # Counting

    def add_question(self, found: Mapping[str, bool]) -> None:
        """Somebody asked for many files: name -> is it there? A source counts as a whole."""
        asked: dict[tuple[str, str], list[str]] = {}
        lacking: set[str] = set()
        for name, is_there in found.items():
            match = _NAME.fullmatch(name)
            if match:
                asked.setdefault((match[1], match[2]), []).append(match[3])
                if not is_there:
                    lacking.add(match[1])
        with self._guard:
            there = sum(found.values())
            self._hits += there
            self._misses += len(found) - there
            for (key, kind), names in asked.items():
                self._remember(key)
                self._count(
                    Label(kind, common_name(names) or min(names)), is_there=key not in lacking
                )

    def add_file(self, name: str, *, is_there: bool) -> None:
        """Somebody asked for one file, which may be the next of a source that was counted."""
        match = _NAME.fullmatch(name)
        with self._guard:
            self._hits += is_there
            self._misses += not is_there
            if match and not self._is_recent(match[1]):
                self._remember(match[1])
                self._count(Label(match[2], match[3]), is_there=is_there)

    def add_download(self, key: str) -> None:
        with self._guard:
            self._downloads[key] += 1

    def _count(self, label: Label, *, is_there: bool) -> None:
        name = label.name
        if not name.isprintable() or not 0 < len(name) <= _LONGEST:
            return
        if label not in self._fresh and len(self._fresh) >= MOST:
            return
        days = self._fresh.setdefault(label, {})
        today = self._today()
        hits, misses = days.get(today, Tally(0, 0))
        days[today] = Tally(hits + is_there, misses + (not is_there))

    def _is_recent(self, key: str) -> bool:
        since = self._lately.get(key)
        return since is not None and abs(self._clock() - since) < _ONE_QUESTION

    def _remember(self, key: str) -> None:
        self._lately[key] = self._clock()
        self._lately.move_to_end(key)
        if len(self._lately) > _REMEMBERED:
            self._lately.popitem(last=False)

    def _today(self) -> int:
        return int(self._clock() // 86400)

    # Looking

    @property
    def rate(self) -> float | None:
        """Which part of the files that were asked for since the start was there; None before."""
        with self._guard:
            asked = self._hits + self._misses
            return self._hits / asked if asked else None

    def downloads(self) -> Downloads[str]:
        """How often files of each source were handed out since the start, by key."""
        with self._guard:
            return self._downloads.copy()

    def rates(self, known: Collection[Label]) -> dict[Label, Rate]:
        """The counts of the last days by source, of which `known` are the names."""
        with self._guard:
            tallies = fade(merge(self._saved, self._fresh), self._today())
        return rates(tallies, known)

    # Keeping

    def save(self) -> None:
        """Add what was counted to the file. Raises MorphError, and has forgotten nothing then."""
        with self._guard:
            fresh, self._fresh = self._fresh, {}
        if not fresh:
            return
        try:
            saved = self._add_to_file(fresh)
        except BaseException:
            with self._guard:
                self._fresh = merge(fresh, self._fresh)
            raise
        with self._guard:
            self._saved = saved

    def _add_to_file(self, fresh: Tallies) -> Tallies:
        with self._store.lock():
            saved = fade(merge(self._read(), fresh), self._today())
            path = self._store.temporary()
            try:
                with explain_failure("keep counts", self._store.directory):
                    path.write_bytes(encode_tallies(saved))
                    path.rename(self._path)
            except BaseException:
                remove_files([path])
                raise
        return saved

    def _read(self) -> Tallies:
        with explain_failure("read counts", self._store.directory):
            raw = read_file(str(self._path))
        return decode_tallies(raw) if raw is not None else {}

    @property
    def _path(self) -> Path:
        return self._store.directory / FILE

    def try_to_save(self) -> None:
        """`save`, where failing to is no reason to do anything."""
        try:
            self.save()
        except MorphError as error:
            _log.debug("%s", error)
