"""Asking a cache server what refs mean, instead of cloning every repository."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from morphlib.errors import MorphError, Reason
from morphlib.events import Listener, Status, silence
from morphlib.sources.model import Resolved
from morphlib.sources.names import is_sha1

if TYPE_CHECKING:
    from urllib.request import Request

# The modules that make requests take longer to import than most runs to find out that no request is
# needed: they are imported where one is.

_MAX_REPLY = 64 * 1024 * 1024
_OLD_SERVER = (400, 404, 405, 500, 501)  # what servers without the batched request may answer
_MAX_FAILURES = 3  # of single requests, before the server is left alone


class RemoteResolver:
    """A cache server's `/1.0/sha1s`. A server that can't be reached is asked once in a run."""

    def __init__(
        self, server_url: str, *, timeout: float = 10.0, listener: Listener = silence
    ) -> None:
        """`timeout`, in seconds, is for connecting and for each wait for data.

        Raises MorphError unless the URL is one of http or https. A path in it is kept.
        """
        parts = urlsplit(server_url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise MorphError(
                f"{server_url} is not a url of a cache server",
                reason=Reason.CONFIG,
                hint="Write http://HOST:PORT/ (or https).",
            )
        self._url = server_url.rstrip("/") + "/1.0/sha1s"
        self._timeout = timeout
        self._listener = listener
        self._is_dead = False

    def resolve(self, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Resolved]:
        """What the server knows of (URL to fetch from, ref). Failures are told, never raised."""
        unique = list(dict.fromkeys(wanted))
        if not unique or self._is_dead:
            return {}
        from http.client import HTTPException
        from urllib.error import HTTPError

        self._tell(f"Resolving {len(unique)} refs through {self._url}")
        try:
            return self._resolve_at_once(unique)
        except HTTPError as error:
            if error.code not in _OLD_SERVER:
                self._give_up(error)
                return {}
        except (OSError, ValueError, HTTPException) as error:
            self._give_up(error)
            return {}
        return self._resolve_singly(unique)

    def _resolve_at_once(
        self, wanted: Sequence[tuple[str, str]]
    ) -> dict[tuple[str, str], Resolved]:
        from urllib.request import Request

        body = json.dumps([{"repo": url, "ref": ref} for url, ref in wanted]).encode()
        headers = {"Content-Type": "application/json"}
        replies = self._fetch(Request(self._url, data=body, headers=headers, method="POST"))
        if not isinstance(replies, list):
            raise ValueError("the reply is no list")
        asked = set(wanted)
        found = {}
        for reply in replies:
            if isinstance(reply, dict):
                pair = (str(reply.get("repo")), str(reply.get("ref")))
                resolved = _read_reply(reply, pair[1])
                if pair in asked and resolved is not None:
                    found[pair] = resolved
        return found

    def _resolve_singly(self, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Resolved]:
        """One request for each, as servers want it that know no other."""
        from http.client import HTTPException
        from urllib.error import HTTPError, URLError
        from urllib.request import Request

        found = {}
        failures = 0
        for url, ref in wanted:
            query = f"{self._url}?repo={quote(url)}&ref={quote(ref)}"
            try:
                resolved = _read_reply(self._fetch(Request(query)), ref)
            except HTTPError:
                continue  # not known there
            except (OSError, ValueError, HTTPException) as error:
                self._tell(f"Failed to resolve ref {ref} of {url}: {error}")
                failures += 1
                if failures >= _MAX_FAILURES or isinstance(error, URLError):
                    self._give_up(error)
                    break
                continue
            if resolved is not None:
                found[url, ref] = resolved
        return found

    def _fetch(self, request: Request) -> object:
        from urllib.request import urlopen

        with urlopen(request, timeout=self._timeout) as response:
            data = response.read(_MAX_REPLY + 1)
        if len(data) > _MAX_REPLY:
            raise ValueError("the reply is too long")
        try:
            return json.loads(data)
        except RecursionError:
            raise ValueError("the reply is nested too deeply") from None

    def _give_up(self, error: Exception) -> None:
        self._is_dead = True
        self._tell(f"Failed to resolve refs through {self._url}: {error}")

    def _tell(self, text: str) -> None:
        self._listener(Status(text=text, level="chatty"))


def _read_reply(reply: object, ref: str) -> Resolved | None:
    """The commit and tree that a reply tells, None unless it makes sense for `ref`."""
    if not isinstance(reply, dict):
        return None
    commit, tree = reply.get("sha1"), reply.get("tree")
    if not isinstance(commit, str) or not isinstance(tree, str):
        return None
    if not is_sha1(commit) or not is_sha1(tree) or (is_sha1(ref) and commit != ref):
        return None
    return Resolved(commit, tree)
