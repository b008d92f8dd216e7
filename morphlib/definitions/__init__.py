"""Definitions: read, typed, checked. Text in git becomes frozen values, or errors with places.

What this package offers is loaded when it is first used: later stages need the typed values
(`models`) but, where nothing changed, none of what reads and checks them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from morphlib.definitions.check import check_system
    from morphlib.definitions.loading import load_all, load_morphology, load_systems
    from morphlib.definitions.locate import locate, locate_errors
    from morphlib.definitions.names import sanitise
    from morphlib.definitions.reader import DirectoryReader, FileReader, MappingReader
    from morphlib.definitions.validation import validate

__all__ = [
    "DirectoryReader",
    "FileReader",
    "MappingReader",
    "check_system",
    "load_all",
    "load_morphology",
    "load_systems",
    "locate",
    "locate_errors",
    "sanitise",
    "validate",
]

_HOMES = {
    "check": ("check_system",),
    "loading": ("load_all", "load_morphology", "load_systems"),
    "locate": ("locate", "locate_errors"),
    "names": ("sanitise",),
    "reader": ("DirectoryReader", "FileReader", "MappingReader"),
    "validation": ("validate",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
