"""The machines of a network of tests: this one alone, or namespaces with links between them."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can make network namespaces: run the tests as root"
)

HUB = "hub"
_numbers = itertools.count()


def machine_of(process: str) -> str:
    """The machine of a process: each worker has one with all that is beside it, so has the
    initiator; the controller and the shared cache are on the hub."""
    words = process.split("-")
    if words[0] == "worker" and len(words) > 1 and words[1].isdigit():
        return f"worker-{words[1]}"
    return process if process == "initiator" else HUB


class Hosts:
    """All on this machine."""

    are_apart = False
    anywhere = "127.0.0.1"  # where daemons listen

    def address(self, process: str) -> str:
        return "127.0.0.1"

    def prefix(self, process: str) -> Sequence[str]:
        """What a command line begins with to run where a process belongs."""
        return ()


class Namespaces(Hosts):
    """A network namespace for each machine, and a link from each to the hub.

    `cut`, `limit` and `spoil` change a link; `mend` makes it whole again.
    """

    are_apart = True
    anywhere = "0.0.0.0"

    def __init__(self, machines: Sequence[str]) -> None:
        self._tag = f"morph-{os.getpid()}-{next(_numbers)}"
        self._addresses = {name: f"10.77.0.{n}" for n, name in enumerate((HUB, *machines), 1)}

    def make(self) -> None:
        for name, address in self._addresses.items():
            _ip("netns", "add", self._name(name))
            self._in(name, "link", "set", "lo", "up")
            if name == HUB:
                self._in(HUB, "link", "add", "eth0", "type", "bridge", "forward_delay", "0")
            else:
                veth = ("link", "add", name, "type", "veth", "peer", "name", "eth0")
                self._in(HUB, *veth, "netns", self._name(name))
                self._in(HUB, "link", "set", name, "master", "eth0", "up")
            self._in(name, "address", "add", f"{address}/24", "dev", "eth0")
            self._in(name, "link", "set", "eth0", "up")

    def remove(self) -> None:
        for name in self._addresses:
            with contextlib.suppress(subprocess.CalledProcessError):  # it was never made
                _ip("netns", "delete", self._name(name))

    def address(self, process: str) -> str:
        return self._addresses[machine_of(process)]

    def prefix(self, process: str) -> Sequence[str]:
        return ("ip", "netns", "exec", self._name(machine_of(process)))

    def cut(self, machine: str) -> None:
        """Let nothing through: packets vanish, nobody is told."""
        self._in(HUB, "link", "set", machine, "down")

    def mend(self, machine: str) -> None:
        self._in(HUB, "link", "set", machine, "up")

    def limit(self, machine: str, rate: str) -> None:
        """Let no more through, both ways; in what `tc` understands, as 2mbit."""
        shape = ("root", "tbf", "rate", rate, "burst", "16kb", "latency", "400ms")
        for where, device in ((HUB, machine), (machine, "eth0")):
            self._run("tc", "-n", self._name(where), "qdisc", "replace", "dev", device, *shape)

    def widen(self, machine: str) -> None:
        """Take the limit away."""
        for where, device in ((HUB, machine), (machine, "eth0")):
            self._run("tc", "-n", self._name(where), "qdisc", "del", "dev", device, "root")

    def spoil(self, machine: str, share: float) -> None:
        """Lose a share of the packets, both ways."""
        chance = ("-m", "statistic", "--mode", "random", "--probability", f"{share}", "-j", "DROP")
        rule = ("iptables", "-w", "-A", "INPUT", "-i", "eth0")
        self._run(*self.prefix(machine), *rule, *chance)
        self._run(*self.prefix(HUB), *rule, "-s", self._addresses[machine], *chance)

    def _name(self, machine: str) -> str:
        return f"{self._tag}-{machine}"

    def _in(self, machine: str, *arguments: str) -> None:
        _ip("-n", self._name(machine), *arguments)

    def _run(self, *command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, timeout=30)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=30)


@contextlib.contextmanager
def namespaces(*machines: str) -> Iterator[Namespaces]:
    """The hub and these machines. Whatever happens, they are gone afterwards."""
    made = Namespaces(machines)
    try:
        made.make()
        yield made
    finally:
        made.remove()


def listens(pid: int, port: int) -> bool:
    """Whether somebody listens at a TCP port of the namespace of a process."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
        return any(f.split()[1].endswith(f":{port:04X}") and f.split()[3] == "0A" for f in lines)
    return False
