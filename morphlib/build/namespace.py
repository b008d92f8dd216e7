"""The namespaces that a builder process lives in.

A builder enters them once, before it builds anything: a user namespace in which it is uid 0, and
mount, network, IPC and host name namespaces of its own. Everything that it mounts is gone when it
is, and nothing that it starts reaches a network. Root and ordinary users get the same: root keeps
the numbers of all ids, a user gets the subordinate ids of /etc/subuid and /etc/subgid where there
are any.
"""

# Plain text paths here: making Path objects takes longer than the system calls.
# ruff: noqa: PTH116

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
import shutil
import signal
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from morphlib.build import syscalls
from morphlib.errors import MorphError, Reason
from morphlib.process import ProcessError, run

#: What a build sees as the name of its host.
HOSTNAME = "morph"

#: Files that builds and builders make never depend on what the caller's shell has set.
UMASK = 0o022

_INITIAL_USER_NAMESPACE = 0xEFFFFFFD
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_OTHERS = (
    syscalls.CLONE_NEWNS | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS
)

IdMap = tuple[tuple[int, int, int], ...]  # (first id inside, first id outside, how many)


@dataclass(frozen=True, slots=True)
class NamespaceReport:
    """What the namespaces of a builder can do. `problems` say what to change, one text each."""

    overlay: bool
    subordinate_ids: bool
    user_namespace: bool
    problems: tuple[str, ...]


def enter_build_namespace(parent: int | None = None) -> NamespaceReport:
    """Enter the namespaces of a builder; there is no way back.

    The process must have a single thread. Afterwards it is uid 0, dies with its parent, adopts
    orphans of what it starts, and has a umask of 022. `parent` is the process id of the parent,
    given to notice that it died before. Raises MorphError (SANDBOX) with what to change where the
    kernel does not let us.
    """
    problems: list[str] = []
    user = os.geteuid()
    uids, gids = (_own_map("uid"), _own_map("gid")) if user == 0 else _user_maps(problems)
    entered = _enter(uids, gids)
    if not entered:
        problems.append(
            "Builds run without a user namespace, so they are real root. " + namespace_remedy()
        )
    elif len(gids) > 1 or user == 0:
        os.setgroups([])
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    # Not before: the kernel forgets it when a process changes its credentials.
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    _keep_open_files_from_builds()
    syscalls.leave_session_keyring()
    syscalls.sethostname(HOSTNAME.encode())
    os.umask(UMASK)
    _bring_loopback_up()
    overlay = has_overlay()
    if not overlay:
        problems.append("This kernel has no overlayfs: run sudo modprobe overlay.")
    return NamespaceReport(overlay, len(uids) > 1 or user == 0, entered, tuple(problems))


def _keep_open_files_from_builds() -> None:
    """What our caller happened to leave open is not for builds: a directory leads out."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            with contextlib.suppress(OSError):  # that of the list itself is closed by now
                os.set_inheritable(int(name), False)


@cache
def is_user_namespace() -> bool:
    """Is this another user namespace than the first of this machine?

    Asked once: to be called after `enter_build_namespace` only.
    """
    # The first one has a fixed inode number, in all kernels.
    return os.stat("/proc/self/ns/user").st_ino != _INITIAL_USER_NAMESPACE


def has_overlay() -> bool:
    """Does the kernel know overlayfs? (Asking makes it load the module, if it may.)"""
    try:
        os.close(syscalls.fsopen("overlay"))
    except OSError:
        return "\toverlay\n" in Path("/proc/filesystems").read_text()
    return True


def read_kernel_setting(name: str) -> str | None:
    """The value of a sysctl, None where this kernel has none of that name."""
    try:
        return Path("/proc/sys", *name.split(".")).read_text().strip()
    except OSError:
        return None


def namespace_remedy(read: Callable[[str], str | None] = read_kernel_setting) -> str:
    """The setting of the kernel that keeps users from making namespaces, as far as it tells."""
    if read("kernel.unprivileged_userns_clone") == "0":
        return "Run: sudo sysctl -w kernel.unprivileged_userns_clone=1"
    if read("user.max_user_namespaces") == "0":
        return "Run: sudo sysctl -w user.max_user_namespaces=15000"
    if read("kernel.apparmor_restrict_unprivileged_userns") == "1":
        return "Run: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    return (
        "In a container, allow it to make user namespaces and to mount (for Docker:"
        " --security-opt seccomp=unconfined --security-opt systempaths=unconfined)."
    )


def _own_map(which: str) -> IdMap:
    """Root's map: every id that there is here keeps its number."""
    lines = Path(f"/proc/self/{which}_map").read_text().splitlines()
    rows = [tuple(map(int, line.split())) for line in lines]
    return tuple((inside, inside, count) for inside, _, count in rows)


