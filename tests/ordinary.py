"""Doing something as an ordinary user, also where the tests run as root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NOBODY = 65534


@contextmanager
def ordinary_user() -> Iterator[Path]:
    """Be a user whom permissions keep out. Gives a directory of that user's own."""
    directory = Path(tempfile.mkdtemp(prefix="morph-tests-"))
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(directory, _NOBODY, _NOBODY)
        os.setegid(_NOBODY)
        os.seteuid(_NOBODY)
    try:
        yield directory
    finally:
        if is_root:
            os.seteuid(0)
            os.setegid(0)
        shutil.rmtree(directory)


def run_as_ordinary_user(code: str, *args: str | Path) -> None:
    """Run Python code in a process that was never root, for programs that ask who called them.

    Its working directory is a new one of the user's own. The code finds `args` in `sys.argv`.
    """
    directory = Path(tempfile.mkdtemp(prefix="morph-tests-"))
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(directory, _NOBODY, _NOBODY)
    try:
        subprocess.run(
            [sys.executable, "-c", code, *args],
            cwd=directory,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[1])},
            user=_NOBODY if is_root else None,
            group=_NOBODY if is_root else None,
            extra_groups=[] if is_root else None,
            check=True,
            timeout=300,
        )
    finally:
        shutil.rmtree(directory)
