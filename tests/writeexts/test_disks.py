from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from morphlib.errors import MorphError
from morphlib.writeexts.disks import is_block_device, open_disk
from tests.mounting import loop_device, mounted, needs_root

SIZE = 128 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(SIZE)
    return path


def test_image_is_ours(image: Path) -> None:
    with open_disk(image) as disk:
        assert (disk.size, disk.sector, disk.is_device) == (SIZE, 512, False)
        for write in (True, False):
            with pytest.raises(MorphError, match=r"image is in use by a virtual machine"):
                open_disk(image, write=write).__enter__()
    with open_disk(image):
        pass


def test_looking_is_for_many(image: Path) -> None:
    with open_disk(image, write=False), open_disk(image, write=False):
        pass


def test_virtual_machine_keeps_its_image(image: Path) -> None:
    command = ["qemu-system-x86_64", "-S", "-display", "none", "-nodefaults", "-m", "32"]
    command += ["-drive", f"file={image},format=raw"]
    machine = subprocess.Popen(command)
    try:
        for write in (False, True):
            _wait_until_used(image, write=write)
    finally:
        machine.kill()
        machine.wait()
    with open_disk(image):
        pass


def _wait_until_used(image: Path, *, write: bool) -> None:
    for _ in range(300):
        try:
            with open_disk(image, write=write):
                time.sleep(0.1)
        except MorphError as error:
            assert "is in use" in str(error)
            return
    pytest.fail("the image can be written to while a virtual machine has it")


@needs_root
def test_mounted_image_is_refused(image: Path) -> None:
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    with mounted(image), pytest.raises(MorphError, match="in use by the loop device /dev/loop"):
        open_disk(image).__enter__()


@needs_root
def test_device_is_ours(image: Path) -> None:
    with loop_device(image) as device:
        assert is_block_device(device)
        with open_disk(device) as disk:
            assert (disk.size, disk.sector, disk.is_device) == (SIZE, 512, True)
            with pytest.raises(MorphError, match="in use: it, or a partition on it"):
                open_disk(device).__enter__()
            disk.clear()
            disk.settle()


@needs_root
def test_mounted_device_is_refused(image: Path, tmp_path: Path) -> None:
    with loop_device(image) as device:
        subprocess.run(["mkfs.btrfs", "-q", device], check=True)
        point = tmp_path / "point"
        point.mkdir()
        subprocess.run(["mount", device, point], check=True)
        try:
            for write in (True, False):
                with pytest.raises(MorphError, match="is mounted or a part of another device"):
                    open_disk(device, write=write).__enter__()
        finally:
            subprocess.run(["umount", point], check=True)


@needs_root
def test_sectors_of_a_device(image: Path) -> None:
    with loop_device(image, "--sector-size", "4096") as device, open_disk(device) as disk:
        assert disk.sector == 4096


@needs_root
def test_device_is_cleared_at_both_ends(image: Path) -> None:
    image.write_bytes(b"x" * SIZE)
    with loop_device(image) as device, open_disk(device) as disk:
        disk.clear()
        disk.settle()
    content = image.read_bytes()
    assert not any(content[: 1 << 20])
    assert not any(content[-1 << 20 :])
    assert content[1 << 20 : -1 << 20] == b"x" * (SIZE - (2 << 20))


def test_nothing_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(MorphError, match=r"can't open .*nothing: No such file"):
        open_disk(tmp_path / "nothing").__enter__()
    assert not is_block_device(tmp_path / "nothing")
