"""What a deployment extension in Python is: parameters, a check, and what it does.

A subclass declares what it takes; command line, checks, help text and error messages come from
here. Morph runs `NAME.check LOCATION` before anything is unpacked, `NAME.configure TREE` to change
the unpacked tree, and `NAME.write TREE LOCATION` to put it somewhere; parameters are in the
environment.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import Any, ClassVar

from morphlib.errors import MorphError, Reason
from morphlib.writeexts.devices import Device, read_devices
from morphlib.writeexts.output import complain, masked, own, set_up_logging, status
from morphlib.writeexts.parameters import (
    Parameter,
    Parameters,
    parse_boolean,
    read_parameters,
)
from morphlib.writeexts.signals import ended_by_signals
from morphlib.writeexts.tree import Tree


class Upgrades(Enum):
    """Which deployments a write extension is for."""

    NEVER = auto()
    ALWAYS = auto()
    BOTH = auto()


class Extension:
    """What all extensions have in common. `description` is what the help says first."""

    description: ClassVar[str] = ""
    parameters: ClassVar[tuple[Parameter[Any], ...]] = ()

    environment: Mapping[str, str] = os.environ

    def status(self, msg: str, **fields: object) -> None:
        """Tell the user a line. `msg` may have `%(name)s` for each of the fields."""
        status(msg, **fields)

    def run(self, args: Sequence[str] | None = None) -> None:
        """Do what the command line says. Prints errors and ends the process with status 1.

        A signal that asks the process to end does so when everything is cleaned up.
        """
        with ended_by_signals():
            self._run(list(sys.argv[1:] if args is None else args))

    def _run(self, args: list[str]) -> None:
        set_up_logging(self.environment)
        declared = frozenset(each.name for each in self.parameters)
        secret = frozenset(each.name for each in self.parameters if each.secret)
        logging.debug("Environment: %s", masked(own(self.environment, declared), secret))
        try:
            self.process_args(args)
        except MorphError as error:
            complain(f"ERROR: {error}")
            sys.exit(1)
        except OSError as error:
            complain(f"ERROR: {error.strerror or error}{_named(error)}")
            logging.debug("failed", exc_info=True)
            sys.exit(1)

    def process_args(self, args: list[str]) -> None:
        """What the arguments ask for. Extensions for older Morphs replace this one."""
        raise NotImplementedError

    def read(self) -> Parameters:
        """The parameters. Raises MorphError for all that is missing or wrong."""
        return read_parameters(self.parameters, self.environment)

    @property
    def is_upgrade(self) -> bool:
        value = self.environment.get("UPGRADE", "no") or "no"
        try:
            return parse_boolean("UPGRADE", value)
        except ValueError as error:
            raise MorphError(str(error), reason=Reason.DEPLOY) from error

    @property
    def devices(self) -> dict[str, Device]:
        """The device nodes that empty files of the tree stand for: see `devices`."""
        return read_devices(self.environment)


class ConfigureExtension(Extension):
    """Changes an unpacked tree: subclasses define `configure`."""

    def configure(self, tree: Tree, given: Parameters) -> None:
        raise NotImplementedError

    def process_args(self, args: list[str]) -> None:
        if len(args) != 1:
            raise _wrong_arguments()
        self.configure(Tree.at(args[0]), self.read())


class WriteExtension(Extension):
    """Puts a tree somewhere: subclasses define `write`, and `check` if there is more to check than
    parameters. `location_help` says what the location is."""

    location_help: ClassVar[str] = ""
    upgrades: ClassVar[Upgrades] = Upgrades.NEVER
    #: said when somebody upgrades what can't be upgraded, or the other way round
    wrong_mode: ClassVar[str] = ""
    #: whether it makes use of the layers that the system was put together from
    uses_layers: ClassVar[bool] = False

    def check(self, location: str, given: Parameters) -> None:
        """Refuse early what can't work: raise MorphError. Must change nothing."""

    def write(self, tree: Tree, location: str, given: Parameters) -> None:
        raise NotImplementedError

    def process_args(self, args: list[str]) -> None:
        if len(args) not in (1, 2):
            raise _wrong_arguments()
        location = args[-1]
        self.check_mode()
        given = self.read()
        if len(args) == 1:
            self.check(location, given)
        else:
            self.write(Tree.at(args[0]), location, given)

    def check_mode(self) -> None:
        """Refuse to upgrade what can't be upgraded, and the other way round."""
        allowed = {
            Upgrades.NEVER: not self.is_upgrade,
            Upgrades.ALWAYS: self.is_upgrade,
            Upgrades.BOTH: True,
        }
        if not allowed[self.upgrades]:
            raise MorphError(self.wrong_mode, reason=Reason.DEPLOY)


def _wrong_arguments() -> MorphError:
    return MorphError("Wrong number of command line args", reason=Reason.DEPLOY)


def _named(error: OSError) -> str:
    return f": {error.filename}" if error.filename is not None else ""
