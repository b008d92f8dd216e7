"""Booting from the network in QEMU, which has a DHCP and a TFTP server for its machines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_QEMU = "qemu-system-x86_64"
_TIMEOUT = 120


def boot_from_network(tftp: Path, mac: str, *, file: str = "pxelinux.0") -> str:
    """Boot a machine with BIOS until it powers itself off. Returns what its serial console said.

    `tftp` is the directory with what it gets, `file` what DHCP tells it to get first.
    """
    command = [_QEMU, "-m", "512", "-nodefaults", "-no-user-config", "-display", "none"]
    command += ["-machine", "q35,accel=tcg", "-vga", "std", "-serial", "stdio", "-no-reboot"]
    command += ["-netdev", f"user,id=net0,restrict=on,tftp={tftp},bootfile={file}"]
    command += ["-device", f"virtio-net-pci,netdev=net0,mac={mac},bootindex=1"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stdout or b"").decode("utf-8", "replace")
        pytest.fail(f"no end in {_TIMEOUT} s; the console said:\n{said}")
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    return done.stdout.decode("utf-8", "replace").replace("\r", "")


def main() -> None:
    """For scenarios: `python -m tests.boot.network TFTP MAC` prints what the console said."""
    tftp, mac = sys.argv[1:]
    print(boot_from_network(Path(tftp), mac))


if __name__ == "__main__":
    main()
