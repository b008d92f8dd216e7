"""Building a chunk: sources, staging area, commands, artifacts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from morphlib import events
from morphlib.build.archive import write_tar
from morphlib.build.area import Area, AreaRecord, make_area
from morphlib.build.environment import CCACHE_DIR, Places, build_environment, make_flags
from morphlib.build.layers import Part, layers_from_install
from morphlib.build.members import Member, device_members, file_member, walk_tree, with_parents
from morphlib.build.metadata import artifact_metadata, encode
from morphlib.build.recorder import Recorder
from morphlib.build.sandbox import OpenSandbox, Sandbox, open_sandbox
from morphlib.build.sandboxroot import Mount, MountKind, RootKind
from morphlib.build.scratch import scratch_directory
from morphlib.build.sources import git_source
from morphlib.build.split import check_leftovers, split_members
from morphlib.build.staging import stage
from morphlib.build.workbench import Workbench, layer_name
from morphlib.cache.failures import explain_failure
from morphlib.definitions.models import BuildMode
from morphlib.errors import MorphError, Reason
from morphlib.graph.keys import plain
from morphlib.graph.model import ChunkRecipe, Source, command_of
from morphlib.sources.pool import StagedSource, stage_source

#: By these files of a staging area the compiler cache tells one compiler from another.
_COMPILER_METADATA = ("baserock/binutils.meta", "baserock/eglibc.meta", "baserock/gcc.meta")
_TAIL_LINES = 20


def build_chunk(bench: Workbench, source: Source, recorder: Recorder) -> None:
    """Build a chunk and store its artifacts and its log.

    Raises MorphError. When a command failed, the staging area is kept and an event says how to
    enter it.
    """
    with make_area(bench.options.staging, source.name) as area:
        build = _ChunkBuild(bench, source, recorder, area)
        with bench.store.open_log(source.key) as log:
            installed = build.run(log)
        build.store(installed)


class _ChunkBuild:
    def __init__(self, bench: Workbench, source: Source, recorder: Recorder, area: Area) -> None:
        assert source.recipe is not None
        self.bench = bench
        self.source = source
        self.recipe: ChunkRecipe = source.recipe
        self.recorder = recorder
        self.area = area
        self.build_dir = area.path / f"{source.name}.build"
        self.install_dir = area.path / f"{source.name}.inst"
        self.temporary = area.path / "tmp"
        self.places = Places.of(source.name, self.recipe.build_mode)
        self._record: AreaRecord | None = None

    # Running the commands

    def run(self, log: BinaryIO) -> list[Member]:
        """Lay everything out, run all steps. Returns what was installed."""
        with self.recorder.phase("extract"):
            staged_source = self._lay_out()
        with self.recorder.phase("stage"):
            layers = self.bench.layers_of(self.bench.graph.staged(self.source))
        with ExitStack() as stack:
            with self.recorder.phase("mount", quiet=True):
                work = stack.enter_context(scratch_directory(self.area.path / "stage"))
                staged = stack.enter_context(stage(layers, self._mount_points(), work))
                self.bench.note_fallback(staged.fallback)
                sandbox = self._sandbox(staged.root, staged_source, work)
                opened = stack.enter_context(open_sandbox(sandbox))
            self._record = AreaRecord.of(
                self.source.name,
                self.source.key,
                [layer.directory for layer in layers],
                self._mount_points(),
                sandbox,
            )
            self._run_steps(opened, log)
        with self.recorder.phase("determine-splits"):
            return walk_tree(self.install_dir, normalise=True)

    def _lay_out(self) -> StagedSource:
        with explain_failure("make a staging area", self.area.path):
            for directory, mode in (
                (self.build_dir, 0o755),
                (self.install_dir, 0o755),
                (self.temporary, 0o1777),
            ):
                directory.mkdir()
                directory.chmod(mode)
        context = self.bench.context
        return stage_source(
            git_source(self.source), context.mirrors, context.aliases, self.build_dir
        )

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
            extra_files=[f"/{name}" for name in _COMPILER_METADATA if (root / name).is_file()],
            caller=options.caller,
        )
        return Sandbox(
            root=root if in_staging else self._empty_root(work),
            kind=RootKind.READ_ONLY if in_staging else RootKind.HOST,
            mounts=tuple(mounts),
            environment=environment,
            cwd=self.places.build,
        )

    @staticmethod
    def _empty_root(work: Path) -> Path:
        root = work / "host"
        root.mkdir()
        return root

    def _prefixes(self) -> list[str]:
        """The prefixes of the chunks in the staging area, in dependency order."""
        graph = self.bench.graph
        sources = (graph.source(ref) for ref in graph.staged(self.source))
        return list(dict.fromkeys(s.recipe.prefix for s in sources if s.recipe is not None))

    def _ccache(self, root: Path) -> Path | None:
        """The compiler cache of the chunk's repository, where the build has a ccache to use it."""
        directory = self.bench.options.ccache
        if directory is None or not any(
            os.path.lexists(root / place) for place in ("usr/lib/ccache", "usr/bin/ccache")
        ):
            return None
        name = self.source.origin.url.rstrip("/").rpartition("/")[2].removesuffix(".git")
        if name in ("", ".", ".."):
            return None
        place = directory / name
        with explain_failure("make a compiler cache", directory):
            place.mkdir(parents=True, exist_ok=True)
        return place

    def _run_steps(self, sandbox: OpenSandbox, log: BinaryIO) -> None:
        for step, scripts in self.recipe.steps:
            if not scripts:
                continue
            with self.recorder.phase(step):
                log.write(f"### {step.upper()}-COMMANDS ###\n".encode())
                for script in scripts:
                    self._run_command(sandbox, step, command_of(script), log)

    def _run_command(
        self, opened: OpenSandbox, step: str, command: str | bytes, log: BinaryIO
    ) -> None:
        options = self.bench.options
        flags = make_flags(
            self.recipe, step, max_jobs=options.max_jobs, busy=self.bench.busy.count()
        )
        start = log.seek(0, os.SEEK_END)
        outcome = opened.run(
            ["sh", "-x", "-e", "-c", command],
            log.fileno(),
            environment={**opened.sandbox.environment, "MAKEFLAGS": flags},
        )
        self.recorder.add_command(outcome.cpu_seconds, outcome.peak_memory_bytes)
        if options.log_on_stdout:
            self._tell_output(Path(log.name), start)
        if outcome.status != 0:
            raise self._failure(step, outcome.status, Path(log.name))

    def _tell_output(self, log: Path, start: int) -> None:
        with log.open("rb") as file:
            file.seek(start)
            shutil.copyfileobj(file, os.fdopen(os.dup(1), "wb"))

    def _failure(self, step: str, status: int, log: Path) -> MorphError:
        assert self._record is not None
        self.area.record(self._record)
        shell = self.area.keep_for_debugging(log, self.bench.options.program)
        final = self.bench.store.log_path(self.source.key)
        tail = log.read_bytes()[-65536:].decode("utf-8", "backslashreplace").splitlines()
        self.bench.tell(
            events.SourceFailed(
                name=self.source.name,
                key=self.source.key,
                step=step,
                exit_code=status,
                log=str(self.area.log),
                tail=tuple(tail[-_TAIL_LINES:]),
                staging=str(self.area.path),
                shell=shell,
            )
        )
        return MorphError(
            f"In staging area {self.area.path}: {step} failed (exit_code={status}) "
            f"while building {self.source.name}",
            reason=Reason.BUILD,
            hint=f"The log is {final}. To look around in the sandbox: {shell}",
        )

    # Keeping what was installed

    def store(self, installed: Sequence[Member]) -> None:
        """Split what was installed, store the artifacts, and keep the tree as a layer."""
        with self.recorder.phase("create-chunks"):
            artifacts = self._artifacts(installed)
            files: dict[str, Path] = {}
            digests: dict[str, str] = {}
            with explain_failure(
                f"store the artifacts of {self.source.name}", self.bench.store.directory
            ):
                for artifact, members in artifacts.items():
                    name = self.source.filename(artifact)
                    files[name] = self.bench.store.temporary()
                    digests[name] = write_tar(files[name], self.install_dir, members).digest
        with self.recorder.phase("store"):
            self._keep_layer(artifacts, installed)
            self.bench.store.publish(
                self.source.key,
                files,
                {f"{self.source.key}.meta": self._meta()},
                digests=digests,
            )

    def _artifacts(self, installed: Sequence[Member]) -> dict[str, tuple[Member, ...]]:
        """The members of each artifact, with metadata, integration scripts and device nodes."""
        devices = device_members(self.recipe.devices, installed)
        everything = sorted([*installed, *devices], key=lambda member: member.path)
        split = split_members(everything, self.recipe.split_rules)
        check_leftovers(split, self.places.install)
        present = {member.path: member for member in installed}
        scripts = self._integration_scripts()
        artifacts = {}
        for artifact in self.source.artifacts:
            chosen = split.artifacts[artifact]
            extras = scripts.get(artifact, [])
            metadata_path = f"baserock/{artifact}.meta"
            outline = with_parents(chosen, [*extras, file_member(metadata_path, b"")], present)
            metadata = encode(
                artifact_metadata(
                    self.source,
                    artifact,
                    self.bench.graph.identities[self.source.key],
                    [_printable(member.path) for member in outline],
                )
            )
            extras = [*extras, file_member(metadata_path, metadata)]
            artifacts[artifact] = with_parents(chosen, extras, present)
        return artifacts

    def _integration_scripts(self) -> dict[str, list[Member]]:
        scripts: dict[str, list[Member]] = {}
        for integration in self.recipe.integration:
            if integration.artifact not in self.source.artifacts:
                self.bench.warn(
                    f"{self.source.path}: system-integration of the non-existent artifact "
                    f"{integration.artifact}"
                )
                continue
            for prefix, bodies in integration.scripts:
                for number, body in enumerate(bodies):
                    command = command_of(body)
                    text = command.encode() if isinstance(command, str) else command
                    path = (
                        f"baserock/system-integration/{prefix}-{integration.artifact}-{number:04d}"
                    )
                    member = file_member(path, b"#!/bin/sh\nset -xeu\n" + text, 0o555)
                    scripts.setdefault(integration.artifact, []).append(member)
        return scripts

    def _keep_layer(
        self, artifacts: Mapping[str, Sequence[Member]], installed: Sequence[Member]
    ) -> None:
        """The tree becomes the layer that later builds are staged with, by a rename."""
        every = {member.path: member for members in artifacts.values() for member in members}
        members = tuple(
            sorted(every.values(), key=lambda m: ("" if m.path == "." else "/") + m.path)
        )
        part = Part(layer_name(self.source, self.source.artifacts), members)
        with explain_failure("keep what was built", self.bench.options.layers):
            self.bench.options.layers.mkdir(parents=True, exist_ok=True)
            layers_from_install(
                self.install_dir, [part], self.bench.options.layers, members=installed
            )

    def _meta(self) -> bytes:
        origin = self.source.origin
        return self.recorder.to_json(
            **{
                "cache-id": plain(self.bench.graph.identities[self.source.key]),
                "fallbacks": sorted(self.bench.fallbacks),
                "provenance": {
                    "repo": origin.url,
                    "repo-alias": origin.repo,
                    "original_ref": origin.ref,
                    "sha1": origin.commit,
                },
            }
        )


def _printable(path: str) -> str:
    """A path as text: bytes that are no UTF-8 as backslash escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
