"""How extensions talk to Morph: status on standard output, a log on a descriptor of its own."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping

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


def masked(environment: Mapping[str, str], secret: frozenset[str] = frozenset()) -> dict[str, str]:
    """An environment that can be logged, with placeholders for secrets."""
    shown = hide_passwords(environment, secret)
    return {name: hide_credentials(value) for name, value in shown.items()}
