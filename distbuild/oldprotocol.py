"""The protocol up to version 4, understood well enough to refuse in its own words.

A line was a JSON string that held a YAML mapping. The only message that every old initiator obeys
is `build-failed`, so that is what any of its requests gets.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import yaml

from distbuild.framing import BadLine
from distbuild.messages import PROTOCOL_VERSION

#: Requests are far shorter than this.
_MAX_OLD_LINE = 1 << 16
_REQUESTS = frozenset({"build-request", "list-requests", "build-cancel", "build-status"})


def is_old(line: bytes) -> bool:
    """Whether a line looks like one of the old protocol: new ones are JSON objects."""
    return line.lstrip().startswith(b'"')


def read_old(line: bytes) -> Mapping[str, str]:
    """The texts in the mapping of an old line. Values that are no scalars are left out.

    Raises BadLine. Nothing is constructed from the YAML and nothing recurses: it is only scanned.
    """
    if len(line) > _MAX_OLD_LINE:
        raise BadLine(f"a line of {len(line)} bytes, where {_MAX_OLD_LINE} are allowed")
    try:
        text = msgspec.json.decode(line, type=str)
        return _scalars_of(text)
    except (ValueError, yaml.YAMLError) as error:
        raise BadLine(" ".join(str(error).split()) or repr(error)) from None


def _scalars_of(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    depth = 0
    name: str | None = None
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif not isinstance(event, yaml.NodeEvent):
            continue  # where the stream and its documents begin and end
        elif depth == 0 and not isinstance(event, yaml.MappingStartEvent):
            raise BadLine("no mapping")
        elif depth == 1 and name is None:
            if not isinstance(event, yaml.ScalarEvent):
                raise BadLine("a key that is no text")
            name = event.value
        elif depth == 1 and name is not None:
            if isinstance(event, yaml.ScalarEvent):
                found[name] = event.value
            name = None
        depth += isinstance(event, yaml.CollectionStartEvent)
    return found


def answer_old(message: Mapping[str, str]) -> bytes:
    """The line that tells an old initiator why it gets nothing."""
    reason = "Bad request"
    version = message.get("protocol_version", "")
    if version and version != str(PROTOCOL_VERSION):
        reason += (
            "\nProtocol version mismatch between server and initiator: distbuild network uses"
            f" distbuild protocol version {PROTOCOL_VERSION}, but client uses version"
            f" {version[:20]}."
        )
        if message.get("type") in _REQUESTS and version.isdecimal():
            older = "client" if int(version[:20]) < PROTOCOL_VERSION else "distbuild network"
            reason += f" Update the {older}."
    return encode_old(
        {"type": "build-failed", "id": message.get("id", "000")[:100], "reason": reason}
    )


def encode_old(message: Mapping[str, object]) -> bytes:
    text = yaml.safe_dump(dict(message), allow_unicode=False, default_flow_style=False)
    return msgspec.json.encode(text) + b"\n"
