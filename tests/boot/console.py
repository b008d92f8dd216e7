"""Talking to a serial console: waiting for text, sending lines, running commands at a shell."""

from __future__ import annotations

import re
import socket
import time
from dataclasses import dataclass

#: What terminals take for orders: colours, positions, questions.
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_])")
_KEPT = 4000  # characters of what was said that a failure shows
_WAIT = 120.0

#: Makes a shell of the one that has the terminal which neither echoes nor asks for more, and keeps
#: the kernel from talking in between.
_PLAIN_SHELL = (
    "stty -echo -onlcr; dmesg -n 1; "
    """exec sh -c 'while IFS= read -r line; do printf "%s\\n" "$line"; done | sh 2>&1'"""
)


@dataclass(frozen=True, slots=True)
class Completed:
    """What a command said, without the line end at its end, and the status it ended with."""

    status: int
    output: str


class ConsoleError(AssertionError):
    """The console did not say what was waited for; the message has what it did say."""


class Console:
    """The other end of a serial line, as a connected stream socket. Waiting is in seconds."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._unread = ""
        self._count = 0
        self.log = ""

    def wait_for(self, pattern: str, timeout: float = _WAIT) -> re.Match[str]:
        """Wait for what a regular expression describes. What comes after it is read the next time.

        Raises ConsoleError when that does not come in time, or the machine ends before.
        """
        wanted = re.compile(pattern)
        deadline = time.monotonic() + timeout
        while (match := wanted.search(self._unread)) is None:
            self._read_more(pattern, timeout, deadline)
        self._unread = self._unread[match.end() :]
        return match

    def _read_more(self, pattern: str, timeout: float, deadline: float) -> None:
        self._line.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            data = self._line.recv(65536)
        except TimeoutError:
            raise ConsoleError(f"no {pattern!r} in {timeout:.0f} s{self._tail()}") from None
        if not data:
            raise ConsoleError(f"the machine ended without {pattern!r}{self._tail()}")
        text = data.decode("utf-8", "replace").replace("\r", "")
        self.log += text
        self._unread = _ESCAPE.sub("", self._unread + text)

    def _tail(self) -> str:
        return f"; the console said:\n{self.log[-_KEPT:]}"

    def send_line(self, text: str) -> None:
        self._line.sendall(text.encode() + b"\n")

    def wait_for_end(self, timeout: float = _WAIT) -> None:
        """Wait until the machine is off. Raises ConsoleError when it does not end in time."""
        deadline = time.monotonic() + timeout
        try:
            while True:
                self._read_more("(end)", timeout, deadline)
        except ConsoleError as error:
            if not str(error).startswith("the machine ended"):
                raise

    def log_in(self, user: str = "root", timeout: float = _WAIT) -> None:
        """Log in as a user without a password, and get ready for `run`."""
        self.wait_for(r"login: $", timeout)
        self.send_line(user)
        self.wait_for(r"[#$] $")
        self.send_line(_PLAIN_SHELL)
        self.run("true")

    def run(self, command: str, timeout: float = _WAIT) -> Completed:
        """Run a command of the shell to its end.

        The terminal may still echo it, so the marks around its output look different when typed.
        """
        self._count += 1
        mark = f"mark-{self._count}"
        self.send_line(f"echo begin''-{mark}; {{ {command}\n}} </dev/null; echo end''-{mark}-$?")
        self.wait_for(f"begin-{mark}\n", timeout)
        match = self.wait_for(rf"(?s)(.*?)end-{mark}-(\d+)\n", timeout)
        return Completed(int(match[2]), match[1].removesuffix("\n"))

    def output(self, command: str, timeout: float = _WAIT) -> str:
        """What a command says that must succeed. Raises ConsoleError if it does not."""
        done = self.run(command, timeout)
        if done.status != 0:
            raise ConsoleError(f"{command!r} ended with status {done.status}: {done.output}")
        return done.output
