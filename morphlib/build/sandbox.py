"""Sandboxes: where the commands of builds run.

A sandbox is a value. Opening it mounts its root with everything that belongs into it, in the mount
namespace of the builder; commands then run in namespaces that bubblewrap makes of that, so that
they see no process of others, and nothing of a command is left when it is over. The network is
that of the builder: none. Nothing can be written but what is mounted to be written to.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from morphlib import process
from morphlib.build import syscalls
from morphlib.build.heldsandbox import Argument, HeldSandbox
from morphlib.build.runner import SIGNALS
from morphlib.build.sandboxroot import Mount, RootKind, mount_root, unmount_root
from morphlib.build.terminal import terminal_filter
from morphlib.errors import MorphError, Reason

#: What uid 0 of a sandbox may do. It can give files any owner and mode; it can't mount, make
#: device nodes, trace, or load anything into the kernel.
CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)

#: What the first process of a sandbox may do besides. It holds the machine's /proc open, as long as
#: bubblewrap waits: who has fewer capabilities can neither trace it nor look into its descriptors.
#: This one is of no use: the only network is one that nobody else is in.
_FIRST_MAY_TOO = "CAP_NET_BIND_SERVICE"

#: Of /proc, what belongs to the machine. It asks for uid 0 and nothing more, and that of a build
#: which root runs is the machine's own: one could set what the kernel runs when a program crashes.
_MACHINE_WIDE = ("acpi", "asound", "bus", "driver", "fs", "irq", "mtrr", "scsi", "sys")

_PIECE = 65536  # bytes of output to take at once: what a pipe holds


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What a command sees: `root` with `mounts`, `/dev`, `/dev/shm` and `/proc` in it.

    For RootKind.HOST, `root` is an empty directory on which one is put together of the tools of
    this machine. `environment` is the whole environment; bubblewrap adds PWD. `cwd` is a path
    inside.
    """

    root: Path
    kind: RootKind = RootKind.READ_ONLY
    mounts: tuple[Mount, ...] = ()
    environment: Mapping[str, Argument] = field(default_factory=dict)
    cwd: str = "/"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended. `status` is its exit status, 128 + N if signal N killed it, 127 if the
    sandbox has no such program. The time (seconds) and the peak memory (bytes, of the largest
    process, but no less than that of what starts commands) are of all that it waited for: what
    lost its parent is not counted."""

    status: int
    cpu_seconds: float
    peak_memory_bytes: int


def run_in_sandbox(sandbox: Sandbox, argv: Sequence[Argument], log_fd: int) -> Outcome:
    """Run one command in a sandbox, with its output going to `log_fd`. See `OpenSandbox.run`."""
    with open_sandbox(sandbox) as opened:
        return opened.run(argv, log_fd)


@contextlib.contextmanager
def open_sandbox(sandbox: Sandbox) -> Iterator[OpenSandbox]:
    """Mount all that belongs to a sandbox, for several commands to run in it.

    To be called in the namespaces of a builder. Raises MorphError (SANDBOX).
    """
    try:
        mount_root(sandbox.root, sandbox.kind, sandbox.mounts)
    except OSError as error:
        raise MorphError(
            f"Can't put a sandbox together: {error}",
            reason=Reason.SANDBOX,
            hint="See what morph doctor says.",
        ) from error
    opened = OpenSandbox(sandbox)
    try:
        yield opened
    finally:
        opened.close()
        unmount_root(sandbox.root)


class OpenSandbox:
    """A sandbox in which commands can run, one after another.

    They share its process namespace, but nothing of one is left when the next begins.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._held: HeldSandbox | None = None

    def run(
        self,
        argv: Sequence[Argument],
        log_fd: int,
        *,
        environment: Mapping[str, Argument] | None = None,
    ) -> Outcome:
        """Run a command to its end; nothing that it started is left then.

        Standard input is empty, standard output and error go to `log_fd`. `environment` takes the
        place of the sandbox's own. Raises MorphError if there is no sandbox to be had; whatever
        interrupts the caller kills the command.
        """
        environment = self.sandbox.environment if environment is None else environment
        if self._held is None:
            command = [*self._arguments(), "--cap-add", _FIRST_MAY_TOO]
            _tell_start([*command, "--", *argv])
            self._held = HeldSandbox(
                command, self.sandbox.cwd, CAPABILITIES, _FIRST_MAY_TOO, _of_the_machine()
            )
        else:
            _tell_start(argv)
        try:
            with _pipe() as (output, to_log):
                self._held.start(argv, environment, to_log)
                os.close(to_log)
                _copy_output(output, log_fd)
                ended = self._held.wait()
        except BaseException:
            self.close()
            raise
        return Outcome(ended.status, ended.cpu_seconds, ended.peak_memory_bytes)

    def run_on_terminal(
        self, argv: Sequence[Argument], *, environment: Mapping[str, Argument] | None = None
    ) -> Outcome:
        """Run a command with the caller's own streams and terminal; the caller may have no other
        child. Otherwise like `run`."""
        environment = self.sandbox.environment if environment is None else environment
        # IPC objects that one sandbox leaves are not for the next one to find.
        syscalls.unshare(syscalls.CLONE_NEWIPC)
        with _pipe() as (reading, writing):
            os.set_inheritable(writing, True)
            filtered = terminal_filter()
            command = [*self._arguments(), "--die-with-parent"]
            for path in _of_the_machine():
                command += ["--ro-bind", path, path]
            command += ["--json-status-fd", str(writing)]
            if filtered is not None:
                command += ["--seccomp", str(filtered)]
            for name, value in environment.items():
                command += ["--setenv", name, value]
            command += ["--", *argv]
            _tell_start(command)
            try:
                pid = _spawn(command)
            finally:
                if filtered is not None:
                    os.close(filtered)
            os.close(writing)
            try:
                status, cpu, peak = _wait(pid)
            except BaseException:
                _kill(pid)
                raise
            # What was killed, for want of memory say, did run.
            if b'"exit-code"' not in os.read(reading, 4096) and status <= 128:
                raise _not_started(status)
        return Outcome(status, cpu, peak)

    def close(self) -> None:
        """End everything in the sandbox."""
        if self._held is not None:
            held, self._held = self._held, None
            held.close()

    def _arguments(self) -> list[Argument]:
        """Bubblewrap with everything but descriptors and the command."""
        return [
            find_bubblewrap(),
            "--dev-bind",
            os.fspath(self.sandbox.root),
            "/",
            "--proc",
            "/proc",
            "--unshare-pid",
            "--chdir",
            self.sandbox.cwd,
            *_CAPABILITY_ARGUMENTS,
        ]


