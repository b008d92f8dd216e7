from __future__ import annotations

import json
import subprocess
from pathlib import Path
from uuid import UUID

import pytest

from morphlib.errors import MorphError
from morphlib.images import gpt
from morphlib.images.gpt import ALIGNMENT, Partition, read_table, usable, write_table

SIZE = 64 << 20
DISK = UUID("00112233-4455-6677-8899-aabbccddeeff")
ONE = Partition(gpt.ESP, UUID(int=1), "EFI system", ALIGNMENT, 8 << 20)
TWO = Partition(gpt.LINUX, UUID(int=2), "root", 9 << 20, usable(SIZE) - (9 << 20), gpt.LEGACY_BOOT)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(SIZE)
    return path


def test_tools_understand_it(disk: Path) -> None:
    write_table(disk, SIZE, DISK, (ONE, TWO))
    subprocess.run(["sgdisk", "--verify", disk], check=True)
    shown = subprocess.run(["sfdisk", "--json", disk], check=True, capture_output=True, text=True)
    assert not shown.stderr
    table = json.loads(shown.stdout)["partitiontable"]
    assert table["label"] == "gpt"
    assert UUID(table["id"]) == DISK
    assert [each["start"] * 512 for each in table["partitions"]] == [ONE.start, TWO.start]
    assert [each["size"] * 512 for each in table["partitions"]] == [ONE.size, TWO.size]
    assert [UUID(each["type"]) for each in table["partitions"]] == [gpt.ESP, gpt.LINUX]
    assert [UUID(each["uuid"]) for each in table["partitions"]] == [ONE.guid, TWO.guid]
    assert table["partitions"][1]["attrs"] == "LegacyBIOSBootable"
    assert table["partitions"][0]["name"] == "EFI system"


def test_second_copy_is_good(disk: Path) -> None:
    """What a tool finds when the first one is lost."""
    write_table(disk, SIZE, DISK, (ONE, TWO))
    with disk.open("r+b") as file:
        file.seek(512)
        file.write(bytes(33 * 512))
    done = subprocess.run(["sgdisk", "--print", disk], capture_output=True, text=True, check=False)
    assert "EFI system" in done.stdout


@pytest.mark.parametrize("sector", [512, 4096])
def test_is_read_as_it_was_written(disk: Path, sector: int) -> None:
    partitions = (ONE, Partition(gpt.LINUX, UUID(int=2), "root", 9 << 20, 8 << 20))
    write_table(disk, SIZE, DISK, partitions, sector=sector, boot_code=b"\xeb" * 440)
    assert read_table(disk, sector=sector) == partitions
    assert disk.read_bytes()[:446] == b"\xeb" * 440 + bytes(6)


def test_tables_of_other_tools_are_read(disk: Path) -> None:
    script = "label: gpt\n2048,8192,U\n10240,,L\n"
    subprocess.run(["sfdisk", "-q", disk], input=script, text=True, check=True)
    assert [each.kind for each in read_table(disk)] == [gpt.ESP, gpt.LINUX]


def test_no_table(disk: Path) -> None:
    assert read_table(disk) == ()
    disk.write_bytes(b"")
    assert read_table(disk) == ()


@pytest.mark.parametrize("at", [512 + 24, 1024 + 42])
def test_damage_is_told(disk: Path, at: int) -> None:
    write_table(disk, SIZE, DISK, (ONE, TWO))
    with disk.open("r+b") as file:
        file.seek(at)
        file.write(b"\xff")
    with pytest.raises(MorphError, match="is damaged"):
        read_table(disk)


def test_boot_code_must_fit(disk: Path) -> None:
    with pytest.raises(MorphError, match="440 bytes"):
        write_table(disk, SIZE, DISK, (ONE,), boot_code=bytes(441))
    assert read_table(disk) == ()
