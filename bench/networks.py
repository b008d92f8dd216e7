"""A network of distributed builds on this machine, and builds that it is asked for."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.projects import Layout
from morphlib.errors import MorphError, Reason
from morphlib.process import wait_until

_CHECKOUT = Path(__file__).resolve().parent.parent
_PATIENCE = 120.0
_STARTED = re.compile(r"Started building (\S+) on ")
_FINISHED = re.compile(r"Finished building (\S+) on ")


@dataclass(slots=True)
class Followed:
    """A build as its initiator saw it: seconds on one clock, by step. `cpu`: seconds of the
    controller. `wall`: of the initiator, from its start to its end."""

    wall: float = 0.0
    cpu: float = 0.0
    started: dict[str, float] = field(default_factory=dict)
    finished: dict[str, float] = field(default_factory=dict)

    def makespan(self, steps: Sequence[str]) -> float:
        """From the start of the first of some steps until all of them are in the shared cache."""
        return max(self.finished[step] for step in steps) - min(
            self.started[step] for step in steps
        )


@dataclass(frozen=True, slots=True)
class Network:
    layout: Layout
    port: int
    controller: int  # its process id
    log: Path

    def build(self, *components: str) -> Followed:
        """Have the system or some of its components built. Raises MorphError."""
        found = Followed()
        before, began = _cpu_seconds(self.controller), time.perf_counter()
        command = [
            *_morph(self.layout),
            "--controller-initiator-address=127.0.0.1",
            f"--controller-initiator-port={self.port}",
            f"--initiator-step-output-dir={self.layout.root / 'step-logs'}",
            "distbuild",
            self.layout.system,
            *components,
        ]
        with (
            self.log.open("ab") as log,
            subprocess.Popen(
                command,
                cwd=self.layout.definitions,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            ) as child,
        ):
            assert child.stdout is not None
            for line in child.stdout:
                now = time.perf_counter()
                if step := _STARTED.search(line):
                    found.started.setdefault(step[1], now)
                elif step := _FINISHED.search(line):
                    found.finished[step[1]] = now
        found.wall = time.perf_counter() - began
        found.cpu = _cpu_seconds(self.controller) - before
        if child.returncode != 0:
            raise MorphError(
                f"a distributed build failed, see {self.log}: {self.log.read_text()[-2000:]}",
                reason=Reason.BUILD,
            )
        return found


@contextmanager
def run_network(layout: Layout, workers: int) -> Iterator[Network]:
    """A controller and workers of one builder each, with empty caches in a new directory."""
    data = layout.root / f"network-{time.monotonic_ns()}"
    data.mkdir()
    port_file = data / "ready"
    command = [sys.executable, str(_CHECKOUT / "scripts" / "run-distbuild")]
    command += [f"--datadir={data}", f"--port-file={port_file}", f"--workers={workers}", "--"]
    command += [f"--config={layout.morph_settings}", "--builders=1", "--max-jobs=1"]
    log = data / "log"
    with log.open("ab") as output:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        if not wait_until(lambda: _is_written(port_file) or child.poll() is not None, _PATIENCE):
            raise MorphError(f"the network does not start, see {log}", reason=Reason.NOT_FOUND)
        if child.poll() is not None:
            raise MorphError(f"the network ended: {log.read_text()}", reason=Reason.NOT_FOUND)
        yield Network(layout, int(port_file.read_text()), _find_controller(child.pid), log)
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait()


def local_command(layout: Layout) -> list[str]:
    """What builds the same on this machine, one chunk at a time."""
    return [*_morph(layout), "--builders=1", "--max-jobs=1", "build", layout.system]


def _morph(layout: Layout) -> list[str]:
    settings = ("--no-default-configs", f"--config={layout.morph_settings}")
    return [str(_CHECKOUT / "morph"), *settings]


def _is_written(path: Path) -> bool:
    return path.exists() and path.read_text().endswith("\n")


def _find_controller(parent: int) -> int:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    for pid in children:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"controller-daemon" in words:
            return int(pid)
    raise MorphError("the network has no controller", reason=Reason.NOT_FOUND)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
