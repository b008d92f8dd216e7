"""The shape of a system: its strata, their chunks, and which of these need which.

A benchmark keeps the shape and replaces everything else, so a graph holds names and edges only. It
is read from a definitions repository or made up from a seed.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from morphlib.errors import Location, MorphError, Reason

#: Names end up in file names and shell commands of the generated projects.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")

#: Chunks per stratum of made-up graphs, and how many of the nearest strata one may build upon. Real
#: systems have 10 to 17 chunks in a stratum, and strata build upon a few earlier ones.
_CHUNKS_PER_STRATUM = 14
_MOST_DEPENDS = 3


@dataclass(frozen=True, slots=True)
class Chunk:
    name: str
    build_depends: tuple[str, ...]  # names of chunks of the same stratum


@dataclass(frozen=True, slots=True)
class Stratum:
    name: str
    build_depends: tuple[str, ...]  # names of strata
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """Strata stand after those that they build upon, chunks in the order of their stratum."""

    name: str
    strata: tuple[Stratum, ...]

    @property
    def chunk_count(self) -> int:
        return sum(len(stratum.chunks) for stratum in self.strata)


def synthetic_graph(chunks: int, *, seed: int = 1) -> Graph:
    """A layered graph with exactly `chunks` chunks; equal arguments give equal graphs.

    Raises MorphError if `chunks` is below 1.
    """
    if chunks < 1:
        raise MorphError("a graph needs at least one chunk", reason=Reason.USAGE)
    dice = random.Random(seed)
    count = max(1, round(chunks / _CHUNKS_PER_STRATUM))
    strata: list[Stratum] = []
    made = 0
    for index in range(count):
        size = (chunks - made) // (count - index)
        nearest = [stratum.name for stratum in strata[-8:]]
        depends = dice.sample(nearest, min(len(nearest), dice.randint(1, _MOST_DEPENDS)))
        strata.append(
            Stratum(
                f"stratum-{index:03}", tuple(sorted(depends)), _made_up_chunks(made, size, dice)
            )
        )
        made += size
    return Graph(f"synthetic-{chunks}", tuple(strata))


def _made_up_chunks(first: int, count: int, dice: random.Random) -> tuple[Chunk, ...]:
    names = [f"chunk-{number:04}" for number in range(first, first + count)]
    return tuple(
        Chunk(name, tuple(sorted(dice.sample(names[:i], min(i, dice.randint(0, _MOST_DEPENDS))))))
        for i, name in enumerate(names)
    )


def read_graph(definitions: Path, system: str) -> Graph:
    """The graph of `system` (path of its file, relative to the `definitions` repository).

    Reads just enough to know the shape: checking definitions is Morph's own work. Raises
    MorphError where a file is missing or has another shape, where strata depend on one another in
    a circle, and where a name would not be safe in the generated projects.
    """
    reader = _Reader(definitions)
    document = reader.load(system)
    for spec in _mappings(document, "strata", system):
        reader.add(_file_of(spec, system), ())
    graph = Graph(Path(system).stem, tuple(reader.strata.values()))
    _check_names(graph, system)
    return graph


class _Reader:
    def __init__(self, definitions: Path) -> None:
        self.definitions = definitions
        self.strata: dict[str, Stratum] = {}  # by path, dependencies first

    def load(self, path: str) -> Mapping[str, Any]:
        try:
            document = yaml.load((self.definitions / path).read_bytes(), Loader=yaml.CSafeLoader)
        except OSError as error:
            raise MorphError(
                f"can't read {path}: {error.strerror}",
                reason=Reason.NOT_FOUND,
                hint=f"It is looked for in {self.definitions}.",
            ) from error
        except yaml.YAMLError as error:
            raise _bad(f"is not YAML: {error}", path) from error
        if not isinstance(document, dict):
            raise _bad("must be a mapping", path)
        return document

    def add(self, path: str, below: tuple[str, ...]) -> str:
        """Add a stratum after all that it builds upon, and return its name."""
        if path in below:
            raise _bad(f"builds upon itself: {' -> '.join((*below, path))}", path)
        if path not in self.strata:
            document = self.load(path)
            depends = tuple(
                self.add(_file_of(spec, path), (*below, path))
                for spec in _mappings(document, "build-depends", path)
            )
            self.strata[path] = Stratum(
                _text(document, "name", path),
                depends,
                tuple(_read_chunk(spec, path) for spec in _mappings(document, "chunks", path)),
            )
        return self.strata[path].name


def _read_chunk(spec: Mapping[str, Any], path: str) -> Chunk:
    depends = spec.get("build-depends") or []
    if not isinstance(depends, list) or not all(isinstance(name, str) for name in depends):
        raise _bad("'build-depends' of a chunk must be a list of names", path)
    return Chunk(_text(spec, "name", path), tuple(depends))


def _mappings(document: Mapping[str, Any], field: str, path: str) -> list[Mapping[str, Any]]:
    value = document.get(field) or []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise _bad(f"'{field}' must be a list of mappings", path)
    return value


def _text(document: Mapping[str, Any], field: str, path: str) -> str:
    value = document.get(field)
    if not isinstance(value, str):
        raise _bad(f"'{field}' must be a string", path)
    return value


def _file_of(spec: Mapping[str, Any], path: str) -> str:
    name = _text(spec, "morph", path)
    return name if "/" in name or name.endswith(".morph") else f"{name}.morph"


def _check_names(graph: Graph, system: str) -> None:
    """Refuse what the generated projects can't express."""
    chunks = [chunk.name for stratum in graph.strata for chunk in stratum.chunks]
    strata = [stratum.name for stratum in graph.strata]
    if not chunks:
        raise _bad("has no chunks", system)
    for name in (*strata, *chunks):
        if not _NAME.fullmatch(name):
            raise _bad(f"the name {name!r} can't be used in a benchmark", system)
    for kind, names in (("strata", strata), ("chunks", chunks)):
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        if twice:
            raise _bad(
                f"several {kind} are called {', '.join(twice)}",
                system,
                hint="Such a system can't be built. Choose another one.",
            )
    for stratum in graph.strata:
        known = {chunk.name for chunk in stratum.chunks}
        for chunk in stratum.chunks:
            if missing := set(chunk.build_depends) - known:
                needs = ", ".join(sorted(missing))
                raise _bad(f"chunk {chunk.name} needs {needs}, not in {stratum.name}", system)


def _bad(message: str, path: str, *, hint: str | None = None) -> MorphError:
    return MorphError(message, reason=Reason.DEFINITION, hint=hint, location=Location(path))
