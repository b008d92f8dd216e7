"""The real helper, with a daemon that is played by the test."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from distbuild.addresses import listen
from distbuild.framing import LineDecoder, encode
from distbuild.handshake import Party
from distbuild.messages import Hello, Message, Ping, Role
from distbuild.workermessages import (
    ExecCancel,
    ExecOutput,
    ExecRequest,
    ExecResponse,
    FromHelper,
    JobBuilt,
)
from morphlib.process import wait_until
from tests.distbuild.network import HELPER


class Daemon:
    """One side of a helper's connection."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._file = peer.makefile("rb")
        self._decoder = LineDecoder[Any](FromHelper)

    def greet(self) -> None:
        first = LineDecoder[Hello](Hello).decode(self._file.readline())
        assert first.role is Role.HELPER
        self.say(Party(Role.WORKER).hello())

    def hang_up(self) -> None:
        self._peer.shutdown(socket.SHUT_RDWR)

    def say(self, message: Message) -> None:
        self._peer.sendall(encode(message))

    def hear(self) -> Any:
        while isinstance(message := self._decoder.decode(self._file.readline()), Ping):
            pass
        return message

    def result(self, name: str) -> tuple[bytes, bytes, int]:
        """Output, errors and exit status of a program."""
        out = err = b""
        while True:
            message = self.hear()
            assert message.id == name
            if isinstance(message, ExecResponse):
                return out, err, message.exit
            assert isinstance(message, ExecOutput)
            out, err = out + message.stdout, err + message.stderr

    def run(self, name: str, *argv: str, stdin: bytes = b"") -> tuple[bytes, bytes, int]:
        self.say(ExecRequest(id=name, argv=argv, stdin=stdin))
        return self.result(name)


@contextmanager
def helper(**environment: str) -> Iterator[tuple[Daemon, subprocess.Popen[bytes]]]:
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        program = [str(HELPER), "--no-default-configs", f"--parent-port={port}"]
        child = subprocess.Popen(program, env={"PATH": os.environ["PATH"], **environment})
        peer, _ = listening.accept()
        with peer:
            daemon = Daemon(peer)
            daemon.greet()
            yield daemon, child
            daemon.hang_up()
        assert child.wait(30) == 0


def test_programs_are_run_and_what_they_print_comes_back() -> None:
    with helper(COLOUR="blue") as (daemon, _):
        assert daemon.run("1", "sh", "-c", "echo test") == (b"test\n", b"", 0)
        assert daemon.run("2", "sh", "-c", "echo $COLOUR >&2; exit 3") == (b"", b"blue\n", 3)
        assert daemon.run("3", "cat", stdin=b"\0\xffbytes") == (b"\0\xffbytes", b"", 0)
        # One that does not read what it is given, and one that is killed.
        assert daemon.run("4", "true", stdin=b"x" * 60_000) == (b"", b"", 0)
        assert daemon.run("5", "sh", "-c", "kill -9 $$")[2] == -9
        out, err, status = daemon.run("6", "/nowhere/at/all")
        assert (out, status) == (b"", 127)
        assert b"/nowhere/at/all" in err


def test_what_no_daemon_says_is_passed_over() -> None:
    with helper() as (daemon, _):
        daemon.say(JobBuilt(job="x"))
        daemon.say(ExecCancel(id="unknown"))
        daemon._peer.sendall(b"\xff\n[]\n\n")
        assert daemon.run("1", "echo", "still") == (b"still\n", b"", 0)


def test_programs_run_side_by_side() -> None:
    with helper() as (daemon, _):
        daemon.say(ExecRequest(id="slow", argv=("sleep", "60")))
        assert daemon.run("fast", "echo", "now") == (b"now\n", b"", 0)
        daemon.say(ExecCancel(id="slow"))
        assert daemon.result("slow") == (b"", b"", -signal.SIGTERM)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_what_a_cancelled_program_started_ends_too() -> None:
    inner = (
        "import os, signal, time; os.setpgid(0, 0); signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        " print(os.getpid(), flush=True); time.sleep(100); print('never')"
    )
    with helper() as (daemon, _):
        # It makes itself a process group, and does not heed SIGTERM.
        argv = ("sh", "-c", '"$0" -c "$1" & wait', sys.executable, inner)
        daemon.say(ExecRequest(id="1", argv=argv))
        pid = int(daemon.hear().stdout)
        began = time.monotonic()
        daemon.say(ExecCancel(id="1"))
        out, _, status = daemon.result("1")
        assert status < 0
        assert b"never" not in out
        assert wait_until(lambda: not alive(pid), 20)
        assert time.monotonic() - began < 25


def test_output_held_open_by_what_a_program_left_behind_delays_nothing() -> None:
    with helper() as (daemon, _):
        began = time.monotonic()
        out, _, status = daemon.run("1", "sh", "-c", "sleep 60 & echo done")
        assert (out, status) == (b"done\n", 0)
        assert time.monotonic() - began < 30


def test_a_helper_without_its_daemon_ends_what_it_runs() -> None:
    with helper() as (daemon, child):
        daemon.say(ExecRequest(id="1", argv=("sh", "-c", "echo $$; sleep 100")))
        pid = int(daemon.hear().stdout)
        assert alive(pid)
    assert child.returncode == 0
    assert not alive(pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP] * 2)
def test_a_helper_that_is_told_to_end_does_so(number: signal.Signals) -> None:
    """Wherever it is: in the middle of starting a program, it once went on for ever."""
    with helper() as (daemon, child):
        daemon.say(ExecRequest(id="1", argv=("sh", "-c", "echo $$; sleep 100")))
        pid = int(daemon.hear().stdout)
        child.send_signal(number)
        assert child.wait(60) == 0
        assert not alive(pid)


def run_helper(*options: str) -> subprocess.CompletedProcess[str]:
    command = [str(HELPER), "--no-default-configs", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_daemon_that_is_not_there_is_told() -> None:
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
    ran = run_helper(f"--parent-port={port}")
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"ERROR: Couldn't connect to localhost:{port}: ")


def test_the_command_line() -> None:
    assert "--parent-address=ADDRESS" in run_helper("--help").stdout
    assert "parent-port = 3434\n" in run_helper("--dump-config").stdout
    assert run_helper("--version").stdout.strip()
    assert run_helper("--nothing").returncode == 2
    assert run_helper("--parent-port=0").returncode == 2
