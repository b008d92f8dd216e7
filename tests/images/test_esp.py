from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from uuid import UUID

import pytest

from morphlib.errors import MorphError
from morphlib.images.esp import FIRMWARES, Firmware, make_esp
from morphlib.images.programs import check_there
from tests.ordinary import run_as_ordinary_user

ROOT = UUID("12345678-9abc-def0-1234-56789abcdef0")
OFFSET, SIZE = 1 << 20, 8 << 20
TIME = 683074800


def make(directory: Path) -> Path:
    disk = directory / "disk"
    with disk.open("wb") as file:
        file.truncate(OFFSET + SIZE + OFFSET)
    make_esp(disk, FIRMWARES["x86_64"], offset=OFFSET, size=SIZE, root=ROOT, time=TIME)
    return disk


def partition(disk: Path) -> Path:
    alone = disk.with_name("esp")
    alone.write_bytes(disk.read_bytes()[OFFSET : OFFSET + SIZE])
    return alone


def test_is_a_good_file_system(tmp_path: Path) -> None:
    disk = make(tmp_path)
    subprocess.run(["fsck.vfat", "-n", partition(disk)], check=True)
    assert not any(disk.read_bytes()[:OFFSET])
    assert not any(disk.read_bytes()[OFFSET + SIZE :])


def test_firmware_finds_grub_in_it(tmp_path: Path) -> None:
    image = partition(make(tmp_path))
    assert read_file(image, "BOOTX64.EFI").startswith(b"MZ")
    assert str(ROOT).encode() in read_file(image, "grub.cfg")


def read_file(image: Path, name: str) -> bytes:
    command = ["mcopy", "-i", str(image), f"::/EFI/BOOT/{name}", "-"]
    return subprocess.run(command, check=True, capture_output=True).stdout


def test_is_sparse(tmp_path: Path) -> None:
    assert make(tmp_path).stat().st_blocks * 512 < 2 << 20


def test_is_the_same_each_time_and_for_everybody(tmp_path: Path) -> None:
    first = make(tmp_path).read_bytes()
    code = """
import sys
from pathlib import Path
from tests.images.test_esp import make
assert make(Path()).read_bytes() == Path(sys.argv[1]).read_bytes()
"""
    with tempfile.NamedTemporaryFile() as shared:
        shared.write(first)
        shared.flush()
        Path(shared.name).chmod(0o644)
        run_as_ordinary_user(code, shared.name)


def test_missing_modules_are_told() -> None:
    firmware = Firmware("vax-efi", "BOOTVAX.EFI", "grub-efi-vax-bin")
    with pytest.raises(MorphError, match=r"(?s)vax-efi.*is not there, .*grub-efi-vax-bin has it"):
        check_there(firmware.programs, what="BOOTLOADER_INSTALL grub-efi")
