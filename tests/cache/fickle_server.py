"""A cache server that does what it is told to do wrong."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from morphlib.cache.digests import format_digest


@dataclass
class FickleServer:
    """`files` by name. `cuts`: how many bytes each of the next replies brings before it breaks off.

    `digests` are told in the place of the true ones (None: none). `status` answers everything, if
    given; `statuses` the next questions for many files. `stalls`: seconds that each reply
    waits before its body, that of files with `stalls_at` in their names. `asked` are the requests.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    digests: dict[str, str | None] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    status: int | None = None
    statuses: list[int] = field(default_factory=list)
    stalls: float = 0.0
    stalls_at: str = ""
    batched: bool = True
    claims_all: bool = False
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # method, file, Range
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def digest_header(self, name: str) -> str | None:
        digest = self.digests.get(name, hashlib.sha256(self.files[name]).hexdigest())
        return None if digest is None else format_digest(digest)


@contextmanager
def fickle_server() -> Iterator[FickleServer]:
    """One on a port of its own."""
    state = FickleServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            names = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.asked.append(("POST", "", ""))
            if state.statuses:
                self._answer(state.statuses.pop(0), b"")
                return
            if state.status is not None or not state.batched:
                self._answer(state.status or 405, b"")
                return
            found = {name: state.claims_all or name in state.files for name in names}
            self._answer(200, json.dumps(found).encode())

        def do_HEAD(self) -> None:
            name = self._name()
            state.asked.append(("HEAD", name, ""))
            self._answer(200 if name in state.files else 404, b"")

        def do_GET(self) -> None:
            name, asked = self._name(), self.headers.get("Range", "")
            state.asked.append(("GET", name, asked))
            if state.status is not None or name not in state.files:
                self._answer(state.status or 404, b"")
                return
            data, status, more = state.files[name], 200, {}
            match = re.fullmatch(r"bytes=(\d+)-", asked)
            etag = f'"{hashlib.sha256(data).hexdigest()}"'
            if match and self.headers.get("If-Range") == etag:
                start = int(match[1])
                more = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
                data, status = data[start:], 206
            digest = state.digest_header(name)
            if digest is not None:
                more["Repr-Digest"] = digest
            self._answer(status, data, {**more, "ETag": etag})

        def _name(self) -> str:
            return parse_qs(urlsplit(self.path).query).get("filename", [""])[0]

        def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            if self.command == "GET" and state.stalls and state.stalls_at in self._name():
                self.wfile.flush()
                time.sleep(state.stalls)
            if self.command == "GET" and status in (200, 206) and state.cuts:
                body = body[: state.cuts.pop(0)]
                self.close_connection = True
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
