"""How pages say things: spans of time, times of day, and what a program printed."""

from __future__ import annotations

import re
import time

from morphlib.text import make_printable

#: Sequences that would move a terminal's cursor, colour it, or name its window.
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]{0,100}[ -/]{0,10}[@-~]"
    r"|\][^\x07\x1b]{0,1000}(?:\x07|\x1b\\)|[()][0-9A-Z]|[=>78c])"
)
_TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400)
_MOST_TICKS = 8


def say_span(seconds: float) -> str:
    """In at most two units, without losing a second before an hour: 5 s, 3 min 12 s, 2 h 5 min."""
    whole = max(0, int(seconds))
    for big, small, length in (("d", "h", 3600), ("h", "min", 60), ("min", "s", 1)):
        unit = length * (24 if big == "d" else 60)
        if whole >= unit:
            rest = whole % unit // length
            return f"{whole // unit} {big} {rest} {small}" if rest else f"{whole // unit} {big}"
    return f"{whole} s"


def say_time(moment: float, now: float) -> str:
    """The time of day on this machine, with the date if that is not today's."""
    then, today = time.localtime(moment), time.localtime(now)
    is_today = then[:3] == today[:3]
    return time.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M", then)


def iso_time(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def say_size(size: int) -> str:
    return f"{size} bytes" if size < 10_000 else f"{size / 1000:.0f} kB"


def show_output(data: bytes) -> str:
    """What a program printed, as text in which nothing is left that could do anything.

    Colours are left out, other control characters and bytes that are no UTF-8 become escapes. A
    carriage return ends a line: progress bars become lists.
    """
    text = _ESCAPES.sub("", data.decode("utf-8", "backslashreplace"))
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return "\n".join(make_printable(line) for line in text.split("\n"))


def ticks(span: float) -> tuple[int, ...]:
    """Seconds to be marked on an axis that is so many seconds long."""
    fitting = [tick for tick in _TICKS if span / tick <= _MOST_TICKS]
    step = fitting[0] if fitting else 86_400 * (int(span / 86_400 / _MOST_TICKS) + 1)
    return tuple(range(0, int(span) + 1, step))
