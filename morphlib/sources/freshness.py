"""When a mirror was last brought up to date, as its lock file tells those who waited for it."""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from morphlib.cache.locks import Lock


def note_success(held: Lock, url: str) -> None:
    """Write down, in a lock file that is held, that `url` was brought up to date just now."""
    text = f"{url_digest(url)} {time.time_ns()}\n".encode()
    try:
        os.pwrite(held.fileno(), text, 0)
    except OSError:
        pass  # a full disk: others fetch once more than needed


def read_success(held: Lock, url: str) -> int:
    """When `url` was last brought up to date (nanoseconds since the epoch), 0 if unknown."""
    words = os.pread(held.fileno(), 200, 0).split()
    known = len(words) == 2 and words[0].decode("ascii", "replace") == url_digest(url)
    return int(words[1]) if known and words[1].isdigit() else 0


def url_digest(url: str) -> str:
    """Tells URLs apart in few characters, all of them letters and digits."""
    return hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:16]