def _tell_start(command: Sequence[Argument]) -> None:
    if process.on_start is not None:
        process.on_start(list(command), {})


_CAPABILITY_ARGUMENTS = (
    "--cap-drop",
    "ALL",
    *(argument for name in CAPABILITIES for argument in ("--cap-add", name)),
)


@cache
def _of_the_machine() -> tuple[str, ...]:
    """The machine's part of /proc, which has to be read-only."""
    there = (f"/proc/{name}" for name in _MACHINE_WIDE)
    return tuple(path for path in there if Path(path).exists())


@cache
def find_bubblewrap() -> str:
    """Where bubblewrap is. Raises MorphError if it is not installed."""
    found = shutil.which("bwrap")
    if found is None:
        raise MorphError(
            "bubblewrap, which isolates builds, is not installed",
            reason=Reason.SANDBOX,
            hint="Install bwrap (package bubblewrap).",
        )
    return str(Path(found).resolve())


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """A pipe, to read from and to write to; either end may be closed before."""
    reading, writing = os.pipe()
    try:
        yield reading, writing
    finally:
        for fd in (reading, writing):
            with contextlib.suppress(OSError):
                os.close(fd)


def _copy_output(reading: int, log_fd: int) -> None:
    """Copy what a command and all that it starts print, until the last of them is gone.

    The log itself they don't get: what opens /dev/stderr to write to it would empty a file.
    """
    while data := os.read(reading, _PIECE):
        left = memoryview(data)
        while left:
            left = left[os.write(log_fd, left) :]


def _spawn(command: list[Argument]) -> int:
    try:
        return os.posix_spawn(command[0], command, {}, setsigmask=[], setsigdef=SIGNALS)
    except OSError as error:
        raise MorphError(f"Can't start bubblewrap: {error}", reason=Reason.SANDBOX) from error


def _wait(pid: int) -> tuple[int, float, int]:
    """Wait for a process and all other children that become ours.

    Bubblewrap ends with the command, but the first process of the command's namespace, which knows
    what time and memory was used, a moment later: as an orphan it becomes a child of the builder.
    """
    status, cpu, peak = 0, 0.0, 0
    while True:
        try:
            ended, wait_status, usage = os.wait4(-1, 0)
        except ChildProcessError:
            return status, cpu, peak * 1024
        cpu += usage.ru_utime + usage.ru_stime
        if ended != pid:
            peak = max(peak, usage.ru_maxrss)
        else:
            # Its peak counts what the builder has: they shared memory until it was started.
            code = os.waitstatus_to_exitcode(wait_status)
            status = code if code >= 0 else 128 - code


def _kill(pid: int) -> None:
    """Kill bubblewrap, and with it everything in the sandbox, and wait until that is so."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    _wait(pid)


def _not_started(status: int) -> MorphError:
    return MorphError(
        f"bubblewrap could not make a sandbox (exit status {status})",
        reason=Reason.SANDBOX,
        hint="See what morph doctor says.",
    )
