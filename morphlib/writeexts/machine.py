"""What machine a system is for, as its own programs tell."""

from __future__ import annotations

import platform
import struct
from collections.abc import Mapping

from morphlib.architecture import host_architecture
from morphlib.errors import MorphError
from morphlib.writeexts.tree import Tree

# Programs that tell what machine a system is for, whatever else it has.
_PROGRAMS = ("sbin/init", "bin/sh", "usr/bin/sh", "bin/busybox", "usr/bin/env", "init")
#: ELF's number of a machine -> Morph's name of an architecture that has it.
_ARCHITECTURES = {
    3: "x86_32",
    8: "mips32b",
    20: "ppc32",
    21: "ppc64",
    40: "armv7lhf",
    62: "x86_64",
    183: "armv8l64",
    243: "riscv64",
}


def architecture_of(tree: Tree, environment: Mapping[str, str] | None = None) -> str:
    """The system's architecture, which Morph tells in the `environment` of extensions (MORPH_ARCH).

    Without that: one that the system's programs are for; this machine's if they do not tell. Names
    of architectures that programs look alike for (little-endian and big-endian, with and without
    floating point) are not told apart.
    """
    if environment is not None and (told := environment.get("MORPH_ARCH")):
        return told
    machine = elf_machine(tree)
    if machine is not None:
        return _ARCHITECTURES.get(machine, f"ELF machine {machine}")
    return this_architecture()


def this_architecture() -> str:
    """That of this machine, whether or not Morph can build for it."""
    try:
        return host_architecture(platform.machine())
    except MorphError:
        return "unknown"


def is_x86(architecture: str) -> bool:
    return architecture in ("x86_32", "x86_64")


def elf_machine(tree: Tree) -> int | None:
    """The number that ELF has for the machine of a system's programs; None if it has none."""
    for program in _PROGRAMS:
        if not tree.is_file(program):
            continue
        with tree.resolve(program).open("rb") as file:
            header = file.read(20)
        if len(header) == 20 and header.startswith(b"\x7fELF"):
            order = "<" if header[5] == 1 else ">"
            machine: int = struct.unpack(f"{order}H", header[18:20])[0]
            return machine
    return None
