"""Typed parameters of extensions.

A deployment hands its parameters to an extension in the environment, as text. An extension declares
those that it reads; what `.check` refuses, what the help says and what the extension gets as values
all come from the declarations.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

from morphlib.errors import MorphError, Reason, raise_all

T = TypeVar("T")

_SIZE = re.compile(r"([0-9]+)\s*([kmg]?)", re.IGNORECASE)
_FACTORS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_LARGEST = (1 << 63) - 1
_YES, _NO = frozenset({"yes", "1", "true"}), frozenset({"no", "0", "false"})


@dataclass(frozen=True, slots=True, eq=False)
class Parameter(Generic[T]):
    """One parameter of an extension.

    `parse` makes a value of the text and raises ValueError with what is wrong. `shown` is the
    default as the help tells it. A `secret` never gets into a deployed system or onto a screen.
    """

    name: str
    help: str
    parse: Callable[[str], T]
    default: T
    required: bool = False
    secret: bool = False
    shown: str = ""
    #: what to say if a required parameter is not there
    missing: str = ""
    #: an empty text counts as not set
    empty_is_unset: bool = True

    def read(self, environment: Mapping[str, str]) -> T:
        """The value in an environment. Raises MorphError if it is missing or wrong."""
        text = environment.get(self.name)
        if text is None or (self.empty_is_unset and not text.strip()):
            if self.required:
                raise parameter_error(self.missing or f"{self.name} was not given")
            return self.default
        try:
            return self.parse(text)
        except ValueError as error:
            raise parameter_error(str(error)) from error


class Parameters:
    """The values of an extension's parameters: `given[DISK_SIZE]` is an int."""

    def __init__(self, values: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self._values = values
        #: all that the deployment said, for extensions that look for names by pattern
        self.environment = environment

    def __getitem__(self, parameter: Parameter[T]) -> T:
        value: T = self._values[parameter.name]
        return value


def read_parameters(
    declared: Iterable[Parameter[Any]], environment: Mapping[str, str]
) -> Parameters:
    """The values of all parameters. Raises MorphError for all that are missing or wrong at once."""
    values: dict[str, Any] = {}
    errors: list[MorphError] = []
    for parameter in declared:
        try:
            values[parameter.name] = parameter.read(environment)
        except MorphError as error:
            errors.append(error)
    raise_all(errors)
    return Parameters(values, dict(environment))


def parameter_error(message: str) -> MorphError:
    return MorphError(message, reason=Reason.DEPLOY)


# Kinds of parameters


def text(
    name: str, help: str, default: str = "", *, secret: bool = False, shown: str = ""
) -> Parameter[str]:
    """Any text; leading and trailing blanks stay."""
    return Parameter(name, help, str, default, secret=secret, shown=shown or default)


def required_text(
    name: str, help: str, *, secret: bool = False, missing: str = ""
) -> Parameter[str]:
    return Parameter(name, help, str, "", required=True, secret=secret, missing=missing)


def words(name: str, help: str, *, separator: str | None = None) -> Parameter[tuple[str, ...]]:
    """A list: words between blanks, or between occurrences of `separator`."""

    def parse(value: str) -> tuple[str, ...]:
        return tuple(word for word in value.split(separator) if word)

    return Parameter(name, help, parse, ())


def size(
    name: str, help: str, default: int = 0, *, required: bool = False, shown: str = ""
) -> Parameter[int]:
    """A number of bytes: digits and an optional k, m or g. With `required`, 0 is as bad as none."""

    def parse(value: str) -> int:
        number = parse_size(name, value)
        if required and number == 0:
            raise ValueError(f"{name} is not defined")
        return number

    return Parameter(
        name, help, parse, default, required=required, shown=shown, missing=f"{name} is not defined"
    )


def number(name: str, help: str, default: int) -> Parameter[int]:
    """A whole number; the suffixes of sizes are understood, as they always were."""
    return Parameter(name, help, lambda value: parse_size(name, value), default, shown=str(default))


def boolean(name: str, help: str, *, default: bool = False) -> Parameter[bool]:
    """yes, 1, true or no, 0, false, in any letter case. An empty text is neither."""
    return Parameter(
        name,
        help,
        lambda value: parse_boolean(name, value),
        default,
        shown="yes" if default else "no",
        empty_is_unset=False,
    )


@dataclass(frozen=True, slots=True, eq=False)
class PrefixParameter(Parameter[Mapping[str, str]]):
    """All variables whose names start alike: name -> value, by name."""

    def read(self, environment: Mapping[str, str]) -> Mapping[str, str]:
        return dict(by_prefix(environment, self.name.removesuffix("*")))


def prefixed(prefix: str, help: str) -> Parameter[Mapping[str, str]]:
    """Every variable whose name starts with `prefix`; the help shows it as `PREFIX*`."""
    return PrefixParameter(f"{prefix}*", help, lambda value: {}, {})


E = TypeVar("E", bound=StrEnum)


def choice(name: str, help: str, default: E) -> Parameter[E]:
    """One of the values of an enumeration."""
    kind = type(default)

    def parse(value: str) -> E:
        try:
            return kind(value)
        except ValueError:
            known = ", ".join(kind)
            raise ValueError(f"Invalid {name} {value} (known: {known})") from None

    return Parameter(name, help, parse, default, shown=default)


def parse_size(name: str, value: str) -> int:
    """Bytes. Raises ValueError."""
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"Cannot parse {name} value {value}")
    digits = match[1].lstrip("0")[:20] or "0"  # more need not be looked at
    size = int(digits) * _FACTORS[match[2].lower()]
    if size > _LARGEST:
        raise ValueError(f"{name} value {value} is larger than any file can be")
    return size


def parse_boolean(name: str, value: str) -> bool:
    """Raises ValueError."""
    lowered = value.strip().lower()
    if lowered in _YES:
        return True
    if lowered in _NO:
        return False
    raise ValueError(f"Unexpected value for {name}: {value}")


def by_prefix(environment: Mapping[str, str], prefix: str) -> Iterator[tuple[str, str]]:
    """The variables whose names start with `prefix`, by name."""
    for name in sorted(environment):
        if name.startswith(prefix):
            yield name, environment[name]
