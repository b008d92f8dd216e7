"""Make a key to sign artifacts with, and show the public key that belongs to it.

The private key is written to FILE, which must not be there yet. Name that file with signing-key on
the machine that builds. What is printed is a line for the files that others name with trusted-keys:
NAME, or else the name of this machine, and the public key.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

from morphlib.cache.signing import generate_signing_key
from morphlib.commands.session import Session
from morphlib.errors import MorphError, Reason


def run(session: Session, arguments: Sequence[str]) -> None:
    if len(arguments) not in (1, 2):
        raise MorphError("usage: morph generate-signing-key FILE [NAME]", reason=Reason.USAGE)
    name = arguments[1] if len(arguments) == 2 else socket.gethostname()
    if name.startswith("#") or len(name.split()) != 1 or not name.isprintable():
        raise MorphError(f"{name!r} can't be the name of a key: use one word", reason=Reason.USAGE)
    key = generate_signing_key(Path(arguments[0]))
    session.output.write(f"{name} {key.public()}\n")
