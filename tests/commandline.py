"""Running the real program as its users do."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MORPH = Path(__file__).parent.parent / "morph"


@dataclass(frozen=True)
class Ran:
    """How a run ended."""

    status: int
    out: str
    err: str


def run_morph(
    *arguments: str | bytes,
    home: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    program: Path = MORPH,
    configs: bool = False,
) -> Ran:
    """Run morph with a home of its own and nothing else of the caller's environment.

    With `configs` its default configuration files count. Output must be valid UTF-8.
    """
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TMPDIR": str(home),
        "GIT_CONFIG_NOSYSTEM": "1",
        **(env or {}),
    }
    options = [] if configs else ["--no-default-configs"]
    done = subprocess.run(
        [program, *options, *arguments],
        cwd=cwd or home,
        env=environment,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    return Ran(done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8"))
