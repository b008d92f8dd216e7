"""The live view of a terminal: what builds on which slot, for how long, and how far it all is."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from morphlib.events import (
    AnyEvent,
    SourceFailed,
    SourceFinished,
    SourceStarted,
    Status,
    StepStarted,
)
from morphlib.progress.lines import Line, describe, describe_step, format_duration
from morphlib.progress.state import BuildState
from morphlib.text import make_printable

#: Below this many columns the step of each build is left out.
_NARROW = 60


class LiveReporter:
    """Keeps a few lines at the bottom of the terminal current; what is worth keeping scrolls by.

    `close` leaves the terminal as it was, and has to be called however the program ends.
    """

    def __init__(
        self,
        output: TextIO,
        warn: Callable[[str], None],
        *,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = Console(file=output, force_terminal=True, highlight=False, emoji=False)
        self._warn = warn
        self._quiet = quiet
        self._clock = clock
        self._state = BuildState()
        # The view is drawn by a thread of its own.
        self._lock = threading.Lock()
        self._live: Live | None = None

    def __call__(self, event: AnyEvent) -> None:
        with self._lock:
            self._state.update(event, self._clock())
        for line in self._lines(event):
            self._show(line)
        if self._state.running and self._live is None:
            # What programs print themselves must not pass through here: it may be binary.
            self._live = Live(
                console=self._console,
                get_renderable=self.render,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        elif not self._state.running and self._live is not None:
            self._stop()

    def close(self) -> None:
        self._stop()

    def render(self) -> Group:
        """The view as it should stand now."""
        with self._lock:
            return self._draw(self._clock())

    def _draw(self, now: float) -> Group:
        slots = Table.grid(padding=(0, 1), expand=False)
        slots.add_column(justify="right", no_wrap=True)
        slots.add_column(no_wrap=True, overflow="ellipsis", ratio=2)
        if self._console.width >= _NARROW:
            slots.add_column(no_wrap=True, overflow="ellipsis", ratio=2)
        slots.add_column(justify="right", no_wrap=True)
        shown, hidden = self._choose_slots()
        for number in shown:
            self._add_slot(slots, number, now)
        more = [Text(f"and {hidden} more")] if hidden else []
        return Group(slots, *more, self._summary(now))

    def _choose_slots(self) -> tuple[list[int], int]:
        """The slots to show, and how many builds the terminal is too low for to show them too."""
        busy = sorted(self._state.slots)
        if self._state.remote:
            every = busy  # what idles elsewhere is not known
        else:
            every = list(range(max([self._state.slot_count, *(number + 1 for number in busy)])))
        room = max(2, self._console.height - 2)  # the summary, and a line where the cursor is
        if len(every) <= room:
            return every, 0
        if len(busy) <= room:
            return busy, 0
        return busy[: room - 1], len(busy) - room + 1

    def _add_slot(self, table: Table, number: int, now: float) -> None:
        slot = self._state.slots.get(number)
        wide = self._console.width >= _NARROW
        if slot is None:
            table.add_row(str(number + 1), Text("idle", style="dim"), *([""] if wide else []), "")
            return
        elapsed = format_duration(now - slot.since)
        if slot.estimate is not None and wide:
            elapsed += f" of about {format_duration(slot.estimate)}"
        step = [Text(describe_step(slot.step) if slot.step else "")] if wide else []
        who = make_printable(slot.worker) if slot.worker else str(number + 1)
        name = Text(make_printable(slot.name), style="bold")
        table.add_row(Text(who), name, *step, elapsed)

    def _summary(self, now: float) -> Text:
        state = self._state
        text = f"{state.done}/{state.total}"
        counts = [f"{state.built} built", f"{state.cached} cached"]
        if state.failed:
            counts.append(f"{state.failed} failed")
        text += f" ({', '.join(counts)})  {format_duration(now - state.since)}"
        remaining = state.remaining(now)
        if remaining is not None:
            text += f", about {format_duration(remaining)} left"
        return Text(text, no_wrap=True, overflow="ellipsis")

    def _lines(self, event: AnyEvent) -> list[Line]:
        match event:
            case SourceStarted() | StepStarted():
                return []  # the view shows them
            case Status(level="normal", source=source) if source:
                return []  # so it does with what happens within a step
            case SourceFinished(outcome="built", kind="stratum"):
                return []  # a list that was written in no time
            case SourceFinished(outcome="built"):
                text = f"{event.kind} {event.name} built in {format_duration(event.duration)}"
                text += f" on {event.worker}" if event.worker else ""
                return [Line(text)]
            case SourceFailed():
                return [*describe(event), *(Line(f"    {text}", "error") for text in event.tail)]
            case _:
                return list(describe(event))

    def _show(self, line: Line) -> None:
        match line.level:
            case "chatty":
                return
            case "warning" if self._live is None or not sys.stderr.isatty():
                self._warn(line.text)
                return
            case "warning":
                text = f"WARNING: {line.text}"
            case "normal" if self._quiet:
                return
            case _:
                stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
                text = f"{stamp} {f'[{line.source}] ' if line.source else ''}{line.text}"
        self._console.print(Text(make_printable(text)), soft_wrap=True)

    def _stop(self) -> None:
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()
