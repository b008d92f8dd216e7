"""The benchmark of deploying at a tiny size. Nothing here is about how fast anything is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.deploying import GOAL, Deployed, Figure, format_deployed
from bench.measure import time_program
from bench.owndisk import own_disk
from tests.commandline import MORPH
from tests.mounting import needs_root

BENCH = MORPH.parent / "bench" / "deploy.py"


@pytest.mark.parametrize("more", [[], pytest.param(["--own-disk=2"], marks=needs_root)])
def test_everything_is_measured(tmp_path: Path, more: list[str]) -> None:
    command = [sys.executable, str(BENCH), "--chunks=2", "--files=20", "--rounds=2", "--size=256"]
    command += more
    work, out = tmp_path / "work", tmp_path / "out.json"
    try:
        done = subprocess.run(
            [*command, f"--work={work}", f"--json={out}"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(out.read_bytes())
        # Each chunk installs its source, a program and a document; and there is a busybox.
        assert found["files"] > 2 * 22
        figures = {figure["what"]: figure for figure in found["figures"]}
        assert {name: figure["other"] for name, figure in figures.items()} == {
            "tar": "tar",
            "sysroot": "cp",
            "rawdisk": "mkfs.btrfs",
        }
        for figure in figures.values():
            assert figure["seconds"] > 0
            assert figure["others_seconds"] > 0
            assert figure["ratio"] > 0
            # All of the tree was written, by both.
            assert figure["written"] > found["size"] / 2
            assert figure["others_written"] > found["size"] / 2
        assert "mkfs.btrfs" in done.stdout
        assert not [path for path in work.iterdir() if path.name.startswith(("morph-", "other-"))]
        assert not (
            work.is_mount() or [path for path in tmp_path.iterdir() if path.suffix == ".disk"]
        )
    finally:
        shutil.rmtree(work, ignore_errors=True)


@needs_root
def test_what_a_file_system_writes_for_itself_counts(tmp_path: Path) -> None:
    with own_disk(tmp_path, 256 << 20) as disk:
        before = disk.written()
        (tmp_path / "file").write_bytes(os.urandom(5_000_000))
        whole = disk.written() - before
        for number in range(1000):
            (tmp_path / str(number)).touch()
        empty = disk.written() - before - whole
    assert 5_000_000 < whole < 6_000_000
    assert 100_000 < empty < 5_000_000
    assert list(tmp_path.iterdir()) == []


def test_a_goal_is_missed_or_met() -> None:
    def figure(ratio: float) -> Figure:
        return Figure("tar", "tar", ratio, 1, 1, 1, ratio)

    assert figure(GOAL).met
    assert not figure(GOAL + 0.1).met
    text = format_deployed(Deployed(1, 1, 1, 1, (figure(1), figure(2))))
    assert [line.split()[5] for line in text.splitlines()[3:]] == ["met", "no"]


@pytest.mark.parametrize("option", ["--chunks=0", "--rounds=-1", "--own-disk=0"])
def test_numbers_that_make_no_sense(option: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, BENCH, option, f"--work={tmp_path}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "ERROR: all numbers have to be above 0" in done.stderr


def test_bytes_that_children_write_count(tmp_path: Path) -> None:
    script = 'head -c 3000000 /dev/zero > "$0.1"; (head -c 2000000 /dev/zero > "$0.2")'
    timing = time_program(
        ["sh", "-c", script, str(tmp_path / "file")],
        cwd=tmp_path,
        environment={},
        log=tmp_path / "log",
    )
    assert 5_000_000 <= timing.written < 6_000_000
