"""Goals and tables are computed from figures in the right way."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from bench.report import format_report
from bench.results import Build, Machine, Peak, Query, Report, What, find_goals
from bench.steps import mean_shares, read_shares
from morphlib.errors import MorphError


def build(tool: str, graph: str, chunks: int, what: What, wall: float) -> Build:
    return Build(tool, graph, chunks, what, wall, cpu=wall)


BUILDS = (
    *(build("morph", "s", 100, "cold", wall) for wall in (2.0, 9.0, 1.0)),
    build("buildstream", "s", 100, "cold", 10.0),
    build("morph", "s", 100, "no-op", 0.5),
    build("buildstream", "s", 100, "no-op", 1.0),
    build("morph", "l", 400, "cold", 16.0),
)
PEAKS = (
    Peak("morph", "s", "cold", tree=50, largest=40),
    Peak("buildstream", "s", "cold", tree=100, largest=60),
)
QUERIES = (Query("list-artifacts", "big", (0.2, 0.3, 0.1)),)


def make_report(builds: tuple[Build, ...], tools: tuple[str, ...]) -> Report:
    return Report(
        machine=Machine(2, "6.1", "3.11", "root"),
        builders=2,
        rounds=3,
        versions=dict.fromkeys(tools, "1"),
        floors=(),
        builds=builds,
        peaks=PEAKS,
        shares=mean_shares([{"install": 1.0}]),
        queries=QUERIES,
        goals=find_goals([("s", 100), ("l", 400)], builds, PEAKS, QUERIES),
    )


def test_goals_compare_medians() -> None:
    goals = find_goals([("s", 100), ("l", 400)], BUILDS, PEAKS, QUERIES)

    found = [(round(goal.value, 3), goal.met) for goal in goals]
    assert found == [
        (0.2, True),  # cold
        (0.5, False),  # no-op
        (0.5, True),  # memory
        (2.0, False),  # cost per chunk
        (0.2, True),  # list-artifacts
    ]


def test_without_buildstream_only_morphs_own_goals_are_judged() -> None:
    alone = tuple(b for b in BUILDS if b.tool == "morph")

    goals = find_goals([("s", 100), ("l", 400)], alone, PEAKS[:1], QUERIES)

    assert [goal.unit for goal in goals] == ["ratio", "seconds"]


def test_the_report_says_whether_buildstream_took_part() -> None:
    alone = format_report(make_report(BUILDS, ("morph",)))
    both = format_report(make_report(BUILDS, ("morph", "buildstream")))

    assert "BuildStream is not installed" in alone
    assert "not installed" not in both
    assert "5.0 x faster" in both


def test_the_report_names_a_missed_goal() -> None:
    text = format_report(make_report(BUILDS, ("morph",)))

    (line,) = [line for line in text.splitlines() if "cost per chunk: " in line]
    assert line.split()[-3:] == ["2.000", "1.100", "MISSED"]


def test_the_report_survives_json() -> None:
    report = make_report(BUILDS, ("morph",))
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_shares_are_means_by_what_the_phases_do() -> None:
    shares = mean_shares(
        [
            {"install": 0.010, "build": 0.020, "determine-splits": 0.001, "overall-build": 0.050},
            {"install": 0.030, "odd-phase": 0.004, "overall-build": 0.034},
        ]
    )

    found = {share.part: round(share.milliseconds, 3) for share in shares}
    assert found["sandbox"] == 30
    assert found["split"] == 0.5
    assert found["odd-phase"] == 2
    assert found["rest"] == 9.5
    assert found["all"] == 42


def test_shares_are_read_from_what_lies_beside_chunks(tmp_path: Path) -> None:
    times = {"install": {"delta": "0.0100"}, "overall-build": {"delta": "0.0200"}}
    for key, kind in (("aa", "chunk"), ("bb", "stratum")):
        (tmp_path / f"{key}.{kind}.x").touch()
        (tmp_path / f"{key}.meta").write_text(json.dumps({"build-times": times}))

    assert {s.part: s.milliseconds for s in read_shares(tmp_path)}["all"] == pytest.approx(20)
    (tmp_path / "aa.meta").unlink()
    with pytest.raises(MorphError, match="can't read the times"):
        read_shares(tmp_path)
