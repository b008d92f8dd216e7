"""What a build of one source took, phase by phase."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from morphlib.build.metadata import encode
from morphlib.definitions.models import STEPS, Kind

#: Phases that a source's times always name, also where nothing was done in them.
_ALWAYS = {
    Kind.CHUNK: (*STEPS, "determine-splits", "create-chunks"),
    Kind.STRATUM: ("check-chunks", "create-chunk-list"),
    Kind.SYSTEM: ("unpack-strata",),
}


class Recorder:
    """Times phases and adds up what sandboxed commands used.

    CPU seconds are those of this process and of the commands; memory is the largest of any command,
    in bytes.
    """

    def __init__(self, kind: Kind, tell_step: Callable[[str], None]) -> None:
        self._kind = kind
        self._tell_step = tell_step
        self._started = time.time()
        self._own_cpu = _own_cpu()
        self._commands_cpu = 0.0
        self.peak_memory = 0
        self.phases: dict[str, tuple[float, float]] = {}  # name -> start, stop

    @contextmanager
    def phase(self, name: str, *, quiet: bool = False) -> Iterator[None]:
        if not quiet:
            self._tell_step(name)
        start = time.time()
        try:
            yield
        finally:
            self.phases[name] = (start, time.time())

    def add_command(self, cpu: float, peak_memory: int) -> None:
        self._commands_cpu += cpu
        self.peak_memory = max(self.peak_memory, peak_memory)

    @property
    def duration(self) -> float:
        return time.time() - self._started

    @property
    def cpu(self) -> float:
        return _own_cpu() - self._own_cpu + self._commands_cpu

    def steps(self) -> dict[str, float]:
        return {name: stop - start for name, (start, stop) in self.phases.items()}

    def to_json(self, **more: Any) -> bytes:
        """The content of KEY.meta: when each phase began and ended, and what more there is to keep
        of a build that must not be in what it made."""
        now = time.time()
        phases = dict.fromkeys(_ALWAYS[self._kind], (now, now))
        phases.update(self.phases)
        phases["overall-build"] = (self._started, now)
        document = {
            "build-times": {
                name: {
                    "start": _local_time(start),
                    "stop": _local_time(stop),
                    "delta": f"{stop - start:.4f}",
                }
                for name, (start, stop) in phases.items()
            },
            "cpu": round(self.cpu, 4),
            "peak-memory": self.peak_memory,
            "host": os.uname().nodename,
            **more,
        }
        return encode(document)


def _own_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _local_time(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1e6):06d}"
