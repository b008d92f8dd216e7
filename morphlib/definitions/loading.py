"""Loading definitions: VERSION, DEFAULTS and morphologies, with every mistake found in one go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from morphlib.definitions import documents
from morphlib.definitions.check import check_loaded, unknown_artifacts
from morphlib.definitions.locate import Locator
from morphlib.definitions.models import (
    BuildSystem,
    Chunk,
    Cluster,
    Defaults,
    Definitions,
    Kind,
    Morphology,
    Stratum,
    System,
)
from morphlib.definitions.parsing import DuplicateKey, parse
from morphlib.definitions.problems import Problem, Problems
from morphlib.definitions.reader import SIZE_LIMIT, FileReader
from morphlib.definitions.references import (
    cluster_references,
    raw_references,
    reference_errors,
    stratum_references,
    system_references,
)
from morphlib.definitions.shapes import Record
from morphlib.definitions.typed import (
    CATCH_ALL,
    make_chunk,
    make_cluster,
    make_defaults,
    make_stratum,
    make_system,
)
from morphlib.errors import Location, MorphError, MorphErrors, Reason, raise_all

Warn = Callable[[str], None]

_NO_DEFAULTS = Defaults({"manual": BuildSystem("manual", {})}, CATCH_ALL, CATCH_ALL)


class Loader:
    """Loads each file once and gathers errors and warnings, to be told at the end by `finish`."""

    def __init__(self, reader: FileReader) -> None:
        self.reader = reader
        self.errors: list[MorphError] = []
        self.warnings: list[tuple[Location, str]] = []
        self.loaded: dict[str, Morphology] = {}
        self.broken: set[str] = set()  # files that are there, but can't be used
        self.hinted: dict[str, list[str]] = {}  # what broken files refer to, as far as one can tell
        self.absent: set[str] = set()
        self.usable_defaults = True
        self.version = self._load_version()
        self.defaults = self._load_defaults()

    def load(self, path: str) -> Morphology | None:
        """The morphology in a file; None where there is none, or errors were found in it."""
        if path in self.loaded:
            return self.loaded[path]
        if path in self.broken or path in self.absent:
            return None
        morphology = None
        try:
            text = self.reader.read(path)
            if text is None:
                self.absent.add(path)
                return None
            morphology = self._read_morphology(path, text)
        except MorphError as error:
            self.errors.append(error)
        if morphology is None:
            self.broken.add(path)
        else:
            self.loaded[path] = morphology
        return morphology

    def load_reached(self, paths: Iterable[str]) -> None:
        """Load files and all that they refer to, each once, in whatever circles they refer."""
        queue = list(dict.fromkeys(paths))
        seen = set(queue)
        for path in queue:  # grows while it is walked
            for reached in _referenced(self.load(path)) + self.hinted.get(path, []):
                if reached not in seen:
                    seen.add(reached)
                    queue.append(reached)

    def check_references(self) -> None:
        """Find what is wrong with the references between the morphologies loaded so far."""
        definitions = self.definitions()
        for stratum in definitions.strata.values():
            references = stratum_references(stratum)
            self.errors += reference_errors(definitions, references, self.broken)
            self._check_chunk_names(stratum)
        for system in definitions.systems.values():
            references = system_references(system)
            self.errors += reference_errors(definitions, references, self.broken)
        for cluster in definitions.clusters.values():
            references = cluster_references(cluster)
            self.errors += reference_errors(definitions, references, self.broken)

    def definitions(self) -> Definitions:
        """What has been loaded so far."""
        loaded = self.loaded.items()
        return Definitions(
            version=self.version,
            defaults=self.defaults,
            systems={path: item for path, item in loaded if isinstance(item, System)},
            strata={path: item for path, item in loaded if isinstance(item, Stratum)},
            chunks={path: item for path, item in loaded if isinstance(item, Chunk)},
            clusters={path: item for path, item in loaded if isinstance(item, Cluster)},
        )

    def warn_of_unknown_artifacts(self, definitions: Definitions) -> None:
        """Warn of `artifacts` that nothing produces: old definitions have them, and they build."""
        systems, strata = definitions.systems.values(), definitions.strata.values()
        for error in unknown_artifacts(definitions, systems, strata) if not self.errors else ():
            if error.location:
                self.warnings.append((error.location, f"{error.message}. {error.hint}"))

    def finish(self, warn: Warn) -> None:
        """Tell all warnings, then raise all errors, with the lines of their places."""
        locator = Locator(self.reader)
        for location, text in self.warnings:
            warn(f"{locator.locate(location)}: {text}")
        if len(self.errors) == 1:
            raise locator.locate_error(self.errors[0])
        if self.errors:
            raise locator.locate_error(MorphErrors(self.errors))

    def _check_chunk_names(self, stratum: Stratum) -> None:
        for spec in stratum.chunks:
            chunk = self.loaded.get(spec.morph) if spec.morph else None
            if isinstance(chunk, Chunk) and chunk.name != spec.name:
                location = Location(stratum.path, keys=(*spec.location.keys, "name"))
                text = (
                    f"Chunk {spec.name} of stratum {stratum.name} is called {chunk.name} in "
                    f"{chunk.path}, which is the name that counts"
                )
                self.warnings.append((location, text))

    def _load_version(self) -> int:
        try:
            text = self.reader.read("VERSION")
            if text is None:
                raise MorphError(
                    "Failed to find VERSION file: is this a definitions checkout?",
                    reason=Reason.DEFINITION,
                    hint="A definitions repository has a file VERSION with the line 'version: 8'.",
                )
            return _version_of(self._parse("VERSION", text), text)
        except MorphError as error:
            self.errors.append(error)
            return documents.SUPPORTED_VERSIONS[-1]

    def _load_defaults(self) -> Defaults:
        try:
            text = self.reader.read("DEFAULTS")
            if text is None:
                self.warnings.append((Location("DEFAULTS"), "No DEFAULTS file found."))
                return _NO_DEFAULTS
            document = self._parse("DEFAULTS", text)
        except MorphError as error:
            # Without build systems every chunk would look wrong, so this is all there is to say.
            raise_all(Locator(self.reader).locate_error(one) for one in [*self.errors, error])
            raise
        problems = Problems({} if document is None else document, "DEFAULTS")
        documents.DEFAULTS.check(problems.document, (), problems)
        for problem in problems.errors:
            text_of_problem = f"Invalid DEFAULTS file: {problem.message}"
            self.errors.append(
                _error(Location("DEFAULTS", keys=problem.keys), text_of_problem, problem.hint)
            )
        if problems.errors:
            self.usable_defaults = False
            return _named_build_systems(problems.document)
        return make_defaults(problems.document)

    def _parse(self, path: str, text: bytes) -> Any:
        def duplicate(found: DuplicateKey) -> None:
            location = Location(path, found.line, found.column)
            message = f"Key {found.key!r} stands twice in one mapping; the last one counts"
            self.warnings.append((location, message))

        if len(text) > SIZE_LIMIT:
            raise _error(Location(path, 1, 1), f"{path} is larger than {SIZE_LIMIT} bytes")
        return parse(text, path, duplicate=duplicate)

    def _read_morphology(self, path: str, text: bytes) -> Morphology | None:
        """The morphology; None where errors were added. Raises MorphError for unreadable text."""
        document = self._parse(path, text)
        problems = Problems(document, f"morphology {path}")
        record = _record_for(path, document)
        record.check(document, (), problems)
        morphology = None if problems.errors else self._make(path, document, problems)
        self.warnings += [
            (Location(path, keys=problem.keys), _with_hint(problem))
            for problem in problems.warnings
        ]
        if not problems.errors:
            return morphology
        self.hinted[path] = raw_references(document)
        if len(problems.errors) > 1 and record is documents.CHUNK:
            name = document.get("name")
            text_of_heading = f"Multiple errors when validating chunk {name}:"
            self.errors.append(_error(Location(path, 1, 1), text_of_heading))
        self.errors += [
            _error(Location(path, keys=problem.keys), problem.message, problem.hint)
            for problem in problems.errors
        ]
        return None

    def _make(self, path: str, document: dict[str, Any], problems: Problems) -> Morphology | None:
        match Kind(document["kind"]):
            case Kind.CHUNK:
                return make_chunk(path, document, self.defaults, problems)
            case Kind.STRATUM:
                return make_stratum(path, document, self.defaults, problems, version=self.version)
            case Kind.SYSTEM:
                return make_system(path, document, problems)
            case Kind.CLUSTER:
                return make_cluster(path, document, problems)


def load_all(reader: FileReader, *, warn: Warn) -> Definitions:
    """Every `.morph` file of a repository. Raises all errors at once, with their lines."""
    loader = Loader(reader)
    for path in reader.paths():
        if path.endswith(".morph"):
            loader.load(path)
    loader.finish(warn)
    return loader.definitions()


def load_systems(reader: FileReader, paths: Sequence[str], *, warn: Warn) -> Definitions:
    """The systems in files, and the strata and chunks that they reach; nothing else is read.

    Raises all errors at once, with their lines.
    """
    loader = Loader(reader)
    loader.load_reached(paths)
    for path in dict.fromkeys(paths):
        if path in loader.absent:
            loader.errors.append(
                _error(Location(path), f"Couldn't find definition file to build: {path}")
            )
        elif not isinstance(found := loader.loaded.get(path), System | None):
            loader.errors.append(_not_a_system(path, found))
    loader.check_references()
    definitions = loader.definitions()
    if loader.errors:  # else it is for whoever uses the definitions to check them
        loader.errors += check_loaded(definitions)
    loader.warn_of_unknown_artifacts(definitions)
    loader.finish(warn)
    return definitions


def load_morphology(reader: FileReader, path: str) -> Morphology:
    """One morphology by itself; nothing that it refers to is looked at.

    Raises all its errors at once, and one where there is no such file.
    """
    loader = Loader(reader)
    morphology = loader.load(path)
    if path in loader.absent:
        message = f"Couldn't find definition file: {path}"
        loader.errors.append(MorphError(message, reason=Reason.NOT_FOUND, location=Location(path)))
    loader.finish(lambda text: None)
    assert morphology is not None
    return morphology


def _referenced(morphology: Morphology | None) -> list[str]:
    match morphology:
        case System():
            return [path for path, *_ in system_references(morphology)]
        case Stratum():
            return [path for path, *_ in stratum_references(morphology)]
        case Cluster():
            return [path for path, *_ in cluster_references(morphology)]
        case _:
            return []


def _record_for(path: str, document: Any) -> Record:
    """The shape that a morphology must have. Raises MorphError where it doesn't say its kind."""
    if not isinstance(document, dict):
        raise _error(Location(path, 1, 1), f"Not a dictionary: morphology {path}")
    if "kind" not in document:
        raise _error(Location(path, 1, 1), f"Missing field kind from morphology {path}")
    kind = document["kind"]
    if not isinstance(kind, str) or kind not in documents.KINDS:
        raise _error(
            Location(path, keys=("kind",)),
            f"Unknown kind {kind} in morphology {path}",
            f"Kinds are {', '.join(Kind)}.",
        )
    return documents.KINDS[Kind(kind)]


