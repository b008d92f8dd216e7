"""Shapes of data: what checks a document, and gives the JSON Schema of what passes the check.

One description serves both, so the published schemas can't differ from what the program accepts.
Checks never stop at the first problem and never raise.
"""

from __future__ import annotations

import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from morphlib.definitions.names import (
    NAME_LIMIT,
    NAME_PATTERN,
    SUFFIX_LIMIT,
    SUFFIX_PATTERN,
    is_safe_name,
    is_safe_suffix,
)
from morphlib.definitions.problems import Keys, Problem, Problems, type_name

Schema = dict[str, Any]


class Shape(ABC):
    """What a value must look like."""

    @abstractmethod
    def check(self, value: Any, keys: Keys, problems: Problems) -> None:
        """Note in `problems` what is wrong with the value that `keys` lead to."""

    @abstractmethod
    def schema(self) -> Schema:
        """The JSON Schema of what passes the check."""


class Anything(Shape):
    """A value that is taken as it is."""

    def check(self, value: Any, keys: Keys, problems: Problems) -> None:
        pass

    def schema(self) -> Schema:
        return {}


class Text(Shape):
    """A string; where `solid`, one that is not blank."""

    def __init__(self, *, solid: bool = False) -> None:
        self.solid = solid

    def check(self, value: Any, keys: Keys, problems: Problems) -> None:
        if type(value) is str:
            if self.solid and not value.strip():
                problems.complain(keys, "Field {field} must be a non-empty string in {what}")
            elif "\0" in value:
                problems.complain(keys, "Field {field} contains a NUL character in {what}")
        elif self.solid:
            hint = None
            if type(value) in (int, float):
                hint = "Put it in quotes, so that YAML doesn't read it as a number."
            problems.add(
                keys,
                f"Field {problems.label(keys)} must be a non-empty string, got "
                f"{type_name(value)} in {problems.what}",
                hint,
            )
        else:
            problems.wrong_type(keys, "string", value)

    def schema(self) -> Schema:
        return {"type": "string", "pattern": r"\S"} if self.solid else {"type": "string"}


class Matching(Shape):
    """A string that a condition holds for."""

    def __init__(self, holds: Callable[[str], bool], complaint: str, schema: Schema) -> None:
        self.holds = holds
        self.complaint = complaint
        self._schema = schema

    def check(self, value: Any, keys: Keys, problems: Problems) -> None:
        if type(value) is not str:
            hint = 'Put it in quotes: "..."' if type(value) in (int, float, bool) else None
            problems.wrong_type(keys, "string", value, hint)
        elif not self.holds(value):
            problems.complain(keys, self.complaint.replace("{value}", show(value)))

    def schema(self) -> Schema:
        return {"type": "string", **self._schema}


def name_shape() -> Matching:
    """The name of something that becomes part of a file name."""
    return Matching(
        is_safe_name,
        "Field {field} holds the unsafe name {value} in {what}: names can't be empty, hold '/', "
        f"'\\', blanks or control characters, be longer than {NAME_LIMIT} bytes, or start with "
        "'.' or '-'",
        {"pattern": NAME_PATTERN, "maxLength": NAME_LIMIT},
    )


def suffix_shape() -> Matching:
    """What is appended to the name of something that becomes part of a file name."""
    return Matching(
        is_safe_suffix,
        "Field {field} holds the unsafe suffix {value} in {what}: suffixes can't hold '/', '\\', "
        f"blanks or control characters, or be longer than {SUFFIX_LIMIT} bytes",
        {"pattern": SUFFIX_PATTERN, "maxLength": SUFFIX_LIMIT},
    )


class Pattern(Shape):
    """A regular expression, as Python's `re` has them."""

    def check(self, value: Any, keys: Keys, problems: Problems) -> None:
        if type(value) is not str:
            problems.wrong_type(keys, "regular expression (string)", value)
            return
        problem = problem_with_pattern(value)
        if problem:
            problems.add(
                keys,
                f"Field {problems.label(keys)} holds the bad regular expression {value!r} "
                f"in {problems.what}: {problem}",
            )

    def schema(self) -> Schema:
        # Without "format": "regex", which stands for JavaScript's dialect.
        return {"type": "string"}


