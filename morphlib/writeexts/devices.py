"""Device nodes of a tree.

An ordinary user can't make device nodes, so in a user's tree an empty file stands for each. What
they are stands in the file that MORPH_DEVICE_TABLE names: JSON, path in the tree -> `mode` (with
file type), `uid`, `gid`, `major`, `minor`.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from morphlib.errors import MorphError, Reason


@dataclass(frozen=True, slots=True)
class Device:
    """A device node; `mode` says whether for blocks or characters."""

    mode: int
    uid: int
    gid: int
    major: int
    minor: int

    @property
    def is_block(self) -> bool:
        return stat.S_ISBLK(self.mode)

    @property
    def number(self) -> int:
        return os.makedev(self.major, self.minor)


def read_devices(environment: Mapping[str, str]) -> dict[str, Device]:
    """Path (relative to the tree) -> the device node that an empty file there stands for."""
    name = environment.get("MORPH_DEVICE_TABLE")
    if not name:
        return {}
    try:
        document = json.loads(Path(name).read_bytes())
        return {path: Device(**fields) for path, fields in document.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise MorphError(
            f"the table of device nodes {name} can't be read: {error}", reason=Reason.DEPLOY
        ) from error
