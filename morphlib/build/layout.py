"""What the commands of a chunk find: its sources, places to write to, and what it is built with.

Building a chunk and entering a shell in its place lay it out in the same way.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from morphlib.build.area import Area, AreaRecord
from morphlib.build.environment import CCACHE_DIR, Places, build_environment, make_flags
from morphlib.build.layers import Layer
from morphlib.build.sandbox import OpenSandbox, Sandbox, open_sandbox
from morphlib.build.sandboxroot import Mount, MountKind, RootKind
from morphlib.build.scratch import scratch_directory
from morphlib.build.sources import git_source
from morphlib.build.staging import stage
from morphlib.build.workbench import Workbench
from morphlib.cache.failures import explain_failure
from morphlib.definitions.models import BuildMode
from morphlib.graph.model import ChunkRecipe, Source
from morphlib.rooted import resolve_in
from morphlib.sources.pool import StagedSource, stage_source

#: By these files of a staging area the compiler cache tells one compiler from another.
_COMPILER_METADATA = ("baserock/binutils.meta", "baserock/eglibc.meta", "baserock/gcc.meta")


class ChunkLayout:
    """One chunk in one staging area: `extract` first, then `open`."""

    def __init__(self, bench: Workbench, source: Source, area: Area) -> None:
        assert source.recipe is not None
        self.bench = bench
        self.source = source
        self.recipe: ChunkRecipe = source.recipe
        self.area = area
        self.build_dir = area.path / f"{source.name}.build"
        self.install_dir = area.path / f"{source.name}.inst"
        self.temporary = area.path / "tmp"
        self.places = Places.of(source.name, self.recipe.build_mode)

    def extract(self) -> StagedSource:
        """Make the directories and bring the sources into theirs. Needs no network."""
        with explain_failure("make a staging area", self.area.path):
            for directory, mode in (
                (self.build_dir, 0o755),
                (self.install_dir, 0o755),
                (self.temporary, 0o1777),
            ):
                directory.mkdir()
                # A setgid TEMPDIR hands down its group, which would end up in artifacts.
                os.chown(directory, 0, 0)
                directory.chmod(mode)
        context = self.bench.context
        return stage_source(
            git_source(self.source), context.mirrors, context.aliases, self.build_dir
        )

    def layers(self) -> list[Layer]:
        """The unpacked trees of what the chunk is built with, in unpack order."""
        return self.bench.layers_for(self.source)

    @contextmanager
    def open(
        self, layers: Sequence[Layer], staged_source: StagedSource, log_fd: int = 2
    ) -> Iterator[OpenSandbox]:
        """The sandbox, ready for commands. What preparing it prints goes to `log_fd`."""
        in_staging = self.recipe.build_mode is BuildMode.STAGING
        with (
            scratch_directory(self.area.work) as work,
            stage(
                layers, self._mount_points(), work, ldconfig_log=log_fd if in_staging else None
            ) as staged,
        ):
            self.bench.note_fallback(staged.fallback)
            sandbox = self._sandbox(staged.root, staged_source, work)
            with open_sandbox(sandbox) as opened:
                yield opened

    def record(self, layers: Sequence[Layer], sandbox: Sandbox) -> AreaRecord:
        """How to enter the sandbox again: with what the parallel steps get as MAKEFLAGS."""
        directories = [layer.directory for layer in layers]
        flags = {"MAKEFLAGS": self.make_flags("build", busy=1)}
        return AreaRecord.of(self.source, directories, self._mount_points(), sandbox, flags)

    def make_flags(self, step: str, *, busy: int) -> str:
        return make_flags(self.recipe, step, max_jobs=self.bench.options.max_jobs, busy=busy)

    def _mount_points(self) -> tuple[str, ...]:
        """Directories that the merged root must have, relative to it."""
        inside = (self.places.build, self.places.install)
        names = [path.removeprefix(self.places.staging) for path in inside]
        if self.recipe.build_mode is BuildMode.STAGING:
            names += ["/tmp", "/dev", "/proc"]
        return tuple(name.strip("/") for name in names)

    def _sandbox(self, root: Path, staged: StagedSource, work: Path) -> Sandbox:
        mounts = [
            Mount(MountKind.WRITABLE, self.places.build, self.build_dir),
            Mount(MountKind.WRITABLE, self.places.install, self.install_dir),
            Mount(MountKind.WRITABLE, "/tmp", self.temporary),
        ]
        in_staging = self.recipe.build_mode is BuildMode.STAGING
        if not in_staging:
            mounts.insert(0, Mount(MountKind.READ_ONLY, self.places.staging, root))
        for source, below in staged.binds:
            mounts.append(Mount(MountKind.READ_ONLY, f"{self.places.build}/{below}", source))
        ccache = self._ccache(root if in_staging else Path("/"))
        if ccache is not None:
            (self.temporary / "ccache").mkdir()
            mounts.append(Mount(MountKind.WRITABLE, CCACHE_DIR, ccache))
        options = self.bench.options
        environment = build_environment(
            self.recipe,
            self.places,
            self.bench.graph.environment,
            prefixes=self._prefixes(),
            commit_time=staged.commit_time,
            ccache=options.ccache is not None,
            distcc=options.distcc,
            extra_files=[f"/{n}" for n in _COMPILER_METADATA if resolve_in(root, n).is_file()],
            caller=options.caller,
        )
        return Sandbox(
            root=root if in_staging else _empty_root(work),
            kind=RootKind.READ_ONLY if in_staging else RootKind.HOST,
            mounts=tuple(mounts),
            environment=environment,
            cwd=self.places.build,
        )

    def _prefixes(self) -> list[str]:
        """The prefixes of the chunks in the staging area, in dependency order."""
        graph = self.bench.graph
        ids = dict.fromkeys(ref.source for ref in graph.staged(self.source))
        recipes = (graph.source(source_id).recipe for source_id in ids)
        return list(dict.fromkeys(recipe.prefix for recipe in recipes if recipe is not None))

    def _ccache(self, root: Path) -> Path | None:
        """The compiler cache of the chunk's repository, where the build has a ccache to use it.

        Repositories of one name at different places don't share one.
        """
        directory = self.bench.options.ccache
        if directory is None or not any(
            os.path.lexists(root / place) for place in ("usr/lib/ccache", "usr/bin/ccache")
        ):
            return None
        url = self.source.origin.url
        name = re.sub(r"[^A-Za-z0-9_.+-]", "_", url.rstrip("/").rpartition("/")[2])
        digest = hashlib.sha256(url.encode()).hexdigest()[:16]
        place = directory / f"{name.removesuffix('.git')[:64]}-{digest}"
        with explain_failure("make a compiler cache", directory):
            place.mkdir(parents=True, exist_ok=True)
        return place


def _empty_root(work: Path) -> Path:
    root = work / "host"
    root.mkdir()
    return root
