"""Starting the programs of scripts/ as their users do."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
SCRIPTS = CHECKOUT / "scripts"


@dataclass(frozen=True, slots=True)
class Result:
    status: int
    out: str
    err: str


def run_script(
    name: str, *arguments: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Result:
    """Run a script to its end; `env` is added to the environment."""
    done = subprocess.run(
        [str(SCRIPTS / name), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)
