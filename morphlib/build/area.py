"""The staging area of one build: a directory that is removed after success and kept after failure.

TEMPDIR/staging/NAME-XXXX/          locked while it is in use
    NAME.build/  NAME.inst/  tmp/   what the build can write to
    changes/                        what was changed of a system that was being put together
    stage/                          what the root is put together from
    sandbox                         after a failure: how to enter it again (`morph shell`)
TEMPDIR/staging/NAME-XXXX.log       after a failure: a copy of the build log
TEMPDIR/staging/NAME-XXXX.sh        after a failure: steps into the sandbox
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from morphlib.build.heldsandbox import Argument
from morphlib.build.removal import remove_tree
from morphlib.build.sandbox import Sandbox
from morphlib.build.sandboxroot import Mount, MountKind, RootKind
from morphlib.cache.failures import explain_failure
from morphlib.cache.locks import acquire_directory, make_locked_directory
from morphlib.errors import MorphError
from morphlib.graph.model import Source

_RECORD = "sandbox"
_SCRIPT, _LOG = ".sh", ".log"


class AreaRecord(msgspec.Struct, frozen=True):
    """What it takes to enter a sandbox again.

    `layers` are directories, in unpack order; `mounts` are (kind, place in the sandbox, source).
    Paths and values of the environment are bytes: they need not be text.
    """

    name: str
    key: str
    layers: tuple[bytes, ...]
    mount_points: tuple[str, ...]
    root: bytes
    kind: RootKind
    mounts: tuple[tuple[MountKind, str, bytes | None], ...]
    environment: dict[str, bytes]
    cwd: str

    @classmethod
    def of(
        cls,
        source: Source,
        layers: Sequence[Path],
        mount_points: Sequence[str],
        sandbox: Sandbox,
        more_environment: Mapping[str, Argument] | None = None,
    ) -> AreaRecord:
        environment = {**sandbox.environment, **(more_environment or {})}
        return cls(
            name=source.name,
            key=source.key,
            layers=tuple(os.fsencode(layer) for layer in layers),
            mount_points=tuple(mount_points),
            root=os.fsencode(sandbox.root),
            kind=sandbox.kind,
            mounts=tuple(
                (mount.kind, mount.target, os.fsencode(mount.source) if mount.source else None)
                for mount in sandbox.mounts
            ),
            environment={name: os.fsencode(value) for name, value in environment.items()},
            cwd=sandbox.cwd,
        )

    @property
    def layer_directories(self) -> tuple[Path, ...]:
        return tuple(Path(os.fsdecode(layer)) for layer in self.layers)

    def sandbox(self) -> Sandbox:
        """The sandbox, to be opened once its root is staged again."""
        return Sandbox(
            root=Path(os.fsdecode(self.root)),
            kind=self.kind,
            mounts=tuple(
                Mount(kind, target, Path(os.fsdecode(source)) if source is not None else None)
                for kind, target, source in self.mounts
            ),
            environment=dict(self.environment),
            cwd=self.cwd,
        )


@dataclass(slots=True)
class Area:
    """A staging area in use."""

    path: Path
    keep: bool = False

    @property
    def script(self) -> Path:
        return self.path.with_name(self.path.name + _SCRIPT)

    @property
    def log(self) -> Path:
        return self.path.with_name(self.path.name + _LOG)

    @property
    def work(self) -> Path:
        """Where the root is staged, as long as somebody is in the sandbox."""
        return self.path / "stage"

    @property
    def changes(self) -> Path:
        """Where what was changed of a writable root stays."""
        return self.path / "changes"

    def record(self, record: AreaRecord) -> None:
        with explain_failure("write into a staging area", self.path):
            (self.path / _RECORD).write_bytes(msgspec.msgpack.encode(record))

    def keep_for_debugging(self, log: Path | None, program: Sequence[str]) -> str:
        """Keep the area after a failure. Returns the command that steps into its sandbox."""
        self.keep = True
        command = shlex.join([*program, "shell", str(self.path)])
        with explain_failure("keep a staging area", self.path):
            if log is not None:
                shutil.copyfile(log, self.log)
            lines = f'#!/bin/sh\n# Steps into the sandbox.\nexec {command} -- "$@"\n'
            self.script.write_bytes(os.fsencode(lines))
            self.script.chmod(0o755)
        return command


@contextmanager
def make_area(staging: Path, name: str, discard: Callable[[Path, float], None]) -> Iterator[Area]:
    """A new staging area for the source `name`.

    At the end `discard` is called with it and with how long it was used, unless it is to be kept.
    """
    prefix = re.sub(r"[^A-Za-z0-9_.+-]", "_", name)[:64]
    with explain_failure("make a staging area", staging):
        staging.mkdir(parents=True, exist_ok=True)
    path, held = make_locked_directory(staging, f"{prefix}-")
    area = Area(path)
    started = time.monotonic()
    with held:
        try:
            yield area
        finally:
            if not area.keep:
                discard(path, time.monotonic() - started)


def read_record(path: Path) -> AreaRecord | None:
    """What a staging area says of itself; None if it is none, or was never entered."""
    try:
        return msgspec.msgpack.decode((path / _RECORD).read_bytes(), type=AreaRecord)
    except (OSError, msgspec.DecodeError):
        return None


def find_kept(staging: Path, key: str) -> Path | None:
    """The latest staging area that a failed build of `key` left."""
    found = []
    for script in staging.glob(f"*{_SCRIPT}"):
        record = read_record(script.with_suffix(""))
        if record is not None and record.key == key:
            found.append((script.stat().st_mtime, script.with_suffix("")))
    return max(found)[1] if found else None


def remove_abandoned(staging: Path) -> None:
    """Remove the staging areas of builds that were killed; those that failed builds kept stay.

    What can't be removed is left for `gc` to tell of.
    """
    try:
        areas = [path for path in staging.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return
    for path in areas:
        if path.with_name(path.name + _SCRIPT).exists():
            continue
        try:
            held = acquire_directory(path, blocking=False)
            if held is not None:
                with held:
                    remove_tree(path)
        except MorphError:
            continue


def read_tail(log: Path, lines: int = 20) -> list[str]:
    """The last lines of a log, however long it is; what is no UTF-8 in it as escapes."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 65536))
        return file.read().decode("utf-8", "backslashreplace").splitlines()[-lines:]
