"""Assembling a system: its chunks' layers as one tree, finished off, as a tar."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from morphlib import events
from morphlib.build.archive import write_tar
from morphlib.build.area import Area, AreaRecord, make_area
from morphlib.build.layers import Layer
from morphlib.build.ldconfig import run_ldconfig
from morphlib.build.logtail import LogTail
from morphlib.build.members import Member, file_member, walk_tree
from morphlib.build.metadata import encode, provenance, stratum_metadata, system_metadata
from morphlib.build.recorder import Recorder
from morphlib.build.sandbox import Sandbox, open_sandbox
from morphlib.build.sandboxroot import Mount, MountKind, RootKind
from morphlib.build.staging import Staged, stage_writable
from morphlib.build.workbench import Workbench
from morphlib.cache.failures import explain_failure
from morphlib.definitions.models import Kind
from morphlib.errors import MorphError, Reason
from morphlib.graph.keys import identity_of, plain
from morphlib.graph.model import ArtifactRef, Source
from morphlib.rooted import resolve_in, write_in

_OS_RELEASE = b"""NAME="Baserock"
ID=baserock
HOME_URL="http://wiki.baserock.org"
SUPPORT_URL="http://wiki.baserock.org/mailinglist"
BUG_REPORT_URL="http://wiki.baserock.org/mailinglist"
"""
_INTEGRATION = "baserock/system-integration"
_SHOWN_OVERLAPS = 5


def build_system(bench: Workbench, source: Source, recorder: Recorder) -> None:
    """Assemble a system and store it. Raises MorphError; nothing is stored then."""
    with make_area(bench.options.staging, source.name, bench.leavings.discard) as area:
        _Assembly(bench, source, recorder, area).run()


class _Assembly:
    def __init__(self, bench: Workbench, source: Source, recorder: Recorder, area: Area) -> None:
        self.bench = bench
        self.source = source
        self.recorder = recorder
        self.area = area
        self.layers: list[Layer] = []

    def run(self) -> None:
        with self.recorder.phase("unpack-strata"):
            chosen = self._chosen()
            self.layers = self.bench.layers_of(chosen)
            self._warn_of_overlaps(self.layers)
            folded = self.bench.fold(self.layers)
            self.area.work.mkdir()
        with stage_writable(folded, self.area.work, changes=self.area.changes) as staged:
            self.bench.note_fallback(staged.fallback)
            log_path = self.area.path / "ldconfig.log"
            with self.recorder.phase("ldconfig"), log_path.open("wb", buffering=0) as log:
                run_ldconfig(staged.root, self.area.path, log.fileno())
            write_in(staged.root, "etc/os-release", _OS_RELEASE)
            self._integrate(staged.root)
            with self.recorder.phase("store"):
                self._store(staged, chosen)

    def _chosen(self) -> list[ArtifactRef]:
        """The chunk artifacts that go in, strata in dependency order."""
        graph = self.bench.graph
        strata = [graph.source(ref) for ref in self.source.dependencies]
        return list(dict.fromkeys(ref for stratum in strata for ref in graph.content(stratum)))

    def _warn_of_overlaps(self, layers: Sequence[Layer]) -> None:
        """Files of several chunks: the later one wins, which is rarely what somebody wanted."""
        seen: set[str] = set()
        twice: set[str] = set()
        for layer in layers:
            twice |= seen & layer.index.others
            seen |= layer.index.others
        if not twice:
            return
        for path in sorted(twice)[:_SHOWN_OVERLAPS]:
            owners = [layer.directory.name[:12] for layer in layers if path in layer.index.others]
            names = {s.key[:12]: s.name for s in self.bench.graph.sources}
            chunks = ", ".join(names.get(owner, owner) for owner in owners)
            self.bench.warn(f"/{path} is installed by several chunks: {chunks}; the last one wins")
        if len(twice) > _SHOWN_OVERLAPS:
            self.bench.warn(f"... and {len(twice) - _SHOWN_OVERLAPS} more files like it")

    def _integrate(self, root: Path) -> None:
        scripts = resolve_in(root, _INTEGRATION)
        if not scripts.is_dir():
            return
        with self.recorder.phase("integrate"), explain_failure("integrate", self.area.path):
            for name in ("proc", "dev/shm", "tmp"):
                resolve_in(root, name).mkdir(parents=True, exist_ok=True)
            sandbox = Sandbox(
                root=root,
                kind=RootKind.WRITABLE,
                mounts=(Mount(MountKind.TEMPORARY, "/tmp"),),
                environment={"PATH": "/bin:/usr/bin:/sbin:/usr/sbin"},
            )
            log = self.area.path / "integration.log"
            with ExitStack() as stack:
                file = stack.enter_context(log.open("wb", buffering=0))
                opened = stack.enter_context(open_sandbox(sandbox))
                if self.bench.options.log_on_stdout:
                    stack.enter_context(LogTail(log, self._tell_output))
                for name in sorted(os.listdir(scripts)):
                    outcome = opened.run([f"/{_INTEGRATION}/{name}"], file.fileno())
                    self.recorder.add_command(outcome.cpu_seconds, outcome.peak_memory_bytes)
                    if outcome.status != 0:
                        raise self._failure(outcome.status, name, log, sandbox)

    def _tell_output(self, text: str) -> None:
        source = self.source
        self.bench.tell(events.BuildOutput(name=source.name, key=source.key, text=text))

    def _failure(self, status: int, script: str, log: Path, sandbox: Sandbox) -> MorphError:
        directories = [layer.directory for layer in self.layers]
        self.area.record(AreaRecord.of(self.source, directories, (), sandbox))
        shell = self.bench.keep_failed(self.source, self.area, "integrate", status, log)
        return MorphError(
            f"In staging area {self.area.path}: system integration commands failed "
            f"(exit_code={status}) while assembling {self.source.name}",
            reason=Reason.BUILD,
            hint=f"The script is /{_INTEGRATION}/{script}; the log is {self.area.log}. "
            f"To look around in the sandbox: {shell}",
        )

    def _store(self, staged: Staged, chosen: Sequence[ArtifactRef]) -> None:
        store = self.bench.store
        name = self.source.filename(self.source.artifacts[0])
        with store.temporaries() as fresh:
            out = fresh()
            with explain_failure(f"store the system {self.source.name}", store.directory):
                members = self._members(staged, self._metadata(chosen))
                written = write_tar(out, staged.root, members)
            meta = self.recorder.to_json(
                **{
                    "cache-id": plain(identity_of(self.bench.graph, self.source)),
                    "fallbacks": sorted(self.bench.fallbacks),
                }
            )
            store.publish(
                self.source.key,
                {name: out},
                {f"{self.source.key}.meta": meta},
                digests={name: written.digest},
                sign=self.bench.context.sign,
            )

    def _members(self, staged: Staged, metadata: Mapping[str, bytes]) -> list[Member]:
        """What is in the tree, with device nodes and metadata in the place of what stands in for
        them."""
        members = {member.path: member for member in walk_tree(staged.root)}
        for device in staged.devices:
            stand_in = members.get(device.path)
            if stand_in is not None and not stand_in.is_directory and stand_in.size == 0:
                members[device.path] = device
        for path, content in metadata.items():
            if path in members and members[path].is_directory:
                raise _in_the_way(path)
            members[path] = file_member(path, content)
        if "baserock" in members and not members["baserock"].is_directory:
            raise _in_the_way("baserock")
        if "baserock" not in members:
            status = staged.root.lstat()
            members["baserock"] = Member("baserock", 0o040755, status.st_uid, status.st_gid)
        return sorted(members.values(), key=lambda m: ("" if m.path == "." else "/") + m.path)

    def _metadata(self, chosen: Sequence[ArtifactRef]) -> dict[str, bytes]:
        """The metadata of everything in the system, now with where it came from.

        That of a chunk is read from its own layer: in the tree another may have put a file there.
        """
        graph, version = self.bench.graph, self.bench.options.version
        found: dict[str, bytes] = {}
        sources = dict.fromkeys(ref.source for ref in chosen)
        layers = dict(zip(sources, self.layers, strict=True))
        for ref in chosen:
            path = f"baserock/{ref.name}.meta"
            source = graph.source(ref)
            document = json.loads((layers[ref.source].root / path).read_bytes())
            found[path] = encode(document | provenance(source, version))
        for ref in self.source.dependencies:
            stratum = graph.source(ref)
            assert stratum.kind is Kind.STRATUM
            found[f"baserock/{stratum.name}.meta"] = stratum_metadata(graph, stratum, version)
        name = self.source.artifacts[0]
        found[f"baserock/{name}.meta"] = system_metadata(graph, version)
        return found


def _in_the_way(path: str) -> MorphError:
    return MorphError(
        f"the system has something else than Morph's own files at /{path}",
        reason=Reason.BUILD,
        hint="Morph keeps metadata there: chunks and system integration must leave it alone.",
    )
