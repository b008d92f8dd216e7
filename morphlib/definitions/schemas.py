"""Writes JSON Schemas of definitions: `python -m morphlib.definitions.schemas [--check] DIR`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from morphlib.definitions import documents
from morphlib.definitions.models import Kind
from morphlib.definitions.shapes import Record, Schema

_DIALECT = "https://json-schema.org/draft/2020-12/schema"

#: file name -> (title, shape, shapes that refer to themselves)
_FILES: dict[str, tuple[str, Record, dict[str, Record]]] = {
    "version.schema.json": ("Morph VERSION", documents.VERSION, {}),
    "defaults.schema.json": ("Morph DEFAULTS", documents.DEFAULTS, {}),
    "chunk.schema.json": ("Morph chunk", documents.KINDS[Kind.CHUNK], {}),
    "stratum.schema.json": ("Morph stratum", documents.KINDS[Kind.STRATUM], {}),
    "system.schema.json": ("Morph system", documents.KINDS[Kind.SYSTEM], {}),
    "cluster.schema.json": (
        "Morph cluster",
        documents.KINDS[Kind.CLUSTER],
        {"system": documents.CLUSTER_SYSTEM},
    ),
}


def make_schema(title: str, shape: Record, named: dict[str, Record]) -> Schema:
    """The JSON Schema (2020-12) of one kind of file."""
    schema: Schema = {"$schema": _DIALECT, "title": title, **shape.schema()}
    if named:
        schema["$defs"] = {name: inner.schema() for name, inner in named.items()}
    return schema


def make_schemas() -> dict[str, str]:
    """The text of every schema file, by file name."""
    texts = {
        name: json.dumps(make_schema(*parts), indent=2, ensure_ascii=False) + "\n"
        for name, parts in _FILES.items()
    }
    texts["morphology.schema.json"] = json.dumps(_any_kind(), indent=2) + "\n"
    return texts


def _any_kind() -> Schema:
    """One schema for all `.morph` files, which picks the right one by `kind`."""
    return {
        "$schema": _DIALECT,
        "title": "Morph definition",
        "type": "object",
        "required": ["kind"],
        "properties": {
            "kind": {"description": "Which kind of definition this is.", "enum": list(Kind)}
        },
        "allOf": [
            {
                "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
                "then": {"$ref": f"{kind}.schema.json"},
            }
            for kind in Kind
        ],
    }


def outdated(directory: Path) -> list[str]:
    """Names of schema files in a folder that are missing or are not what the program accepts."""
    return [
        name
        for name, text in make_schemas().items()
        if not (directory / name).is_file() or (directory / name).read_text() != text
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or with --check say which are not current. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Write the JSON Schemas of Morph's definitions.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if not current")
    parser.add_argument("directory", type=Path, metavar="DIR")
    options = parser.parse_args(arguments)
    if options.check:
        names = outdated(options.directory)
        for name in names:
            sys.stderr.write(f"ERROR: {options.directory / name} is not current\n")
        return 1 if names else 0
    options.directory.mkdir(parents=True, exist_ok=True)
    for name, text in make_schemas().items():
        (options.directory / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
