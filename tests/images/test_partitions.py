from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from morphlib.errors import MorphError
from morphlib.images.partitions import partition_starts


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    return path


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_partitions_are_found(disk: Path, label: str) -> None:
    script = f"label: {label}\n2048,8192\n20480,\n"
    subprocess.run(["sfdisk", "-q", disk], input=script, text=True, check=True)
    assert partition_starts(disk) == (2048 * 512, 20480 * 512)


def test_containers_of_others_are_none(disk: Path) -> None:
    script = "label: dos\n2048,8192\n20480,40960,E\n22528,8192,L\n"
    subprocess.run(["sfdisk", "-q", disk], input=script, text=True, check=True)
    assert partition_starts(disk) == (2048 * 512,)


def test_no_table(disk: Path) -> None:
    assert partition_starts(disk) == ()
    disk.write_bytes(b"short")
    assert partition_starts(disk) == ()


def test_boot_sector_of_a_file_system_is_no_table(disk: Path) -> None:
    subprocess.run(["mkfs.vfat", disk], check=True, capture_output=True)
    assert partition_starts(disk) == ()


def test_what_can_not_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(MorphError, match="can't read"):
        partition_starts(tmp_path / "nothing")
