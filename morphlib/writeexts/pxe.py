"""What a machine finds that boots over the network: addresses of servers, names, configuration.

The configuration is that of pxelinux, which U-Boot and others read as well. It lies at
`pxelinux.cfg/01-MAC` below the directory that the machine gets files from, and all names in it are
relative to that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from morphlib.errors import MorphError, Reason
from morphlib.writeexts.parameters import Parameter
from morphlib.writeexts.remote import checked_remote_path
from morphlib.writeexts.ssh import checked_host
from morphlib.writeexts.tree import Tree

_MAC = re.compile(r"[0-9a-f]{2}(?:([:-])[0-9a-f]{2})(?:\1[0-9a-f]{2}){4}")
#: Below the TFTP directory and the one for trees: what belongs to one machine is in MAC.
FILES = "morph"
_LONGEST_LINE = 2000  # that pxelinux and kernels take for the command line
_PLAIN = re.compile(r"[A-Za-z0-9/_.:@%+=~-]+")


@dataclass(frozen=True, slots=True)
class Address:
    """A directory here (`host` is empty), or on a machine that ssh logs in to."""

    host: str
    path: str

    def __str__(self) -> str:
        return f"{self.host}:{self.path}" if self.host else self.path


def address(name: str, help: str, scheme: str) -> Parameter[Address | None]:
    """SCHEME://[USER@]HOST/DIRECTORY, or a directory of this machine, also as file:///DIRECTORY."""

    def parse(value: str) -> Address:
        text = value.strip()
        if "://" not in text:
            return _checked(name, "", str(Path(text).absolute()))
        parts = urlsplit(text)
        if parts.scheme == "file" and not parts.netloc:
            return _checked(name, "", unquote(parts.path))
        if parts.scheme != scheme or not parts.netloc:
            raise ValueError(f"{name} has to be {scheme}://HOST/DIRECTORY or a path, not {text}")
        if re.search(r":\d*$", parts.netloc.rpartition("]")[2]) or parts.query or parts.fragment:
            raise ValueError(f"{name} {text}: a port or the like can be set in ssh's configuration")
        return _checked(name, parts.netloc.replace("[", "").replace("]", ""), unquote(parts.path))

    unset: Address | None = None
    return Parameter(name, help, parse, unset)


def _checked(name: str, host: str, path: str) -> Address:
    try:
        if host:
            checked_host(host)
        plain = checked_remote_path(path.rstrip("/"))
    except MorphError as error:
        raise ValueError(f"{name}: {error.message}") from None
    if not _PLAIN.fullmatch(plain):
        raise ValueError(f"{name}: {plain!r} has characters that boot loaders do not understand")
    return Address(host, plain)


def parse_mac(location: str) -> str:
    """The address of a network card, as pxelinux writes it: `14-58-d0-57-7f-42`.

    Raises MorphError.
    """
    text = location.strip().lower()
    if not _MAC.fullmatch(text):
        raise MorphError(
            f"{location} is no MAC address such as 14:58:d0:57:7f:42",
            reason=Reason.DEPLOY,
            hint="put it in quotes: to YAML, digits between colons are a number"
            if text.isdigit()
            else None,
        )
    return text.replace(":", "-")


def config_name(mac: str) -> str:
    return f"pxelinux.cfg/01-{mac}"


def config_text(directory: str, files: Sequence[str], arguments: str) -> str:
    """The configuration for a machine whose `files` (kernel, initramfs, dtb) are in `directory`."""
    lines = [
        "default morph",
        "prompt 0",
        "timeout 1",
        "label morph",
        f"  kernel {directory}/kernel",
    ]
    if "initramfs" in files:
        lines.append(f"  initrd {directory}/initramfs")
    if "dtb" in files:
        lines.append(f"  fdt {directory}/dtb")
    lines.append(f"  append {arguments}".rstrip())
    return "\n".join(lines) + "\n"


def nfs_arguments(export: str, more: str) -> str:
    """The kernel's arguments for a root file system that is mounted from HOST:DIRECTORY.

    Of a mere DIRECTORY, the host is the one that DHCP tells.
    """
    return _joined("root=/dev/nfs", f"nfsroot={export},vers=3,tcp", "ip=dhcp rw", more)


def initramfs_arguments(tree: Tree, more: str) -> str:
    """The kernel's arguments for a system that is an initramfs as a whole.

    There the kernel starts /init, or what `rdinit=` says: `init=` means that.
    """
    words = more.split()
    if any(word.startswith("rdinit=") for word in words):
        return _joined(more)
    init = [word.removeprefix("init=") for word in words if word.startswith("init=")]
    if init:
        return _joined(f"rdinit={init[-1]}", more)
    return _joined("" if tree.is_file("init") else "rdinit=/sbin/init", more)


def _joined(*parts: str) -> str:
    line = " ".join(part for part in parts if part)
    if len(line) > _LONGEST_LINE:
        raise MorphError("the kernel's arguments are too long", reason=Reason.DEPLOY)
    return line
