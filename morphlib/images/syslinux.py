"""Syslinux for BIOS at the start of a btrfs filesystem, without mounting it.

`extlinux --install` does three things to a mounted btrfs: it writes a boot sector, writes
`ldlinux.sys` to a place that the filesystem does not use, and puts `ldlinux.c32` into the top
directory. The boot sector has the place of the first sector of `ldlinux.sys`, and this sector has
a list of where the others are. Both are the same code for all filesystems, so `syslinux`, which
needs no mount to install itself in an image of a FAT filesystem, brings them along; only the places
are filled in anew. All places are sectors from the start of the filesystem: whatever partition it
is in, the firmware or the master boot record tells where it begins.

The format of what is filled in is that of `struct patch_area` and `struct ext_patch_area` in
Syslinux.
"""

from __future__ import annotations

import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

from morphlib.errors import MorphError, Reason
from morphlib.images.programs import Data, Program
from morphlib.process import run

SECTOR = 512
#: btrfs leaves this much at its start alone, in bytes.
AREA = 64 * 1024

SYSLINUX = Program("syslinux", "syslinux")
MFORMAT, MCOPY = Program("mformat", "mtools"), Program("mcopy", "mtools")
#: The code of a master boot record that starts a partition with Syslinux.
GPT_MBR = Data(Path("/usr/lib/syslinux/mbr/gptmbr.bin"), "syslinux-common")
#: What installing needs: `GPT_MBR` only where there are partitions.
PROGRAMS = (SYSLINUX, MFORMAT, MCOPY)

_MAGIC = 0x3EB202FE
_PATCH = struct.Struct("<IIHHIIHH")
_EXTENDED = struct.Struct("<10H")
_EXTENT = struct.Struct("<QH")
_ADV_SECTORS = 2  # two copies of what Syslinux stores from one boot to the next
_ADV_START = AREA // SECTOR - _ADV_SECTORS  # where extlinux looks for them on btrfs
#: Parts of the boot sector: the jump with the name, and the code. Between them FAT has its own.
_HEAD, _CODE = slice(0, 11), slice(90, 510)


@dataclass(frozen=True, slots=True)
class Syslinux:
    """The parts of Syslinux: its boot sector, `ldlinux.sys` without and its ADV, `ldlinux.c32`."""

    boot_sector: bytes
    ldlinux: bytes
    adv: bytes
    module: bytes

    def area(self) -> bytes:
        """The first 64 KiB of a btrfs filesystem that Syslinux starts from.

        Raises MorphError if this Syslinux does not fit in there.
        """
        sectors = len(self.ldlinux) // SECTOR
        if 1 + sectors > _ADV_START:
            raise _unknown(f"ldlinux.sys of {len(self.ldlinux)} bytes is too large for btrfs")
        boot_sector, ldlinux = self.placed(1, _ADV_START)
        area = bytearray(AREA)
        area[:SECTOR] = boot_sector
        area[SECTOR : SECTOR + len(ldlinux)] = ldlinux
        area[_ADV_START * SECTOR :] = self.adv
        return bytes(area)

    def placed(self, start: int, adv_start: int) -> tuple[bytes, bytes]:
        """Boot sector and `ldlinux.sys` for when the latter and the ADV are at these sectors."""
        data = bytearray(self.ldlinux)
        patch = data.index(struct.pack("<I", _MAGIC))
        magic, instance, _, _, _, _, transfer, place = _PATCH.unpack_from(data, patch)
        extended = _Extended(*_EXTENDED.unpack_from(data, place))
        sectors = len(data) // SECTOR

        table = slice(extended.extents, extended.extents + extended.extent_count * _EXTENT.size)
        rest = _EXTENT.pack(start + 1, sectors - 1)  # the boot sector loads the first one
        data[table] = rest.ljust(table.stop - table.start, b"\0")
        struct.pack_into("<QQ", data, extended.adv, adv_start, adv_start + 1)
        _put_text(data, extended.directory, extended.directory_size, b"/")
        _put_text(data, extended.subvolume, extended.subvolume_size, b"")

        words = len(data) // 4
        head = (magic, instance, sectors, _ADV_SECTORS, words)
        _PATCH.pack_into(data, patch, *head, 0, transfer, place)
        total = sum(word for (word,) in struct.iter_unpack("<I", data))
        _PATCH.pack_into(data, patch, *head, (_MAGIC - total) & 0xFFFFFFFF, transfer, place)

        boot_sector = bytearray(SECTOR)
        boot_sector[_HEAD], boot_sector[_CODE] = self.boot_sector[_HEAD], self.boot_sector[_CODE]
        boot_sector[510:] = b"\x55\xaa"
        struct.pack_into("<I", boot_sector, extended.first_low, start & 0xFFFFFFFF)
        struct.pack_into("<I", boot_sector, extended.first_high, start >> 32)
        _put_geometry(boot_sector)
        return bytes(boot_sector), bytes(data)


@dataclass(frozen=True, slots=True)
class _Extended:
    """`struct ext_patch_area`: offsets in `ldlinux.sys`, those of the first sector in the boot
    sector, and sizes."""

    adv: int
    directory: int
    directory_size: int
    subvolume: int
    subvolume_size: int
    extents: int
    extent_count: int
    first_low: int
    first_high: int
    raid: int


def _put_text(data: bytearray, at: int, size: int, text: bytes) -> None:
    if len(text) >= size:
        raise _unknown(f"it has no room for {text!r}")
    data[at : at + size] = text.ljust(size, b"\0")


def _put_geometry(boot_sector: bytearray) -> None:
    """Bytes in a sector, sectors in a track and heads, as extlinux puts them for images.

    They count only with firmware that can't address sectors by number.
    """
    struct.pack_into("<H", boot_sector, 11, SECTOR)
    struct.pack_into("<HH", boot_sector, 24, 32, 64)


def read_syslinux() -> Syslinux:
    """The Syslinux of this machine. Raises MorphError if it is missing or unlike those known."""
    with tempfile.TemporaryDirectory(prefix="morph-syslinux-") as name:
        directory = Path(name)
        image = directory / "fat"
        run([str(MFORMAT), "-i", image, "-C", "-f", "2880", "-N", "0", "::"])
        run([str(SYSLINUX), "--install", image])
        for file in ("ldlinux.sys", "ldlinux.c32"):
            run([str(MCOPY), "-i", image, f"::{file}", directory / file])
        boot_sector = image.read_bytes()[:SECTOR]
        system = (directory / "ldlinux.sys").read_bytes()
        return _parts(boot_sector, system, (directory / "ldlinux.c32").read_bytes())


def _parts(boot_sector: bytes, system: bytes, module: bytes) -> Syslinux:
    found = system.find(struct.pack("<I", _MAGIC))
    if not 0 <= found < SECTOR or boot_sector[3:11] != b"SYSLINUX":
        raise _unknown("it has no mark of Syslinux")
    _, _, sectors, adv_sectors, words, _, _, place = _PATCH.unpack_from(system, found)
    size = sectors * SECTOR
    is_whole = size + adv_sectors * SECTOR <= len(system) and words * 4 <= size
    if adv_sectors != _ADV_SECTORS or not is_whole or place + _EXTENDED.size > size:
        raise _unknown("its ldlinux.sys has another structure")
    return Syslinux(boot_sector, system[:size], system[size : size + _ADV_SECTORS * SECTOR], module)


def _unknown(why: str) -> MorphError:
    return MorphError(f"this version of Syslinux is not known: {why}", reason=Reason.DEPLOY)
