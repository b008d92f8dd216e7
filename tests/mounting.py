"""Mounting images, where the tests run as root."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount images")


@contextmanager
def mounted(
    image: Path, *, offset: int = 0, options: str = "rw", kind: str = "btrfs"
) -> Iterator[Path]:
    """Mount the file system at `offset` of an image. Gives the mount point."""
    with tempfile.TemporaryDirectory(prefix="morph-mount-") as name:
        options = f"loop,offset={offset},{options}"
        subprocess.run(["mount", "-t", kind, "-o", options, image, name], check=True)
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", name], check=True)
            _wait_until_unused(image)


@contextmanager
def loop_device(image: Path, *options: str) -> Iterator[Path]:
    """Make an image a block device; `options` are those of losetup. Gives the device."""
    command = ["losetup", "--find", "--show", *options, str(image)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    device = Path(done.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def _wait_until_unused(image: Path) -> None:
    """Sandboxes that began meanwhile have the mount, too: until they end, it stays as it was."""
    command = ["losetup", "--noheadings", "--associated", str(image)]
    for _ in range(3000):
        if not subprocess.run(command, check=True, capture_output=True).stdout:
            return
        time.sleep(0.1)
    raise AssertionError(f"{image} is still in use")
