"""morph gc, on the real program. What is removed when is tested with morphlib.cache."""

from __future__ import annotations

import json
from pathlib import Path

from tests.commandline import Ran, run_morph


def run_gc(tmp_path: Path, *arguments: str) -> Ran:
    return run_morph("gc", "--cachedir=c", "--tempdir=t", *arguments, home=tmp_path)


def make_staging(tmp_path: Path) -> Path:
    area = tmp_path / "t" / "staging" / "abc"
    area.mkdir(parents=True)
    (area / "file").touch()
    return area


def test_staging_areas_that_nobody_uses_go(tmp_path: Path) -> None:
    area = make_staging(tmp_path)
    ran = run_gc(tmp_path, "--cachedir-min-space=0", "--tempdir-min-space=0")
    assert (ran.status, ran.err) == (0, "")
    assert "Made sufficient space" in ran.out
    assert not area.exists()


def test_a_dry_run_removes_nothing(tmp_path: Path) -> None:
    area = make_staging(tmp_path)
    ran = run_gc(tmp_path, "--dry-run")
    assert "Would remove staging area abc" in ran.out
    assert area.exists()


def test_too_little_space_is_told_and_no_failure(tmp_path: Path) -> None:
    ran = run_gc(tmp_path, "--cachedir-min-space=1000000T", "--quiet")
    assert ran.status == 0
    assert "Unable to clear enough space" in ran.out


def test_json(tmp_path: Path) -> None:
    make_staging(tmp_path)
    ran = run_gc(tmp_path, "--json", "--cachedir-min-space=0", "--tempdir-min-space=0")
    found = json.loads(ran.out)
    assert (found["sufficient"], found["dry_run"], found["failed"]) == (True, False, [])
    (removed,) = found["removed"]
    assert (removed["what"], removed["name"]) == ("staging area", "abc")
