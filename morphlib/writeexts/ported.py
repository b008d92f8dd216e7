"""What extensions look like that were written for the library of older Morphs.

They subclass `WriteExtension`, do everything in `process_args(args)`, find the functions of this
package as methods, and raise `ExtensionError`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

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
    """An extension of any kind that has the functions of the older library as methods."""

    def run(self, args: Sequence[str] | None = None) -> None:
        """Do what the command line says; `--help` and `--help-file` print what is declared."""
        match list(sys.argv[1:] if args is None else args):
            case ["--help"]:
                print(help_text(self), end="")
            case ["--help-file"]:
                print(help_file(self), end="")
            case given:
                super().run(given)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Callable[..., Any]: ...


class _Function:
    """A function of this package as a method that wants no `self`, loaded when it is used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(importlib.import_module(_PARENT), self._name)
        return function


# In the class, so that subclasses can replace them and call what they replaced.
for _name in importlib.import_module(_PARENT).METHODS:
    setattr(Extension, _name, _Function(_name))


class WriteExtension(extension.WriteExtension, Extension):
    """Puts a tree somewhere. Subclasses define `process_args(args)`, or, better, `write`."""


class ConfigureExtension(extension.ConfigureExtension, Extension):
    """Changes a tree. Subclasses define `process_args(args)`, or, better, `configure`."""
