"""The bench of distributed builds measures what it says, here with small numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.distbuild import main
from bench.graph import Chunk, Graph, Stratum
from bench.networks import Followed, run_network
from bench.projects import write_projects
from morphlib.errors import MorphError


def test_a_network_builds_and_is_followed(tmp_path: Path) -> None:
    names = ("one", "two", "three")
    stratum = Stratum("all", (), tuple(Chunk(name, ()) for name in names))
    layout = write_projects(Graph("small", (stratum,)), tmp_path / "project", sleep=0.5)
    with run_network(layout, 2) as network:
        found = network.build("all")
        assert found.started.keys() >= set(names)
        assert 1.0 <= found.makespan(names) <= found.wall
        assert 0 < found.cpu < found.wall
        with pytest.raises(MorphError, match="components are not in"):
            network.build("nothing")
    assert not Path(f"/proc/{network.controller}").exists()


def test_the_makespan_is_that_of_the_steps_that_are_meant() -> None:
    followed = Followed(
        started={"before": 0.0, "a": 10.0, "b": 11.0},
        finished={"before": 5.0, "a": 12.0, "b": 14.5},
    )
    assert followed.makespan(["a", "b"]) == 4.5


def test_what_is_measured_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = ["--workers", "1", "--steps", "2", "--sleep", "0.5", "--chunks", "2", "--rounds", "1"]
    assert main([*numbers, "--work", str(tmp_path)]) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("1 workers, 2 chunks that sleep 0.5 s: makespan ")
    assert "efficiency " in first
    assert second.startswith(
        "synthetic-2, chunks that sleep 0.5 s, one worker against `morph build`"
    )
    assert third.startswith("synthetic-2, chunks that sleep 0 s, ")