def _named_build_systems(document: Any) -> Defaults:
    """The names in a wrong DEFAULTS file, so that what uses them isn't reported as well."""
    systems = document.get("build-systems") if isinstance(document, dict) else None
    names = [str(name) for name in systems] if isinstance(systems, dict) else []
    return Defaults(
        {name: BuildSystem(name, {}) for name in ["manual", *names]}, CATCH_ALL, CATCH_ALL
    )


def _version_of(document: Any, text: bytes) -> int:
    version = document.get("version") if isinstance(document, dict) else None
    if type(version) is not int:
        shown = text.decode(errors="replace")[:200]
        raise _error(
            Location("VERSION", 1, 1), f"invalid VERSION file: {shown!r}", "Write: version: 8"
        )
    if version not in documents.SUPPORTED_VERSIONS:
        supported = " and ".join(map(str, documents.SUPPORTED_VERSIONS))
        raise _error(
            Location("VERSION", keys=("version",)),
            f"Definitions format version {version} is not supported",
            f"This Morph reads versions {supported}.",
        )
    return version


def _not_a_system(path: str, found: Morphology | None) -> MorphError:
    kind = kind_of(found)
    if kind is Kind.CLUSTER:
        message = f"Cannot build a morphology of type 'cluster': {path}"
        hint = "Name one of the systems of the cluster."
    else:
        message = f"{path} is a {kind}, not a system"
        hint = (
            f"In order to build this {kind} directly, name a system that has it, then the {kind}."
        )
    return _error(Location(path), message, hint)


def kind_of(morphology: Morphology | None) -> Kind | None:
    """The kind of a morphology."""
    match morphology:
        case Chunk():
            return Kind.CHUNK
        case Stratum():
            return Kind.STRATUM
        case System():
            return Kind.SYSTEM
        case Cluster():
            return Kind.CLUSTER
        case None:
            return None


def _with_hint(problem: Problem) -> str:
    return f"{problem.message}. {problem.hint}" if problem.hint else problem.message


def _error(location: Location, message: str, hint: str | None = None) -> MorphError:
    return MorphError(message, reason=Reason.DEFINITION, hint=hint, location=location)
