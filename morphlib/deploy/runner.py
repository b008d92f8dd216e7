"""Running an extension: where, with what, and what becomes of what it writes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from morphlib.build import syscalls
from morphlib.deploy.descriptors import log_pipe, occupy
from morphlib.deploy.extensions import Extension, ExtensionKind, command_of
from morphlib.deploy.orphans import end_children
from morphlib.deploy.parameters import size_of
from morphlib.deploy.streams import Tail, drain
from morphlib.errors import MorphError, Reason
from morphlib.process import DEVNULL, PIPE, ProcessError, spawn, wait_until

if TYPE_CHECKING:
    from subprocess import Popen  # noqa: TID251  (the type of what `spawn` gives)

Stream = Literal["stdout", "stderr", "log"]
#: extension (with its kind), stream, line
Tell = Callable[[str, Stream, str], None]

#: Seconds that an extension gets to clear up when Morph is interrupted.
PATIENCE = 60.0
_MOST_REMEMBERED = 1 << 18  # characters of standard error
#: What extensions make in trees does not depend on what the caller's shell has set.
_TREE_UMASK = 0o022
#: Signals that ask us to end.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SIGNALS = (*ENDING, signal.SIGPIPE, signal.SIGXFSZ)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is the same for all extensions of a run.

    `directory` is what they are run in, the root of the definitions. `scratch` is a directory for
    copies of extensions. `log` is a descriptor to use for what they log: of one digit, since shells
    take no others. `tell` takes each line that they write, `warn` what users should know. Where
    several deployments run side by side, `turn` is the file whose lock goes with standard input.
    """

    directory: Path
    scratch: Path
    log: int
    tell: Tell
    warn: Callable[[str], None]
    turn: Path | None = None


def run_extension(
    around: Surroundings,
    extension: Extension,
    arguments: Sequence[str],
    environment: Mapping[str, str],
) -> None:
    """Run an extension to its end, in a mount namespace of its own.

    Must be called by a process with a single thread that may make mount namespaces. Raises
    MorphError (DEPLOY) if the extension can't be started or fails. When the caller is interrupted
    the extension is told to end, and gets `PATIENCE` seconds to do so unless somebody can't wait
    (`hurry`). Output that something else holds open after the extension's end is waited for; the
    log is not.
    """
    errors = Tail(_MOST_REMEMBERED)

    def tell_error(line: str) -> None:
        errors.add(line)
        around.tell(extension.full_name, "stderr", line)

    def tell_that_it_lingers() -> None:
        around.warn(
            f"{extension.full_name} has ended, but something that it started holds its output "
            "open, and is waited for"
        )

    with contextlib.ExitStack() as stack:
        program = stack.enter_context(_runnable(extension, around.scratch))
        stdin = stack.enter_context(_standard_input(extension, around.turn))
        reading = stack.enter_context(log_pipe(around.log))
        # There must be no moment at which it runs and an interruption would not end it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, before)
        try:
            process = _start(around, extension, program, arguments, environment, stdin)
        finally:
            occupy(around.log)
        assert process.stdout is not None
        assert process.stderr is not None
        ended = os.pidfd_open(process.pid)
        stack.callback(os.close, ended)
        stack.callback(process.stdout.close)
        stack.callback(process.stderr.close)
        takers = {
            process.stdout.fileno(): lambda line: around.tell(extension.full_name, "stdout", line),
            process.stderr.fileno(): tell_error,
            reading: lambda line: around.tell(extension.full_name, "log", line),
        }
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            drain(takers, ended=ended, brief=(reading,), lingers=tell_that_it_lingers)
            status = process.wait()
        except BaseException:
            _end(process)
            raise
    if status != 0:
        raise MorphError(
            f"{extension.full_name} failed with code {status}: {errors}".rstrip(),
            reason=Reason.DEPLOY,
        )
    around.tell(extension.full_name, "log", "succeeded")


def _start(
    around: Surroundings,
    extension: Extension,
    program: Path,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    stdin: int | None,
) -> Popen[bytes]:
    parent = os.getpid()

    def prepare() -> None:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        if extension.kind is ExtensionKind.CONFIGURE:
            os.umask(_TREE_UMASK)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    try:
        return spawn(
            command_of(extension, program, arguments),
            env={**environment, "MORPH_LOG_FD": str(around.log)},
            cwd=around.directory,
            stdin=stdin,
            stdout=PIPE,
            stderr=PIPE,
            pass_fds=(around.log,),
            prepare=prepare,
        )
    except ProcessError as error:
        if os.strerror(errno.E2BIG).encode() in error.output:
            raise _too_large(extension, environment) from error
        raise MorphError(
            f"{extension.full_name} can't be started: "
            f"{error.output.decode('utf-8', 'backslashreplace')}",
            reason=Reason.DEPLOY,
            hint=f"The file is {extension.path}.",
        ) from error


def _too_large(extension: Extension, environment: Mapping[str, str]) -> MorphError:
    sizes = {name: size_of(name, value) for name, value in environment.items()}
    largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
    shown = ", ".join(f"{name} ({sizes[name]:,} bytes)" for name in largest)
    return MorphError(
        f"{extension.full_name} can't be started: its environment has {sum(sizes.values()):,} "
        "bytes, which is too large",
        reason=Reason.DEPLOY,
        hint=f"The largest variables are {shown}.",
    )


@contextlib.contextmanager
def _runnable(extension: Extension, scratch: Path) -> Iterator[Path]:
    """What is run: a built-in extension itself, and of one of the definitions a copy, for it need
    not be executable there."""
    if extension.built_in:
        yield extension.path
        return
    fd, name = tempfile.mkstemp(dir=scratch)
    try:
        with os.fdopen(fd, "wb") as copy, extension.path.open("rb") as original:
            shutil.copyfileobj(original, copy)
            os.fchmod(fd, 0o700)
        yield Path(name)
    except OSError as error:
        raise MorphError(
            f"can't copy extension {extension.path}: {error.strerror or error}",
            reason=Reason.DEPLOY,
        ) from error
    finally:
        with contextlib.suppress(OSError):
            Path(name).unlink()


@contextlib.contextmanager
def _standard_input(extension: Extension, turn: Path | None) -> Iterator[int | None]:
    """Standard input is for one at a time: extensions of the definitions may ask questions there.

    Those that come with Morph ask none, so they need not wait for it.
    """
    if turn is None:
        yield None
        return
    if extension.built_in or not has_standard_input():
        yield DEVNULL
        return
    with turn.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield None


def has_standard_input() -> bool:
    """Is there anything that could be read?"""
    try:
        mine, nothing = os.fstat(0), os.stat(os.devnull)  # noqa: PTH116 - a device
    except OSError:
        return False
    return (mine.st_rdev, mine.st_mode) != (nothing.st_rdev, nothing.st_mode)


_hurried = False


def hurry(*_: object) -> None:
    """Have no more patience with extensions in this process. A handler of signals."""
    global _hurried
    _hurried = True


def _end(process: Popen[bytes]) -> None:
    """End an extension, and then what is left of what it started: what becomes ours."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    wait_until(lambda: process.poll() is not None or _hurried, PATIENCE)
    if process.poll() is None:
        process.kill()
        process.wait()
    end_children()
