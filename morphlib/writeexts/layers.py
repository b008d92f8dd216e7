"""The strata that a system was put together from, as the file tells that MORPH_LAYERS names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morphlib.errors import MorphError, Reason
from morphlib.writeexts.devices import Device
from morphlib.writeexts.entries import Entry, read_entries, stack


@dataclass(frozen=True, slots=True)
class StratumTree:
    """A stratum with what it puts into a system: path -> entry, sorted."""

    name: str
    entries: dict[str, Entry]


def read_strata(environment: Mapping[str, str], *, newest: int) -> tuple[StratumTree, ...]:
    """The strata of a system in their order, none if nobody knows. `newest`: see `read_entries`.

    Raises MorphError if the file can't be understood.
    """
    name = environment.get("MORPH_LAYERS")
    if not name:
        return ()
    try:
        document = json.loads(Path(name).read_bytes())
        return tuple(_strata(document, newest))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise MorphError(
            f"the table of layers {name} can't be read: {error}", reason=Reason.DEPLOY
        ) from error


def _strata(document: list[dict[str, Any]], newest: int) -> Iterator[StratumTree]:
    for stratum in document:
        merged = stack(_tree(tree, newest) for tree in stratum["trees"])
        ordered = sorted(merged, key=lambda path: [] if path == "." else path.split("/"))
        yield StratumTree(stratum["stratum"], {path: merged[path] for path in ordered})


def _tree(tree: dict[str, Any], newest: int) -> dict[str, Entry]:
    devices = {path: Device(**fields) for path, fields in tree["devices"].items()}
    # Layers have no extended attributes: archives do not keep them.
    entries = read_entries(Path(tree["root"]), devices, newest=newest, attributes=False)
    if not tree["has-top"]:
        del entries["."]
    return entries
