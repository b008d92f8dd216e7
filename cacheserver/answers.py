"""Requests and answers as HTTP has them: parameters, JSON bodies, conditions, ranges of files."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import bottle
import msgspec

from cacheserver.artifacts import OpenArtifact
from cacheserver.filebody import FileBody
from cacheserver.room import HeldBody
from morphlib.cache.digests import format_digest

_RANGE = re.compile(r"bytes=\s*([0-9]{0,19})\s*-\s*([0-9]{0,19})\s*")
_MAX_PARAMETERS = 20
_MAX_DEPTH_ERRORS = (msgspec.DecodeError, UnicodeError, RecursionError)

T = TypeVar("T")


def parameters(environ: Mapping[str, Any]) -> dict[str, str]:
    """The query of a request, decoded once; of equal names the first counts.

    Raises 400 for what is not UTF-8, or far too much.
    """
    # WSGI has bytes as Latin-1.
    query = str(environ.get("QUERY_STRING", "")).encode("latin-1")
    try:
        pairs = parse_qsl(
            query.decode("utf-8"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MAX_PARAMETERS,
        )
    except ValueError as error:
        raise refuse(400) from error
    found: dict[str, str] = {}
    for name, value in pairs:
        found.setdefault(name, value)
    return found


def headers(environ: Mapping[str, Any]) -> dict[str, str]:
    """The headers of a request, names in lower case."""
    return {
        name[5:].replace("_", "-").lower(): str(value)
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }


def content_length(environ: Mapping[str, Any]) -> int:
    """Bytes of the request's body. Raises 411 if that is not told."""
    text = environ.get("CONTENT_LENGTH", "")
    if not text:
        raise refuse(411)
    return int(text)


def read_json(environ: Mapping[str, Any], kind: type[T], limit: int) -> T:
    """The body, which must be JSON of this kind. Raises 400, 411 or 413."""
    length = content_length(environ)
    if length > limit:
        raise refuse(413)
    body = environ["wsgi.input"].read(length)
    try:
        return msgspec.json.decode(body, type=kind)
    except _MAX_DEPTH_ERRORS as error:
        raise refuse(400, str(error)) from error


def json_answer(value: object, *, status: int = 200, **more: str) -> bottle.HTTPResponse:
    headers = {"Content-Type": "application/json", "Cache-Control": "no-cache", **more}
    return answer(msgspec.json.encode(value), status, headers)


def answer(
    body: bytes | FileBody | HeldBody,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> bottle.HTTPResponse:
    length = len(body) if isinstance(body, bytes) else body.length
    return bottle.HTTPResponse(
        body,
        status,
        headers={
            "X-Content-Type-Options": "nosniff",
            "Content-Length": str(length),
            **(headers or {}),
        },
    )


def refuse(status: int, why: str = "", **headers: str) -> bottle.HTTPResponse:
    """An answer to raise. Reasons are for new requests: old ones have none in their answers."""
    if not why:
        return answer(b"", status, headers)
    return json_answer({"error": why}, status=status, **headers)


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of a file: the first, and how many."""

    offset: int
    length: int


def parse_range(header: str, size: int) -> Part | None:
    """The part of a file of `size` bytes that is asked for, None for all of it.

    Several ranges at once, and what is malformed, count as no range. Raises ValueError if there is
    nothing at the place that is asked for.
    """
    match = _RANGE.fullmatch(header)
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        length = min(int(match[2]), size)
        first, last = size - length, size - 1
        if length == 0:
            raise ValueError(header)
    else:
        first = int(match[1])
        last = min(int(match[2]), size - 1) if match[2] else size - 1
        if match[2] and int(match[2]) < first:
            return None
        if first >= size:
            raise ValueError(header)
    return Part(first, last - first + 1)


def file_answer(
    found: OpenArtifact, request: Mapping[str, str], *, quoted_name: str
) -> bottle.HTTPResponse:
    """An artifact, or the part that is asked for, or 304 where the client has it already.

    `request` are the headers of the request. The file is closed with the answer.
    """
    etag = f'"{found.sha256}"'
    common = {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": f'attachment; filename="{quoted_name}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "no-cache",
        "ETag": etag,
        # A clock that was wrong once must not make dates of the future.
        "Last-Modified": formatdate(min(found.mtime, time.time()), usegmt=True),
        "Repr-Digest": format_digest(found.sha256),
    }
    if _is_known(request, etag, found.mtime):
        found.close()
        return bottle.HTTPResponse(b"", 304, headers=common)
    part = None
    try:
        if _may_be_partial(request, etag, found.mtime):
            part = parse_range(request.get("range", ""), found.size)
    except ValueError:
        found.close()
        return answer(b"", 416, {**common, "Content-Range": f"bytes */{found.size}"})
    if part is None:
        return answer(FileBody(found.descriptor, 0, found.size), 200, common)
    last = part.offset + part.length - 1
    common["Content-Range"] = f"bytes {part.offset}-{last}/{found.size}"
    return answer(FileBody(found.descriptor, part.offset, part.length), 206, common)


def _is_known(request: Mapping[str, str], etag: str, mtime: float) -> bool:
    """Does the client have the file as it is?"""
    if "if-none-match" in request:
        tags = [tag.strip().removeprefix("W/") for tag in request["if-none-match"].split(",")]
        return etag in tags or "*" in tags
    since = parse_date(request.get("if-modified-since", ""))
    return since is not None and int(mtime) <= since


def _may_be_partial(request: Mapping[str, str], etag: str, mtime: float) -> bool:
    """Is the part of the file as it is of use to the client?"""
    condition = request.get("if-range")
    return condition is None or condition == etag or parse_date(condition) == int(mtime)


def parse_date(text: str) -> int | None:
    """Seconds since the epoch, None for what is no date."""
    try:
        return int(parsedate_to_datetime(text).timestamp())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
