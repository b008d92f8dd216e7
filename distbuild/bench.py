"""The process in which a builder builds: forked from it, and replaced when it has to be."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

from distbuild.framing import MAX_LINE, LineDecoder, encode
from distbuild.messages import Message, Name
from distbuild.workermessages import Step
from morphlib.build import syscalls
from morphlib.build.forked import live


class Alive(Message, frozen=True):
    """A sign of life."""


class At(Message, frozen=True):
    """What is done for the step now (see `JobPhase`)."""

    phase: Name


class Ended(Message, frozen=True):
    """A step ended, with an exit status (`distbuild.faults`). `phase` and `exit_code` are those of
    a command that failed."""

    status: int
    phase: Name | None = None
    exit_code: int | None = None


#: Seconds between signs of life, and after which a bench without work lets go of what it can.
_ALIVE_SECONDS, _REST_SECONDS = 1.0, 60.0
_Said = Alive | At | Ended
_MOST_SAID = 1 << 14  # bytes of one message; texts are far shorter


class Steps(Protocol):
    """What builds, in the bench."""

    def build(self, step: Step, tell: Callable[[str], None]) -> Ended:
        """Build a step, and tell what is done for it. KeyboardInterrupt may end it."""

    @property
    def is_well(self) -> bool:
        """Whether what builds can go on: only then signs of life are given."""

    def rest(self) -> None: ...

    def close(self) -> None: ...


class Bench:
    """One such process, seen from the builder. `make` is called in it.

    `descriptors` can be read when there is something to `read` or to `hear`.
    """

    def __init__(self, make: Callable[[], Steps]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pipes = (os.pipe(), os.pipe())
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            for number, (reading, writing) in enumerate(pipes, 1):
                os.close(reading)
                os.dup2(writing, number)
                os.close(writing)
            _be_bench(make, theirs, parent)
        theirs.close()
        self._control = ours
        self._decoder = LineDecoder[_Said](_Said)
        self._control.setblocking(False)
        self._pipes: list[int] = []
        for reading, writing in pipes:
            os.close(writing)
            os.set_blocking(reading, False)
            self._pipes.append(reading)
        self._is_reaped = False

    @property
    def descriptors(self) -> tuple[int, ...]:
        return (self._control.fileno(), *(pipe for pipe in self._pipes if pipe >= 0))

    @property
    def memory(self) -> int:
        """Bytes that it alone has."""
        try:
            fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        except OSError:
            return 0
        return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")

    def build(self, step: Step) -> None:
        with contextlib.suppress(OSError):  # it is gone, which is heard next
            self._control.send(encode(step))

    def read(self) -> tuple[bytes, bytes]:
        """What it printed, to standard output and error, so far."""
        out, err = (self._drain(number) for number in (0, 1))
        return out, err

    def _drain(self, number: int) -> bytes:
        found = b""
        while self._pipes[number] >= 0 and len(found) < MAX_LINE:
            try:
                data = os.read(self._pipes[number], 1 << 16)
            except BlockingIOError:
                break
            if not data:
                os.close(self._pipes[number])
                self._pipes[number] = -1
            found += data
        return found

    def hear(self) -> Iterator[_Said | None]:
        """What it says, None at its end."""
        while True:
            try:
                data = self._control.recv(_MOST_SAID)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data = b""
            yield self._decoder.decode(data) if data else None
            if not data:
                return

    def ask_to_end(self) -> None:
        """Let it end tidily, also if somebody stopped it."""
        if not self._is_reaped:
            os.kill(self.pid, signal.SIGTERM)
            os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        if not self._is_reaped:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> str:
        """It is gone, or about to be. Returns how it ended, for people."""
        _, status = os.waitpid(self.pid, 0)
        # What it may have left belongs to its group, whose number nobody else has as long as
        # there is something of it.
        self.kill()
        self._is_reaped = True
        code = os.waitstatus_to_exitcode(status)
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"

    def close(self) -> None:
        """Read no more of what it left."""
        self._control.close()
        for number, pipe in enumerate(self._pipes):
            if pipe >= 0:
                os.close(pipe)
                self._pipes[number] = -1

    def end(self, patience: float, *, is_busy: bool) -> None:
        """End it: at once if it does nothing, else after it had so many seconds to tidy up."""
        if is_busy:
            self.ask_to_end()
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + patience
        while os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            self.read()  # it must not wait for us
            if time.monotonic() > deadline:
                self.kill()
            time.sleep(0.005)
        self.reap()
        self.close()


# In the bench


def _be_bench(make: Callable[[], Steps], control: socket.socket, parent: int) -> None:
    """The life of a bench; never returns."""

    def life() -> None:
        try:
            os.setpgid(0, 0)
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() == parent:
                nothing = os.open(os.devnull, os.O_RDONLY)
                os.dup2(nothing, 0)
                os.close(nothing)
                _serve(make(), control)
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()

    live(life)


def _serve(steps: Steps, control: socket.socket) -> None:
    decoder = LineDecoder[Step](Step)
    is_rested = True
    try:
        while True:
            if not is_rested and not select.select([control], [], [], _REST_SECONDS)[0]:
                steps.rest()
                is_rested = True
            data = control.recv(MAX_LINE)
            if not data:
                return
            is_rested = False
            with _signs_of_life(control, steps):
                step = decoder.decode(data.rstrip())
                ended = steps.build(step, lambda phase: _say(control, At(phase=phase)))
            sys.stdout.flush()
            sys.stderr.flush()
            _say(control, ended)
    finally:
        steps.close()


def _say(control: socket.socket, said: _Said) -> None:
    control.send(encode(said))


@contextmanager
def _signs_of_life(control: socket.socket, steps: Steps) -> Iterator[None]:
    """Say again and again that the main thread is there, whatever it does or waits for."""

    def tell(number: int, frame: FrameType | None) -> None:
        if steps.is_well:
            with contextlib.suppress(OSError):
                control.send(encode(Alive()), socket.MSG_DONTWAIT)

    signal.signal(signal.SIGALRM, tell)
    signal.setitimer(signal.ITIMER_REAL, _ALIVE_SECONDS, _ALIVE_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
