"""A server for machines that boot from the network, as far as one can have it without serving.

An ssh server in a mount namespace of its own, with a copy of this machine's /etc and a /srv of its
own; a program that writes down what it is told stands in for systemd. Needs root, for the mounts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.sshd import Sshd, run_sshd

EXPORTS = "# what is served\n/srv/other 10.0.0.0/8(ro)\n"

_ENTER = r"""
set -eu
cp -a /etc "$1/etc"
mount --bind "$1/etc" /etc
mount --bind "$1/srv" /srv
mount -t tmpfs tmpfs /run
mkdir /run/sshd
shift
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class NfsBox:
    """The server, and its directories as they are seen from here."""

    sshd: Sshd
    etc: Path
    srv: Path

    @property
    def root(self) -> Path:
        return self.srv / "nfsboot"

    @property
    def exports(self) -> str:
        return (self.etc / "exports").read_text()

    @property
    def told(self) -> list[str]:
        """What systemd was told."""
        return (self.srv / "told").read_text().splitlines()

    def environment(self, **more: str) -> dict[str, str]:
        return {"PATH": self.sshd.env["PATH"], **more}

    def listing(self) -> list[str]:
        """All names, two levels of a version deep, with where links lead."""
        found = []
        for path in sorted(self.root.rglob("*")):
            name = path.relative_to(self.root)
            if len(name.parts) <= 4:
                found.append(f"{name} -> {path.readlink()}" if path.is_symlink() else str(name))
        return found

    def reset(self) -> None:
        """As it was at first."""
        for path in self.sshd.commands.iterdir():
            path.unlink()
        self.sshd.add_command("systemctl", 'echo "$*" >>/srv/told')
        self.sshd.login("sh", "-c", "rm -rf /srv/nfsboot; mkdir -p /srv/nfsboot/tftp; : >/srv/told")
        (self.etc / "exports").write_text(EXPORTS)
        (self.etc / "exports").chmod(0o640)


@contextmanager
def run_nfs_box(directory: Path) -> Iterator[NfsBox]:
    etc, srv = directory / "etc", directory / "srv"
    srv.mkdir()
    with run_sshd(
        directory / "sshd", start=["unshare", "--mount", "sh", "-euc", _ENTER, "sh", directory]
    ) as sshd:
        yield NfsBox(sshd, etc, srv)
