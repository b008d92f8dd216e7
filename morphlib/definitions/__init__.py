"""Definitions: read, typed, checked. Text in git becomes frozen values, or errors with places."""

from morphlib.definitions.loading import load_all, load_morphology, load_systems
from morphlib.definitions.locate import locate, locate_errors
from morphlib.definitions.names import sanitise
from morphlib.definitions.reader import DirectoryReader, FileReader, MappingReader

__all__ = [
    "DirectoryReader",
    "FileReader",
    "MappingReader",
    "load_all",
    "load_morphology",
    "load_systems",
    "locate",
    "locate_errors",
    "sanitise",
]
