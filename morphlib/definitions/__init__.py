"""Definitions: read, typed, checked. Text in git becomes frozen values, or errors with places."""

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
