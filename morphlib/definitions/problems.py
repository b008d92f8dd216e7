"""What is found wrong with one document: noted, never raised, so that nothing is left unsaid."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Keys = tuple[str | int, ...]

#: type of loaded YAML -> what people call it
_TYPE_NAMES = {
    str: "string",
    bytes: "binary",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "list",
    dict: "mapping",
    type(None): "null",
}


def type_name(value: object) -> str:
    """What people call the type of a loaded YAML value."""
    return _TYPE_NAMES.get(type(value), type(value).__name__)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong, or doubtful, with what `keys` lead to."""

    keys: Keys
    message: str
    hint: str | None = None


@dataclass(slots=True)
class Problems:
    """What is found while one document is checked."""

    document: Any
    what: str  # how messages call the document: "morphology strata/foo.morph"
    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def add(self, keys: Keys, message: str, hint: str | None = None) -> None:
        """Note an error."""
        self.errors.append(Problem(keys, message, hint))

    def wrong_type(self, keys: Keys, expected: str, value: object, hint: str | None = None) -> None:
        """Note a value of the wrong type."""
        subject = f"Field {self.label(keys)}" if keys else "The whole document"
        got = type_name(value)
        self.add(keys, f"{subject} expected type {expected}, got {got} in {self.what}", hint)

    def missing(self, keys: Keys, name: str) -> None:
        """Note that the mapping at `keys` lacks a required field."""
        self.add(keys, f"Missing field {self.label((*keys, name))} from {self.what}")

    def label(self, keys: Keys) -> str:
        """What messages call a field: `build-commands[2]`, or `zlib.ref` within chunk zlib."""
        text = ""
        value = self.document
        for key in keys:
            try:
                value = value[key]
            except (LookupError, TypeError):
                value = None
            if isinstance(key, str):
                text = f"{text}.{key}" if text else key
            elif text == "chunks" and isinstance(value, dict) and type(value.get("name")) is str:
                text = str(value["name"])
            else:
                text = f"{text}[{key}]"
        return text

    def complain(self, keys: Keys, complaint: str) -> None:
        """Note an error in the words of `complaint`, where {name} and {what} are filled in."""
        document = self.document if isinstance(self.document, dict) else {}
        name = str(document.get("name"))
        self.add(
            keys,
            complaint.replace("{what}", self.what)
            .replace("{field}", self.label(keys))
            .replace("{name}", name),
        )
