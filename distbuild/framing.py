"""Messages as lines: one JSON object each, ended by a newline. No line makes a traceback."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from distbuild.messages import Message
from morphlib.text import make_valid

#: Longest line, in bytes, without its newline. Output travels in pieces far below that.
MAX_LINE = 1 << 20
#: So much output goes into one message: with base64 it stays far below the longest line.
MAX_OUTPUT = 1 << 14

_T = TypeVar("_T", bound=Message)


class BadLine(ValueError):
    """A line that is none of the messages expected. The text says why, in one line."""


class LineDecoder(Generic[_T]):
    """Reads the messages of one union.

    >>> from distbuild.messages import Ping
    >>> LineDecoder[Ping](Ping).decode(b'{"type":"ping"}')
    Ping()
    """

    def __init__(self, union: Any) -> None:
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(union)

    def decode(self, line: bytes) -> _T:
        """The message in a line. Raises BadLine."""
        if len(line) > MAX_LINE:
            raise BadLine(f"a line of {len(line)} bytes, where {MAX_LINE} are allowed")
        try:
            message: _T = self._decoder.decode(line)
        except (ValueError, RecursionError) as error:
            # Among the first are msgspec's errors, and those of bytes that are no UTF-8.
            raise BadLine(str(error).splitlines()[0] if str(error) else repr(error)) from None
        return message


def encode(message: Message) -> bytes:
    """The line of a message, with its newline. What is no UTF-8 in its texts becomes escapes."""
    try:
        line = msgspec.json.encode(message)
    except UnicodeEncodeError:
        line = msgspec.json.encode(make_valid(msgspec.to_builtins(message)))
    assert len(line) <= MAX_LINE, f"a {type(message).__name__} of {len(line)} bytes"
    return line + b"\n"
