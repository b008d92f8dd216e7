"""Several morphs with one cache."""

from __future__ import annotations

import collections
import os
import signal
import sqlite3
import time
from pathlib import Path

from morphlib.events import BuildFinished, SourceFinished
from tests.build.e2e.conftest import MakeTrove
from tests.build.e2e.trove import Ran, Trove, finish


def _define(trove: Trove) -> None:
    for number in range(6):
        trove.chunk(
            f"c{number}",
            needs=[f"c{number - 3}"] if number >= 3 else [],
            build=["sleep 0.2"],
            install=[f"mkdir -p $DESTDIR/srv; echo {number} > $DESTDIR/srv/c{number}"],
        )
    trove.write()


def _outcomes(ran: Ran) -> dict[str, str]:
    return {e.name: e.outcome for e in ran.events if isinstance(e, SourceFinished)}


def _records(trove: Trove) -> collections.Counter[str]:
    """How often each source was built, by what builds record."""
    with sqlite3.connect(trove.cache / "records.sqlite") as database:
        rows = database.execute("SELECT name FROM builds WHERE succeeded").fetchall()
    return collections.Counter(name for (name,) in rows)


def _build_twice(trove: Trove, *more: str) -> tuple[Ran, Ran]:
    _define(trove)
    arguments = ("build", "systems/sys.morph", "--progress=json")
    first = trove.start(*arguments)
    second = trove.start(*arguments, *more)
    return finish(first), finish(second)


def _assert_built_once(trove: Trove, first: Ran, second: Ran) -> None:
    assert first.status == second.status == 0, first.err + second.err
    assert first.err == second.err == ""
    one, two = _outcomes(first), _outcomes(second)
    built = [name for ran in (one, two) for name, outcome in ran.items() if outcome == "built"]
    assert sorted(built) == sorted(set(built))
    assert len(built) == 11
    counts = _records(trove)
    assert {name: counts[name] for name in built} == dict.fromkeys(built, 1)
    for ran in (first, second):
        assert isinstance(ran.events[-1], BuildFinished)
        assert ran.events[-1].succeeded
        assert ran.events[-1].skipped == ran.events[-1].failed == 0


def test_two_builds_of_one_system_build_each_chunk_once(any_trove: Trove) -> None:
    first, second = _build_twice(any_trove)
    _assert_built_once(any_trove, first, second)
    assert any_trove.build().built == []


def test_the_same_with_work_directories_of_their_own(trove: Trove) -> None:
    first, second = _build_twice(trove, f"--tempdir={trove.root}/temp2")
    _assert_built_once(trove, first, second)
    assert list(trove.root.glob("temp*/staging/*")) == []


def test_what_the_other_fails_to_build_is_tried_again(trove: Trove) -> None:
    """The first one is killed while the second waits for what it builds."""
    wait = "touch began; for i in $(seq 600); do test -e go && break; sleep 0.1; done; test -e go"
    trove.chunk("slow", build=[wait])
    trove.write()
    first = trove.start("build", "systems/sys.morph")
    (abandoned,) = _wait_for_builds(trove, 1)
    second = trove.start("build", "systems/sys.morph")
    assert second.stdout is not None
    told = b""
    while b"Waiting for chunk slow" not in told:
        line = second.stdout.readline()
        assert line, told.decode()
        told += line
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    (taken_up,) = _wait_for_builds(trove, 1, without=abandoned)
    (taken_up / "go").touch()
    ran = finish(second)
    assert ran.status == 0, ran.err
    assert "slow" in ran.built


def _wait_for_builds(trove: Trove, count: int, without: Path | None = None) -> list[Path]:
    """The directories in which so many builds of the chunk have begun."""
    deadline = time.monotonic() + 60
    while True:
        began = {path.parent for path in trove.temp.glob("staging/slow-*/slow.build/began")}
        found = sorted(began - {without})
        if len(found) == count:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_failure_in_both_is_told_by_both(trove: Trove) -> None:
    trove.chunk("bad", build=["sleep 0.3; exit 9"])
    trove.write()
    both = [trove.start("build", "systems/sys.morph") for _ in range(2)]
    for process in both:
        ran = finish(process)
        assert ran.status == 1
        assert "build failed (exit_code=9)" in ran.err


def test_interrupting_one_leaves_the_other(trove: Trove) -> None:
    _define(trove)
    first = trove.start("build", "systems/sys.morph")
    second = trove.start("build", "systems/sys.morph")
    time.sleep(0.6)
    os.killpg(first.pid, signal.SIGINT)
    assert finish(first).status in (255, 0)
    ran = finish(second)
    assert ran.status == 0, ran.err


def test_collecting_garbage_while_a_build_runs(trove: Trove) -> None:
    """What the build needs stays, however little room there is."""
    _define(trove)
    process = trove.start("build", "systems/sys.morph")
    collected = 0
    while process.poll() is None:
        ran = trove.run(
            "gc",
            "--cachedir-min-space=100T",
            "--tempdir-min-space=100T",
            "--cachedir-artifact-delete-older-than=0",
            "--cachedir-artifact-keep-younger-than=0",
        )
        assert ran.status == 0, ran.err
        collected += 1
    ran = finish(process)
    assert ran.status == 0, ran.err
    assert collected > 0


def test_two_checkouts_share_what_is_equal(make_trove: MakeTrove) -> None:
    one, two = make_trove(), make_trove()
    for trove in (one, two):
        trove.cache, trove.temp = one.root / "cache", one.root / "temp"
        _define(trove)
    assert one.run("build", "systems/sys.morph").status == 0
    ran = two.run("build", "systems/sys.morph")
    assert ran.status == 0
    assert ran.built == []
