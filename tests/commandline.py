"""Running the real program as its users do."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
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
    prefix: Sequence[str] = (),
    timeout: float = 60,
) -> Ran:
    """Run morph with a home of its own and nothing else of the caller's environment.

    `prefix` stands before the command line. A program that takes longer than `timeout` is killed.
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
        [*prefix, program, *options, *arguments],
        cwd=cwd or home,
        env=environment,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=timeout,
        check=False,
    )
    return Ran(done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8"))
