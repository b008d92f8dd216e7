"""Graphs of what the policy does."""

from __future__ import annotations

import re
from pathlib import Path

from distbuild.drawing import explore
from distbuild.policy.state import Phase
from tests.commandline import run_morph


def test_the_graphs_show_what_happens() -> None:
    found = explore()
    assert ("building", "job built", "transferring") in found["job"]
    assert ("unclaimed", "settled", "stopping") in found["job"]
    assert ("busy", "job failed (space)", "resting") in found["worker"]
    assert ("building", "job stored", "finished") in found["request"]
    assert ("building", "job failed (build)", "failed") in found["request"]
    assert ("building", "follower left", "cancelled") in found["request"]
    states = {state for before, _, after in found["job"] for state in (before, after)}
    assert states == {phase.value for phase in Phase} | {"none"}


def test_more_events_after_each_other_show_no_more() -> None:
    assert explore(20) == explore()


def test_the_command_writes_files(tmp_path: Path) -> None:
    ran = run_morph("graph-state-machines", home=tmp_path, cwd=tmp_path)
    assert ran.status == 0, ran.err
    for name in ("job", "worker", "request"):
        text = (tmp_path / f"{name}.gv").read_text()
        assert text.startswith(f'digraph "{name}" {{\n')
        assert text.endswith("}\n")
        assert re.search(r'^    "\w+" -> "\w+" \[label="[\w ()\\]+"\];$', text, re.MULTILINE)
        assert f"Wrote {name}.gv" in ran.out
    assert run_morph("graph-state-machines", "x", home=tmp_path, cwd=tmp_path).status == 2
