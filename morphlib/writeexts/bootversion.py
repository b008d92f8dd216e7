"""What a machine boots from a server: versions beside each other, and the configuration that says
which one it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from morphlib.writeexts.bootserver import Place
from morphlib.writeexts.pxe import FILES, config_name
from morphlib.writeexts.undo import undone_on_failure


@dataclass(frozen=True, slots=True)
class BootVersion:
    """A machine and what it is to boot: `version` tells what it boots from what it booted."""

    mac: str
    version: str

    @property
    def files(self) -> str:
        return f"{FILES}/{self.mac}"

    @property
    def config(self) -> str:
        return config_name(self.mac)


def new_version(mac: str, name: str, tftp: Place, rootfs: list[Place]) -> BootVersion:
    """The name of a version that is nowhere yet: what the machine runs now is left alone."""
    taken = {*tftp.names(f"{FILES}/{mac}"), *(name for each in rootfs for name in each.names(mac))}
    names = (name, *(f"{name}-{number}" for number in range(2, len(taken) + 3)))
    return BootVersion(mac, next(name for name in names if name not in taken))


@contextmanager
def configured(tftp: Place, target: BootVersion, config: str) -> Iterator[None]:
    """Let the machine boot this; if the block fails, what it booted before."""
    before = tftp.read(target.config)

    def undo() -> None:
        if before is None:
            tftp.remove(target.config)
        else:
            tftp.put(target.config, before)

    with undone_on_failure(f"restore {target.config}", undo):
        tftp.put(target.config, config.encode())
        yield


def remove_others(target: BootVersion, tftp: Place, rootfs: list[Place]) -> None:
    for place, directory in [(tftp, target.files), *((each, target.mac) for each in rootfs)]:
        for name in place.names(directory):
            if name != target.version:
                place.remove(f"{directory}/{name}")
