"""Checks the parameters of configure extensions before anything is unpacked.

Configure extensions are run when the tree is there, and have no checks of their own. Morph gives
this one the names of those that come with Morph.
"""

from __future__ import annotations

from morphlib.errors import MorphError, Reason, raise_all
from morphlib.writeexts.extension import Extension
from morphlib.writeexts.program import load_extension


class Configuration(Extension):
    def process_args(self, args: list[str]) -> None:
        if not args:
            raise MorphError("Wrong number of command line args", reason=Reason.DEPLOY)
        errors = []
        for name in args:
            try:
                load_extension(name, "configure").read()
            except MorphError as error:
                errors.append(error)
        raise_all(errors)


WRITE = Configuration()
