"""How extensions talk to Morph: status on standard output, a log on a descriptor of its own."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Collection, Mapping

from morphlib.credentials import hide_credentials, hide_passwords


def status(msg: str, **fields: object) -> None:
    """Tell the user a line. `msg` may have `%(name)s` for each of the fields."""
    text = msg % fields if fields else msg
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace") + b"\n")
    sys.stdout.buffer.flush()


def complain(message: str) -> None:
    """Tell on standard error, where Morph looks for what went wrong."""
    sys.stderr.buffer.write(message.encode("utf-8", "backslashreplace") + b"\n")
    sys.stderr.buffer.flush()


def set_up_logging(environment: Mapping[str, str] = os.environ) -> None:
    """Let the records of `logging` go to the descriptor MORPH_LOG_FD, or nowhere."""
    handler: logging.Handler = logging.NullHandler()
    number = environment.get("MORPH_LOG_FD", "")
    if number.isdigit():
        try:
            handler = logging.StreamHandler(os.fdopen(int(number), "w", buffering=1))
        except OSError:
            pass  # run by hand, with a variable left over from somewhere
    handler.setFormatter(logging.Formatter("%(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)


#: What Morph sets for all extensions, beside names that begin with MORPH_.
_ALWAYS = frozenset(("PYTHONPATH", "SOURCE_DATE_EPOCH", "TMPDIR", "UPGRADE"))


def own(environment: Mapping[str, str], declared: Collection[str] = ()) -> dict[str, str]:
    """What of an environment belongs to the deployment: its parameters and what Morph tells.

    The names of its parameters are in MORPH_PARAMETERS, a list in JSON; `declared` are more of
    them. The rest is the caller's, and nobody's business.
    """
    try:
        told = json.loads(environment.get("MORPH_PARAMETERS") or "[]")
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, list):
        told = []  # run by hand, with a variable of somebody else
    names = {*_ALWAYS, *declared, *(name for name in told if isinstance(name, str))}
    return {
        name: value
        for name, value in environment.items()
        if name in names or name.startswith("MORPH_")
    }


def masked(environment: Mapping[str, str], secret: frozenset[str] = frozenset()) -> dict[str, str]:
    """An environment that can be logged, with placeholders for secrets."""
    shown = hide_passwords(environment, secret)
    return {name: hide_credentials(value) for name, value in shown.items()}
