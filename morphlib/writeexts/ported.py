"""What extensions look like that were written for the library of older Morphs.

They subclass `WriteExtension`, do everything in `process_args(args)`, find the functions of this
package as methods, and raise `ExtensionError`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from morphlib.errors import MorphError, Reason
from morphlib.writeexts import extension
from morphlib.writeexts.helpfile import help_file, help_text

_PARENT = __name__.rpartition(".")[0]


class ExtensionError(MorphError):
    """An expected failure: Morph shows the message and ends the deployment."""

    def __init__(self, msg: str) -> None:
        super().__init__(msg, reason=Reason.DEPLOY)
        self.msg = msg


class Extension(extension.Extension):
    """An extension of any kind that has all functions of `morphlib.writeexts` as methods."""

    def run(self, args: Sequence[str] | None = None) -> None:
        """Do what the command line says; `--help` and `--help-file` print what is declared."""
        match list(sys.argv[1:] if args is None else args):
            case ["--help"]:
                print(help_text(self), end="")
            case ["--help-file"]:
                print(help_file(self), end="")
            case given:
                super().run(given)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        found = None if name.startswith("_") else getattr(importlib.import_module(_PARENT), name)
        if not callable(found):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        function: Callable[..., Any] = found
        return function


class WriteExtension(extension.WriteExtension, Extension):
    """Puts a tree somewhere. Subclasses define `process_args(args)`, or, better, `write`."""


class ConfigureExtension(extension.ConfigureExtension, Extension):
    """Changes a tree. Subclasses define `process_args(args)`, or, better, `configure`."""
