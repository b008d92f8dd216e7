"""The one door through which other programs are started.

Arguments are lists, the environment is given whole, standard input is closed unless something is
to be fed in. Nothing here knows a shell. Lint keeps the `subprocess` module out of other places.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from morphlib.errors import MorphError, Reason

Arg = str | bytes | Path


@dataclass(frozen=True, slots=True)
class Completed:
    """What a finished program left: `status` is its exit status, negative for a signal."""

    argv: tuple[Arg, ...]
    status: int
    stdout: bytes
    stderr: bytes


class ProcessError(MorphError):
    """A program could not be started, was killed, or exited with a status other than 0."""

    def __init__(self, argv: Sequence[Arg], status: int | None, output: bytes) -> None:
        self.argv = tuple(argv)
        self.status = status
        self.output = output
        super().__init__(describe_failure(argv, status, output), reason=Reason.SOURCE)


#: Called with the argument list and the changes of environment of each program; --debug shows them.
on_start: Callable[[Sequence[Arg], Mapping[str, str] | None], None] | None = None


_ending = False


def quote(argv: Sequence[Arg]) -> str:
    """`argv` as text that a shell reads back as the same arguments (undecodable bytes replaced)."""
    return shlex.join(os.fsdecode(arg) for arg in argv).encode("utf-8", "replace").decode()


def describe_failure(argv: Sequence[Arg], status: int | None, output: bytes) -> str:
    command = quote(argv)
    if status is None:
        what = f"can't start {os.fsdecode(argv[0])}: {output.decode('utf-8', 'replace')}"
    elif status < 0:
        what = f"{command} was killed by {signal.Signals(-status).name}"
    else:
        what = f"{command} failed (exit status {status})"
    tail = output.decode("utf-8", "replace").strip() if status is not None else ""
    if tail:
        what += "\n" + "\n".join("    " + line for line in tail.splitlines()[-20:])
    return what


def run(
    argv: Sequence[Arg],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    check: bool = True,
    timeout: float | None = None,
    pass_fds: Sequence[int] = (),
    tidies: bool = False,
) -> Completed:
    """Run a program to its end and keep what it prints.

    `env` is the whole environment (None: the caller's own). `timeout` is in seconds; a program that
    outlives it is killed and counts as failed. What `tidies` is started even after an interruption:
    it takes away what was made. Raises ProcessError if it can't be started, or, with
    `check`, if it fails.
    """
    if _ending and not tidies:
        raise ProcessError(argv, None, b"interrupted")
    if on_start is not None:
        on_start(argv, env)
    try:
        child = subprocess.Popen(
            list(argv),
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=pass_fds,
        )
    except OSError as error:
        raise ProcessError(argv, None, (error.strerror or str(error)).encode()) from error
    with child:
        if _ending and not tidies:  # since we looked
            child.terminate()
        try:
            out, err = child.communicate(stdin, timeout)
        except subprocess.TimeoutExpired as error:
            child.kill()
            message = f"gave no result in {timeout:g} seconds"
            raise ProcessError(argv, -signal.SIGKILL, message.encode()) from error
        except BaseException:
            child.kill()
            raise
    completed = Completed(tuple(argv), child.returncode, out, err)
    if check and child.returncode != 0:
        raise ProcessError(argv, child.returncode, err or out)
    return completed


def end_programs() -> None:
    """Ask every program that runs to end, and let `run` start no other: we were interrupted.

    Threads that wait for a program, such as one that fetches from a server, come to their end.
    """
    global _ending
    _ending = True
    for task in Path("/proc/self/task").iterdir():
        try:
            for pid in (task / "children").read_text().split():
                os.kill(int(pid), signal.SIGTERM)
        except OSError:
            pass  # the thread or the program is gone already


def spawn(
    argv: Sequence[Arg],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: int | None = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
    start_new_session: bool = False,
    prepare: Callable[[], None] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program and leave it running. Raises ProcessError if it can't be started.

    `stdin` may be None for the caller's own. `prepare` is called in the new process before the
    program: only callers with a single thread may give it.
    """
    if on_start is not None:
        on_start(argv, env)
    try:
        return subprocess.Popen(
            list(argv),
            env=env,
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            start_new_session=start_new_session,
            preexec_fn=prepare,
        )
    except OSError as error:
        raise ProcessError(argv, None, (error.strerror or str(error)).encode()) from error
    except subprocess.SubprocessError as error:
        raise ProcessError(argv, None, str(error).encode()) from error


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Look again and again until something is so. False if it is not within that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


#: For callers of `spawn`, which may not import the module themselves.
PIPE = subprocess.PIPE
DEVNULL = subprocess.DEVNULL
STDOUT = subprocess.STDOUT
