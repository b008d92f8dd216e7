"""The builder processes of this machine.

Each is forked once, enters its namespaces and builds one source after another. Mounts live in the
builder's own mount namespace and die with it, builds die with their builder, and a builder dies
with its parent: whatever is killed, nothing stays mounted or running.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from morphlib.build import model
from morphlib.build.forked import leave_once, live
from morphlib.build.model import BuildContext, FromBuilder, Job
from morphlib.build.slots import BusySlots

_PATIENCE = 10.0  # seconds that a builder gets to clear up before it is killed


@dataclass(slots=True)
class Builder:
    """One builder process, seen from its parent."""

    slot: int
    pid: int
    connection: Connection
    job: Job | None = None
    ready: bool = field(default=False)

    def assign(self, job: Job) -> None:
        self.job = job
        self.connection.send_bytes(model.encode(job))

    def receive(self) -> FromBuilder | None:
        """The next message, None when the builder is gone."""
        try:
            message: FromBuilder = model.decode_message(self.connection.recv_bytes())
        except (EOFError, OSError):
            return None
        return message


#: What a builder process runs: context, slot, busy slots, connection to the parent.
Work = Callable[[BuildContext, int, BusySlots, "Connection"], None]


def start_builders(context: BuildContext, count: int, work: Work) -> list[Builder]:
    """Fork `count` builders. Must be called while the process has a single thread."""
    sys.stdout.flush()
    sys.stderr.flush()
    busy = BusySlots(count)
    builders: list[Builder] = []
    for slot in range(count):
        ours, theirs = Pipe()
        pid = os.fork()
        if pid == 0:
            for other in builders:
                other.connection.close()
            ours.close()
            _be_builder(context, slot, busy, theirs, work)
        theirs.close()
        builders.append(Builder(slot, pid, ours))
    return builders


def _be_builder(
    context: BuildContext, slot: int, busy: BusySlots, connection: Connection, work: Work
) -> None:
    """The life of a builder; never returns."""

    def life() -> None:
        # The terminal sends Ctrl-C to everybody; the parent decides what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, leave_once)
        work(context, slot, busy, connection)

    live(life)


def wait_for(builders: Sequence[Builder], wakeup: int, timeout: float | None) -> list[Builder]:
    """The builders that have something to say. `wakeup` is a descriptor that ends the wait too."""
    by_fd = {builder.connection.fileno(): builder for builder in builders}
    poll = select.poll()
    for fd in (*by_fd, wakeup):
        poll.register(fd, select.POLLIN)
    ready = poll.poll(None if timeout is None else timeout * 1000)
    return [by_fd[fd] for fd, _ in ready if fd != wakeup]


def stop_builders(builders: Sequence[Builder]) -> None:
    """End all builders: those at work are told to clear up, and killed if they take too long."""
    for builder in builders:
        builder.connection.close()
        if builder.job is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(builder.pid, signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE
    for builder in builders:
        while os.waitpid(builder.pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                os.kill(builder.pid, signal.SIGKILL)
                os.waitpid(builder.pid, 0)
                break
            time.sleep(0.002)


def reap(builder: Builder) -> str:
    """Take leave of a builder whose connection broke. Returns how it ended, for people."""
    builder.connection.close()
    _, status = os.waitpid(builder.pid, 0)
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with status {os.waitstatus_to_exitcode(status)}"
