"""What scripts/build-example and scripts/setup say before they do anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scripts.running import run_script


@pytest.mark.parametrize("name", ["build-example", "setup"])
def test_help_is_the_comment_at_the_top(name: str) -> None:
    result = run_script(name, "--help")
    assert result.status == 0
    assert f"usage: {name}" in result.out
    assert "set -eu" not in result.out


@pytest.mark.parametrize("name", ["build-example", "setup"])
def test_an_unknown_option_is_refused(name: str) -> None:
    result = run_script(name, "--frobnicate")
    assert result.status == 2
    assert f"usage: {name}" in result.out + result.err


def test_a_system_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = run_script("build-example", "--directory", tmp_path / "new", "systems/none.morph")
    assert result.status == 1
    assert "systems/none.morph" in result.err
    assert not (tmp_path / "new").exists()


def test_a_directory_that_would_break_the_alias_is_refused(tmp_path: Path) -> None:
    for name in ("with,comma", "with#hash", "with%s", "with blank"):
        result = run_script("build-example", "--directory", tmp_path / name)
        assert result.status == 1
        assert name in result.err
