"""Writes one graph as two projects of trivial chunks: definitions for Morph, elements for
BuildStream. Both build the same chunks with the same commands from the same repositories."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml

from bench.graph import Chunk, Graph, Stratum
from bench.repositories import commit_all, git, make_base, make_source
from morphlib.errors import MorphError, Reason

#: Says that a directory was made here, so that it may be deleted and made again.
MARKER = "bench-project.json"

_BASE = "bench-base"

#: Used where the definitions have no DEFAULTS: the artifacts that chunks usually are split into.
_DEFAULTS = r"""
split-rules:
  chunk:
  - artifact: -bins
    include: ['(usr/)?s?bin/.*']
  - artifact: -libs
    include: ['(usr/)?lib(32|64)?/lib[^/]*\.so(\.\d+)*', '(usr/)?libexec/.*']
  - artifact: -devel
    include: ['(usr/)?include/.*', '(usr/)?lib(32|64)?/.*\.(a|la|pc)']
  - artifact: -doc
    include: ['(usr/)?share/(doc|man|info)/.*']
  - artifact: -locale
    include: ['(usr/)?share/(locale|i18n|zoneinfo)/.*']
  - artifact: -misc
    include: ['.*']
  stratum:
  - artifact: -devel
    include: ['.*-(devel|doc)']
  - artifact: -runtime
    include: ['.*']
"""

_BUILDSTREAM_PROJECT = {
    "name": "bench",
    "min-version": "2.0",
    "element-path": "elements",
    "plugins": [{"origin": "pip", "package-name": "buildstream-plugins", "sources": ["git"]}],
    "environment": {"PATH": "/usr/bin:/bin"},
}


class Project(msgspec.Struct, frozen=True):
    """What a generated directory holds; also the content of its marker file."""

    name: str  # of the graph
    chunks: int  # of the graph; two more make the root that they are built in
    strata: int
    files: int  # in the source tree of each chunk


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are in a generated directory, and where builds of it put theirs."""

    root: Path

    @property
    def definitions(self) -> Path:
        return self.root / "definitions"

    @property
    def system(self) -> str:
        return "systems/bench.morph"

    @property
    def morph_settings(self) -> Path:
        return self.root / "morph.conf"

    @property
    def morph_cache(self) -> Path:
        return self.root / "cache"

    @property
    def morph_tmp(self) -> Path:
        return self.root / "tmp"

    @property
    def elements(self) -> Path:
        return self.root / "bst"

    @property
    def buildstream_settings(self) -> Path:
        return self.root / "bst.conf"

    @property
    def buildstream_cache(self) -> Path:
        return self.root / "bstcache"


@dataclass(frozen=True, slots=True)
class _Sources:
    source_commit: str
    base_commit: str


def write_projects(
    graph: Graph,
    root: Path,
    *,
    files: int = 20,
    defaults: bytes | None = None,
    sleep: float = 0.0,
) -> Layout:
    """Write both projects and their repositories to `root`, which is emptied first.

    `defaults` is the text of DEFAULTS. Morph's chunks sleep so many seconds while they build, as
    if there were something to compile. Raises MorphError if `root` holds something that was not
    made by this function.
    """
    layout = Layout(root.resolve())
    _empty(layout.root)
    project = Project(graph.name, graph.chunk_count, len(graph.strata), files)
    (layout.root / MARKER).write_bytes(msgspec.json.encode(project))
    sources = _Sources(
        make_source(layout.root / "gits" / "src", files), make_base(layout.root / "gits" / "base")
    )
    _write_definitions(graph, layout, sources, defaults, sleep)
    _write_elements(graph, layout, sources)
    return layout


def _empty(root: Path) -> None:
    if root.exists():
        if any(root.iterdir()) and not (root / MARKER).is_file():
            raise MorphError(
                f"{root} holds other things",
                reason=Reason.USAGE,
                hint="Name a directory that does not exist yet.",
            )
        shutil.rmtree(root)
    root.mkdir(parents=True)


def _commands(name: str, install: str) -> list[str]:
    """How every chunk installs: some directories, the source tree, a program, a document."""
    return [
        f"mkdir -p {install}/usr/bin {install}/usr/include/{name} {install}/usr/share/doc/{name}",
        f"cp -r d* {install}/usr/include/{name}/",
        f"echo {name} > {install}/usr/bin/{name}",
        f"echo {name} > {install}/usr/share/doc/{name}/README",
    ]


def _write_yaml(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(document, sort_keys=False))


# Morph


def _write_definitions(
    graph: Graph, layout: Layout, sources: _Sources, defaults: bytes | None, sleep: float
) -> None:
    top = layout.definitions
    top.mkdir()
    (top / "VERSION").write_text("version: 8\n")
    (top / "DEFAULTS").write_bytes(_DEFAULTS.encode() if defaults is None else defaults)
    _write_base(top, sources)
    for stratum in graph.strata:
        _write_stratum(top, stratum, sources, sleep)
    names = [_BASE, *(stratum.name for stratum in graph.strata)]
    system = {
        "name": "bench",
        "kind": "system",
        "arch": "x86_64",
        "strata": [{"name": name, "morph": f"strata/{name}.morph"} for name in names],
    }
    _write_yaml(top / layout.system, system)
    commit_all(top)
    git(top, "remote", "add", "origin", top.as_uri())
    git(top, "fetch", "-q", "origin")
    _write_settings(layout)


