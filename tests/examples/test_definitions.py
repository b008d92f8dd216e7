"""The example's definitions, as far as one can judge them without building them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.commandline import run_morph

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_morph_finds_no_mistake_in_them(tmp_path: Path) -> None:
    definitions = tmp_path / "definitions"
    shutil.copytree(EXAMPLES, definitions)
    subprocess.run(["git", "init", "-q", definitions], check=True)
    ran = run_morph("validate", home=tmp_path, cwd=definitions)
    assert ran.status == 0, ran.err
    assert "No mistakes" in ran.out + ran.err
    assert "clusters" in {path.name for path in definitions.iterdir()}