@lru_cache(maxsize=4096)
def problem_with_pattern(pattern: str) -> str | None:
    """Why a regular expression doesn't compile, or None where it does."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return str(error) or type(error).__name__
    return None


class Integer(Shape):
    """An integer of at least `minimum`; where `lax`, also text that spells one."""

    def __init__(self, *, minimum: int = 0, lax: bool = False) -> None:
        self.minimum = minimum
        self.lax = lax

    def check(self, value: Any, keys: Keys, problems: Problems) -> None:
        if self.lax and type(value) in (str, float):
            try:
                value = int(value)
            except (ValueError, OverflowError):
                problems.wrong_type(keys, "integer", value)
                return
        if type(value) is not int:
            problems.wrong_type(keys, "integer", value)
        elif not self.minimum <= value < 2**63:
            problems.complain(keys, f"Field {{field}} must be {self.minimum} or more in {{what}}")

    def schema(self) -> Schema:
        number = {"type": "integer", "minimum": self.minimum}
        if self.lax:
            spelt = {"type": "string", "pattern": r"^\s*\+?[0-9]+\s*$"}
            return {"anyOf": [{"type": "number", "minimum": self.minimum}, spelt]}
        return number


class OneOf(Shape):
    """One of a few integers."""

    def __init__(self, values: Sequence[int]) -> None:
        self.values = tuple(values)

    def check(self, value: Any, keys: Keys, problems: Problems) -> None:
        if type(value) is not int:
            problems.wrong_type(keys, "integer", value)
        elif value not in self.values:
            choice = " or ".join(map(str, self.values))
            problems.complain(keys, f"Field {{field}} must be {choice} in {{what}}")

    def schema(self) -> Schema:
        return {"enum": list(self.values)}


class CommandText(Shape):
    """A shell script. YAML's booleans `true` and `false` mean the words."""

    def check(self, value: Any, keys: Keys, problems: Problems) -> None:
        if type(value) is str:
            if "\0" in value:
                problems.complain(keys, "Field {field} contains a NUL character in {what}")
        elif type(value) is bytes:
            if b"\0" in value:
                problems.complain(keys, "Field {field} contains a NUL character in {what}")
        elif type(value) is not bool:
            hint = None
            if type(value) is dict:
                hint = "A command that contains ': ' must stand in quotes, or below '- |'."
            problems.wrong_type(keys, "string (a command)", value, hint)

    def schema(self) -> Schema:
        return {"type": ["string", "boolean"]}


