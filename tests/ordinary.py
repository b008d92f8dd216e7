"""Doing something as an ordinary user, also where the tests run as root."""

from __future__ import annotations

import os
import shutil
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
