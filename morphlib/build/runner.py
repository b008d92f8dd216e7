"""The processes that hold sandboxes open and start commands in them.

One launcher belongs to each builder. It is a Python of its own that has loaded next to nothing, and
forks a runner for each sandbox: forking the builder, with all that it knows of a build, would cost
more than the commands of a small chunk.

The runner starts bubblewrap, which makes the namespaces and waits there without starting anything
(`--block-fd`): its first process keeps the process namespace alive. It also holds what leads out,
so it keeps a capability that commands lack: they can't reach into it. The runner enters the mounts
and gives up what bubblewrap has given up; what it starts is in the process namespace, itself it is
not, so nothing in a sandbox sees it or can reach it. It starts commands when the builder asks, and
when one has ended it kills whatever the command left running, before it tells how it went.

`heldsandbox` is the builder's side. Only the standard library is to be had here.
"""

# Plain text paths here, as in `sandbox`: this runs for every command.
# ruff: noqa: PTH116, PTH118, PTH123

from __future__ import annotations

import array  # noqa: F401 (what passes descriptors loads it when it does)
import contextlib
import errno
import fcntl
import gc
import json
import marshal
import os
import resource  # noqa: F401 (os.wait4 loads it when it is called)
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from morphlib.build import syscalls

#: Where the launcher finds the socket on which it is asked for runners.
CONTROL = 0

LONGEST = 4096  # bytes of a reply
READY = b"ready "  # and the process id of the runner
_PAUSE = 0.0005  # seconds between two looks at whether bubblewrap is done
_PATIENCE = 60.0  # seconds for it to be done

#: Python ignores some signals and builders more; commands get them all as the kernel has them.
SIGNALS = [
    signal.SIGPIPE,
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGXFSZ,
]


#: Exit status, CPU seconds, peak memory in bytes, errno if it could not be started.
_Ended = tuple[int, float, int, int | None]


class _NoSandbox(Exception):
    """There is no sandbox to be had; the text says why."""


# The launcher


def main() -> None:
    """The life of the launcher. It ends when the builder hangs up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    control = socket.socket(fileno=CONTROL)
    syscalls.last_capability()
    gc.disable()
    while True:
        descriptors = _receive(control)
        if len(descriptors) != 2:
            break
        if os.fork() == 0:
            _be_runner(*descriptors)
        for fd in descriptors:
            os.close(fd)
        _reap(os.WNOHANG)
    _reap(0)


def _reap(options: int) -> None:
    """Take leave of runners that have ended: what they used counts as used by the builder."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, options) != (0, 0):
            pass


def _receive(connection: socket.socket) -> list[int]:
    """The descriptors that come with the next message; none at the end."""
    _, descriptors, _, _ = socket.recv_fds(connection, 16, 2)
    for fd in descriptors:
        os.set_inheritable(fd, False)
    return descriptors


# Bubblewrap


def _start(command: Sequence[bytes]) -> tuple[int, int, int]:
    """Start bubblewrap. Returns its pid, that of the first process in the sandbox, and the file
    with what they have to say. Raises _NoSandbox.

    It tells things in files: a pipe would end it if its reader was killed.
    """
    block, unblock = os.pipe()
    told = os.memfd_create("told", os.MFD_CLOEXEC)
    messages = os.memfd_create("messages", os.MFD_CLOEXEC)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    telling = os.dup(told)
    try:
        for fd in (block, telling):
            os.set_inheritable(fd, True)
        more = [b"--block-fd", b"%d" % block, b"--info-fd", b"%d" % telling]
        # As it does not hear of SIGCHLD it would outlive a runner that is killed.
        more.append(b"--die-with-parent")
        # Handed down to the first process in the sandbox: orphans of one command, which become its
        # children, are then gone at once, and no zombies for the next one to see.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        pid = os.posix_spawn(
            command[0],
            [*command, *more, b"--", b"true"],
            {},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, nothing, 0),
                (os.POSIX_SPAWN_DUP2, messages, 1),
                (os.POSIX_SPAWN_DUP2, messages, 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=SIGNALS,
        )
        os.set_inheritable(unblock, False)
        return pid, _find_first(pid, told, messages), messages
    except OSError as error:
        raise _NoSandbox(f"Can't start bubblewrap: {error}") from error
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for fd in (block, telling, nothing):
            os.close(fd)


