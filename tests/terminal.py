"""Morph on a pseudo terminal, as people see it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.commandline import MORPH

_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A program on a pseudo terminal, and all that it has written there so far."""

    def __init__(
        self,
        arguments: Sequence[str],
        settings: Mapping[str, str],
        home: Path,
        cwd: Path,
        *,
        lines: int = 24,
        columns: int = 100,
    ) -> None:
        self.main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.settings = termios.tcgetattr(side)
        options = [f"--{name}={value}" for name, value in settings.items()]
        self.process = subprocess.Popen(
            # The terminal becomes the one that Ctrl-C comes from.
            ["setsid", "--ctty", MORPH, "--no-default-configs", *options, *arguments],
            cwd=cwd,
            env={"PATH": os.environ["PATH"], "HOME": str(home), "TERM": "xterm-256color"},
            stdin=side,
            stdout=side,
            stderr=side,
        )
        os.close(side)
        self.text = ""

    def read_until(self, pattern: str, timeout: float = 30) -> None:
        """Wait for something to be written."""
        deadline = time.monotonic() + timeout
        while not re.search(pattern, self.plain):
            assert time.monotonic() < deadline, self.text
            assert self._read(0.1), f"ended without {pattern}: {self.text}"

    def finish(self, timeout: float = 30) -> int:
        deadline = time.monotonic() + timeout
        try:
            while self._read(0.1):
                assert time.monotonic() < deadline, self.text
            return self.process.wait(timeout=5)
        finally:
            self.process.kill()
            os.close(self.main)

    def type(self, text: bytes) -> None:
        os.write(self.main, text)

    @property
    def plain(self) -> str:
        """What was written without what moves the cursor and sets colours."""
        return _SEQUENCE.sub("", self.text)

    @property
    def shows_cursor(self) -> bool:
        return self.text.rfind("\x1b[?25h") >= self.text.rfind("\x1b[?25l")

    def _read(self, timeout: float) -> bool:
        if not select.select([self.main], [], [], timeout)[0]:
            return True
        try:
            self.text += os.read(self.main, 65536).decode("utf-8", "replace")
        except OSError:
            return False  # nobody has the terminal open any more
        return True
