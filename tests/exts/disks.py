"""What the tests of disk images have in common."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.mounting import loop_device

SIZE = {"DISK_SIZE": "256M"}
BOOT = {**SIZE, "INITRAMFS_PATH": "boot/initramfs.gz", "KERNEL_ARGS": "console=ttyS0"}


@contextmanager
def used_disk(size: int) -> Iterator[Path]:
    """A device that is full of something."""
    with tempfile.NamedTemporaryFile() as file:
        for _ in range(size >> 20):
            file.write(b"x" * (1 << 20))
        file.flush()
        with loop_device(Path(file.name)) as device:
            yield device
