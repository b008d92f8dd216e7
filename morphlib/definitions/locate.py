"""Places in definitions: from keys to line and column, looked up only when they are shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import yaml

from morphlib.definitions.parsing import compose
from morphlib.definitions.reader import FileReader
from morphlib.errors import Location, MorphError, MorphErrors, Reason


class PlacesError(MorphError):
    """An error whose message names several places, so that it changes once these are located."""

    def __init__(
        self,
        describe: Callable[[Sequence[Location]], str],
        places: Sequence[Location],
        *,
        reason: Reason,
        hint: str | None = None,
        location: Location | None = None,
    ) -> None:
        super().__init__(describe(places), reason=reason, hint=hint, location=location or places[0])
        self.describe = describe
        self.places = tuple(places)


class Locator:
    """Looks up lines and columns, composing each file once."""

    def __init__(self, reader: FileReader) -> None:
        self._reader = reader
        self._nodes: dict[str, yaml.Node | None] = {}

    def locate(self, location: Location) -> Location:
        """`location` with line and column filled in where they can be found."""
        if location.line is not None:
            return location
        node = self._node(location.path)
        if node is None:
            return location
        mark = _find(node, location.keys).start_mark
        return Location(location.path, mark.line + 1, mark.column + 1, location.keys)

    def locate_error(self, error: MorphError) -> MorphError:
        """The same error, or errors in the order of their places, with all lines filled in."""
        if isinstance(error, MorphErrors):
            located = [self.locate_error(one) for one in error.errors]
            return MorphErrors(sorted(located, key=_order))
        if isinstance(error, PlacesError):
            return PlacesError(
                error.describe,
                [self.locate(place) for place in error.places],
                reason=error.reason,
                hint=error.hint,
                location=self.locate(error.location) if error.location else None,
            )
        if error.location is None or error.location.line is not None:
            return error
        return MorphError(
            error.message,
            reason=error.reason,
            hint=error.hint,
            location=self.locate(error.location),
        )

    def _node(self, path: str) -> yaml.Node | None:
        if path not in self._nodes:
            try:
                text = self._reader.read(path)
            except MorphError:
                text = None
            self._nodes[path] = None if text is None else compose(text)
        return self._nodes[path]


def locate(reader: FileReader, location: Location) -> Location:
    """`location` with line and column filled in from its keys, where they can be found."""
    return Locator(reader).locate(location)


def locate_errors(reader: FileReader, error: MorphError) -> MorphError:
    """The same error, or errors sorted by place, with line and column of every place filled in."""
    return Locator(reader).locate_error(error)


def _order(error: MorphError) -> tuple[str, int, int]:
    place = error.location
    return (place.path, place.line or 0, place.column or 0) if place else ("", 0, 0)


def _find(node: yaml.Node, keys: Sequence[str | int]) -> yaml.Node:
    """The node that keys lead to: the key of a mapping's entry, or the item of a sequence.

    Where the way ends early (a key came in by a merge) it is the last node that was found.
    """
    shown = node
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            pairs = [pair for pair in node.value if pair[0].value == str(key)]
            if not pairs:
                return shown
            shown, node = pairs[-1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            shown = node = node.value[key]
        else:
            return shown
    return shown