def _user_maps(problems: list[str]) -> tuple[IdMap, IdMap]:
    """A user's maps: itself as 0, and its subordinate ids as 1 and up."""
    own_uid: IdMap = ((0, os.geteuid(), 1),)
    own_gid: IdMap = ((0, os.getegid(), 1),)
    names = {str(os.getuid()), _user_name()}
    uids = subordinate_ranges(Path("/etc/subuid"), names)
    gids = subordinate_ranges(Path("/etc/subgid"), names)
    who = _user_name()
    why = "Without subordinate ids, builds that give files to other users than root fail. "
    if not uids or not gids:
        problems.append(
            f"{why}Run: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {who}"
        )
    elif shutil.which("newuidmap") is None or shutil.which("newgidmap") is None:
        problems.append(f"{why}Install newuidmap and newgidmap (package uidmap).")
    else:
        return own_uid + _after_zero(uids), own_gid + _after_zero(gids)
    return own_uid, own_gid


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def subordinate_ranges(file: Path, names: set[str]) -> tuple[tuple[int, int], ...]:
    """The (first, count) ranges that a file such as /etc/subuid gives to a user."""
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return ()
    ranges = []
    for line in lines:
        fields = line.strip().split(":")
        if len(fields) == 3 and fields[0] in names and fields[1].isdigit() and fields[2].isdigit():
            ranges.append((int(fields[1]), int(fields[2])))
    return tuple(each for each in ranges if each[1] > 0)


def _after_zero(ranges: tuple[tuple[int, int], ...]) -> IdMap:
    rows, first = [], 1
    for outside, count in ranges:
        rows.append((first, outside, count))
        first += count
    return tuple(rows)


def _enter(uids: IdMap, gids: IdMap) -> bool:
    """Enter the namespaces. False if it had to be done without one for users.

    A process can't write its own map of many ids: a child that stays outside does, when told that
    the namespace is there.
    """
    entered, ready = os.pipe()
    target = os.getpid()
    helper = os.fork()
    if helper == 0:
        status = 1
        try:
            os.close(ready)
            if os.read(entered, 1) == b"1":
                _write_maps(target, uids, gids)
            status = 0
        except ProcessError as error:
            os.write(2, (error.message + "\n").encode("utf-8", "replace"))
        except OSError as error:
            status = error.errno or 1
        finally:
            os._exit(status)
    os.close(entered)
    failure: OSError | None = None
    try:
        syscalls.unshare(syscalls.CLONE_NEWUSER | _OTHERS)
        os.write(ready, b"1")
    except OSError as error:
        failure = error
    os.close(ready)
    status = os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1])
    if failure is None and status != 0:
        raise _no_namespace(f"can't map user ids ({os.strerror(status)})")
    if failure is None:
        return True
    if os.geteuid() != 0:
        raise _no_namespace(failure.strerror or str(failure))
    try:
        syscalls.unshare(_OTHERS)
    except OSError as error:
        raise _no_namespace(error.strerror or str(error)) from error
    return False


def _no_namespace(why: str) -> MorphError:
    return MorphError(
        f"This machine does not let builds be isolated: {why}",
        reason=Reason.SANDBOX,
        hint=namespace_remedy(),
    )


def _write_maps(target: int, uids: IdMap, gids: IdMap) -> None:
    directory = Path(f"/proc/{target}")
    if os.geteuid() == 0:
        (directory / "uid_map").write_text(_as_text(uids))
        (directory / "gid_map").write_text(_as_text(gids))
        return
    if len(uids) == 1:
        (directory / "setgroups").write_text("deny")
        (directory / "uid_map").write_text(_as_text(uids))
        (directory / "gid_map").write_text(_as_text(gids))
        return
    for program, rows in (("newuidmap", uids), ("newgidmap", gids)):
        run([program, str(target), *(str(number) for row in rows for number in row)])


def _as_text(rows: IdMap) -> str:
    return "".join(f"{inside} {outside} {count}\n" for inside, outside, count in rows)


def _bring_loopback_up() -> None:
    """Test suites talk to themselves: `lo` of the namespace leads nowhere else."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        try:
            flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))[1]
            request = struct.pack("16sh14x", b"lo", flags | _IFF_UP)
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, request)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENODEV):
                raise
