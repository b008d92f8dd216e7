from __future__ import annotations

import hashlib
import struct
import subprocess
from pathlib import Path

import pytest

from morphlib.errors import MorphError
from morphlib.images import syslinux
from morphlib.images.programs import Program
from morphlib.images.syslinux import AREA, SECTOR, Syslinux, read_syslinux
from tests.mounting import mounted, needs_root
from tests.ordinary import run_as_ordinary_user

MAGIC = struct.pack("<I", 0x3EB202FE)


@pytest.fixture(scope="module")
def parts() -> Syslinux:
    return read_syslinux()


def make_btrfs(image: Path) -> Path:
    with image.open("wb") as file:
        file.truncate(128 << 20)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    return image


@needs_root
def test_does_what_extlinux_does(parts: Syslinux, tmp_path: Path) -> None:
    """Byte for byte, but for the size of the volume in the boot sector, which nothing reads."""
    image = make_btrfs(tmp_path / "image")
    with mounted(image) as point:
        subprocess.run(["extlinux", "--install", point], check=True, capture_output=True)
    theirs = image.read_bytes()
    start = theirs.index(parts.ldlinux[:16], SECTOR)
    adv_start = theirs.index(parts.adv[:8]) // SECTOR
    boot_sector, ldlinux = parts.placed(start // SECTOR, adv_start)
    assert theirs[start : start + len(ldlinux)] == ldlinux
    assert theirs[:32] + theirs[36:SECTOR] == boot_sector[:32] + boot_sector[36:]


@needs_root
def test_the_file_system_does_not_mind(parts: Syslinux, tmp_path: Path) -> None:
    image = make_btrfs(tmp_path / "image")
    with image.open("r+b") as file:
        file.write(parts.area())
    subprocess.run(["btrfs", "check", image], check=True, capture_output=True)
    with mounted(image) as point:
        (point / "file").write_bytes(bytes(1 << 20))
    assert image.read_bytes()[:AREA] == parts.area()


def test_places_are_in_the_area(parts: Syslinux) -> None:
    area = parts.area()
    assert len(area) == AREA
    assert area[510:512] == b"\x55\xaa"
    assert area[SECTOR:].startswith(parts.ldlinux[:16])
    assert area[AREA - 1024 :] == parts.adv


def test_checksum_is_right(parts: Syslinux) -> None:
    """Syslinux adds up all that it has loaded, to the magic number, before it jumps there."""
    _, ldlinux = parts.placed(1, 126)
    (words,) = struct.unpack_from("<I", ldlinux, ldlinux.index(MAGIC) + 12)
    total = sum(struct.unpack_from(f"<{words}I", ldlinux)) & 0xFFFFFFFF
    assert total == 0x3EB202FE


def test_is_the_same_each_time_and_for_everybody(parts: Syslinux) -> None:
    code = """
import hashlib, sys
from morphlib.images.programs import Program
from morphlib.images.syslinux import read_syslinux
parts = read_syslinux()
assert hashlib.sha256(parts.area() + parts.module).hexdigest() == sys.argv[1]
"""
    run_as_ordinary_user(code, hashlib.sha256(parts.area() + parts.module).hexdigest())


def test_too_large_is_told(parts: Syslinux) -> None:
    large = Syslinux(parts.boot_sector, parts.ldlinux.ljust(AREA, b"\0"), parts.adv, b"")
    with pytest.raises(MorphError, match="too large"):
        large.area()


def test_something_else_is_not_taken_for_syslinux(parts: Syslinux) -> None:
    whole = parts.ldlinux + parts.adv
    for boot_sector, system in (
        (bytes(512), whole),
        (parts.boot_sector, whole[:-1]),
        (parts.boot_sector, bytes(len(whole))),
        (parts.boot_sector, b""),
    ):
        with pytest.raises(MorphError, match="version of Syslinux is not known"):
            syslinux._parts(boot_sector, system, b"")


def test_missing_programs_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syslinux, "SYSLINUX", Program("no-such-syslinux", "syslinux"))
    with pytest.raises(MorphError, match=r"no-such-syslinux is not there\n.*package syslinux has"):
        read_syslinux()
