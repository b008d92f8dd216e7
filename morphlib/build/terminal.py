"""Keeping what runs in a sandbox from typing on the terminal that it shares with us.

Input that a program pushes back into a terminal is read by the next to read there: the shell that
morph was called from, outside of all sandboxes. A filter of system calls refuses just that.
"""

from __future__ import annotations

import errno
import os
import struct

#: The numbers of the ioctl call, by the architecture that the kernel names to a filter.
_IOCTLS = (
    (0xC000003E, (16, 0x40000000 + 16, 0x40000000 + 514)),  # x86_64, x32
    (0x40000003, (54,)),  # i386
    (0xC00000B7, (29,)),  # aarch64
    (0x40000028, (54,)),  # arm
    (0xC00000F3, (29,)),  # riscv64
    (0xC0000015, (54,)),  # ppc64le
    (0x80000015, (54,)),  # ppc64
)
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C

# Offsets in what a filter sees of a call. The request is 32 bits wide whatever else is set, and
# stands in the lower half of its argument, which comes second on a big-endian machine.
_NUMBER, _ARCHITECTURE = 0, 4
_REQUEST = 24 if struct.pack("=H", 1) == struct.pack("<H", 1) else 28

_LOAD, _EQUALS, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM


def terminal_filter() -> int:
    """The filter as a descriptor to be inherited, which bubblewrap takes with --seccomp."""
    fd = os.memfd_create("terminal-filter", 0)
    os.write(fd, _program())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _program() -> bytes:
    program = []
    for architecture, numbers in _IOCTLS:
        # Past this architecture's own instructions if the call is of another.
        body = _one_architecture(numbers)
        program += [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUALS, 0, len(body), architecture), *body]
    program.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _one_architecture(numbers: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    body = [(_LOAD, 0, 0, _NUMBER)]
    for position, number in enumerate(numbers):
        # To where the request is looked at if it is this one.
        to_request = len(numbers) - position
        body.append((_EQUALS, to_request, 0, number))
    body.append((_RETURN, 0, 0, _ALLOW))
    body += [
        (_LOAD, 0, 0, _REQUEST),
        (_EQUALS, 1, 0, _TIOCSTI),
        (_EQUALS, 0, 1, _TIOCLINUX),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return body
