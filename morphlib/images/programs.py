"""Programs of the machine that images are made with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from morphlib.errors import MorphError, Reason, raise_all

#: Where administrators' programs are; an ordinary user's PATH may lack these directories.
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


@dataclass(frozen=True, slots=True)
class Program:
    """A program, and the Debian package that has it."""

    name: str
    package: str

    def find(self) -> Path | None:
        path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_SBIN))
        found = shutil.which(self.name, path=path)
        return Path(found) if found else None

    def __str__(self) -> str:
        """Its path. Raises MorphError if it is not there."""
        found = self.find()
        if found is None:
            raise _missing(self.name, self.package)
        return str(found)


@dataclass(frozen=True, slots=True)
class Data:
    """A file of a Debian package that an image gets or is made from."""

    path: Path
    package: str

    def find(self) -> Path | None:
        return self.path if self.path.exists() else None

    @property
    def name(self) -> str:
        return str(self.path)


def check_there(needed: Iterable[Program | Data], *, what: str) -> None:
    """Raise MorphError with all that is missing. `what` says what it is needed for."""
    raise_all(_missing(each.name, each.package, what) for each in needed if each.find() is None)


def _missing(name: str, package: str, what: str = "") -> MorphError:
    return MorphError(
        f"{name} is not there" + (f", which is needed for {what}" if what else ""),
        reason=Reason.DEPLOY,
        hint=f"Debian's package {package} has it",
    )
