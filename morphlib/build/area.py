"""The staging area of one build: a directory that is removed after success and kept after failure.

TEMPDIR/staging/NAME-XXXX/          locked while it is in use
    NAME.build/  NAME.inst/  tmp/   what the build can write to
    stage.json                      how to enter the sandbox again (`morph shell`)
    ...                             what the root is put together from
TEMPDIR/staging/NAME-XXXX.log       after a failure: a copy of the build log
TEMPDIR/staging/NAME-XXXX.sh        after a failure: steps into the sandbox
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from morphlib.build.removal import remove_tree
from morphlib.build.sandbox import Sandbox
from morphlib.build.sandboxroot import Mount, MountKind, RootKind
from morphlib.cache.failures import explain_failure
from morphlib.cache.locks import make_locked_directory

_RECORD = "stage.json"


class AreaRecord(msgspec.Struct, frozen=True):
    """What it takes to enter a sandbox again.

    `layers` are directories, in unpack order; `mounts` are (kind, place in the sandbox, source).
    """

    name: str
    key: str
    layers: tuple[str, ...]
    mount_points: tuple[str, ...]
    root_kind: RootKind
    mounts: tuple[tuple[MountKind, str, str | None], ...]
    environment: dict[str, str]
    cwd: str

    @classmethod
    def of(
        cls,
        name: str,
        key: str,
        layers: Sequence[Path],
        mount_points: Sequence[str],
        sandbox: Sandbox,
    ) -> AreaRecord:
        return cls(
            name=name,
            key=key,
            layers=tuple(str(layer) for layer in layers),
            mount_points=tuple(mount_points),
            root_kind=sandbox.kind,
            mounts=tuple(
                (mount.kind, mount.target, str(mount.source) if mount.source else None)
                for mount in sandbox.mounts
            ),
            environment={name: make_text(value) for name, value in sandbox.environment.items()},
            cwd=sandbox.cwd,
        )

    def sandbox(self, root: Path, source_of: Callable[[str], Path]) -> Sandbox:
        """The sandbox again, on another root. `source_of` says where a source is now."""
        return Sandbox(
            root=root,
            kind=self.root_kind,
            mounts=tuple(
                Mount(kind, target, source_of(source) if source is not None else None)
                for kind, target, source in self.mounts
            ),
            environment=dict(self.environment),
            cwd=self.cwd,
        )


def make_text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")


@dataclass(slots=True)
class Area:
    """A staging area in use."""

    path: Path
    keep: bool = False

    @property
    def script(self) -> Path:
        return self.path.with_name(f"{self.path.name}.sh")

    @property
    def log(self) -> Path:
        return self.path.with_name(f"{self.path.name}.log")

    def record(self, record: AreaRecord) -> None:
        with explain_failure("write into a staging area", self.path):
            (self.path / _RECORD).write_bytes(msgspec.json.encode(record))

    def keep_for_debugging(self, log: Path | None, program: Sequence[str]) -> str:
        """Keep the area after a failure. Returns the command that steps into its sandbox."""
        self.keep = True
        command = shlex.join([*program, "shell", str(self.path)])
        with explain_failure("keep a staging area", self.path):
            if log is not None:
                shutil.copyfile(log, self.log)
            self.script.write_text(f"#!/bin/sh\n# Steps into the sandbox.\nexec {command}\n")
            self.script.chmod(0o755)
        return command


@contextmanager
def make_area(staging: Path, name: str) -> Iterator[Area]:
    """A new staging area for the source `name`; removed at the end unless it is to be kept."""
    prefix = re.sub(r"[^A-Za-z0-9_.+-]", "_", name)[:64]
    with explain_failure("make a staging area", staging):
        staging.mkdir(parents=True, exist_ok=True)
    path, held = make_locked_directory(staging, f"{prefix}-")
    area = Area(path)
    with held:
        try:
            yield area
        finally:
            if not area.keep:
                remove_tree(path)


def read_record(path: Path) -> AreaRecord | None:
    """What a kept staging area says of itself; None if it is none, or was never entered."""
    try:
        return msgspec.json.decode((path / _RECORD).read_bytes(), type=AreaRecord)
    except (OSError, msgspec.DecodeError):
        return None


def find_kept(staging: Path, key: str) -> Path | None:
    """The latest staging area that a failed build of `key` left."""
    found = []
    for path in staging.glob("*.sh"):
        record = read_record(path.with_suffix(""))
        if record is not None and record.key == key:
            found.append((path.stat().st_mtime, path.with_suffix("")))
    return max(found)[1] if found else None
