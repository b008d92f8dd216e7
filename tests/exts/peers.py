"""The machines that extensions reach, for what is no Python: scenarios.

`python -m tests.exts.peers KIND DIRECTORY --port-file FILE` runs one of them, with its files in
DIRECTORY, until it is told to end (SIGTERM). When it is there, DIRECTORY/env has `export` lines for
those who want to reach it, and FILE is told where it is: the name of a host for ssh, or a URL.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.exts import vboxmanage
from tests.exts.baserockbox import run_box
from tests.exts.cloud import PASSWORD, run_cloud
from tests.exts.libvirtbox import run_libvirt_box
from tests.exts.nfsbox import run_nfs_box
from tests.sshd import HOST, Sshd, run_sshd


@dataclass(frozen=True, slots=True)
class Peer:
    """Where it is, and what those have in their environment who want to reach it."""

    address: str
    environment: Mapping[str, str]


def _over_ssh(sshd: Sshd) -> Peer:
    return Peer(HOST, {"PATH": sshd.env["PATH"]})


@contextmanager
def _plain(directory: Path) -> Iterator[Peer]:
    with run_sshd(directory / "sshd") as sshd:
        yield _over_ssh(sshd)


@contextmanager
def _libvirt(directory: Path) -> Iterator[Peer]:
    with run_libvirt_box(directory) as sshd:
        yield _over_ssh(sshd)


@contextmanager
def _virtualbox(directory: Path) -> Iterator[Peer]:
    """What stands in for VirtualBox keeps its state in DIRECTORY/state."""
    with run_sshd(directory / "sshd") as sshd:
        vboxmanage.install(sshd, directory / "state")
        yield _over_ssh(sshd)


@contextmanager
def _nfs(directory: Path) -> Iterator[Peer]:
    with run_nfs_box(directory) as box:
        box.reset()
        yield _over_ssh(box.sshd)


@contextmanager
def _baserock(directory: Path) -> Iterator[Peer]:
    with run_box(directory) as sshd:
        yield _over_ssh(sshd)


@contextmanager
def _openstack(directory: Path) -> Iterator[Peer]:
    """Keeps images in DIRECTORY/images."""
    (directory / "images").mkdir(exist_ok=True)
    with run_cloud(keep=directory / "images") as cloud:
        yield Peer(cloud.url, {"OPENSTACK_PASSWORD": PASSWORD})


PEERS: Mapping[str, Callable[[Path], AbstractContextManager[Peer]]] = {
    "baserock": _baserock,
    "libvirt": _libvirt,
    "nfs": _nfs,
    "openstack": _openstack,
    "ssh": _plain,
    "virtualbox": _virtualbox,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=sorted(PEERS))
    parser.add_argument("directory", type=Path)
    parser.add_argument("--port-file", type=Path, required=True)
    given = parser.parse_args()
    directory: Path = given.directory
    directory.mkdir(parents=True, exist_ok=True)
    # As an exception it ends what runs in there, also if it comes while that starts.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with PEERS[given.kind](directory) as peer:
        lines = [
            f"export {name}={shlex.quote(value)}\n" for name, value in peer.environment.items()
        ]
        (directory / "env").write_text("".join(lines))
        given.port_file.write_text(f"{peer.address}\n")
        while True:
            signal.pause()


if __name__ == "__main__":
    main()
