"""The architecture of this machine, and which others it can build for."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping

from morphlib.errors import MorphError, Reason

#: The kernel's name of a machine -> Morph's, where one word decides.
_MACHINES: Mapping[str, str] = {
    "x86_64": "x86_64",
    "i386": "x86_32",
    "i486": "x86_32",
    "i586": "x86_32",
    "i686": "x86_32",
    "armv5l": "armv5l",
    "armv7b": "armv7b",
    "armv8l": "armv8l",
    "armv8b": "armv8b",
    "ppc64": "ppc64",
    "aarch64": "armv8l64",
    "aarch64_be": "armv8b64",
}

#: Host -> targets that it runs besides its own.
_COMPATIBLE: Mapping[str, frozenset[str]] = {
    "armv8l": frozenset({"armv7l", "armv7lhf"}),
    "armv8b": frozenset({"armv7b", "armv7bhf"}),
    "armv7l": frozenset({"armv5l"}),
    "armv7lhf": frozenset({"armv5l"}),
}


def host_architecture(machine: str | None = None) -> str:
    """Morph's name of this machine's architecture, or of the kernel's name given.

    Raises MorphError if Morph has none.
    """
    machine = os.uname().machine if machine is None else machine
    if machine == "armv7l":
        return "armv7lhf" if _passes_floats_in_registers() else "armv7l"
    if machine in ("mips", "mips64"):
        bits = "64" if machine == "mips64" else "32"
        return f"mips{bits}{'l' if sys.byteorder == 'little' else 'b'}"
    if machine not in _MACHINES:
        raise MorphError(f"Unknown host architecture {machine}", reason=Reason.NOT_FOUND)
    return _MACHINES[machine]


def can_build(host: str, target: str) -> bool:
    """Whether what is built for `target` runs on `host`."""
    return host == target or target in _COMPATIBLE.get(host, frozenset())


def targets_of(host: str) -> tuple[str, ...]:
    """All that can be built on `host`, itself first."""
    return (host, *sorted(_COMPATIBLE.get(host, frozenset())))


def check_target(target: str, host: str | None = None) -> None:
    """Raise MorphError unless `target` can be built on `host`, which is this machine by default."""
    host = host_architecture() if host is None else host
    if not can_build(host, target):
        raise MorphError(
            f"Are you trying to cross-build? Host architecture is {host} but target is {target}",
            reason=Reason.GRAPH,
            hint="Build the system on a machine of its own architecture.",
        )


def _passes_floats_in_registers() -> bool:
    """Whether this program itself uses the hard-float calling convention of 32-bit ARM."""
    from morphlib.process import run

    shown = run(["readelf", "-A", sys.executable], env={**os.environ, "LC_ALL": "C"})
    return re.search(rb"Tag_ABI_VFP_args: VFP registers", shown.stdout) is not None
