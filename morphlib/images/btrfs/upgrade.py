"""Changing a btrfs image in one transaction, without mounting it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from morphlib.images.btrfs.changing import Changer
from morphlib.images.btrfs.model import Change
from morphlib.images.btrfs.transaction import Transaction
from morphlib.images.btrfs.volume import Volume
from morphlib.images.btrfs.writable import check_idle, check_writable


def upgrade_image(path: Path, changes: Sequence[Change], *, time: int, offset: int = 0) -> None:
    """Apply `changes` in order to the filesystem at `offset` (bytes) of `path`: all or none.

    What is in use is never written over; the superblock that makes the changes valid comes last, so
    that being killed at any time leaves the old state or the new one. `time` (seconds since 1970)
    is that of everything that the trees give no time for.

    Raises MorphError, before anything is changed, if there is no room, if a path is taken or isn't
    there, or if the filesystem is damaged, wasn't unmounted, spans several devices, or has features
    that are unknown here.
    """
    with closing(Volume(path, offset=offset, writable=True)) as volume:
        check_writable(volume)
        try:
            _apply(volume, changes, time)
        except (struct.error, OverflowError) as error:
            raise volume.damaged("a number in it is out of range") from error


def _apply(volume: Volume, changes: Sequence[Change], time: int) -> None:
    transaction = Transaction(volume, time=time)
    check_idle(transaction.trees)
    changer = Changer(transaction)
    for change in changes:
        changer.apply(change)
    if changes:
        transaction.commit()
