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
import signal
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from morphlib.build import syscalls
from morphlib.build.idmaps import IdMap, own_maps, user_maps, write_maps
from morphlib.errors import MorphError, Reason
from morphlib.process import ProcessError

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
    uids, gids = own_maps() if user == 0 else user_maps(problems)
    entered = enter_user_namespace(uids, gids, _OTHERS)
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
    keep_open_files_private()
    syscalls.leave_session_keyring()
    syscalls.sethostname(HOSTNAME.encode())
    os.umask(UMASK)
    _bring_loopback_up()
    overlay = has_overlay()
    if not overlay:
        problems.append("This kernel has no overlayfs: run sudo modprobe overlay.")
    return NamespaceReport(overlay, len(uids) > 1 or user == 0, entered, tuple(problems))


def keep_open_files_private() -> None:
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


def enter_user_namespace(uids: IdMap, gids: IdMap, others: int) -> bool:
    """Enter a user namespace and `others`. False if root had to do without one for users.

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
                write_maps(target, uids, gids)
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
        syscalls.unshare(syscalls.CLONE_NEWUSER | others)
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
        syscalls.unshare(others)
    except OSError as error:
        raise _no_namespace(error.strerror or str(error)) from error
    return False


def _no_namespace(why: str) -> MorphError:
    return MorphError(
        f"This machine does not let builds be isolated: {why}",
        reason=Reason.SANDBOX,
        hint=namespace_remedy(),
    )


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
