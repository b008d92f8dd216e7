"""Deployments that would write over each other: which of them wins is left to chance."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

#: Types whose location is a file that has room for one system. Sysroots can be merged.
_FILES = frozenset(("ext4", "initramfs", "jffs2", "oci", "rawdisk", "squashfs", "tar"))
#: Types whose location names a machine and the file of its disk.
_MACHINES = frozenset(("kvm", "virtualbox-ssh"))


class Placed(Protocol):
    """What counts of a deployment."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def location(self) -> str: ...
    @property
    def subsystems(self) -> Sequence[Placed]: ...


def find_clashes(root: str, deployments: Iterable[Placed]) -> Iterator[str]:
    """What is wrong, a text each. `root` is what relative locations are relative to.

    Of subsystems those of one parent are compared, and their locations are inside of it.
    """
    seen: dict[str, str] = {}
    for deployment in deployments:
        place = _place(root, deployment)
        if place is not None:
            first = seen.setdefault(place, deployment.name)
            if first != deployment.name:
                yield (
                    f"deployments {first} and {deployment.name} have the same location: "
                    f"{deployment.location}"
                )
        yield from find_clashes("/", deployment.subsystems)


def _place(root: str, deployment: Placed) -> str | None:
    """The place that nobody else may write to, if it has one."""
    kind = posixpath.basename(deployment.type)
    if not deployment.location:
        return None
    if kind in _FILES:
        return posixpath.normpath(posixpath.join(root, deployment.location))
    return deployment.location if kind in _MACHINES else None
