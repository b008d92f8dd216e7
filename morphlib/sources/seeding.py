"""Seeding a mirror from a tarball server, which is quicker than cloning a large repository.

A server has one tar for each mirror, with the contents of a bare repository. Only what is data is
taken from it (objects, refs, HEAD); configuration, hooks, links and anything else stay behind.
"""

from __future__ import annotations

import os
import re
import tarfile
from http.client import HTTPException
from pathlib import Path
from typing import IO
from urllib.parse import quote, urlsplit
from urllib.request import urlopen

from morphlib.errors import MorphError, Reason

_TIMEOUT = 10.0  # seconds to connect, and for each wait for data
_MAX_MEMBERS = 500_000
_MAX_BYTES = 64 * 2**30
_CHUNK = 1 << 20
_WANTED = re.compile(
    r"HEAD|packed-refs|refs/.+|objects/[0-9a-f]{2}/[0-9a-f]{38}"
    r"|objects/pack/pack-[0-9a-f]+\.(pack|idx|rev|bitmap|keep)"
)
_HEAD = re.compile(rb"(ref: refs/heads/[^\x00-\x20\x7f]+|[0-9a-f]{40})\n")


def seed_mirror(server: str, name: str, into: Path) -> None:
    """Fetch `name`.tar from a tarball server and unpack it into the empty directory `into`.

    The result is a bare repository without configuration. Raises MorphError.
    """
    url = f"{check_server(server)}{quote(name)}.tar"
    try:
        with urlopen(url, timeout=_TIMEOUT) as response:
            unpack_mirror(response, into)
    except (OSError, ValueError, EOFError, tarfile.TarError, HTTPException) as error:
        raise MorphError(f"{url}: {error}", reason=Reason.SOURCE) from error


def check_server(server: str) -> str:
    """The URL of a tarball server with a slash at its end. Raises MorphError."""
    parts = urlsplit(server)
    if parts.scheme not in ("http", "https", "file") or not parts.netloc:
        raise MorphError(
            f"tarball-server: {server} is not a url",
            reason=Reason.CONFIG,
            hint="Write a URL of http, https or file, with a host.",
        )
    return server.rstrip("/") + "/"


def unpack_mirror(stream: IO[bytes], into: Path) -> None:
    """Unpack the data of a bare repository. Raises ValueError or tarfile.TarError."""
    left = _MAX_BYTES
    for name in ("objects/info", "objects/pack", "refs"):
        (into / name).mkdir(parents=True)
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for count, member in enumerate(tar):
            if count >= _MAX_MEMBERS:
                raise ValueError(f"more than {_MAX_MEMBERS} members")
            left -= member.size
            if left < 0:
                raise ValueError(f"more than {_MAX_BYTES} bytes")
            path = re.sub(r"^(\./+)+", "", member.name)
            if not member.isreg() or not _is_wanted(path):
                continue
            content = tar.extractfile(member)
            assert content is not None
            _write(content, into / path)
    head = into / "HEAD"
    if not head.is_file() or _HEAD.fullmatch(head.read_bytes()) is None:
        raise ValueError("it holds no bare git repository")


def _is_wanted(path: str) -> bool:
    parts = path.split("/")
    return _WANTED.fullmatch(path) is not None and not any(
        part in ("", ".", "..") or len(part) > 255 for part in parts
    )


def _write(content: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(target, flags, 0o644), "wb") as file:
        while block := content.read(_CHUNK):
            file.write(block)
