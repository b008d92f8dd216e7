"""Restarting a machine that is installed over the network, and waiting until it is installed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from morphlib.errors import MorphError, Reason
from morphlib.images.programs import Program, check_there
from morphlib.process import ProcessError, run

IPMITOOL = Program("ipmitool", "ipmitool")
_WORD = "installed"

Device = Literal["pxe", "disk"]


@dataclass(frozen=True, slots=True)
class Ipmi:
    """The controller of a machine's power."""

    host: str
    user: str
    password: str

    def restart(self, device: Device) -> None:
        """Switch the machine off and on again, or on. Raises MorphError."""
        self._run("chassis", "bootdev", device)
        is_off = b"is off" in self._run("chassis", "power", "status")
        self._run("chassis", "power", "on" if is_off else "cycle")

    def _run(self, *words: str) -> bytes:
        # The password is on no command line.
        arguments = ["-I", "lanplus", "-H", self.host, "-U", self.user, "-E", *words]
        environment = {**os.environ, "IPMI_PASSWORD": self.password}
        return run([str(IPMITOOL), *arguments], env=environment).stdout


@dataclass(frozen=True, slots=True)
class Restarting:
    """How a machine is restarted: by commands of a shell, or else by IPMI, or else by people."""

    commands: Mapping[Device, str]
    ipmi: Ipmi | None
    tell: Callable[[str], None]

    def check(self) -> None:
        if self.ipmi is not None:
            check_there([IPMITOOL], what="restarting machines by IPMI")

    def restart(self, device: Device, asked: str) -> None:
        """Let the machine boot from a device. `asked` is what people are told otherwise."""
        if command := self.commands[device]:
            self.tell(f"Restarting the machine, to boot from {_SHOWN[device]}")
            run_command(command, f"the command that lets it boot from {_SHOWN[device]}")
        elif self.ipmi is not None:
            self.tell(f"Restarting the machine by IPMI, to boot from {_SHOWN[device]}")
            self.ipmi.restart(device)
        else:
            self.tell(asked)


_SHOWN = {"pxe": "the network", "disk": "its disk"}


def run_command(command: str, what: str) -> None:
    """Run what a deployment gives as a script of the shell. Raises MorphError if it fails."""
    try:
        run(["sh", "-e", "-c", command])
    except ProcessError as error:
        output = error.output.decode("utf-8", "replace").strip()
        raise MorphError(
            f"{what} failed with status {error.status}: {output}", reason=Reason.DEPLOY
        ) from error


def can_be_told() -> bool:
    """Whether there is anybody who could type that the machine is installed."""
    try:
        mine, nothing = os.fstat(0), os.stat(os.devnull)  # noqa: PTH116 - a device
    except OSError:
        return False
    return mine.st_rdev != nothing.st_rdev or mine.st_mode != nothing.st_mode


def wait_until_told(tell: Callable[[str], None]) -> None:
    """Wait for the word on standard input. Raises MorphError if it never comes."""
    tell(f"Type '{_WORD}' when the machine is installed")
    for line in sys.stdin:
        if line.strip() == _WORD:
            return
        tell(f"Waiting for the word '{_WORD}'")
    raise MorphError(
        f"standard input ended without the word '{_WORD}'",
        reason=Reason.DEPLOY,
        hint="PXEBOOT_INSTALLED_COMMAND can wait instead of you",
    )
