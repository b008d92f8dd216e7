"""Extensions: programs that check, configure and write systems.

They are files NAME.KIND of the definitions, or come with Morph.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from morphlib.deploy.help import BUILT_IN
from morphlib.deploy.plan import is_extension_name
from morphlib.errors import MorphError, Reason

#: Interpreters of built-in extensions that are Morph's own.
_OWN_INTERPRETERS = ("python3", "python")
_ELF = b"\x7fELF"


class ExtensionKind(StrEnum):
    CHECK = "check"
    CONFIGURE = "configure"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class Extension:
    """An extension that was found. Those of the definitions are run from a copy."""

    name: str
    kind: ExtensionKind
    path: Path
    built_in: bool

    @property
    def full_name(self) -> str:
        """NAME.KIND; of NAME with its directory, if it has one."""
        return f"{self.name}.{self.kind}"


#: Checks the parameters of built-in configure extensions, whose names are its arguments.
CONFIGURATION_CHECK = Extension(
    "configuration", ExtensionKind.CHECK, BUILT_IN / "configuration.check", built_in=True
)


def find_extension(root: Path, name: str, kind: ExtensionKind) -> Extension | None:
    """The extension NAME.KIND of the definitions at `root`, else the one that comes with Morph.

    Only bare names are built in, and nothing outside of both can be named. Raises MorphError for a
    built-in one that can't be run.
    """
    if not is_extension_name(name):
        return None
    path = root / f"{name}.{kind}"
    if path.is_file() and os.access(path, os.R_OK):
        return Extension(name, kind, path, built_in=False)
    path = BUILT_IN / f"{name}.{kind}"
    if "/" in name or not path.is_file():
        return None
    if not os.access(path, os.X_OK):
        raise MorphError(f"Extension not executable: {path}", reason=Reason.DEPLOY)
    return Extension(name, kind, path, built_in=True)


def require_extension(root: Path, name: str, kind: ExtensionKind) -> Extension:
    """See `find_extension`. Raises MorphError if there is none."""
    found = find_extension(root, name, kind)
    if found is None:
        raise MorphError(
            f"Could not find extension {name}.{kind}",
            reason=Reason.NOT_FOUND,
            hint="morph help-extensions lists those that there are.",
        )
    return found


def check_interpreter(extension: Extension, environment: Mapping[str, str]) -> None:
    """Raise MorphError if what the first line of an extension says can't run it here."""
    words = _interpreter(extension)
    if words is None:
        return
    program = words[0]
    if not os.access(program, os.X_OK):
        raise _lacking(extension, program)
    if Path(program).name != "env":
        return
    wanted = next((w for w in words[1:] if not w.startswith("-") and "=" not in w), None)
    if wanted is not None and shutil.which(wanted, path=environment.get("PATH")) is None:
        raise _lacking(extension, wanted)


def _interpreter(extension: Extension) -> list[str] | None:
    """The words behind `#!`; None for a program of the machine's own format.

    Raises MorphError for a file that is neither.
    """
    try:
        with extension.path.open("rb") as file:
            first = file.readline(4096)
    except OSError as error:
        message = f"{extension.path} can't be read: {error.strerror}"
        raise MorphError(message, reason=Reason.DEPLOY) from error
    if first.startswith(_ELF):
        return None
    text = os.fsdecode(first).rstrip("\n")
    # As the kernel does: a carriage return is part of the name.
    words = re.split(r"[ \t]+", text[2:].strip(" \t")) if text.startswith("#!") else [""]
    if not words[0]:
        raise MorphError(
            f"Extension {extension.full_name} does not say what runs it: its first line must begin "
            "with #!",
            reason=Reason.DEPLOY,
            hint=f"The file is {extension.path}.",
        )
    return words


def _lacking(extension: Extension, program: str) -> MorphError:
    return MorphError(
        f"Extension {extension.full_name} needs the interpreter {program}, which this machine does "
        "not have",
        reason=Reason.DEPLOY,
        hint=f"Install it, or change the first line of {extension.path}.",
    )


def command_of(extension: Extension, program: Path, arguments: Sequence[str]) -> list[str]:
    """What runs an extension that is at `program`.

    Built-in ones in Python run with the Python that runs us, whatever PYTHONPATH says: so they have
    our libraries, and none of the definitions' modules takes the place of a library.
    """
    if extension.built_in:
        words = _interpreter(extension) or []
        if words and Path(words[-1]).name in _OWN_INTERPRETERS:
            return [sys.executable, "-E", "-X", "utf8", str(program), *arguments]
    return [str(program), *arguments]
