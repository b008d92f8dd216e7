"""The descriptor that extensions log to: kept free in time, and a pipe while one of them runs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def reserved_descriptor() -> Iterator[int]:
    """A descriptor for workers to use, reserved while there are few: shells take one digit only.

    Where all such numbers are taken it is one that our caller left open. It goes on to lead where
    it does in this process; workers have no use for that.
    """
    fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield fd if fd < 10 else next((low for low in range(3, 10) if _is_inherited(low)), fd)
    finally:
        os.close(fd)


def _is_inherited(fd: int) -> bool:
    """What we opened ourselves is not inheritable."""
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def occupy(fd: int) -> None:
    """Let a descriptor lead nowhere, wherever it led."""
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(nothing, fd, inheritable=False)
    os.close(nothing)


@contextlib.contextmanager
def log_pipe(fd: int) -> Iterator[int]:
    """A pipe whose writing end is `fd`. Gives the reading end."""
    reading, writing = os.pipe()
    os.dup2(writing, fd, inheritable=False)
    os.close(writing)
    try:
        yield reading
    finally:
        os.close(reading)
