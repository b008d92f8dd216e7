"""A sandbox that is held open, for several commands to run in it one after another.

This is the builder's side; `runner` has the processes. Entering once for all commands of a chunk
takes half the time of a sandbox for each.
"""

from __future__ import annotations

import contextlib
import json
import marshal
import os
import select
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morphlib.build.runner import CONTROL, LONGEST, READY
from morphlib.errors import MorphError, Reason

Argument = str | bytes

#: Numbers of the capabilities that are kept, by name (linux/capability.h).
CAPABILITY_NUMBERS = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_FOWNER": 3,
    "CAP_FSETID": 4,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_SYS_CHROOT": 18,
    "CAP_SETFCAP": 31,
}

#: What the launcher runs: nothing of the user's and no library is loaded, which keeps it small.
_LAUNCHER = "import sys; sys.path.append(sys.argv[1]); from morphlib.build import runner; "
_LAUNCHER += "runner.main()"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: exit status (128 + N for signal N), CPU seconds, peak memory in bytes.

    `unstarted` is the errno for which it could not be started at all.
    """

    status: int
    cpu_seconds: float
    peak_memory_bytes: int
    unstarted: int | None = None


class HeldSandbox:
    """Bubblewrap, waiting, and the runner. `command` is all of bubblewrap's arguments but those
    of descriptors and of a program; commands get `capabilities`, its first process has `more`, and
    what is mounted at the paths `read_only` becomes so. Raises MorphError (SANDBOX)."""

    def __init__(
        self,
        command: Sequence[Argument],
        cwd: str,
        capabilities: Sequence[str],
        more: str,
        read_only: Sequence[str],
    ) -> None:
        numbers = [CAPABILITY_NUMBERS[name] for name in capabilities]
        encoded = [_encode(each) for each in command]
        also = CAPABILITY_NUMBERS[more]
        wanted = (encoded, _encode(cwd), numbers, also, list(read_only))
        self._runner: int | None = None
        said = self._ask(wanted) or self._ask(wanted)  # somebody may have ended the launcher
        try:
            if not said:
                raise _broken("the process that holds it open ended")
            if not said.startswith(READY):
                raise _not_made(said.decode("utf-8", "backslashreplace"))
            with contextlib.suppress(ProcessLookupError):
                self._runner = os.pidfd_open(int(said.removeprefix(READY)))
        except BaseException:
            self.close()
            raise

    def _ask(self, wanted: tuple[Any, ...]) -> bytes:
        """Ask for a runner. Returns what it says, nothing if it ended without a word."""
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                _ask_for_runner(theirs, wanted)
            said = _receive(self._ours)
        except BaseException:
            self._ours.close()
            raise
        if not said:
            self._ours.close()
        return said

    def start(
        self, argv: Sequence[Argument], environment: Mapping[str, Argument], output: int
    ) -> None:
        """Start a command, with its output going to the descriptor `output`."""
        arguments = tuple(_encode(argument) for argument in argv)
        variables = {_encode(name): _encode(value) for name, value in environment.items()}
        try:
            _send(self._ours, output, (arguments, variables))
        except OSError as error:
            raise _broken(str(error)) from error

    def wait(self) -> Ended:
        """Wait until the command has ended and nothing of it is left."""
        reply = _receive(self._ours)
        if not reply:
            raise _broken("the process that runs commands in it ended")
        return Ended(*json.loads(reply))

    def close(self) -> None:
        """End everything in the sandbox, and wait until it has ended."""
        self._ours.close()
        if self._runner is not None:
            runner, self._runner = self._runner, None
            poll = select.poll()
            poll.register(runner, select.POLLIN)
            poll.poll()
            with contextlib.suppress(ChildProcessError):  # it is ours if the launcher was killed
                os.waitid(os.P_PIDFD, runner, os.WEXITED)
            os.close(runner)


def _encode(value: Argument) -> bytes:
    """As os.fsencode does, which takes twice as long."""
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")


def _receive(connection: socket.socket) -> bytes:
    """The next message; nothing if the other end is gone, which may not have read all of ours."""
    try:
        return connection.recv(LONGEST)
    except ConnectionResetError:
        return b""


def _send(connection: socket.socket, descriptor: int, content: tuple[Any, ...]) -> None:
    """Send a descriptor and a value, which may be larger than messages can be: in a file."""
    body = os.memfd_create("body", os.MFD_CLOEXEC)
    try:
        with open(body, "wb", closefd=False) as file:
            marshal.dump(content, file)
        socket.send_fds(connection, [b"run"], [descriptor, body])
    finally:
        os.close(body)


# The launcher of this process

_launcher: tuple[socket.socket, int] | None = None  # where to ask it, and its process id


def start_launcher() -> None:
    """Start the process that holds sandboxes open, if there is none yet.

    To be called in the namespaces of a builder. The first sandbox does it otherwise; a builder
    that has nothing to do yet saves some time with it. Raises MorphError (SANDBOX).
    """
    global _launcher
    if _launcher is not None:
        return
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    home = os.fspath(Path(__file__).parents[2])
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        with theirs:
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", "-B", "-c", _LAUNCHER, home],
                {},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), CONTROL),
                    (os.POSIX_SPAWN_DUP2, nothing, 1),
                    (os.POSIX_SPAWN_DUP2, nothing, 2),
                ],
                setsid=True,
            )
    except OSError as error:
        ours.close()
        raise MorphError(f"can't start {sys.executable}: {error}", reason=Reason.SANDBOX) from error
    finally:
        os.close(nothing)
    _launcher = (ours, pid)


def stop_launcher() -> None:
    """End that process, if there is one, and wait until it and all that it holds have ended."""
    global _launcher
    if _launcher is not None:
        connection, pid = _launcher
        _launcher = None
        connection.close()
        os.waitpid(pid, 0)


def _ask_for_runner(connection: socket.socket, wanted: tuple[Any, ...]) -> None:
    global _launcher
    for again in (True, False):
        start_launcher()
        assert _launcher is not None
        try:
            _send(_launcher[0], connection.fileno(), wanted)
        except OSError as error:  # somebody ended it
            stop_launcher()
            if not again:
                raise _broken(str(error)) from error
        else:
            return


def _not_made(why: str) -> MorphError:
    return MorphError(
        why or "bubblewrap could not make a sandbox: it does not say why",
        reason=Reason.SANDBOX,
        hint="See what morph doctor says.",
    )


def _broken(why: str) -> MorphError:
    return MorphError(
        f"a sandbox broke: {why}",
        reason=Reason.BUILD,  # the next one will do
        hint="Something outside of the build ended one of its processes; build again.",
    )