def _find_first(bubblewrap: int, told: int, messages: int) -> int:
    """The pid of the first process in the sandbox, once it is there."""
    while not (said := os.pread(told, 4096, 0)).rstrip().endswith(b"}"):
        try:
            os.waitid(os.P_PID, bubblewrap, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # gone without being waited for, as SIGCHLD is ignored
            raise _not_made(_read_all(messages)) from None
        time.sleep(_PAUSE)
    return int(json.loads(said)["child-pid"])


def _wait_until_ready(first: int, capabilities: Sequence[int], messages: int) -> None:
    """Wait until all is mounted: giving up capabilities is the last that bubblewrap does before it
    waits for us."""
    mask = b"%016x" % sum(1 << number for number in capabilities)
    wanted = b"CapPrm:\t" + mask + b"\nCapEff:\t" + mask
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        time.sleep(_PAUSE)
        try:
            with open(f"/proc/{first}/status", "rb", buffering=0) as file:
                status = file.read(8192)
        except OSError:
            raise _not_made(_read_all(messages)) from None
        if wanted in status:
            return
        if b"\nState:\tZ" in status or b"\nState:\tX" in status:
            raise _not_made(_read_all(messages))
    raise _not_made(f"it is not done after {_PATIENCE:.0f} seconds")


def _read_all(file: int) -> str:
    return os.pread(file, 4096, 0).decode("utf-8", "backslashreplace").strip()


def _not_made(why: str) -> _NoSandbox:
    return _NoSandbox(f"bubblewrap could not make a sandbox: {why or 'it does not say why'}")


# The runner


def _be_runner(connection: int, body: int) -> NoReturn:
    """The life of the runner; never returns. It ends when the builder hangs up."""
    status = 1
    children: list[int] = []
    requests: socket.socket | None = None
    try:
        os.setsid()
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
        command, cwd, capabilities, more, read_only = _read_body(body)
        requests = _close_others(connection)
        # IPC objects and keys that one sandbox leaves are not for the next one to find.
        syscalls.unshare(syscalls.CLONE_NEWIPC)
        syscalls.leave_session_keyring()
        _serve_in_sandbox(requests, command, cwd, capabilities, more, read_only, children)
        status = 0
    except (_NoSandbox, OSError) as error:
        if requests is not None:
            with contextlib.suppress(OSError):
                requests.send(str(error).encode("utf-8", "backslashreplace")[:LONGEST])
    except BaseException:
        pass
    # With the first process the kernel kills everything in the sandbox.
    for child in children:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(child, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    os._exit(status)


def _read_body(fd: int) -> tuple[Any, ...]:
    """What a builder has put into a file for us. It wrote it itself: this is no foreign data."""
    os.lseek(fd, 0, os.SEEK_SET)
    with open(fd, "rb") as file:
        content: tuple[Any, ...] = marshal.load(file)
    return content


def _serve_in_sandbox(
    requests: socket.socket,
    command: Sequence[bytes],
    cwd: bytes,
    capabilities: Sequence[int],
    more: int,
    read_only: Sequence[str],
    children: list[int],
) -> None:
    bubblewrap, first, messages = _start(command)
    try:
        for pid in (bubblewrap, first):
            children.append(os.pidfd_open(pid))
    except ProcessLookupError:
        raise _not_made(_read_all(messages)) from None
    _wait_until_ready(first, [*capabilities, more], messages)
    namespaces = [os.open(f"/proc/{first}/ns/{name}", os.O_RDONLY) for name in ("mnt", "pid")]
    syscalls.last_capability()
    # From here on files are those of the sandbox: no module may be loaded from there.
    sys.meta_path.clear()
    sys.path.clear()
    syscalls.setns(namespaces[1], syscalls.CLONE_NEWPID)
    syscalls.setns(namespaces[0], syscalls.CLONE_NEWNS)
    for fd in namespaces:
        os.close(fd)
    for path in read_only:  # bubblewrap does it too, and reads the list of mounts for each
        _make_read_only(path)
    os.chdir(cwd)
    syscalls.limit_capabilities(capabilities)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    requests.send(READY + b"%d" % os.getpid())
    _serve(requests, cwd)


def _make_read_only(path: str) -> None:
    mount = syscalls.open_tree(path)
    try:
        syscalls.make_read_only(mount)
        syscalls.attach(mount, path)
    finally:
        os.close(mount)


def _close_others(connection: int) -> socket.socket:
    """Close everything but standard streams and this one, which gets the next number."""
    high = fcntl.fcntl(connection, fcntl.F_DUPFD_CLOEXEC, 16)
    os.dup2(high, 3, inheritable=False)
    os.closerange(4, 65536)
    nothing = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd, inheritable=True)
    os.close(nothing)
    return socket.socket(fileno=3)


def _serve(requests: socket.socket, cwd: bytes) -> None:
    while True:
        descriptors = _receive(requests)
        if len(descriptors) != 2:
            return
        output, body = descriptors
        argv, environment = _read_body(body)
        environment.setdefault(b"PWD", cwd)
        requests.send(json.dumps(_run(argv, environment, output, requests)).encode())


class _HungUp(Exception):
    """The builder is gone."""


def _wait(pid: int, requests: socket.socket) -> None:
    """Wait until a child has ended. Raises _HungUp if the builder does not wait any more."""
    handle = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        poll.register(requests, 0)  # it asks nothing meanwhile, but may hang up
        if all(fd != handle for fd, _ in poll.poll()):
            raise _HungUp
    finally:
        os.close(handle)


def _run(
    argv: tuple[bytes, ...], environment: dict[bytes, bytes], output: int, requests: socket.socket
) -> _Ended:
    try:
        pid = _spawn(argv, environment, output)
    except OSError as error:
        number = error.errno or errno.EIO
        why = f"{os.fsdecode(argv[0])}: {os.strerror(number)}"
        os.write(output, f"morph: can't start {why}\n".encode("utf-8", "surrogateescape"))
        return 127 if number in (errno.ENOENT, errno.ENOTDIR) else 126, 0.0, 0, number
    finally:
        os.close(output)
    _wait(pid, requests)
    _, wait_status, usage = os.wait4(pid, 0)
    _kill_leftovers()
    code = os.waitstatus_to_exitcode(wait_status)
    return (
        code if code >= 0 else 128 - code,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss * 1024,
        None,
    )


def _spawn(argv: tuple[bytes, ...], environment: dict[bytes, bytes], output: int) -> int:
    """Start a program, found as execvp would: by PATH of its own environment."""
    failure = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    program = argv[0]
    if b"/" in program:
        places = [program]
    else:
        path = environment.get(b"PATH", b"/bin:/usr/bin")
        places = [os.path.join(each or b".", program) for each in path.split(b":")]
    denied: OSError | None = None
    for place in places:
        try:
            os.stat(place)  # a try to start what isn't there costs a process
            return _spawn_at(place, argv, environment, output)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            denied = error
    raise denied or failure


def _spawn_at(
    place: bytes, argv: tuple[bytes, ...], environment: dict[bytes, bytes], output: int
) -> int:
    def spawn(program: bytes, arguments: Sequence[bytes]) -> int:
        return os.posix_spawn(
            program,
            list(arguments),
            environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)],
            setsid=True,
            setsigmask=[],
            setsigdef=SIGNALS,
        )

    try:
        return spawn(place, argv)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
        return spawn(b"/bin/sh", [b"/bin/sh", place, *argv[1:]])


def _kill_leftovers() -> None:
    """Kill everything in the process namespace but its first process, and wait until it is gone."""
    if not _is_anything_left():
        return
    try:
        killer = os.fork()
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        return  # the namespace's first process is dead: the kernel kills all the others
    if killer == 0:
        with contextlib.suppress(OSError):
            os.kill(-1, signal.SIGKILL)
        os._exit(0)
    os.waitpid(killer, 0)
    while _is_anything_left():
        time.sleep(_PAUSE)


def _is_anything_left() -> bool:
    for name in os.listdir("/proc"):
        if not name.isdigit() or name == "1":
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                state = file.read().rpartition(b") ")[2][:1]
        except OSError:
            continue
        if state != b"X":
            return True
    return False
