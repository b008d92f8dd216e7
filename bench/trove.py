"""A trove that knows every ref of every repository, for resolving graphs without any repository.

It answers the cache server's questions for refs with made-up trees, and has no artifacts.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

_COMMIT = re.compile(r"[0-9a-f]{40}")


class _Wanted(msgspec.Struct):
    repo: str
    ref: str


def resolve(repo: str, ref: str) -> dict[str, str]:
    """A commit and a tree that depend on nothing but the arguments; a commit stands for itself."""
    commit = ref if _COMMIT.fullmatch(ref) else _made_up("commit", repo, ref)
    return {"repo": repo, "ref": ref, "sha1": commit, "tree": _made_up("tree", commit)}


def _made_up(*parts: str) -> str:
    return hashlib.sha1("\0".join(parts).encode(), usedforsecurity=False).hexdigest()


@contextmanager
def serve() -> Iterator[str]:
    """Serve on a free port of the loopback interface while the context lasts; gives the URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        if (
            url.path == "/1.0/sha1s"
            and len(query.get("repo", ())) == len(query.get("ref", ())) == 1
        ):
            self._answer(200, resolve(query["repo"][0], query["ref"][0]))
        else:
            self._answer(404, {})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        try:
            body = self.rfile.read(int(self.headers.get("Content-Length", "")))
            if self.path == "/1.0/sha1s":
                wanted = msgspec.json.decode(body, type=list[_Wanted])
                self._answer(200, [resolve(item.repo, item.ref) for item in wanted])
            elif self.path == "/1.0/artifacts":
                self._answer(200, dict.fromkeys(msgspec.json.decode(body, type=list[str]), False))
            else:
                self._answer(404, {})
        except (ValueError, msgspec.DecodeError) as error:
            self.close_connection = True  # what is left of the body is not a request
            self._answer(400, {"error": str(error)})

    def _answer(self, status: int, document: object) -> None:
        body = msgspec.json.encode(document)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Tell nothing: whoever runs a benchmark wants its figures only."""
