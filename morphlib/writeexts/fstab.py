"""The table of file systems of a system, and what disk images with btrfs need in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

#: Directories at the top that are kept over upgrades, each in a subvolume of its own.
STATE_DIRECTORIES = ("home", "root", "opt", "srv", "var")

_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class CompletedFstab:
    """A table with all that the btrfs layout needs.

    `state` names the directories (relative to the system's root) that get a subvolume for state:
    those that no entry of the table mounted before. Each needs a mount point in the system.
    """

    text: str
    root_device: str
    state: tuple[str, ...]


def read_mounts(text: str) -> dict[str, str]:
    """Mount point -> device, of all lines with two words at least; of several the last one counts.

    Escapes such as `\\040`, for a blank, are undone, and slashes at the end do not count.
    """
    return dict(_entries(text))


def _entries(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        match line.split():
            case [device, point, *_] if not device.startswith("#"):
                yield _mount_point(point), _unescape(device)


def _mount_point(word: str) -> str:
    point = _unescape(word)
    return (point.rstrip("/") or "/") if point.startswith("/") else point


def _unescape(word: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), word)


def _escape(word: str) -> str:
    return re.sub(r"[\s\\]", lambda match: f"\\{ord(match[0]):03o}", word)


def complete_fstab(
    text: str, *, rootfs_uuid: str | None = None, root_device: str = "/dev/sda"
) -> CompletedFstab:
    """Add the entries of the btrfs layout that the table does not have.

    Entries that are there win. The root file system is what the table says, else that with
    `rootfs_uuid`, else that on `root_device`. A table that needs nothing stays as it is.
    """
    mounts = read_mounts(text)
    default = f"UUID={rootfs_uuid}" if rootfs_uuid else root_device
    root = mounts.get("/", default)
    state = tuple(name for name in STATE_DIRECTORIES if f"/{name}" not in mounts)
    lines = [] if "/" in mounts else [f"{_escape(root)}  / btrfs defaults,rw,noatime 0 1"]
    lines += [
        f"{_escape(root)}  /{name}  btrfs subvol=/state/{name},defaults,rw,noatime 0 2"
        for name in state
    ]
    if lines:
        if not text.endswith("\n"):
            text += "\n"
        text += "".join(f"{line}\n" for line in ["# Morph default system layout", *lines])
    return CompletedFstab(text, root, state)


def replace_root(text: str, line: str) -> str:
    """The table with `line` first and without the other entries that mount the root."""
    kept = [each for each in text.splitlines(keepends=True) if "/" not in read_mounts(each)]
    return line + "\n" + "".join(kept)


def root_from_environment(environment: Mapping[str, str]) -> str:
    """The device of the root file system, where nothing better is known."""
    return environment.get("ROOT_DEVICE") or "/dev/sda"
