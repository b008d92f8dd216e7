"""The example as people get it: built, deployed, booted, upgraded over ssh, and taken back.

Takes minutes the first time; `check` runs it apart from the other tests.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.boot.console import Console
from tests.boot.machine import run_machine
from tests.boot.qemu import Firmware

pytestmark = [pytest.mark.example, pytest.mark.timeout(3600)]

CHECKOUT = Path(__file__).resolve().parents[2]
STATE = ("home", "opt", "root", "srv", "var")
#: Emulated machines start slowly on busy ones, in seconds.
START = 600


@dataclass(frozen=True, slots=True)
class Example:
    """What scripts/build-example has made, and what it printed in the end."""

    directory: Path
    boot_line: str
    #: the program `ssh` that knows the machine, for programs with this PATH
    path: str
    port: int

    def morph(self, *args: str) -> None:
        subprocess.run(
            [CHECKOUT / "morph", f"--config={self.directory / 'morph.conf'}", *args],
            cwd=self.directory / "definitions",
            env={**os.environ, "PATH": self.path},
            stdin=subprocess.DEVNULL,
            check=True,
            timeout=1800,
        )

    def ssh(self, command: str, *, check: bool = True) -> str:
        """What a command says that is run over ssh."""
        done = subprocess.run(
            [shutil.which("ssh", path=self.path) or "ssh", "example", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done.stdout.removesuffix("\n")

    @contextmanager
    def started(self) -> Iterator[Console]:
        """Run the line that was printed. The machine is killed if it does not end by itself."""
        ours, its = socket.socketpair()
        command = shlex.split(self.boot_line.replace(":2222-", f":{self.port}-"))
        ends = its.fileno()
        with ours, its, subprocess.Popen(command, stdin=ends, stdout=ends) as process:
            its.close()
            try:
                yield Console(ours)
                assert process.wait(timeout=START) == 0
            finally:
                process.kill()


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    directory = CHECKOUT / "example-build" / "check"
    (directory / "example.img").unlink(missing_ok=True)
    built = subprocess.run(
        [CHECKOUT / "scripts/build-example", "--directory", directory],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=3000,
    )
    (line,) = re.findall(r"^ *(qemu-system-x86_64 .*)$", built.stdout, re.MULTILINE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    client = tmp_path_factory.mktemp("client")
    config = (directory / "ssh_config").read_text().replace("Port 2222", f"Port {port}")
    (client / "ssh_config").write_text(config)
    wrapper = client / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {client}/ssh_config "$@"\n')
    wrapper.chmod(0o755)
    return Example(directory, line, f"{client}:{os.environ['PATH']}", port)


def wait_for_restart(example: Example, console: Console) -> None:
    """Wait until the machine has started anew, and its ssh server answers."""
    console.wait_for("Linux version", START)
    console.wait_for("login: $", START)
    deadline = time.monotonic() + START
    while example.ssh("echo there", check=False) != "there":
        assert time.monotonic() < deadline, "no answer over ssh"
        time.sleep(1)


def check_state(example: Example) -> None:
    mounts = example.ssh("cat /proc/mounts")
    for name in STATE:
        assert re.search(rf"^\S+ /{name} btrfs \S*subvol=/state/{name}\b", mounts, re.MULTILINE)


def test_life_of_a_machine(example: Example) -> None:
    with example.started() as console:
        console.log_in(timeout=START)
        assert console.output("hostname") == "example"
        assert console.output("system-version-manager get-running") == "factory"

        # From the outside, which the network makes possible.
        assert example.ssh("cat /etc/hostname") == "example"
        assert "10.0.2.15" in example.ssh("ip -4 address show dev eth0")
        assert "127.0.1.1 example" in example.ssh("cat /etc/hosts")
        uuid = example.ssh("sed -n 's/.*root=UUID=\\([^ ]*\\).*/\\1/p' /proc/cmdline")
        fstab = example.ssh("cat /etc/fstab")
        assert f"UUID={uuid}  / btrfs defaults,rw,noatime 0 1" in fstab
        assert f"UUID={uuid}  /home  btrfs subvol=/state/home,defaults,rw,noatime 0 2" in fstab
        check_state(example)

        # What the machine has made its own outlives an upgrade.
        example.ssh("echo mine > /home/kept; echo mine > /etc/motd")
        example.morph(
            *("upgrade", "clusters/upgrade.morph", "machine.VERSION_LABEL=v2"),
            *("machine.HOSTNAME=second", "machine.HOSTS_SELF=127.0.1.1 second"),
            "machine.AUTOSTART=yes",
        )
        wait_for_restart(example, console)
        assert example.ssh("system-version-manager get-running") == "v2"
        assert example.ssh("hostname") == "second"
        assert "127.0.1.1 second" in example.ssh("cat /etc/hosts")
        assert example.ssh("cat /home/kept /etc/motd") == "mine\nmine"
        check_state(example)

        example.ssh("system-version-manager set-default factory && reboot")
        wait_for_restart(example, console)
        assert example.ssh("system-version-manager get-running") == "factory"
        assert example.ssh("hostname") == "example"
        assert example.ssh("cat /home/kept") == "mine"
        assert set(example.ssh("system-version-manager list").split()) == {"factory", "v2"}
        example.ssh("system-version-manager remove v2")
        assert example.ssh("system-version-manager list") == "factory"
        example.ssh("poweroff")
    image = example.directory / "example.img"
    subprocess.run(["btrfs", "check", image], check=True, capture_output=True)

    # While it is off, the image itself can be upgraded.
    place = f"bios.location={image}"
    example.morph("upgrade", "clusters/example.morph", "bios", place, "bios.VERSION_LABEL=v3")
    with example.started() as console:
        console.log_in(timeout=START)
        assert console.output("system-version-manager get-running") == "v3"
        assert console.output("cat /home/kept") == "mine"
        console.send_line("poweroff")
    example.morph("upgrade", "clusters/example.morph", "bios", place, "bios.SET_DEFAULT=factory")
    with example.started() as console:
        console.log_in(timeout=START)
        assert console.output("system-version-manager get-running") == "factory"
        console.send_line("poweroff")


def test_uefi(example: Example, tmp_path: Path) -> None:
    image = tmp_path / "uefi.img"
    example.morph("deploy", "clusters/example.morph", "uefi", f"uefi.location={image}")
    with run_machine(image, Firmware.UEFI) as machine:
        machine.console.log_in(timeout=START)
        assert machine.console.output("hostname") == "example"
        assert machine.console.output("ls -d /sys/firmware/efi") == "/sys/firmware/efi"


def test_what_is_there_stays(example: Example) -> None:
    image = example.directory / "example.img"
    before = image.stat()
    again = subprocess.run(
        [CHECKOUT / "scripts/build-example", "--directory", example.directory],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=600,
    )
    assert "It is there already, so it stays as it is" in again.stdout
    assert example.boot_line in again.stdout
    assert (image.stat().st_ino, image.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
