"""EFI system partitions with GRUB, made without mounting anything.

GRUB stands where firmware looks for a boot loader on a disk that it knows nothing of. It finds the
system's filesystem by UUID and reads the same `extlinux.conf` that Syslinux reads there: upgrades
and rollbacks change that filesystem only.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from morphlib.images.programs import Data, Program
from morphlib.process import run

GRUB_MKIMAGE = Program("grub-mkimage", "grub-common")
MFORMAT, MMD = Program("mformat", "mtools"), Program("mmd", "mtools")
MCOPY = Program("mcopy", "mtools")
#: What making a partition needs for any kind of machine.
PROGRAMS = (GRUB_MKIMAGE, MFORMAT, MMD, MCOPY)

_SECTOR = 512
_GRUB = Path("/usr/lib/grub")
_PREFIX = "/EFI/BOOT"
_MODULES = (
    *("part_gpt", "part_msdos", "fat", "btrfs", "gzio", "zstd"),
    *("normal", "configfile", "syslinuxcfg", "linux", "search", "search_fs_uuid"),
    *("test", "echo", "ls", "cat", "sleep", "reboot", "halt", "all_video"),
)


@dataclass(frozen=True, slots=True)
class Firmware:
    """What kind of machine UEFI runs on: GRUB's name of it, and of the file that is started."""

    platform: str
    file: str
    package: str

    @property
    def programs(self) -> Sequence[Program | Data]:
        """All that making a partition for it needs."""
        return (*PROGRAMS, Data(_GRUB / self.platform / "moddep.lst", self.package))


#: Morph's name of an architecture -> its firmware.
FIRMWARES = {
    "x86_64": Firmware("x86_64-efi", "BOOTX64.EFI", "grub-efi-amd64-bin"),
    "x86_32": Firmware("i386-efi", "BOOTIA32.EFI", "grub-efi-ia32-bin"),
    "armv8l64": Firmware("arm64-efi", "BOOTAA64.EFI", "grub-efi-arm64-bin"),
}


def make_esp(
    disk: Path, firmware: Firmware, *, offset: int, size: int, root: UUID, time: int
) -> None:
    """Make an EFI system partition at `offset` of a disk (both in bytes) that boots from `root`.

    `root` is the UUID of the filesystem with `extlinux.conf`. `time` (seconds since 1970) is that
    of the files. The same arguments give the same bytes. Raises MorphError.
    """
    # What dates mtools puts into directories, and no configuration of the user.
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "SOURCE_DATE_EPOCH": str(time),
        "MTOOLSRC": "/dev/null",
        "TZ": "UTC",
        "LC_ALL": "C",
    }
    with tempfile.TemporaryDirectory(prefix="morph-esp-") as name:
        directory = Path(name)
        program, config = directory / "grub.efi", directory / "grub.cfg"
        config.write_text(_configuration(root))
        _make_grub(program, firmware)
        image = directory / "esp"
        with image.open("wb") as file:
            file.truncate(size)
        serial = f"{root.int & 0xFFFFFFFF:08x}"
        format = ["-i", str(image), "-T", str(size // _SECTOR), "-h", "255", "-s", "63"]
        run([str(MFORMAT), *format, "-N", serial, "-v", "EFI", "::"], env=environment)
        run([str(MMD), "-i", image, "::/EFI", f"::{_PREFIX}"], env=environment)
        for source, target in ((program, firmware.file), (config, "grub.cfg")):
            run([str(MCOPY), "-i", image, source, f"::{_PREFIX}/{target}"], env=environment)
        _copy(image, disk, offset)


def _make_grub(program: Path, firmware: Firmware) -> None:
    where = ["--directory", str(_GRUB / firmware.platform), "--prefix", _PREFIX]
    what = ["--format", firmware.platform, "--output", str(program)]
    run([str(GRUB_MKIMAGE), *where, *what, *_MODULES])


def _configuration(root: UUID) -> str:
    return f"""\
search --no-floppy --fs-uuid --set=root {root}
syslinux_configfile -s /extlinux.conf
"""


def _copy(source: Path, disk: Path, offset: int) -> None:
    """Copy what is not zero; the rest of the partition has to be written on a disk, too."""
    with source.open("rb") as reading, disk.open("r+b") as writing:
        while piece := reading.read(1 << 20):
            if disk.is_block_device() or piece.strip(b"\0"):
                writing.seek(offset + reading.tell() - len(piece))
                writing.write(piece)
