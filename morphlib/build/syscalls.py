"""The kernel calls of mounting and namespaces that Python has no functions for.

Each raises OSError as Python's own do. The new mount interface (fsopen and its companions) has the
same call numbers on all architectures that Linux has got since.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from functools import cache

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 0x2

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 0x1
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOUNT_ATTR_RDONLY = 0x1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6

_CAPABILITY_VERSION_3 = 0x20080522
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432
_SYS_MOUNT_SETATTR = 442

# That of keyctl differs: by machine, as `uname -m` has it, for 64 and 32 bit programs.
_SYS_KEYCTL = {
    "x86_64": (250, 288),
    "aarch64": (219, 311),
    "riscv64": (219, 219),
    "ppc64": (271, 271),
    "ppc64le": (271, 271),
    "i686": (None, 288),
    "armv7l": (None, 311),
    "mips64": (5241, 4282),
    "mips": (None, 4282),
}
_KEYCTL_JOIN_SESSION_KEYRING = 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_libc.syscall.restype = ctypes.c_long
_long = ctypes.c_long


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def _checked(result: int, path: str | bytes | None = None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result


def unshare(flags: int) -> None:
    _checked(_libc.unshare(flags))


def setns(fd: int, kind: int) -> None:
    """Enter the namespace that a descriptor stands for; `kind` is its CLONE_NEW* flag."""
    _checked(_libc.setns(fd, kind))


def prctl(option: int, value: int, more: int = 0) -> None:
    _checked(_libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(more), _long(0), _long(0)))


def limit_capabilities(numbers: Sequence[int]) -> None:
    """Keep only these capabilities, for good, and hand them on to programs that are started."""
    kept = set(numbers)
    for number in range(last_capability() + 1):
        if number not in kept:
            prctl(PR_CAPBSET_DROP, number)
    mask = sum(1 << number for number in kept)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    halves = (mask & 0xFFFFFFFF, mask >> 32)
    data = b"".join(struct.pack("=III", half, half, half) for half in halves)
    _checked(_libc.capset(header, data))
    for number in sorted(kept):
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)
    prctl(PR_SET_NO_NEW_PRIVS, 1)


@cache
def last_capability() -> int:
    with open("/proc/sys/kernel/cap_last_cap") as file:  # noqa: PTH123
        return int(file.read())


def sethostname(name: bytes) -> None:
    _checked(_libc.sethostname(name, ctypes.c_size_t(len(name))))


def leave_session_keyring() -> None:
    """Get an empty session keyring, in place of the one with the caller's keys.

    Nothing happens where the kernel has no keyrings, or has them under a number not known here.
    """
    wide = ctypes.sizeof(ctypes.c_void_p) == 8
    number = _SYS_KEYCTL.get(os.uname().machine, (None, None))[0 if wide else 1]
    if number is not None:
        _libc.syscall(_long(number), _long(_KEYCTL_JOIN_SESSION_KEYRING), None)


def mount(
    source: str | None, target: str, kind: str | None, flags: int, data: str | None = None
) -> None:
    def text(value: str | None) -> bytes | None:
        return None if value is None else os.fsencode(value)

    where = os.fsencode(target)
    _checked(_libc.mount(text(source), where, text(kind), flags, text(data)), target)


def unmount(target: str) -> None:
    """Take a mount and all that is mounted below it out of the tree, in use or not."""
    _checked(_libc.umount2(os.fsencode(target), MNT_DETACH), target)


def open_tree(path: str, *, recursive: bool = True) -> int:
    """A detached copy of the mounts at a path, as a descriptor."""
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    return _checked(
        _libc.syscall(_long(_SYS_OPEN_TREE), _long(AT_FDCWD), os.fsencode(path), _long(flags)), path
    )


def attach(fd: int, target: str) -> None:
    """Attach a detached mount at a path."""
    _checked(
        _libc.syscall(
            _long(_SYS_MOVE_MOUNT),
            _long(fd),
            b"",
            _long(AT_FDCWD),
            os.fsencode(target),
            _long(MOVE_MOUNT_F_EMPTY_PATH),
        ),
        target,
    )


def make_read_only(fd: int, *, recursive: bool = True) -> None:
    """Make a detached mount read-only, with all that is mounted below it."""
    attributes = _MountAttr(attr_set=MOUNT_ATTR_RDONLY)
    _checked(
        _libc.syscall(
            _long(_SYS_MOUNT_SETATTR),
            _long(fd),
            b"",
            _long(AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)),
            ctypes.byref(attributes),
            _long(ctypes.sizeof(attributes)),
        )
    )


def fsopen(kind: str) -> int:
    """A context for making a file system of a kind."""
    return _checked(_libc.syscall(_long(_SYS_FSOPEN), kind.encode(), _long(1)))


def fsconfig(fd: int, key: str, value: str) -> None:
    _checked(
        _libc.syscall(
            _long(_SYS_FSCONFIG),
            _long(fd),
            _long(FSCONFIG_SET_STRING),
            key.encode(),
            os.fsencode(value),
            _long(0),
        ),
        value,
    )


def fsflag(fd: int, key: str) -> None:
    _checked(
        _libc.syscall(
            _long(_SYS_FSCONFIG), _long(fd), _long(FSCONFIG_SET_FLAG), key.encode(), None, _long(0)
        ),
        key,
    )


def fscreate(fd: int) -> None:
    _checked(
        _libc.syscall(
            _long(_SYS_FSCONFIG), _long(fd), _long(FSCONFIG_CMD_CREATE), None, None, _long(0)
        )
    )


def fsmount(fd: int) -> int:
    """A detached mount of the file system that a context has made."""
    return _checked(_libc.syscall(_long(_SYS_FSMOUNT), _long(fd), _long(1), _long(0)))
