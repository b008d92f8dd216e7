"""morph validate, on the real program."""

from __future__ import annotations

import json
from pathlib import Path

from tests.commandline import run_morph

STRATUM = """\
name: core
kind: stratum
build-depends: []
chunks:
- name: zlib
  repo: upstream:zlib
  ref: master
  build-system: manual
"""

SYSTEM = """\
name: demo
kind: system
arch: x86_64
strata:
- name: core
  morph: strata/core.morph
"""


def make_definitions(root: Path, **changes: str) -> Path:
    """A small sound definitions repository; `changes` replace the texts of its files."""
    texts = {"version": "version: 7\n", "stratum": STRATUM, "system": SYSTEM} | changes
    (root / "strata").mkdir(parents=True)
    (root / "systems").mkdir()
    (root / "VERSION").write_text(texts["version"])
    (root / "DEFAULTS").write_text("{}\n")
    (root / "strata" / "core.morph").write_text(texts["stratum"])
    (root / "systems" / "demo.morph").write_text(texts["system"])
    return root


def test_sound_definitions(tmp_path: Path) -> None:
    definitions = make_definitions(tmp_path / "definitions")
    ran = run_morph("validate", home=tmp_path, cwd=definitions)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.endswith("No mistakes found in 2 definitions\n")
    assert run_morph("validate", "--quiet", home=tmp_path, cwd=definitions).out == ""


def test_all_mistakes_are_told_with_their_places(tmp_path: Path) -> None:
    definitions = make_definitions(
        tmp_path / "definitions",
        stratum=STRATUM.replace("  ref: master\n", ""),
        system=SYSTEM.replace("arch: x86_64", "arch: pdp11"),
    )
    ran = run_morph("validate", home=tmp_path, cwd=definitions / "systems")
    assert ran.status == 1
    errors = [line for line in ran.err.splitlines() if line.startswith("ERROR: ")]
    assert len(errors) == 2
    assert any("strata/core.morph:5" in error and "ref" in error for error in errors)
    assert any("systems/demo.morph:3" in error and "pdp11" in error for error in errors)


def test_one_file_may_be_checked(tmp_path: Path) -> None:
    definitions = make_definitions(tmp_path / "definitions", system="kind: system\n")
    below = definitions / "systems"
    assert run_morph("validate", "../strata/core.morph", home=tmp_path, cwd=below).status == 0
    assert run_morph("validate", "demo.morph", home=tmp_path, cwd=below).status == 1
    outside = run_morph("validate", "/etc/passwd", home=tmp_path, cwd=below)
    assert outside.status != 0
    assert "is not in" in outside.err


def test_json(tmp_path: Path) -> None:
    definitions = make_definitions(
        tmp_path / "definitions", system=SYSTEM.replace("arch: x86_64", "arch: pdp11")
    )
    ran = run_morph("validate", "--json", home=tmp_path, cwd=definitions)
    assert (ran.status, ran.err) == (1, "")
    found = json.loads(ran.out)
    assert found["valid"] is False
    (error,) = found["errors"]
    assert (error["path"], error["line"]) == ("systems/demo.morph", 3)
    assert "pdp11" in error["message"]


def test_sound_definitions_as_json(tmp_path: Path) -> None:
    definitions = make_definitions(tmp_path / "definitions")
    ran = run_morph("validate", "--json", home=tmp_path, cwd=definitions)
    assert (ran.status, ran.err) == (0, "")
    assert json.loads(ran.out) == {"valid": True, "errors": [], "warnings": []}


def test_outside_of_definitions(tmp_path: Path) -> None:
    ran = run_morph("validate", home=tmp_path)
    assert ran.status == 1
    assert "is not in a definitions repository" in ran.err
