"""Names of the files of stored sources."""

from __future__ import annotations

from morphlib.errors import MorphError, Reason

MANIFEST_SUFFIX = ".manifest"
LOG_SUFFIX = ".build-log"
META_SUFFIX = ".meta"
SIGNATURES_SUFFIX = ".signatures"
TEMPORARY_PREFIX = "tmp"

_LONGEST = 255  # bytes, on every file system that Linux builds on


def check_name(name: str) -> str:
    """`name` itself if it can be that of a stored file. Raises MorphError (CACHE) otherwise."""
    if len(name.encode("utf-8", "surrogateescape")) > _LONGEST:
        raise MorphError(
            f"the artifact file name {name!r} is longer than the {_LONGEST} bytes that file "
            "systems take",
            reason=Reason.CACHE,
            hint="Give the chunk, stratum, system or artifact a shorter name.",
        )
    if not is_file_name(name):
        raise MorphError(f"{name!r} can't be the name of an artifact file", reason=Reason.CACHE)
    return name


def is_file_name(name: str) -> bool:
    """Can this be the name of a source's file, and of nothing else in or out of the store?"""
    if not name or name.startswith((".", TEMPORARY_PREFIX)) or name.endswith(MANIFEST_SUFFIX):
        return False
    return "/" not in name and "\0" not in name


def key_of(name: str) -> str:
    """The cache key in the name of a stored file: what precedes the first dot."""
    return name.partition(".")[0]
