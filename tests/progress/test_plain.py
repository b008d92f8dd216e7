"""Lines of text about events."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from morphlib.events import (
    AnyEvent,
    ArtifactCached,
    BuildFinished,
    BuildStarted,
    SourceFailed,
    SourceFinished,
    SourceStarted,
    Status,
    StepStarted,
)
from morphlib.progress.plain import PlainReporter

NOON = 1_893_499_200.0  # 2030-01-01 12:00:00 UTC


class Report:
    """A reporter at noon, and what it wrote."""

    def __init__(self, **options: bool) -> None:
        self.output = io.StringIO()
        self.warnings: list[str] = []
        self.reporter = PlainReporter(
            self.output, self.warnings.append, clock=lambda: NOON, **options
        )

    def tell(self, *events: AnyEvent) -> list[str]:
        for event in events:
            self.reporter(event)
        return self.output.getvalue().splitlines()


STARTED = SourceStarted(name="zlib", kind="chunk", key="k1", index=3, total=8, slot=0)


def failed(log: Path, step: str = "build") -> SourceFailed:
    return SourceFailed(
        name="zlib",
        key="k1",
        step=step,
        exit_code=1,
        log=str(log),
        tail=("last",),
        staging="/t/staging/x",
        shell="sh /t/staging/x.sh",
    )


def test_lines_carry_the_time_in_utc() -> None:
    assert Report().tell(Status(text="hello")) == ["2030-01-01 12:00:00 hello"]


def test_lines_about_a_source_carry_its_place_in_the_build() -> None:
    lines = Report().tell(STARTED, StepStarted(name="zlib", key="k1", step="pre-build", slot=0))
    assert lines == [
        "2030-01-01 12:00:00 [Build 3/8] [zlib] Building chunk zlib",
        "2030-01-01 12:00:00 [Build 3/8] [zlib] Running pre-build-commands",
    ]


def test_lines_about_no_source_carry_none() -> None:
    lines = Report().tell(STARTED, Status(text="Updating x"))
    assert lines[1] == "2030-01-01 12:00:00 Updating x"


@pytest.mark.parametrize(
    ("step", "text"),
    [
        ("stage", "Creating staging area"),
        ("fetch", "Fetching sources"),
        ("polish", "Running polish"),
    ],
)
def test_steps_around_the_commands_have_texts(step: str, text: str) -> None:
    (line,) = Report().tell(StepStarted(name="a", key="k", step=step, slot=0))
    assert line.endswith(text)


def test_where_a_system_is_cached_ends_its_line() -> None:
    (line,) = Report().tell(ArtifactCached(kind="system", name="demo-rootfs", path="/c/k.s.d"))
    assert line == "2030-01-01 12:00:00 system demo-rootfs is cached at /c/k.s.d"


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({}, ["normal", "error"]),
        ({"quiet": True}, ["error"]),
        ({"debug": True}, ["normal", "chatty", "error"]),
        ({"quiet": True, "debug": True}, ["normal", "chatty", "error"]),
    ],
)
def test_what_is_shown(options: dict[str, bool], shown: list[str]) -> None:
    lines = Report(**options).tell(
        Status(text="normal"),
        Status(text="chatty", level="chatty"),
        Status(text="error", level="error"),
    )
    assert [line.split()[-1] for line in lines] == shown


def test_warnings_go_elsewhere_and_are_not_quieted() -> None:
    report = Report(quiet=True)
    assert report.tell(Status(text="careful", level="warning")) == []
    assert report.warnings == ["careful"]


def test_a_failure_is_followed_by_the_whole_log(tmp_path: Path) -> None:
    log = tmp_path / "k1.build-log"
    log.write_bytes(b"one\n\xff\xfetwo\nthree\n")
    lines = Report().tell(STARTED, failed(log))
    prefix = "2030-01-01 12:00:00 [Build 3/8] [zlib]"
    assert lines[1:] == [
        f"{prefix} Error when running build-commands (exit code 1)",
        "one",
        r"\xff\xfetwo",
        "three",
        "",
        f"{prefix} Build log: {log}",
        f"{prefix} Staging area kept: /t/staging/x",
        f"{prefix} To step into it: sh /t/staging/x.sh",
    ]


def test_a_failure_of_morphs_own_step_says_which(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    lines = Report().tell(failed(log, step="stage"))
    assert lines[0].endswith("Error when creating staging area (exit code 1)")


def test_a_log_that_was_shown_is_not_repeated(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("output\n")
    assert "output" not in Report(logs_shown=True).tell(failed(log))


def test_a_log_that_is_gone_is_told(tmp_path: Path) -> None:
    report = Report()
    report.tell(failed(tmp_path / "gone"))
    (warning,) = report.warnings
    assert "gone: No such file" in warning


def test_the_course_of_a_build() -> None:
    finished = SourceFinished(
        name="zlib", kind="chunk", key="k1", index=3, total=8, outcome="built", duration=3661.4
    )
    lines = Report().tell(
        BuildStarted(target="demo", total=8, cached=6, slots=2, estimate=75.0),
        STARTED,
        finished,
        BuildFinished(
            target="demo", succeeded=False, built=1, cached=6, failed=1, skipped=2, duration=60
        ),
    )
    assert [line[20:] for line in lines] == [
        "6 of 8 sources are cached, 2 to build, about 00:01:15",
        "[Build 3/8] [zlib] Building chunk zlib",
        "[Build 3/8] [zlib] Elapsed time 01:01:01",
        "Failed build of demo in 00:01:00: 1 built, 6 cached, 1 failed, 2 not built",
    ]


def test_every_line_is_flushed() -> None:
    class Counting(io.StringIO):
        flushed = 0

        def flush(self) -> None:
            self.flushed += 1

    output = Counting()
    reporter = PlainReporter(output, print)
    reporter(Status(text="a"))
    reporter(Status(text="b"))
    assert output.flushed == 2


def test_what_others_build_is_told_with_who_does_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("cc: error\n")
    begun = BuildStarted(target="demo", total=8, cached=2, slots=0, remote=True)
    started = SourceStarted(
        name="zlib", kind="chunk", key="k", index=3, total=8, slot=0, worker="w:1"
    )
    ended = SourceFinished(
        name="zlib", kind="chunk", key="k", index=3, total=8, outcome="built", worker="w:1"
    )
    broken = SourceFailed(
        name="lua",
        key="k2",
        step="build",
        exit_code=2,
        log=str(log),
        tail=("cc: error",),
        staging="",
        shell="",
        worker="w:2",
    )
    lines = Report().tell(
        begun, started, ended, broken, ArtifactCached(kind="system", name="d", url="http://x")
    )
    assert [line.removeprefix("2030-01-01 12:00:00 ") for line in lines] == [
        "Need to build 6/8 artifacts",
        "Started building zlib on w:1",
        "Finished building zlib on w:1",
        "Build of lua failed.",
        "cc: error",
        "",
        "Error when running build-commands on w:2 (exit code 2)",
        f"Build log: {log}",
        "Artifact: http://x",
    ]
