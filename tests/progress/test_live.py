"""The live view of a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from morphlib.events import (
    AnyEvent,
    BuildFinished,
    BuildStarted,
    SourceFailed,
    SourceFinished,
    SourceStarted,
    Status,
    StepStarted,
)
from morphlib.progress.live import LiveReporter
from morphlib.progress.state import BuildState
from morphlib.text import make_printable

START = BuildStarted(target="demo", total=5, cached=2, slots=2, estimate=100.0)
ZLIB = SourceStarted(name="zlib", kind="chunk", key="k1", index=3, total=5, slot=0, estimate=30.0)
LUA = SourceStarted(name="lua", kind="chunk", key="k2", index=4, total=5, slot=1)


def finished(started: SourceStarted, outcome: str = "built") -> SourceFinished:
    return SourceFinished(
        name=started.name,
        kind=started.kind,
        key=started.key,
        index=started.index,
        total=started.total,
        outcome=outcome,  # type: ignore[arg-type]  # one of those that are allowed
        duration=12.0,
        slot=started.slot,
    )


def failed(started: SourceStarted) -> SourceFailed:
    return SourceFailed(
        name=started.name,
        key=started.key,
        step="build",
        exit_code=2,
        log="/c/k.build-log",
        tail=("cc: error",),
        staging="/t/x",
        shell="sh /t/x.sh",
    )


def state_after(*events: AnyEvent) -> BuildState:
    state = BuildState()
    for now, event in enumerate(events):
        state.update(event, float(now))
    return state


def test_state_knows_what_builds_on_which_slot() -> None:
    step = StepStarted(name="zlib", key="k1", step="configure", slot=0)
    state = state_after(START, ZLIB, LUA, step)
    assert {n: (s.name, s.step, s.since) for n, s in state.slots.items()} == {
        0: ("zlib", "configure", 1.0),
        1: ("lua", "", 2.0),
    }
    assert state.done == 2


def test_state_counts_what_is_done() -> None:
    state = state_after(START, ZLIB, LUA, finished(ZLIB), failed(LUA), finished(LUA, "failed"))
    assert (state.built, state.cached, state.failed) == (1, 2, 1)
    assert state.slots == {}


def test_state_tells_what_remains_as_far_as_known() -> None:
    state = state_after(START)
    assert state.remaining(40.0) == 60.0
    assert state.remaining(140.0) is None
    assert state_after(BuildStarted(target="d", total=1, cached=0, slots=1)).remaining(1) is None


def test_a_finished_build_is_over() -> None:
    end = BuildFinished(
        target="d", succeeded=True, built=1, cached=2, failed=0, skipped=0, duration=1
    )
    state = state_after(START, ZLIB, end)
    assert not state.running
    assert state.slots == {}


class Screen:
    """A live view on a terminal of some width."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, columns: int, lines: int = 24) -> None:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("LINES", str(lines))
        monkeypatch.setenv("TERM", "xterm")
        self.columns = columns
        self.output = io.StringIO()
        self.now = 0.0
        self.warnings: list[str] = []
        self.reporter = LiveReporter(self.output, self.warnings.append, clock=lambda: self.now)

    def view(self) -> list[str]:
        """The view as plain text, line by line."""
        output = io.StringIO()
        Console(file=output, width=self.columns).print(self.reporter.render())
        return output.getvalue().splitlines()


@pytest.mark.parametrize("columns", [12, 30, 59, 60, 80, 200])
def test_the_view_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    screen = Screen(monkeypatch, columns)
    long = SourceStarted(name="x" * 300, kind="chunk", key="k3", index=1, total=5, slot=0)
    for event in (START, long, LUA, StepStarted(name="x", key="k3", step="build", slot=0)):
        screen.reporter(event)
    try:
        view = screen.view()
    finally:
        screen.reporter.close()
    assert len(view) == 3
    assert max(map(len, view)) <= columns


def test_the_view_shows_slots_steps_times_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch, 100)
    for event in (START, ZLIB, StepStarted(name="zlib", key="k1", step="install", slot=0)):
        screen.reporter(event)
    screen.now = 10.0
    try:
        first, second, summary = screen.view()
    finally:
        screen.reporter.close()
    assert "zlib" in first
    assert "Running install-commands" in first
    assert "00:00:10 of about 00:00:30" in first
    assert "idle" in second
    assert summary.strip() == "2/5 (0 built, 2 cached)  00:00:10, about 00:01:30 left"


def test_what_is_worth_keeping_scrolls_by(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch, 100)
    for event in (START, ZLIB, LUA, Status(text="[bold]as it is[/bold]"), finished(ZLIB)):
        screen.reporter(event)
    screen.reporter(failed(LUA))
    screen.reporter.close()
    text = screen.output.getvalue()
    assert "[bold]as it is[/bold]" in text
    assert "chunk zlib built in 00:00:12" in text
    assert "Error when running build-commands" in text
    assert "cc: error" in text
    assert "sh /t/x.sh" in text


def test_what_the_view_shows_anyway_does_not_scroll_by(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch, 100)
    stratum = SourceStarted(name="core", kind="stratum", key="k9", index=5, total=5, slot=1)
    for event in (
        START,
        ZLIB,
        Status(text="Extracting the sources", source="zlib"),
        Status(text="something broke", level="error", source="zlib"),
        finished(stratum),
    ):
        screen.reporter(event)
    screen.reporter.close()
    text = screen.output.getvalue()
    assert "Extracting" not in text
    assert "core" not in text
    assert "something broke" in text


def test_a_low_terminal_shows_what_is_built_and_the_summary(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = Screen(monkeypatch, 80, lines=6)
    screen.reporter(BuildStarted(target="demo", total=90, cached=0, slots=40))
    for number in (3, 17, 30):
        started = SourceStarted(
            name=f"c{number}", kind="chunk", key=f"k{number}", index=1, total=90, slot=number
        )
        screen.reporter(started)
    try:
        view = screen.view()
        assert len(view) < 6
        assert [line.split()[:2] for line in view[:3]] == [
            ["4", "c3"],
            ["18", "c17"],
            ["31", "c30"],
        ]
        assert "0/90" in view[-1]
        for number in (5, 6, 7):
            screen.reporter(
                SourceStarted(
                    name="more", kind="chunk", key=f"m{number}", index=1, total=90, slot=number
                )
            )
        view = screen.view()
        assert len(view) < 6
        assert view[-2].strip() == "and 3 more"
        assert "0/90" in view[-1]
    finally:
        screen.reporter.close()


def test_the_cursor_is_back_when_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch, 80)
    screen.reporter(START)
    assert "\x1b[?25l" in screen.output.getvalue()
    screen.reporter.close()
    assert screen.output.getvalue().rindex("\x1b[?25h") > screen.output.getvalue().rindex(
        "\x1b[?25l"
    )
    screen.reporter.close()


def test_builds_cannot_drive_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_printable("a\x1b[2Jb\x07\tc\u202e") == "a\\x1b[2Jb\\x07\tc\\u202e"
    screen = Screen(monkeypatch, 80)
    screen.reporter(Status(text="evil \x1b]0;title\x07"))
    assert "\x1b]0" not in screen.output.getvalue()


def test_warnings_before_a_build_go_to_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch, 80)
    screen.reporter(Status(text="careful", level="warning"))
    assert screen.warnings == ["careful"]
