"""Disk images with btrfs that are made by mounting them, which takes root.

`DISK_SIZE` says how large they get. `rawdisk` and its kin make theirs without mounting anything;
this is for extensions that put something of their own on a disk.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from morphlib import process
from morphlib.errors import MorphError, Reason
from morphlib.process import ProcessError
from morphlib.writeexts.environment import get_disk_size
from morphlib.writeexts.output import complain, status

_LABEL = "baserock"
# Data and metadata share block groups on small disks: separate ones would leave no room.
_SMALL = 1 << 30


def check_for_btrfs_in_deployment_host_kernel() -> bool:
    """Whether the kernel that this runs on can mount btrfs."""
    return "\tbtrfs" in Path("/proc/filesystems").read_text().splitlines()


def require_btrfs_in_deployment_host_kernel() -> None:
    """Raises MorphError unless the kernel that this runs on can mount btrfs."""
    if not check_for_btrfs_in_deployment_host_kernel():
        raise MorphError(
            "Btrfs is required for this deployment, but was not detected in the kernel",
            reason=Reason.DEPLOY,
            hint="Load it with: modprobe btrfs",
        )


def is_device(path: str | os.PathLike[str]) -> bool:
    """Whether there is a block device at a path."""
    try:
        return stat.S_ISBLK(Path(path).stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


@contextmanager
def created_disk_image(path: str | os.PathLike[str]) -> Iterator[None]:
    """A new image of DISK_SIZE at `path`, which is deleted if the block fails.

    Raises MorphError if DISK_SIZE says nothing, or something is at `path`.
    """
    create_raw_disk_image(path, get_disk_size())
    try:
        yield
    except BaseException:
        Path(path).unlink(missing_ok=True)
        raise


def create_raw_disk_image(path: str | os.PathLike[str], size: int) -> None:
    """An empty file of `size` bytes that takes no room yet. Raises MorphError."""
    status(msg="Creating empty disk image")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except OSError as error:
        raise MorphError(
            f"can't make {os.fspath(path)}: {error.strerror}", reason=Reason.DEPLOY
        ) from error
    try:
        os.truncate(fd, size)
    except OSError as error:
        Path(path).unlink()
        raise MorphError(
            f"can't make {os.fspath(path)} with {size} bytes: {error.strerror}",
            reason=Reason.DEPLOY,
        ) from error
    finally:
        os.close(fd)


def format_btrfs(path: str | os.PathLike[str]) -> None:
    """Make a btrfs file system, and say so on standard error if that fails. Raises MorphError."""
    with explained("Error creating disk image"):
        mkfs_btrfs(path)


def mkfs_btrfs(path: str | os.PathLike[str]) -> None:
    """Make a btrfs file system that takes the whole of an image or a device. Raises MorphError."""
    status(msg="Creating btrfs filesystem")
    options = ["--mixed"] if _bytes_of(path) < _SMALL else []
    _tool("mkfs.btrfs", "-f", "-L", _LABEL, "-n", "4096", "-q", *options, os.fspath(path))


def get_uuid(path: str | os.PathLike[str]) -> str:
    """The UUID of the file system on an image or a device. Raises MorphError if it has none."""
    return _tool("blkid", "-p", "-s", "UUID", "-o", "value", os.fspath(path)).strip()


@contextmanager
def mount(path: str | os.PathLike[str]) -> Iterator[str]:
    """Mount an image or a device. Gives the mount point, which is gone after the block.

    Raises MorphError, also where the caller is not root.
    """
    status(msg="Mounting filesystem")
    point = tempfile.mkdtemp(prefix="morph-mount-")
    try:
        options = [] if is_device(path) else ["-o", "loop"]
        with explained("Error mounting filesystem"):
            _tool("mount", *options, "--", os.fspath(path), point)
        try:
            yield point
        finally:
            status(msg="Unmounting filesystem")
            _unmount(point)
    finally:
        Path(point).rmdir()


def _unmount(point: str) -> None:
    """What still uses it, such as a program of a failed extension, must not keep it mounted."""
    try:
        _tool("umount", point)
    except MorphError:
        _tool("umount", "--lazy", point)


@contextmanager
def explained(message: str) -> Iterator[None]:
    """Say a message on standard error before the error that ends the block."""
    try:
        yield
    except BaseException:
        complain(message)
        raise


def _bytes_of(path: str | os.PathLike[str]) -> int:
    with Path(path).open("rb") as file:
        return file.seek(0, os.SEEK_END)


def _tool(*argv: str) -> str:
    """Run a program of this machine. Returns what it prints. Raises MorphError."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    try:
        done = process.run(argv, env={**os.environ, "PATH": path, "LC_ALL": "C"})
    except ProcessError as error:
        raise MorphError(str(error), reason=Reason.DEPLOY) from error
    return done.stdout.decode("utf-8", "replace")
