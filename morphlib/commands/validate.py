"""Check definitions: every file by itself, and all references between them.

Without FILEs everything below the root of the definitions that you are in is checked, uncommitted
changes included (or, with --repo and --ref, the definitions there; or, with --local-changes=ignore,
those of the checked-out commit). All mistakes are told at once. The exit status is 1 if there are
any.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from morphlib.commands.session import Session
from morphlib.definitions import DirectoryReader, FileReader, locate_errors, validate
from morphlib.definitions.models import Definitions
from morphlib.errors import MorphError, MorphErrors, Reason


def run(session: Session, arguments: Sequence[str]) -> int:
    reader, files = open_reader(session, arguments)
    warnings: list[str] = []
    warn = warnings.append if session.settings.json else session.warn
    try:
        definitions = validate(reader, files, warn=warn)
    except MorphError as error:
        if not session.settings.json:
            raise
        errors = [as_data(each) for each in flatten(locate_errors(reader, error))]
        session.print_json({"valid": False, "errors": errors, "warnings": warnings})
        return 1
    if session.settings.json:
        session.print_json({"valid": True, "errors": [], "warnings": warnings})
    else:
        session.status(f"No mistakes found in {count(definitions)} definitions")
    return 0


def open_reader(session: Session, arguments: Sequence[str]) -> tuple[FileReader, list[str]]:
    """Where the definitions are read, and the paths there of the files that are meant."""
    settings = session.settings
    if settings.repo or settings.ref or settings.local_changes == "ignore":
        from morphlib.commands.resolving import Workshop

        source, paths = Workshop.of(session).open_definitions(arguments)
        return source.reader, list(paths)
    from morphlib.sources.checkout import path_in_checkout

    here = Path.cwd()
    root = find_root(here)
    return DirectoryReader(root), [path_in_checkout(root, name, here) for name in arguments]


def find_root(start: Path) -> Path:
    """The definitions repository around `start`; it need not be in git to be checked."""
    for directory in (start, *start.parents):
        if (directory / "VERSION").is_file() or (directory / ".git").exists():
            return directory
    raise MorphError(
        f"{start} is not in a definitions repository",
        reason=Reason.NOT_FOUND,
        hint="Go to where the file VERSION is, or give --repo and --ref.",
    )


def flatten(error: MorphError) -> Iterator[MorphError]:
    if isinstance(error, MorphErrors):
        for each in error.errors:
            yield from flatten(each)
    else:
        yield error


def as_data(error: MorphError) -> dict[str, object]:
    place = error.location
    return {
        "path": place.path if place else None,
        "line": place.line if place else None,
        "column": place.column if place else None,
        "message": error.message,
        "hint": error.hint,
        "reason": str(error.reason),
    }


def count(definitions: Definitions) -> int:
    kinds = (definitions.systems, definitions.strata, definitions.chunks, definitions.clusters)
    return sum(map(len, kinds))
