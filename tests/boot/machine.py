"""Virtual machines that run while a test talks to them, on a serial console or over ssh."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.boot.console import Console
from tests.boot.qemu import Firmware

_QEMU = "qemu-system-x86_64"
_OVMF = Path("/usr/share/OVMF")
_MEMORY = 512  # MiB
_NETWORK = "net0"


@dataclass(frozen=True, slots=True)
class DirectBoot:
    """A kernel that the machine starts by itself, without firmware looking for one on a disk."""

    kernel: Path
    initramfs: Path
    arguments: str


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that runs. It answers on `port` of the loopback interface for its ssh server."""

    console: Console
    port: int
    process: subprocess.Popen[bytes]


@contextmanager
def run_machine(
    disk: Path,
    firmware: Firmware = Firmware.BIOS,
    *,
    direct: DirectBoot | None = None,
    interface: str = "virtio",
    keep_changes: bool = True,
    restarts: bool = True,
) -> Iterator[Machine]:
    """Run a machine with a raw image as its disk, and a network of its own, with a DHCP server.

    `interface` is QEMU's name of the kind of disk. What the machine writes goes into the image if
    `keep_changes`. Without `restarts` it ends where it would restart. It is killed at the end.
    """
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="morph-machine-")))
        line, its_line = _socket_pair(stack)
        control, its_control = _socket_pair(stack)
        snapshot = "off" if keep_changes else "on"
        command = [
            *_base_command(),
            *("-m", str(_MEMORY)),
            *("-chardev", f"socket,id=serial,fd={its_line.fileno()}", "-serial", "chardev:serial"),
            *("-chardev", f"socket,id=control,fd={its_control.fileno()}"),
            *("-mon", "chardev=control,mode=control"),
            *("-netdev", f"user,id={_NETWORK},hostfwd=tcp:127.0.0.1:0-:22"),
            *("-device", f"virtio-net-pci,netdev={_NETWORK}", "-device", "virtio-rng-pci"),
            *("-drive", f"file={disk},format=raw,if={interface},snapshot={snapshot}"),
            *_firmware(firmware, scratch),
            *_direct(direct),
            *(() if restarts else ("-no-reboot",)),
        ]
        errors = stack.enter_context((scratch / "errors").open("w+b"))
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            pass_fds=(its_line.fileno(), its_control.fileno()),
        )
        stack.callback(_end, process)
        its_line.close()
        its_control.close()
        try:
            port = _forwarded_port(control)
        except (OSError, ValueError) as error:
            raise AssertionError((scratch / "errors").read_text("utf-8", "replace")) from error
        yield Machine(Console(line), port, process)


def _base_command() -> list[str]:
    # All is emulated. Where machines run in machines, KVM may well start a guest and then hang, and
    # emulation takes the system to its prompt in some ten seconds.
    nothing = ["-nodefaults", "-no-user-config", "-display", "none", "-vga", "std"]
    return [_QEMU, "-machine", "pc,accel=tcg", *nothing]


def _socket_pair(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, its = socket.socketpair()
    return stack.enter_context(ours), stack.enter_context(its)


def _firmware(firmware: Firmware, scratch: Path) -> Sequence[str]:
    """The firmware's settings are those of a machine that was never started before."""
    if firmware is Firmware.BIOS:
        return ()
    settings = scratch / "settings.fd"
    shutil.copyfile(_OVMF / "OVMF_VARS_4M.fd", settings)
    code = f"if=pflash,format=raw,readonly=on,file={_OVMF / 'OVMF_CODE_4M.fd'}"
    return ("-drive", code, "-drive", f"if=pflash,format=raw,file={settings}")


def _direct(direct: DirectBoot | None) -> Sequence[str]:
    if direct is None:
        return ()
    files = ("-kernel", str(direct.kernel), "-initrd", str(direct.initramfs))
    return (*files, "-append", direct.arguments)


def _forwarded_port(control: socket.socket) -> int:
    """Which port QEMU has taken for what goes to port 22 of the machine."""
    control.settimeout(30)
    stream = control.makefile("rw")
    json.loads(stream.readline())  # QEMU's greeting
    for request in (
        {"execute": "qmp_capabilities"},
        {"execute": "human-monitor-command", "arguments": {"command-line": "info usernet"}},
    ):
        stream.write(json.dumps(request) + "\n")
        stream.flush()
        answer = json.loads(stream.readline())
        while "event" in answer:
            answer = json.loads(stream.readline())
    found = re.search(r"HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)", str(answer["return"]))
    if found is None:
        raise ValueError(answer)
    return int(found[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(timeout=30)
