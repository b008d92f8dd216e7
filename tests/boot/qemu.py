"""Booting disk images in QEMU."""

from __future__ import annotations

import shutil
import subprocess
from enum import Enum
from pathlib import Path

import pytest

_QEMU = "qemu-system-x86_64"
_OVMF = Path("/usr/share/OVMF")
#: Emulating a whole computer takes its time on a busy machine, in seconds.
_TIMEOUT = 300


class Firmware(Enum):
    BIOS = "bios"
    UEFI = "uefi"


def boot(image: Path, firmware: Firmware, *, disk: str = "virtio", sector: int = 512) -> str:
    """Boot a raw image until the system powers itself off. Returns what its serial console said.

    The image stays as it is. `disk` is QEMU's name of the kind of disk, of which only virtio has
    sectors of another size (in bytes).
    """
    command = [_QEMU, "-m", "384", "-nodefaults", "-no-user-config", "-display", "none"]
    # All is emulated: the real mode that boot loaders run in fails under nested virtualization.
    command += ["-machine", "q35,accel=tcg", "-vga", "std"]
    command += ["-serial", "stdio", "-no-reboot", "-nic", "none"]
    drive = f"file={image},format=raw,snapshot=on"
    if sector == 512:
        command += ["-drive", f"{drive},if={disk}"]
    else:
        sizes = f"logical_block_size={sector},physical_block_size={sector}"
        command += ["-drive", f"{drive},if=none,id=disk"]
        command += ["-device", f"virtio-blk-pci,drive=disk,{sizes}"]
    if firmware is Firmware.UEFI:
        code = _OVMF / "OVMF_CODE_4M.fd"
        command += ["-drive", f"if=pflash,format=raw,readonly=on,file={code}"]
        variables = image.with_name(image.name + ".vars")
        shutil.copyfile(_OVMF / "OVMF_VARS_4M.fd", variables)
        command += ["-drive", f"if=pflash,format=raw,file={variables}"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired as error:
        pytest.fail(f"no end in {_TIMEOUT} s; the console said:\n{_text(error.stdout or b'')}")
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    return _text(done.stdout)


def _text(output: bytes) -> str:
    return output.decode("utf-8", "replace").replace("\r", "")
