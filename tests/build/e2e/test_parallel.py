"""Several builds at once, and what a failure does to the others."""

from __future__ import annotations

import time

from morphlib.events import BuildFinished, BuildStarted, SourceFailed, SourceFinished, SourceStarted
from tests.build.e2e.trove import Trove, members

#: A build that can only succeed while its neighbour runs: they can't see each other, so they tell
#: by time. Each notes when it began and when it ended.
TIMES = ["date +%s.%N > t || date +%s > t", "sleep 0.7", "cat t; date +%s"]


def _span(trove: Trove, chunk: str) -> tuple[float, float]:
    begin, end = (float(line) for line in trove.printed(chunk))
    return begin, end


def test_two_build_at_a_time_and_no_more(trove: Trove) -> None:
    for name in ("one", "two", "three"):
        trove.chunk(name, build=["sleep 0.5"])
    ran = trove.build("--progress=json")
    running: set[str] = set()
    most = 0
    for event in ran.events:
        if isinstance(event, SourceStarted) and event.kind == "chunk":
            running.add(event.name)
        if isinstance(event, SourceFinished):
            running.discard(event.name)
        most = max(most, len(running))
    assert most == 2
    (started,) = [event for event in ran.events if isinstance(event, BuildStarted)]
    assert started.slots == 2


def test_one_builder_builds_one_at_a_time(trove: Trove) -> None:
    for name in ("one", "two"):
        trove.chunk(name, build=["sleep 0.1"])
    ran = trove.build("--progress=json", "--builders=1")
    running = 0
    for event in ran.events:
        running += isinstance(event, SourceStarted) - isinstance(event, SourceFinished)
        assert running in (0, 1)


def test_failure_stops_new_work_and_lets_running_builds_end(trove: Trove) -> None:
    trove.chunk("bad", build=["sleep 0.3; exit 5"])
    trove.chunk("good", build=["sleep 1; echo done"])
    trove.chunk("later", build=["echo later"])
    trove.chunk("needs-bad", needs=["bad"], build=["echo never"])
    ran = trove.fail()
    assert {"bad", "good"} < set(ran.built)
    assert "later" not in ran.built
    assert trove.printed("good") == [b"done"]
    assert "1 failed" in ran.out
    assert "bad" in ran.err
    assert "good" not in ran.err


def test_continuing_builds_all_that_does_not_need_it(trove: Trove) -> None:
    trove.chunk("bad", build=["exit 5"])
    trove.chunk("needs-bad", needs=["bad"], build=["echo never"])
    trove.chunk("needs-that", needs=["needs-bad"], build=["echo never"])
    trove.chunk("later", build=["sleep 0.2; echo later"])
    trove.chunk("after-later", needs=["later"], build=["echo after"])
    ran = trove.fail("--on-error=continue")
    assert trove.printed("after-later") == [b"after"]
    assert not {"needs-bad", "needs-that", "main-runtime", "sys"} & set(ran.built)
    assert "1 failed, 4 not built" in ran.out
    trove.chunk("bad", build=["exit 0"])
    assert set(trove.build().built) == {"bad", "needs-bad", "needs-that", "main-runtime", "sys"}


def test_all_failures_are_reported(trove: Trove) -> None:
    for number in (3, 4, 5):
        trove.chunk(f"bad{number}", build=[f"exit {number}"])
    err = trove.fail("--on-error=continue").err
    for number in (3, 4, 5):
        assert f"build failed (exit_code={number})" in err
        assert f"bad{number}" in err
    assert err.count("ERROR: ") == 3


def test_two_that_fail_at_once_are_both_reported(trove: Trove) -> None:
    for name in ("one", "two"):
        trove.chunk(name, test=[f"sleep 0.5; echo {name} says why; exit 7"])
    ran = trove.fail()
    assert ran.err.count("test failed (exit_code=7)") == 2
    assert "one says why" in ran.out
    assert "two says why" in ran.out


def test_report_has_all_that_helps(any_trove: Trove) -> None:
    any_trove.chunk(
        "bad", install=["for i in $(seq 50); do echo line $i; done; printf '\\377\\033['; exit 42"]
    )
    ran = any_trove.fail("--progress=json")
    (failure,) = [event for event in ran.events if isinstance(event, SourceFailed)]
    assert (failure.name, failure.step, failure.exit_code) == ("bad", "install", 42)
    assert failure.tail[-1] == "+ exit 42" or failure.tail[-1].startswith("\\xff\x1b[")
    assert "line 50" in failure.tail
    assert "line 1" not in failure.tail
    assert b"line 1\n" in open(failure.log, "rb").read()  # noqa: SIM115, PTH123 - one line
    (staging,) = any_trove.temp.glob("staging/bad-*/")
    assert failure.staging == str(staging)
    assert failure.shell.split()[-2:] == ["shell", failure.staging]
    (finished,) = [event for event in ran.events if isinstance(event, BuildFinished)]
    assert (finished.succeeded, finished.failed) == (False, 1)
    outcomes = [e.outcome for e in ran.events if isinstance(e, SourceFinished) and e.name == "bad"]
    assert outcomes == ["failed"]


