"""What runs programs for a daemon, which never waits for one itself.

A helper connects to its daemon and starts what that asks for, each program in a session of its own.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING

from distbuild.addresses import Address
from distbuild.conversation import ConnectionLost, Conversation
from distbuild.crashing import passing
from distbuild.framing import MAX_OUTPUT
from distbuild.handshake import Party
from distbuild.messages import Role
from distbuild.workermessages import (
    ExecCancel,
    ExecInput,
    ExecOutput,
    ExecRequest,
    ExecResponse,
    FromHelper,
    ToHelper,
)
from morphlib.process import PIPE, ProcessError, spawn

if TYPE_CHECKING:
    from subprocess import Popen  # noqa: TID251  (the type of what `spawn` gives)

_log = logging.getLogger("morph.distbuild")

#: What a shell says of a program that it can't start.
_NOT_STARTED = 127
#: Seconds that a program has for tidying up when it is to end, before it is killed.
END_SECONDS = 10.0
#: Seconds that output is waited for after a program ended: what it left may hold the pipe open.
_DRAIN_SECONDS = 2.0


def serve(address: Address, party: Party, let_end: Callable[[Callable[[], None]], None]) -> None:
    """Work for the daemon at `address` until it hangs up. `let_end` is given what to call, from a
    signal handler if need be, so that this comes to its end.

    Raises MorphError if it can't be reached or refuses us.
    """
    daemons = (Role.CONTROLLER, Role.WORKER)
    with Conversation[ToHelper](address, party, daemons, ToHelper) as conversation:
        _hang_up_at_signals(conversation)
        programs = Programs(conversation)
        let_end(conversation.hang_up)
        try:
            while True:
                programs.take(conversation.hear())
        except ConnectionLost as error:
            _log.info("%s", error)
        finally:
            programs.end_all()


def _hang_up_at_signals(conversation: Conversation[ToHelper]) -> None:
    """Let no signal wait for the daemon to say something.

    One that comes right before the main thread begins to wait does not end its waiting.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def wait() -> None:
        os.read(reading, 1)
        conversation.hang_up()

    threading.Thread(target=wait, daemon=True).start()


class Programs:
    """The programs that run."""

    def __init__(self, conversation: Conversation[ToHelper]) -> None:
        self._conversation = conversation
        self._running: dict[str, Popen[bytes]] = {}
        self._inputs: dict[str, SimpleQueue[ExecInput]] = {}  # of those that may get more
        self._lock = threading.Lock()

    def take(self, message: ToHelper) -> None:
        match message:
            case ExecRequest():
                self._start(message)
            case ExecInput(id=request):
                with self._lock:
                    queue = self._inputs.get(request)
                if queue is not None:
                    queue.put(message)
            case ExecCancel(id=request):
                with self._lock:
                    child = self._running.get(request)
                if child is not None:
                    threading.Thread(target=end_session, args=[child], daemon=True).start()
            case _:
                pass

    def _start(self, request: ExecRequest) -> None:
        passing("helper", "start")
        try:
            child = spawn(
                request.argv,
                env=None,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                start_new_session=True,
            )
        except (ProcessError, ValueError) as error:
            # The second for a null byte, which no argument can have.
            self._say(ExecOutput(id=request.id, stderr=f"{error}\n".encode()))
            self._say(ExecResponse(id=request.id, exit=_NOT_STARTED))
            return
        with self._lock:
            self._running[request.id] = child
            if request.keeps_input:
                self._inputs[request.id] = SimpleQueue()
        threading.Thread(target=self._follow, args=[request, child], daemon=True).start()

    def _follow(self, request: ExecRequest, child: Popen[bytes]) -> None:
        assert child.stdout is not None
        assert child.stderr is not None
        readers = [
            threading.Thread(target=self._relay, args=[request.id, pipe, is_error], daemon=True)
            for pipe, is_error in ((child.stdout, False), (child.stderr, True))
        ]
        for reader in readers:
            reader.start()
        threading.Thread(target=self._feed, args=[request, child], daemon=True).start()
        status = child.wait()
        passing("helper", "ended")
        for reader in readers:
            reader.join(_DRAIN_SECONDS)
        with self._lock:
            del self._running[request.id]
            queue = self._inputs.pop(request.id, None)
        if queue is not None:
            queue.put(ExecInput(id=request.id, is_last=True))
        self._say(ExecResponse(id=request.id, exit=status))

    def _feed(self, request: ExecRequest, child: Popen[bytes]) -> None:
        """Give a program its input: a thread waits where it does not read it."""
        assert child.stdin is not None
        with self._lock:
            queue = self._inputs.get(request.id)
        with suppress(OSError), child.stdin as pipe:  # a program need not read what it is given
            pipe.write(request.stdin)
            pipe.flush()
            while queue is not None:
                more = queue.get()
                pipe.write(more.data)
                pipe.flush()
                if more.is_last:
                    return

    def _relay(self, request: str, pipe: IO[bytes], is_error: bool) -> None:
        with suppress(OSError, ValueError):
            while data := os.read(pipe.fileno(), MAX_OUTPUT):
                if is_error:
                    self._say(ExecOutput(id=request, stderr=data))
                else:
                    self._say(ExecOutput(id=request, stdout=data))

    def _say(self, message: FromHelper) -> None:
        with suppress(ConnectionLost):  # whoever hears notices it too
            self._conversation.say(message)

    def end_all(self) -> None:
        with self._lock:
            children = list(self._running.values())
        threads = [threading.Thread(target=end_session, args=[child]) for child in children]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def end_session(child: Popen[bytes]) -> None:
    """Ask all processes of a session to end, also those that were stopped, and kill those that do
    not."""
    for number, patience in ((signal.SIGTERM, END_SECONDS), (signal.SIGKILL, 1.0)):
        for pid in session_members(child.pid):
            with suppress(OSError):
                os.kill(pid, number)
                os.kill(pid, signal.SIGCONT)
        deadline = threading.Event()
        waited = 0.0
        while waited < patience and session_members(child.pid):
            deadline.wait(0.05)
            waited += 0.05


def session_members(session: int) -> list[int]:
    """The processes of a session that run, also those that made themselves a process group."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                fields = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
                if int(fields[3]) == session and fields[0] not in (b"Z", b"X"):
                    found.append(int(name))
    return found