def _write_base(top: Path, sources: _Sources) -> None:
    """Two chunks that both are the static busybox: one made with the host's tools, one with it."""
    copy = 'mkdir -p "$DESTDIR"/bin && cp -a bin/* "$DESTDIR"/bin/'
    specs: list[dict[str, Any]] = []
    for name, extra in (
        (f"{_BASE}-host", {"build-mode": "bootstrap"}),
        (f"{_BASE}-sh", {"build-depends": [f"{_BASE}-host"]}),
    ):
        path = f"chunks/{name}.morph"
        _write_yaml(top / path, {"name": name, "kind": "chunk", "install-commands": [copy]})
        source = {"name": name, "morph": path, "repo": "bench:base", "ref": sources.base_commit}
        specs.append(source | extra)
    stratum: dict[str, Any] = {"name": _BASE, "kind": "stratum", "chunks": specs}
    _write_yaml(top / f"strata/{_BASE}.morph", stratum)


def _write_stratum(top: Path, stratum: Stratum, sources: _Sources, sleep: float) -> None:
    specs = []
    for chunk in stratum.chunks:
        path = f"chunks/{chunk.name}.morph"
        commands = _commands(chunk.name, '"$DESTDIR"')
        document = {"name": chunk.name, "kind": "chunk", "install-commands": commands}
        if sleep:
            document["build-commands"] = [f"sleep {sleep:g}"]
        _write_yaml(top / path, document)
        specs.append(
            {
                "name": chunk.name,
                "morph": path,
                "repo": "bench:src",
                "ref": sources.source_commit,
                "build-depends": list(chunk.build_depends),
            }
        )
    depends = [_BASE, *stratum.build_depends]
    whole: dict[str, Any] = {
        "name": stratum.name,
        "kind": "stratum",
        "build-depends": [{"morph": f"strata/{name}.morph"} for name in depends],
        "chunks": specs,
    }
    _write_yaml(top / f"strata/{stratum.name}.morph", whole)


def _write_settings(layout: Layout) -> None:
    pattern = f"{(layout.root / 'gits').as_uri()}/%s"
    layout.morph_settings.write_text(
        f"""[config]
repo-alias = bench={pattern}#{pattern}
cachedir = {layout.morph_cache}
tempdir = {layout.morph_tmp}
cache-server =
tarball-server =
cachedir-min-space = 0
tempdir-min-space = 0
"""
    )


# BuildStream


def _write_elements(graph: Graph, layout: Layout, sources: _Sources) -> None:
    _write_yaml(layout.elements / "project.conf", _BUILDSTREAM_PROJECT)
    top = layout.elements / "elements"
    base = {"kind": "import", "sources": [_git_source(layout, "base", sources.base_commit)]}
    _write_yaml(top / f"{_BASE}.bst", base)
    source = _git_source(layout, "src", sources.source_commit)
    for stratum in graph.strata:
        for chunk in stratum.chunks:
            path = top / stratum.name / f"{chunk.name}.bst"
            _write_yaml(path, _chunk_element(stratum, chunk, source))
        members = [f"{stratum.name}/{chunk.name}.bst" for chunk in stratum.chunks]
        _write_yaml(top / f"{stratum.name}.bst", {"kind": "stack", "depends": members})
    parts = [f"{_BASE}.bst", *(f"{stratum.name}.bst" for stratum in graph.strata)]
    system = {"kind": "compose", "build-depends": parts, "config": {"integrate": False}}
    _write_yaml(top / "bench.bst", system)
    # All that BuildStream keeps goes to one directory, mirrors of repositories included, so that
    # removing it makes the next build a cold one.
    caches = layout.buildstream_cache
    places = {"cachedir": caches, "sourcedir": caches / "sources", "logdir": caches / "logs"}
    settings = {name: str(path) for name, path in places.items()}
    _write_yaml(layout.buildstream_settings, settings)


def _git_source(layout: Layout, name: str, commit: str) -> dict[str, str]:
    url = (layout.root / "gits" / name).as_uri()
    return {"kind": "git", "url": url, "track": "master", "ref": commit}


def _chunk_element(stratum: Stratum, chunk: Chunk, source: dict[str, str]) -> dict[str, Any]:
    depends = [
        f"{_BASE}.bst",
        *(f"{name}.bst" for name in stratum.build_depends),
        *(f"{stratum.name}/{name}.bst" for name in chunk.build_depends),
    ]
    commands = _commands(chunk.name, "%{install-root}")
    return {
        "kind": "manual",
        "build-depends": depends,
        "sources": [source],
        "config": {"install-commands": commands, "strip-commands": []},
    }
