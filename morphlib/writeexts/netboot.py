"""DHCP and TFTP servers of our own, for a single machine on a cable or network of its own."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from morphlib.errors import MorphError, Reason
from morphlib.images.programs import Program, check_there
from morphlib.process import run, wait_until
from morphlib.writeexts.bootserver import is_root_of_machine

DNSMASQ = Program("dnsmasq", "dnsmasq-base")
_IP = Program("ip", "iproute2")
_INTERFACE = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,14}")
_PATIENCE = 10.0  # seconds that the servers have to end in


@dataclass(frozen=True, slots=True)
class Servers:
    """Servers on an interface of this machine, which has an IPv4 address there."""

    interface: str

    def check(self) -> None:
        """Raises MorphError unless they can be run here."""
        check_there([DNSMASQ, _IP], what="PXEBOOT_MODE spawn-novlan")
        self._address()
        if not is_root_of_machine():
            raise MorphError("only root can run a DHCP server", reason=Reason.DEPLOY)

    @contextmanager
    def running(self, directory: Path, mac: str, boot_file: str) -> Iterator[None]:
        """Serve a directory to the machine `mac` (with hyphens), which is told to boot a file.

        Nobody else is answered.
        """
        network = self._address()
        hosts = [network.network.network_address + 1, network.network.broadcast_address - 1]
        pid_file = directory.with_name("dnsmasq.pid")
        leases = directory.with_name("dnsmasq.leases")
        arguments = [
            *("--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--port=0"),
            *(f"--interface={self.interface}", "--except-interface=lo", "--bind-interfaces"),
            f"--dhcp-range={hosts[0]},{hosts[1]},{network.network.netmask},10m",
            *(f"--dhcp-host={mac.replace('-', ':')},set:target", "--dhcp-ignore=tag:!target"),
            *(f"--dhcp-boot={boot_file}", "--dhcp-authoritative"),
            *("--enable-tftp", f"--tftp-root={directory}", f"--dhcp-leasefile={leases}"),
            *(f"--pid-file={pid_file}", "--user=root", "--group=root"),
        ]
        # It returns when it can serve.
        run([str(DNSMASQ), *arguments])
        pid = int(pid_file.read_text())
        try:
            yield
        finally:
            os.kill(pid, signal.SIGTERM)
            if not wait_until(lambda: not _runs(pid), _PATIENCE):
                os.kill(pid, signal.SIGKILL)

    def _address(self) -> ipaddress.IPv4Interface:
        if not _INTERFACE.fullmatch(self.interface):
            raise MorphError(
                f"PXEBOOT_DEPLOYER_INTERFACE {self.interface!r} is no network interface",
                reason=Reason.DEPLOY,
            )
        done = run([str(_IP), "-json", "-4", "address", "show", "dev", self.interface], check=False)
        found = json.loads(done.stdout or b"[]") if done.status == 0 else []
        for each in found:
            for address in each.get("addr_info", ()):
                return ipaddress.IPv4Interface(f"{address['local']}/{address['prefixlen']}")
        raise MorphError(
            f"this machine has no network interface {self.interface} with an IPv4 address",
            reason=Reason.DEPLOY,
            hint=f"for a network of its own: ip address add 192.168.77.1/24 dev {self.interface}",
        )


def _runs(pid: int) -> bool:
    """It is nobody's child, or the one of a reaper, which may not look at once."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
