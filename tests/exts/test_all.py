"""What every built-in extension has to have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from morphlib.writeexts.extension import WriteExtension
from morphlib.writeexts.helpfile import built_in, help_file
from morphlib.writeexts.program import load_extension
from tests.exts.programs import EXTS, fail

PROGRAMS = sorted(
    path.name for kind in ("check", "configure", "write") for path in EXTS.glob(f"*.{kind}")
)
STUB = (EXTS / "set-hostname.configure").read_bytes()


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_can_be_run(name: str) -> None:
    assert os.access(EXTS / name, os.X_OK)
    assert (EXTS / name).read_bytes() == STUB


@pytest.mark.parametrize("name", PROGRAMS)
def test_wrong_number_of_arguments_is_told(name: str) -> None:
    assert "Wrong number of command line args" in fail(name)


@pytest.mark.parametrize("path", [path for path, _ in built_in()], ids=lambda path: path.name)
def test_help_is_current(path: Path) -> None:
    extension = dict(built_in())[path]
    assert path.read_text() == help_file(extension), "run python -m morphlib.writeexts.helpfile"
    assert yaml.safe_load(path.read_text())["help"].strip()


@pytest.mark.parametrize("path", [path for path, _ in built_in()], ids=lambda path: path.name)
def test_everything_is_explained(path: Path) -> None:
    extension = dict(built_in())[path]
    assert extension.description.strip()
    assert all(parameter.help.strip() for parameter in extension.parameters)
    if isinstance(extension, WriteExtension):
        assert extension.location_help.strip()


def test_what_writes_can_be_checked() -> None:
    for path in EXTS.glob("*.write"):
        assert path.with_suffix(".check").exists()
        assert isinstance(load_extension(path.stem, "write"), WriteExtension)
