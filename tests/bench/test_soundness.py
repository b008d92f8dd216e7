"""Morph itself finds nothing wrong with generated definitions."""

from __future__ import annotations

from pathlib import Path

from bench.graph import synthetic_graph
from bench.projects import write_projects
from morphlib.definitions import validate
from morphlib.definitions.reader import DirectoryReader


def test_definitions_are_sound(tmp_path: Path) -> None:
    layout = write_projects(synthetic_graph(60), tmp_path / "out")

    warnings: list[str] = []
    found = validate(DirectoryReader(layout.definitions), warn=warnings.append)

    assert warnings == []
    assert layout.system in found.systems