class ListOf(Shape):
    """A list whose items all have one shape."""

    def __init__(
        self,
        item: Shape,
        *,
        empty: str | None = None,
        wrong: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.item = item
        self.empty = empty  # the complaint where an empty list is an error
        self.wrong = wrong  # the complaint where it is not a list
        self.hint = hint

    def check(self, value: Any, keys: Keys, problems: Problems) -> None:
        if type(value) is list:
            if self.empty and not value:
                problems.complain(keys, self.empty)
            check = self.item.check
            for index, item in enumerate(value):
                check(item, (*keys, index), problems)
        elif self.wrong:
            problems.complain(keys, self.wrong)
        else:
            hint = self.hint or "Write a list: one item per line, each with '- ' in front."
            problems.wrong_type(keys, "list", value, hint)

    def schema(self) -> Schema:
        schema: Schema = {"type": "array", "items": self.item.schema()}
        if self.empty:
            schema["minItems"] = 1
        return schema


class MapOf(Shape):
    """A mapping with free keys."""

    def __init__(self, key: Shape, value: Shape, *, wrong: str | None = None) -> None:
        self.key = key
        self.value = value
        self.wrong = wrong

    def check(self, value: Any, keys: Keys, problems: Problems) -> None:
        if type(value) is dict:
            for key, inner in value.items():
                below = (*keys, key if type(key) is str else str(key))
                self.key.check(key, below, problems)
                self.value.check(inner, below, problems)
        elif self.wrong:
            problems.complain(keys, self.wrong)
        else:
            problems.wrong_type(keys, "mapping", value)

    def schema(self) -> Schema:
        names = {k: v for k, v in self.key.schema().items() if k != "type"}
        schema: Schema = {"type": "object", "additionalProperties": self.value.schema()}
        if names:
            schema["propertyNames"] = names
        return schema


class Nullable(Shape):
    """A shape or null, which means the same as leaving the field out."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def check(self, value: Any, keys: Keys, problems: Problems) -> None:
        if value is not None:
            self.shape.check(value, keys, problems)

    def schema(self) -> Schema:
        schema = self.shape.schema()
        if isinstance(schema.get("type"), str) and "enum" not in schema:
            return {**schema, "type": [schema["type"], "null"]}
        return {"anyOf": [schema, {"type": "null"}]} if schema else {}


def show(value: object) -> str:
    """A value in a message: words as they are, anything that could be misread quoted."""
    plain = isinstance(value, str) and value.replace("-", "").replace("_", "").isalnum()
    return str(value) if plain else repr(value)


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a record."""

    shape: Shape
    description: str
    required: bool = False
    missing: str | None = None  # the complaint where it is missing
    default: Any = None


class Record(Shape):
    """A mapping with known fields. What else it holds is an error, or where `lenient` a warning.

    `also` are JSON Schema keywords for conditions between fields, which the reader checks itself.
    """

    def __init__(
        self,
        fields: Mapping[str, Field],
        *,
        lenient: bool = False,
        free: bool = False,
        wrong: str | None = None,
        also: Schema | None = None,
        description: str | None = None,
    ) -> None:
        self.fields = fields
        self.lenient = lenient or free
        self.free = free  # other fields are welcome
        self.wrong = wrong
        self.also = also or {}
        self.description = description
        self.required = [name for name, field in fields.items() if field.required]
        self.checks = {name: field.shape.check for name, field in fields.items()}

    def check(self, value: Any, keys: Keys, problems: Problems) -> None:
        if type(value) is not dict:
            if self.wrong:
                problems.complain(keys, self.wrong)
            else:
                problems.wrong_type(keys, "mapping", value)
            return
        for name in self.required:
            if name not in value:
                complaint = self.fields[name].missing
                if complaint:
                    problems.complain(keys, complaint)
                else:
                    problems.missing(keys, name)
        checks = self.checks
        for name, inner in value.items():
            check = checks.get(name)
            if check is not None:
                check(inner, (*keys, name), problems)
            elif not self.free:
                self._unknown(name, keys, problems)

    def _unknown(self, name: object, keys: Keys, problems: Problems) -> None:
        below = (*keys, str(name))
        message = f"Field {problems.label(below)} not allowed in {problems.what}"
        hint = _suggest(str(name), list(self.fields))
        if self.lenient:
            text = f"Field {problems.label(below)} is unknown and has no effect in {problems.what}"
            problems.warnings.append(Problem(below, text, hint))
        else:
            problems.add(below, message, hint)

    def schema(self) -> Schema:
        properties: Schema = {}
        for name, entry in self.fields.items():
            properties[name] = {"description": entry.description, **entry.shape.schema()}
            if entry.default is not None:
                properties[name]["default"] = entry.default
        schema: Schema = {"type": "object", "properties": properties}
        if self.description:
            schema["description"] = self.description
        if self.required:
            schema["required"] = self.required
        if not self.lenient:
            schema["additionalProperties"] = False
        return {**schema, **self.also}


class Later(Shape):
    """A shape that contains itself: made when it is first used, `$ref` in the schema."""

    def __init__(self, name: str, make: Callable[[], Shape]) -> None:
        self.name = name
        self.make = make

    def check(self, value: Any, keys: Keys, problems: Problems) -> None:
        self.make().check(value, keys, problems)

    def schema(self) -> Schema:
        return {"$ref": f"#/$defs/{self.name}"}


def _suggest(name: str, known: Sequence[str]) -> str | None:
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]}?" if close else None
