"""Figures count what they say. Nothing here is about how fast anything is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.measure import Memory, time_program, watch_memory
from morphlib.errors import MorphError

#: Forks a child that holds memory of its own for a while, then waits for it.
TWO_PROCESSES = """
import os, time
pid = os.fork()
block = b'x' * 40_000_000
time.sleep(0.5)
if pid: os.waitpid(pid, 0)
"""


def watch(text: str, directory: Path) -> Memory:
    argv = [sys.executable, "-c", text]
    return watch_memory(argv, cwd=directory, environment={}, log=directory / "log")


def test_memory_is_that_of_all_processes_together(tmp_path: Path) -> None:
    memory = watch(TWO_PROCESSES, tmp_path)

    assert memory.tree > 80_000_000
    assert 40_000_000 < memory.largest < 80_000_000


def test_cpu_time_counts_children(tmp_path: Path) -> None:
    child = "import time\nwhile time.process_time() < 0.3: pass"
    text = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"

    argv = [sys.executable, "-c", text]
    timing = time_program(argv, cwd=tmp_path, environment={}, log=tmp_path / "log")

    assert timing.cpu >= 0.3
    assert timing.wall >= 0.3


def test_a_failure_shows_what_the_program_said(tmp_path: Path) -> None:
    with pytest.raises(MorphError, match=r"exit status 3\)\n    no luck"):
        time_program(
            [sys.executable, "-c", "print('no luck'); raise SystemExit(3)"],
            cwd=tmp_path,
            environment={},
            log=tmp_path / "log",
        )


def test_a_program_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(MorphError, match="can't start"):
        time_program([str(tmp_path / "gone")], cwd=tmp_path, environment={}, log=tmp_path / "log")
