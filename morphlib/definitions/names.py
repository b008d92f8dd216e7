"""Names and references as definitions write them, and what is refused in them."""

from __future__ import annotations

import posixpath
import re

from morphlib.definitions.reader import problem_with_path

#: Names become parts of file names ("KEY.chunk.NAME"), so what can't stand there, or could be taken
#: for an option or a hidden file, is refused. Blanks would split in scripts that list artifacts.
NAME_PATTERN = r"^[^\s/\\.\x00-\x20\x7f-][^\s/\\\x00-\x20\x7f]*$"
_NAME = re.compile(NAME_PATTERN.replace("$", r"\Z"))

#: File names hold at most 255 bytes; keys, kinds and suffixes need 100 of them.
NAME_LIMIT = 150

#: What DEFAULTS appends to names, such as "-devel": the same, but for how it may begin.
SUFFIX_PATTERN = r"^[^\s/\\\x00-\x20\x7f]*$"
_SUFFIX = re.compile(SUFFIX_PATTERN.replace("$", r"\Z"))
SUFFIX_LIMIT = 25


def sanitise(name: str) -> str:
    """The path that a name of a definition stands for.

    What contains a slash is a path and stays as it is ("systems/foo" is not "systems/foo.morph").
    Anything else gets the suffix ".morph" unless it has it.
    """
    if "/" in name or name.endswith(".morph"):
        return name
    return f"{name}.morph"


def is_safe_name(name: str) -> bool:
    """Whether a name can stand in file names as it is."""
    return _NAME.match(name) is not None and len(name.encode(errors="replace")) <= NAME_LIMIT


def is_safe_suffix(suffix: str) -> bool:
    """Whether names can have a suffix, which may be empty, and stay safe."""
    size = len(suffix.encode(errors="replace"))
    return _SUFFIX.match(suffix) is not None and size <= SUFFIX_LIMIT


def normalise(path: str) -> str:
    """One spelling for each path: without "./" and doubled slashes. Assumes `path` is sound."""
    if "//" in path or path.startswith("./") or "/./" in path or path.endswith("/"):
        return posixpath.normpath(path)
    return path


def problem_with_reference(path: str) -> str | None:
    """Why a reference can't name a definition, or None where it can."""
    return problem_with_path(path)
