"""Building a chunk: sources, staging area, commands, artifacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from morphlib import events
from morphlib.build.archive import write_tar
from morphlib.build.area import Area, make_area
from morphlib.build.layers import Layer, Part, layers_from_install, separate_links
from morphlib.build.layout import ChunkLayout
from morphlib.build.logtail import LogTail
from morphlib.build.members import Member, device_members, file_member, walk_tree, with_parents
from morphlib.build.metadata import artifact_metadata, encode
from morphlib.build.recorder import Recorder
from morphlib.build.sandbox import OpenSandbox
from morphlib.build.split import check_leftovers, split_members
from morphlib.build.workbench import Workbench, layer_name
from morphlib.cache.failures import explain_failure
from morphlib.errors import MorphError, Reason
from morphlib.graph.keys import identity_of, plain
from morphlib.graph.model import Source, command_of


def build_chunk(bench: Workbench, source: Source, recorder: Recorder) -> None:
    """Build a chunk and store its artifacts and its log.

    Raises MorphError. When a command failed, the staging area is kept and an event says how to
    enter it.
    """
    with make_area(bench.options.staging, source.name, bench.leavings.discard) as area:
        build = _ChunkBuild(bench, source, recorder, area)
        with bench.store.open_log(source.key) as log:
            installed = build.run(log)
        build.store(installed)
        bench.say(source, "Removing staging area")


class _ChunkBuild:
    def __init__(self, bench: Workbench, source: Source, recorder: Recorder, area: Area) -> None:
        self.bench = bench
        self.source = source
        self.recorder = recorder
        self.area = area
        self.layout = ChunkLayout(bench, source, area)
        self.layers: Sequence[Layer] = ()
        self.recipe = self.layout.recipe
        self.install_dir = self.layout.install_dir
        self._tail: LogTail | None = None

    # Running the commands

    def run(self, log: BinaryIO) -> list[Member]:
        """Lay everything out, run all steps. Returns what was installed."""
        with self.recorder.phase("stage"):
            self.layers = self.layout.layers()
        origin = self.source.origin
        self.bench.say(
            self.source, f"Starting actual build: {self.source.name} {origin.commit[:7]}"
        )
        with self.recorder.phase("extract"):
            self.bench.say(self.source, f"Extracting {origin.url} into {self.layout.build_dir}")
            staged_source = self.layout.extract()
        with ExitStack() as stack:
            with self.recorder.phase("mount", quiet=True):
                opened = stack.enter_context(
                    self.layout.open(self.layers, staged_source, log.fileno())
                )
            if self.bench.options.log_on_stdout:
                self._tail = stack.enter_context(LogTail(Path(log.name), self._tell_output))
            self._run_steps(opened, log)
        with self.recorder.phase("determine-splits"):
            return walk_tree(self.install_dir, normalise=True)

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
        flags = self.layout.make_flags(step, busy=self.bench.busy.count())
        outcome = opened.run(
            ["sh", "-x", "-e", "-c", command],
            log.fileno(),
            environment={**opened.sandbox.environment, "MAKEFLAGS": flags},
        )
        self.recorder.add_command(outcome.cpu_seconds, outcome.peak_memory_bytes)
        if self._tail is not None:
            self._tail.catch_up()
        if outcome.status != 0:
            self.area.record(self.layout.record(self.layers, opened.sandbox))
            raise self._failure(step, outcome.status, Path(log.name))

    def _tell_output(self, text: str) -> None:
        source = self.source
        self.bench.tell(events.BuildOutput(name=source.name, key=source.key, text=text))

    def _failure(self, step: str, status: int, log: Path) -> MorphError:
        shell = self.bench.keep_failed(self.source, self.area, step, status, log)
        final = self.bench.store.log_path(self.source.key)
        return MorphError(
            f"In staging area {self.area.path}: {step} failed (exit_code={status}) "
            f"while building {self.source.name}",
            reason=Reason.BUILD,
            hint=f"The log is {final}. To look around in the sandbox: {shell}",
        )

    # Keeping what was installed

    def store(self, installed: Sequence[Member]) -> None:
        """Split what was installed, store the artifacts, and keep the tree as a layer."""
        store = self.bench.store
        with store.temporaries() as fresh:
            with self.recorder.phase("create-chunks"):
                artifacts = self._artifacts(installed)
                files: dict[str, Path] = {}
                digests: dict[str, str] = {}
                with explain_failure(f"store the artifacts of {self.source.name}", store.directory):
                    artifacts = separate_links(self.install_dir, artifacts)
                    for artifact, members in artifacts.items():
                        self.bench.say(self.source, f"Creating chunk artifact {artifact}")
                        name = self.source.filename(artifact)
                        files[name] = fresh()
                        digests[name] = write_tar(files[name], self.install_dir, members).digest
            with self.recorder.phase("store"):
                self._keep_layer(artifacts, installed)
            meta = {f"{self.source.key}.meta": self._meta()}
            sign = self.bench.context.sign
            store.publish(self.source.key, files, meta, digests=digests, sign=sign)

    def _artifacts(self, installed: Sequence[Member]) -> dict[str, tuple[Member, ...]]:
        """The members of each artifact, with metadata, integration scripts and device nodes."""
        devices = device_members(self.recipe.devices, installed)
        everything = sorted([*installed, *devices], key=lambda member: member.path)
        split = split_members(everything, self.recipe.split_rules)
        check_leftovers(split, self.layout.places.install)
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
                    identity_of(self.bench.graph, self.source),
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
                "cache-id": plain(identity_of(self.bench.graph, self.source)),
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
