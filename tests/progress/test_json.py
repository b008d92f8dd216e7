"""The event stream as JSON."""

from __future__ import annotations

import io
import json

from morphlib.events import SourceFailed, Status
from morphlib.progress.json import JsonReporter


def tell(*events: Status | SourceFailed) -> list[dict[str, object]]:
    output = io.StringIO()
    reporter = JsonReporter(output, clock=lambda: 12.34567)
    for event in events:
        reporter(event)
    assert output.getvalue().count("\n") == len(events)
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_each_event_is_a_line_with_its_time_and_fields() -> None:
    assert tell(Status(text="a\nb"), Status(text="c", level="chatty")) == [
        {"time": 12.346, "event": "status", "text": "a\nb", "level": "normal", "source": ""},
        {"time": 12.346, "event": "status", "text": "c", "level": "chatty", "source": ""},
    ]


def test_names_that_are_no_utf8_are_escaped() -> None:
    (line,) = tell(Status(text="caf\udce9"))
    assert line["text"] == "caf\\udce9"


def test_lists_within_events() -> None:
    event = SourceFailed(
        name="a",
        key="k",
        step="build",
        exit_code=None,
        log="",
        tail=("x", "\udcff"),
        staging="",
        shell="",
    )
    (line,) = tell(event)
    assert line["tail"] == ["x", "\\udcff"]
    assert line["exit_code"] is None
