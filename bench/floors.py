"""What a trivial chunk costs on this machine at the least, whoever builds it.

Starting a sandbox, mounting what the chunk needs and running its four commands can't be had for
less than this, so a builder's cost per chunk is to be read against it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.projects import Layout
from morphlib.errors import MorphError, Reason

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_MS_RDONLY = 1
_MNT_DETACH = 2

_REPEATS = 15
_LAYER_COUNTS = (50, 300)


class Floor(msgspec.Struct, frozen=True):
    """Medians, in milliseconds. `cpu` is None where it can't be told apart."""

    what: str
    wall: float
    cpu: float | None = None


@dataclass(frozen=True, slots=True)
class _Place:
    """A root file system with busybox, a source tree, and an empty directory to install into."""

    root: Path
    build: Path
    install: Path


def measure_floors(layout: Layout) -> tuple[Floor, ...]:
    """Measure with the repositories of a generated project. Raises MorphError where this machine
    can't isolate or mount."""
    work = layout.root / "floors"
    shutil.rmtree(work, ignore_errors=not work.exists())
    place = _prepare(layout, work)
    commands = (
        "mkdir -p /i/usr/bin /i/usr/include/x /i/usr/share/doc/x",
        "cp -r d* /i/usr/include/x/",
        "echo x > /i/usr/bin/x",
        "echo x > /i/usr/share/doc/x/README",
    )
    shells = [["sh", "-x", "-e", "-c", command] for command in commands]

    def run_each() -> None:
        for shell in shells:
            _run(_sandbox(place, shell))

    try:
        return (
            _repeat("starting a sandbox", place, lambda: _run(_sandbox(place, ["true"]))),
            _repeat("the four commands, a sandbox each", place, run_each),
            _repeat(
                "the four commands in one sandbox",
                place,
                lambda: _run(_sandbox(place, ["sh", "-e", "-c", "\n".join(commands)])),
            ),
            *_overlay_floors(work / "overlay"),
        )
    finally:
        shutil.rmtree(work)


def _prepare(layout: Layout, work: Path) -> _Place:
    place = _Place(work / "root", work / "build", work / "install")
    without_git = shutil.ignore_patterns(".git")
    shutil.copytree(layout.root / "gits/base", place.root, symlinks=True, ignore=without_git)
    shutil.copytree(layout.root / "gits/src", place.build, ignore=without_git)
    place.install.mkdir()
    for name in ("proc", "dev", "tmp", "b", "i"):
        (place.root / name).mkdir()
    return place


def _sandbox(place: _Place, argv: list[str]) -> list[str]:
    """The command line that runs `argv` in a sandbox.

    As process 1, because else bubblewrap ends without having waited for the process that did, and
    the CPU time of the commands is lost.
    """
    return [
        *("bwrap", "--unshare-all", "--die-with-parent", "--as-pid-1"),
        *("--ro-bind", str(place.root), "/"),
        *("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--uid", "0", "--gid", "0"),
        *("--bind", str(place.build), "/b", "--bind", str(place.install), "/i", "--chdir", "/b"),
        *("--clearenv", "--setenv", "PATH", "/bin", *argv),
    ]


def _run(argv: list[str]) -> None:
    try:
        subprocess.run(argv, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise MorphError(
            f"can't start {argv[0]}: {error.strerror}", reason=Reason.SANDBOX
        ) from error
    except subprocess.CalledProcessError as error:
        text = error.stderr.decode("utf-8", "replace").strip()
        raise MorphError(f"{argv[0]} failed: {text}", reason=Reason.SANDBOX) from error


def _repeat(what: str, place: _Place, action: Callable[[], object]) -> Floor:
    walls, cpus = [], []
    for _ in range(_REPEATS):
        shutil.rmtree(place.install)
        place.install.mkdir()
        before = _cpu_seconds()
        begin = time.perf_counter()
        action()
        walls.append(time.perf_counter() - begin)
        cpus.append(_cpu_seconds() - before)
    return Floor(what, statistics.median(walls) * 1000, statistics.median(cpus) * 1000)


def _cpu_seconds() -> float:
    """What this process and all its children that ended have used."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


# Overlay mounts need a mount namespace of their own, hence another process.


def _overlay_floors(work: Path) -> tuple[Floor, ...]:
    for number in range(max(_LAYER_COUNTS)):
        directory = work / str(number) / "usr" / "include" / str(number)
        directory.mkdir(parents=True)
        (directory / "file").touch()
    (work / "merged").mkdir()
    receiver, sender = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(receiver)
        _report_from_child(work, sender)
    os.close(sender)
    with os.fdopen(receiver, "rb") as stream:
        answer = stream.read()
    os.waitpid(pid, 0)
    try:
        return tuple(msgspec.json.decode(answer, type=list[Floor]))
    except msgspec.DecodeError as error:
        raise MorphError(
            f"can't mount overlays: {answer.decode('utf-8', 'replace')}", reason=Reason.SANDBOX
        ) from error


def _report_from_child(work: Path, sender: int) -> None:
    """Measure, write what came out, and end the process."""
    try:
        _enter_namespaces()
        os.chdir(work)
        answer = msgspec.json.encode([_time_overlay(count) for count in _LAYER_COUNTS])
    except OSError as error:
        answer = str(error).encode()
    os.write(sender, answer)
    os._exit(0)


def _enter_namespaces() -> None:
    uid, gid = os.getuid(), os.getgid()
    _check(_libc().unshare(_CLONE_NEWNS | _CLONE_NEWUSER), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def _time_overlay(count: int) -> Floor:
    options = "lowerdir=" + ":".join(map(str, range(count)))
    walls = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        status = _libc().mount(b"overlay", b"merged", b"overlay", _MS_RDONLY, options.encode())
        walls.append(time.perf_counter() - begin)
        _check(status, "mount")
        _check(_libc().umount2(b"merged", _MNT_DETACH), "umount")
    return Floor(f"mounting an overlay of {count} layers", statistics.median(walls) * 1000)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(status: int, what: str) -> None:
    if status != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
