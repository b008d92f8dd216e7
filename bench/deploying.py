"""What `morph deploy` costs beside the programs that do only the last step of it."""

from __future__ import annotations

import os
import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import yaml

from bench.graph import synthetic_graph
from bench.measure import Timing, adopt_orphans, time_program
from bench.owndisk import OwnDisk
from bench.projects import Layout, write_projects
from bench.tools import Morph

#: Morph may take this times what the other program takes.
GOAL = 1.3
_CLUSTER = "clusters/bench.morph"
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


class Figure(msgspec.Struct, frozen=True):
    """One way to deploy, and another program that does the same from an unpacked tree: medians.

    Seconds, and MiB written. `ratio` is the median of the rounds' ratios.
    """

    what: str
    other: str
    seconds: float
    others_seconds: float
    written: float
    others_written: float
    ratio: float

    @property
    def met(self) -> bool:
        return self.ratio <= GOAL


class Deployed(msgspec.Struct, frozen=True):
    files: int  # in the tree that is deployed
    size: float  # MiB in these
    rounds: int
    first: float  # seconds of the first deployment after the build, as a tar
    figures: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class _Way:
    """`make` gives what the other program is called with to put a tree at a place."""

    type: str
    other: str
    make: Callable[[Path, Path], Sequence[str | Path]]
    size: int = 0  # bytes of an image that has to be there for the other program


@dataclass(slots=True)
class DeployBench:
    """`size` is that of disk images, in MiB.

    `disk` is what `work` is on, where that is its own: then what is written is what gets to the
    disk, metadata and journal included.
    """

    work: Path
    chunks: int
    files: int  # per chunk
    rounds: int
    size: int
    morph: Morph
    say: Callable[[str], None]
    disk: OwnDisk | None = None
    layout: Layout = field(init=False)

    def run(self) -> Deployed:
        """Build the system and measure. Raises MorphError."""
        adopt_orphans()
        self._build()
        tree = self.work / "tree"
        self._unpack(tree)
        ways = self._ways()
        self._write_cluster(ways)
        first = self._deploy(ways[0]).wall
        figures = tuple(self._compare(way, tree) for way in ways)
        counted = [path.lstat() for path in tree.rglob("*") if not path.is_dir()]
        size = sum(each.st_size for each in counted) / 2**20
        return Deployed(len(counted), size, self.rounds, first, figures)

    def _ways(self) -> tuple[_Way, ...]:
        image = self.size << 20
        ways = (
            _Way("tar", "tar", lambda tree, to: ["tar", "-C", tree, "-cf", to, "."]),
            _Way("sysroot", "cp", lambda tree, to: ["cp", "-a", "--reflink=auto", tree, to]),
            _Way(
                "rawdisk",
                "mkfs.btrfs",
                lambda tree, to: ["mkfs.btrfs", "-q", "-f", "--rootdir", tree, to],
                image,
            ),
        )
        return tuple(way for way in ways if shutil.which(way.other, path=_PATH))

    def _build(self) -> None:
        self.say(f"building a system of {self.chunks} chunks with {self.files} files each")
        graph = synthetic_graph(self.chunks)
        self.layout = write_projects(graph, self.work / "project", files=self.files)
        command, cwd = self.morph.build(self.layout, 2)
        self._time(command, cwd)

    def _unpack(self, tree: Path) -> None:
        shutil.rmtree(tree, ignore_errors=not tree.exists())
        tree.mkdir()
        (artifact,) = self.layout.morph_cache.glob("artifacts/*.system.bench-rootfs")
        self._time(["tar", "-C", str(tree), "-xpf", str(artifact)], self.work)

    def _write_cluster(self, ways: Sequence[_Way]) -> None:
        deploy = {
            way.type: {
                "type": way.type,
                "location": str(self._place(way)),
                "DISK_SIZE": f"{self.size}M",
                "BOOTLOADER_INSTALL": "none",
            }
            for way in ways
        }
        systems = [{"morph": self.layout.system, "deploy": deploy}]
        path = self.layout.definitions / _CLUSTER
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump({"name": "bench", "kind": "cluster", "systems": systems}))

    def _place(self, way: _Way) -> Path:
        return self.work / f"morph-{way.type}"

    def _deploy(self, way: _Way) -> Timing:
        _remove(self._place(way))
        command = self.morph.command(self.layout, "deploy", _CLUSTER, way.type)
        return self._time(command, self.layout.definitions)

    def _by_other(self, way: _Way, tree: Path) -> Timing:
        place = self.work / f"other-{way.type}"
        _remove(place)
        if way.size:
            with place.open("wb") as image:
                image.truncate(way.size)
        return self._time([os.fspath(word) for word in way.make(tree, place)], self.work)

    def _compare(self, way: _Way, tree: Path) -> Figure:
        """In turn, so that whatever else the machine does hits both. What comes first changes."""
        mine: list[Timing] = []
        theirs: list[Timing] = []
        self._deploy(way)
        self._by_other(way, tree)  # what is read is in memory from now on
        for number in range(self.rounds):
            self.say(f"{way.type}, round {number + 1} of {self.rounds}")
            if number % 2:
                theirs.append(self._by_other(way, tree))
            mine.append(self._deploy(way))
            if not number % 2:
                theirs.append(self._by_other(way, tree))
        for prefix in ("morph", "other"):
            _remove(self.work / f"{prefix}-{way.type}")
        return Figure(
            what=way.type,
            other=way.other,
            seconds=statistics.median(each.wall for each in mine),
            others_seconds=statistics.median(each.wall for each in theirs),
            written=statistics.median(each.written for each in mine) / 2**20,
            others_written=statistics.median(each.written for each in theirs) / 2**20,
            ratio=statistics.median(a.wall / b.wall for a, b in zip(mine, theirs, strict=True)),
        )

    def _time(self, command: Sequence[str], cwd: Path) -> Timing:
        os.sync()  # or writing what was made before is on the account of what comes now
        environment = {**self.morph.environment(), "PATH": _PATH}
        before = self.disk.written() if self.disk is not None else 0
        timing = time_program(command, cwd=cwd, environment=environment, log=self.work / "log")
        if self.disk is None:
            return timing
        return replace(timing, written=self.disk.written() - before)


def _remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def format_deployed(deployed: Deployed) -> str:
    lines = [
        f"{deployed.files} files, {deployed.size:.0f} MiB; medians of {deployed.rounds} rounds; "
        f"the first deployment after the build took {deployed.first:.1f} s",
        "",
        f"{'':8}  {'morph s':>8}  {'other':>11}  {'other s':>8}  {'ratio':>6}  "
        f"{'goal':>5}  {'MiB':>7}  {'other MiB':>9}",
    ]
    for each in deployed.figures:
        lines.append(
            f"{each.what:8}  {each.seconds:8.2f}  {each.other:>11}  {each.others_seconds:8.2f}  "
            f"{each.ratio:6.2f}  {'met' if each.met else 'no':>5}  {each.written:7.0f}  "
            f"{each.others_written:9.0f}"
        )
    return "\n".join(lines)
