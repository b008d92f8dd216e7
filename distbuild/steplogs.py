"""Files that an initiator keeps of what steps print, one for each: build-step-NAME.log."""

from __future__ import annotations

import time
from pathlib import Path
from typing import BinaryIO

from morphlib.build.area import read_tail
from morphlib.errors import MorphError, Reason


class StepLogs:
    """Logs in `directory`, or in a new directory build-NN of the working directory, which is made
    when the first step starts. What is written can be read at once."""

    def __init__(self, directory: str) -> None:
        self._wanted = directory
        self._directory: Path | None = None
        self._files: dict[str, BinaryIO] = {}
        self._written: dict[str, int] = {}  # by attempt, how many bytes of it are in the log

    def start(self, step: str, text: str) -> None:
        """A step starts, or is found to have started. Raises MorphError if it can't be logged."""
        if step in self._files:
            return  # told twice, after a connection was lost for a while
        path = self._make_directory() / log_name(step)
        try:
            self._files[step] = path.open("ab", buffering=0)
        except OSError as error:
            raise _failed(path, error) from error
        self._write_line(step, text)

    def write(self, step: str, data: bytes, job: str | None = None, offset: int = 0) -> None:
        """Log what a step printed. What `job`, an attempt at it, printed at byte `offset` is logged
        once, however often it is told."""
        if step not in self._files:
            return
        if job is not None:
            data = data[max(0, self._written.get(job, 0) - offset) :]
            if data:
                self._written[job] = max(self._written.get(job, 0), offset) + len(data)
        if data:
            self._write(step, data)

    def finish(self, step: str, text: str) -> None:
        if step in self._files:
            self._write_line(step, text)
            self._files.pop(step).close()

    def path_of(self, step: str) -> Path | None:
        """Where the log of a step is that is being written."""
        return Path(self._files[step].name) if step in self._files else None

    def tail(self, step: str) -> tuple[str, ...]:
        """The last lines of the log of a step that is being written."""
        path = self.path_of(step)
        try:
            return () if path is None else tuple(read_tail(path))
        except OSError:
            return ()  # somebody took it away

    def finish_all(self, text: str) -> None:
        for step in list(self._files):
            self.finish(step, text)

    def _write_line(self, step: str, text: str) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        self._write(step, f"{stamp} {text}\n".encode("utf-8", "backslashreplace"))

    def _write(self, step: str, data: bytes) -> None:
        try:
            self._files[step].write(data)
        except OSError as error:
            raise _failed(Path(self._files[step].name), error) from error

    def _make_directory(self) -> Path:
        if self._directory is None:
            self._directory = Path(self._wanted) if self._wanted else _new_directory()
            try:
                self._directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _failed(self._directory, error) from error
        return self._directory


def log_name(step: str) -> str:
    """The name of a step's log. It stays in its directory, and in what file systems take."""
    name = step.replace("/", "_").encode("utf-8", "backslashreplace")[:200]
    return f"build-step-{name.decode('utf-8', 'ignore')}.log"


def _new_directory() -> Path:
    for number in range(10_000):
        path = Path(f"build-{number:02}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise _failed(path, error) from error
        return path
    raise MorphError("there are too many directories build-NN here", reason=Reason.CONFIG)


def _failed(path: Path, error: OSError) -> MorphError:
    return MorphError(
        f"can't write {path}: {error.strerror}",
        reason=Reason.CONFIG,
        hint="Choose another place with --initiator-step-output-dir=DIR.",
    )
