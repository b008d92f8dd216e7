"""Runs a program and says what it took: wall time, CPU time, memory of all its processes."""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from morphlib.errors import MorphError, Reason
from morphlib.process import quote

_PR_SET_CHILD_SUBREAPER = 36

#: How often memory is looked at, in seconds.
_INTERVAL = 0.01

#: Bytes in what getrusage calls a block.
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds, and bytes written to files, as far as they went to the page cache or a disk.

    `cpu` and `written` count the program and every process that it or its children started.
    """

    wall: float
    cpu: float
    written: int = 0


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. `tree` is the most that all processes together had at one moment, with pages that
    several of them share counted once; `largest` the most that any single one had resident."""

    tree: int
    largest: int


def adopt_orphans() -> None:
    """Make this process the parent of its descendants' orphans, so that none escapes from the
    accounts. Must be called once before the first measurement."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def time_program(
    argv: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    log: Path,
    accepted: Sequence[int] = (0,),
) -> Timing:
    """Run a program without looking at it while it runs. What it prints is added to `log`.

    Raises MorphError if it can't be started or its exit status is not one of those `accepted`.
    """
    with log.open("ab") as output:
        begin = time.perf_counter()
        child = _start(argv, cwd, environment, output.fileno())
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - begin
    child.returncode = os.waitstatus_to_exitcode(status)
    _check(argv, child.returncode, log, accepted)
    cpu = usage.ru_utime + usage.ru_stime + _reap_orphans()
    return Timing(wall, cpu, usage.ru_oublock * _BLOCK)


def watch_memory(
    argv: Sequence[str], *, cwd: Path, environment: Mapping[str, str], log: Path
) -> Memory:
    """Run a program and look at its processes' memory all the time, which slows it down. Raises
    MorphError if it fails."""
    tree = largest = 0
    with log.open("ab") as output:
        child = _start(argv, cwd, environment, output.fileno())
        while True:
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                break
            processes = _descendants(os.getpid())
            tree = max(tree, sum(_memory_of(process) for process in processes))
            largest = max([largest, *(_peak_of(process) for process in processes)])
            time.sleep(_INTERVAL)
    child.returncode = os.waitstatus_to_exitcode(status)
    _check(argv, child.returncode, log)
    _reap_orphans()
    return Memory(tree, largest)


def _start(
    argv: Sequence[str], cwd: Path, environment: Mapping[str, str], output: int
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    except OSError as error:
        raise MorphError(
            f"can't start {argv[0]}: {error.strerror}", reason=Reason.NOT_FOUND
        ) from error


def _check(argv: Sequence[str], status: int, log: Path, accepted: Sequence[int] = (0,)) -> None:
    if status not in accepted:
        tail = log.read_bytes().decode("utf-8", "replace").splitlines()[-15:]
        raise MorphError(
            "\n    ".join((f"{quote(argv)} failed (exit status {status})", *tail)),
            reason=Reason.BUILD,
            hint=f"All that it printed is in {log}.",
        )


def _reap_orphans() -> float:
    """Wait up to five seconds for processes that the program left; return their CPU seconds."""
    cpu = 0.0
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return cpu
        if pid:
            cpu += usage.ru_utime + usage.ru_stime
        else:
            time.sleep(_INTERVAL)
    raise MorphError("the program left processes that do not end", reason=Reason.BUILD)


def _descendants(ancestor: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            children.setdefault(_parent_of(entry.name), []).append(int(entry.name))
    found: list[int] = []
    waiting = [ancestor]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _parent_of(pid: str) -> int:
    """The parent of a process, 0 if the process is gone."""
    try:
        text = Path("/proc", pid, "stat").read_bytes()
    except OSError:
        return 0
    return int(text.rpartition(b")")[2].split()[1])


def _peak_of(pid: int) -> int:
    """The most memory that a process has had since it became the program that it is, in bytes.

    What wait4 tells is no use here: it counts the process that a program was forked from as well.
    """
    try:
        for line in Path(f"/proc/{pid}/status").read_bytes().splitlines():
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _memory_of(pid: int) -> int:
    """A process's share of the memory, in bytes; 0 if it is gone.

    Where the kernel does not let us see what is shared (a sandbox of another user), all of it
    counts.
    """
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
        return 0  # on its way in or out: it has no memory of its own
    except PermissionError:
        pass
    except OSError:
        return 0
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_bytes().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
