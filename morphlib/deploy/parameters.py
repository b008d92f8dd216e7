"""Deployment parameters: what a cluster says as the environment that extensions get."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from typing import Any

#: Values that turn UPGRADE on, in any letter case.
_YES = frozenset({"1", "true", "yes"})

#: What Morph tells extensions itself; a caller's variables of these names don't reach them.
OWN = frozenset(
    (
        "MORPH_ARCH",
        "MORPH_BASE",
        "MORPH_DEVICE_TABLE",
        "MORPH_LAYERS",
        "MORPH_LOG_FD",
        "MORPH_PARAMETERS",
        "MORPH_SYSTEM_KEY",
    )
)

#: Bytes that the kernel takes for one variable: 32 pages (MAX_ARG_STRLEN).
LONGEST = 32 * mmap.PAGESIZE


def sanitise_value(value: object) -> str:
    """The text that extensions get for a value of a cluster.

    Extensions read lists and mappings as Python literals or as YAML, so they keep the form that
    both understand.
    """
    match value:
        case None:
            return ""
        case str():
            return value
        case bytes():
            return value.decode("utf-8", "surrogateescape")
        case bool() | int() | float():
            return str(value)
        case list() | dict() | tuple():
            return repr(value)
        case _:
            return str(value)  # a date


def sanitise_values(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: sanitise_value(value) for name, value in values.items()}


def is_yes(text: str) -> bool:
    """Whether UPGRADE means yes; anything that is not understood means no."""
    return text.lower() in _YES


def problems_of_names(names: Mapping[str, str], longest: int = LONGEST) -> Iterator[str]:
    """What can't be in an environment, one text each. `longest` is in bytes."""
    for name, value in names.items():
        if not name or "=" in name or "\0" in name:
            yield f"{name!r} can't be the name of a variable"
        elif "\0" in value:
            yield f"the value of {name} has a NUL byte in it"
        elif (size := size_of(name, value)) > longest:
            yield (
                f"the value of {name} is too long for an environment: {size:,} bytes with its name,"
                f" and {longest:,} are allowed"
            )


def size_of(name: str, value: str) -> int:
    """The bytes that a variable takes in an environment."""
    return len(f"{name}={value}\0".encode("utf-8", "surrogateescape"))


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """Of the caller's environment, what extensions get."""
    return {name: value for name, value in environment.items() if name not in OWN}


def with_python_path(environment: Mapping[str, str], directory: str) -> dict[str, str]:
    """The environment with a directory more in which Python looks for modules."""
    before = environment.get("PYTHONPATH")
    return {**environment, "PYTHONPATH": f"{before}:{directory}" if before else directory}