def test_report_for_people(trove: Trove) -> None:
    trove.chunk("bad", install=["echo the last words; exit 42"])
    ran = trove.fail()
    (staging,) = trove.temp.glob("staging/bad-*/")
    key = next(trove.temp.glob("staging/bad-*.log")).name
    assert "Error when running install-commands (exit code 42)" in ran.out
    assert "the last words" in ran.out
    assert str(trove.temp / "staging" / key) in ran.out
    assert f"shell {staging}" in ran.out + ran.err
    assert f"In staging area {staging}: install failed (exit_code=42)" in ran.err


def test_quiet_says_nothing_but_errors(trove: Trove) -> None:
    trove.chunk("hello")
    ran = trove.build("--quiet")
    assert (ran.out, ran.err) == ("", "")
    trove.chunk("hello", build=["echo speaks; exit 3"])
    ran = trove.fail("--quiet")
    assert "Error when running build-commands" in ran.out
    assert "\nspeaks\n" in ran.out
    assert "build failed (exit_code=3)" in ran.err


def test_kept_staging_area_is_removed_when_it_succeeds_elsewhere(trove: Trove) -> None:
    """A failed build's area stays until it is collected; a successful one leaves none."""
    trove.chunk("hello", build=["exit 1"])
    trove.fail()
    (area,) = trove.temp.glob("staging/hello-*/")
    assert (area / "hello.build/hello.c").exists()
    trove.chunk("hello", build=["exit 0"])
    trove.build()
    assert [path.name for path in trove.temp.glob("staging/*/")] == [area.name]
    assert trove.run("gc").status == 0
    assert list(trove.temp.glob("staging/*")) == []


def test_json_progress_is_a_stream_of_events_only(trove: Trove) -> None:
    noise = "printf '{\"a\\n\\377\\000x\\r\\n'; seq 100"
    trove.chunk("hello", build=[noise], system_integration={"hello-misc": {"0": [noise]}})
    ran = trove.build("--progress=json", "--build-log-on-stdout")
    assert isinstance(ran.events[-1], BuildFinished)
    assert ran.events[-1].built == 6
    assert ran.err == ""


def test_a_source_that_is_gone_fails_its_chunk_alone(trove: Trove) -> None:
    trove.source("gone", {"f": "f"})
    trove.chunk("lost", repo="gone", build=["echo lost"])
    trove.chunk("hello", build=["echo hello"])
    trove.write()
    assert trove.run("list-artifacts", "systems/sys.morph").status == 0
    (trove.root / "gits/gone").rename(trove.root / "gits/elsewhere")
    for mirror in (trove.cache / "gits").glob("*gone*"):
        mirror.rename(trove.root / mirror.name)
    ran = trove.run("build", "systems/sys.morph", "--on-error=continue")
    assert ran.status == 1
    assert "test:gone" in ran.err or "gits/gone" in ran.err
    assert "Traceback" not in ran.err


def test_longest_way_goes_first(trove: Trove) -> None:
    """What earlier builds took decides which of two ready chunks is built first."""
    trove.chunk("first", build=["sleep 0.5"])  # meanwhile the sources of the two are fetched
    trove.chunk("short", needs=["first"], build=["sleep 0.1"])
    trove.chunk("long", needs=["first"], build=["sleep 0.8"])
    trove.build("--builders=1")
    trove.chunk("first", build=["sleep 0.5", "true"])
    ran = trove.build("--builders=1")
    assert ran.built[:3] == ["first", "long", "short"]
    assert "about 00:00:0" in ran.out


def test_image_is_whole_however_many_build(trove: Trove) -> None:
    started = time.monotonic()
    for number in range(12):
        needs = [f"c{number - 3}"] if number >= 3 else []
        install = [f"mkdir -p $DESTDIR/srv; echo {number} > $DESTDIR/srv/c{number}"]
        trove.chunk(f"c{number}", needs=needs, install=install)
    trove.build("--builders=6")
    assert {f"srv/c{number}" for number in range(12)} <= set(members(trove.image()))
    assert time.monotonic() - started < 30
