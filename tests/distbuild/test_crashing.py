"""Conditions under which tests let programs crash."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from distbuild import crashing
from distbuild.crashing import POINTS, Condition, parse


@pytest.mark.parametrize(
    "text", ["", "a", "a:b", "a:b:", "a:b:x", "a:b:0", ":b:1", "a::1", "a:b:-1"]
)
def test_what_is_no_condition_is_told_and_ignored(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert parse(text) is None
    with caplog.at_level(logging.WARNING):
        crashing.arm([text])
    assert "is no crash condition" in caplog.text
    crashing.passing("worker", "start")
    crashing.arm([])


def test_conditions() -> None:
    assert parse("distbuild/worker.py:start:3") == Condition("distbuild/worker.py", "start", 3)


def test_the_nth_time_counts() -> None:
    code = (
        "from distbuild import crashing\n"
        "crashing.arm(['transfers:stored:1', 'worker:start:3'])\n"
        "for number in range(1, 9):\n"
        "    print(number, flush=True)\n"
        "    crashing.passing('worker', 'ended')\n"
        "    crashing.passing('worker', 'start')\n"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 255
    assert done.stdout.split() == ["1", "2", "3"]
    assert "Crash triggered from worker:start\n" in done.stderr


def test_every_point_is_somewhere() -> None:
    found = set()
    for path in (Path(__file__).parents[2] / "distbuild").glob("*.py"):
        found |= {
            (path.stem, name)
            for module, name in re.findall(r'passing\("(\w+)", "(\w+)"\)', path.read_text())
            if module == path.stem
        }
    assert found == set(POINTS)
