"""Points at which a test can make a daemon or helper crash, by the setting crash-condition.

A condition is `FILE:POINT:N`: the process ends at once, with status 255, when the point is passed
for the N-th time in a module whose name contains FILE. `POINTS` lists what there is.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

_log = logging.getLogger("morph.distbuild")

CRASH_STATUS = 255

#: (module, point): what has just happened there, or is about to.
POINTS = {
    ("controller", "begin"): "a build was asked for and written down, and its graph is next",
    ("controller", "schedule"): "what a build lacks is known, and nothing of it was started",
    ("controller", "start"): "a step is about to be given to a worker",
    ("controller", "built"): "a worker said that a step is built, and the transfer is next",
    ("transfers", "stored"): "a result is in the shared cache, and nobody was told",
    ("worker", "start"): "a step came, and is about to be given to a helper",
    ("worker", "ended"): "a step ended, and the controller was not told",
    ("helper", "start"): "a program is about to be started",
    ("helper", "ended"): "a program ended, and the daemon was not told",
}


@dataclass(frozen=True, slots=True)
class Condition:
    file: str
    point: str
    count: int


_conditions: tuple[Condition, ...] = ()
_passed: Counter[tuple[str, str]] = Counter()


def arm(conditions: Iterable[str]) -> None:
    """Crash as these conditions say. What is none is told and ignored."""
    global _conditions
    found = []
    for text in conditions:
        condition = parse(text)
        if condition is None:
            _log.warning("%r is no crash condition: FILE:POINT:N is wanted", text)
        else:
            found.append(condition)
    _conditions = tuple(found)
    _passed.clear()


def parse(text: str) -> Condition | None:
    file, _, rest = text.partition(":")
    point, _, count = rest.partition(":")
    if not (file and point and count.isascii() and count.isdigit() and int(count) > 0):
        return None
    return Condition(file, point, int(count))


def passing(module: str, point: str) -> None:
    """A point is passed; this may not return."""
    assert (module, point) in POINTS
    if not _conditions:
        return
    _passed[module, point] += 1
    for condition in _conditions:
        reached = _passed[module, point] >= condition.count
        if condition.file in f"distbuild/{module}.py" and condition.point == point and reached:
            _log.critical("Crash triggered from %s:%s", module, point)
            sys.stderr.write(f"Crash triggered from {module}:{point}\n")
            sys.stderr.flush()
            os._exit(CRASH_STATUS)
