"""`morph validate`: a whole repository, or some files and all that they reach."""

from __future__ import annotations

from collections.abc import Sequence

from morphlib.definitions.check import check_loaded, reached_strata, unknown_artifacts
from morphlib.definitions.cycles import mixed_cycle_errors, plain_cycle_errors
from morphlib.definitions.loading import Loader, Warn
from morphlib.definitions.models import Definitions
from morphlib.definitions.reader import FileReader
from morphlib.errors import Location, MorphError, Reason


def validate(reader: FileReader, files: Sequence[str] = (), *, warn: Warn) -> Definitions:
    """Check all definitions of a repository, or those in `files` and all that they refer to.

    Tells warnings to `warn` and raises every error at once, with its line. Systems whose files, or
    the files that they refer to, can't be used are not checked as a whole.
    """
    loader = Loader(reader)
    if files:
        files = [path for path in files if path not in ("VERSION", "DEFAULTS")]  # read in any case
        loader.load_reached(files)
        loader.errors += [_absent(path) for path in files if path in loader.absent]
    else:
        for path in reader.paths():
            if path.endswith(".morph"):
                loader.load(path)
        loader.load_reached(list(loader.loaded))  # chunk files may have any suffix
    loader.check_references()
    loader.errors += _cross_check(loader.definitions(), artifacts=loader.usable_defaults)
    loader.finish(warn)
    return loader.definitions()


def _absent(path: str) -> MorphError:
    return MorphError(
        f"Couldn't find definition file: {path}",
        reason=Reason.NOT_FOUND,
        location=Location(path),
    )


def _cross_check(definitions: Definitions, *, artifacts: bool) -> list[MorphError]:
    errors = check_loaded(definitions)
    if artifacts:
        errors += unknown_artifacts(
            definitions, definitions.systems.values(), definitions.strata.values()
        )
    return errors + _cycles(definitions)


def _cycles(definitions: Definitions) -> list[MorphError]:
    """Circles, each once. One that shows only when unrelated strata are put together is none."""
    strata = list(definitions.strata.values())
    plain = plain_cycle_errors(strata)
    if plain or not mixed_cycle_errors(strata):
        return plain
    roots = [[spec.morph for spec in system.strata] for system in definitions.systems.values()]
    found: dict[str, MorphError] = {}
    for paths in [*([path] for path in definitions.strata), *roots]:
        for error in mixed_cycle_errors(reached_strata(definitions, paths)):
            found.setdefault(error.message, error)
    return list(found.values())
