"""Servers on this machine for tests: a cache server, a file server."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import parse_qsl, urlsplit

#: (method, path with query, body) -> (status, body)
Answer = Callable[[str, str, bytes], tuple[int, bytes]]


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.requests: list[tuple[str, str, bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.server.requests.append((self.command, self.path, body))
        status, reply = self.server.answer(self.command, self.path, body)
        self.send_response(status)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serve(answer: Answer) -> Iterator[Server]:
    with Server(answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def answer_refs(
    known: dict[tuple[str, str], tuple[str, str]], *, batched: bool = True, prefix: str = ""
) -> Answer:
    """A cache server that knows (URL, ref) -> (commit, tree)."""

    def find(repo: str, ref: str) -> dict[str, str] | None:
        found = known.get((repo, ref))
        return {"repo": repo, "ref": ref, "sha1": found[0], "tree": found[1]} if found else None

    def answer(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        parts = urlsplit(path)
        if parts.path != f"{prefix}/1.0/sha1s":
            return 404, b"not here"
        if method == "POST":
            if not batched:
                return 405, b"Method not allowed"
            replies = [find(item["repo"], item["ref"]) for item in json.loads(body)]
            missing = {"error": "unknown"}
            return 200, json.dumps([reply or missing for reply in replies]).encode()
        query = dict(parse_qsl(parts.query))
        reply = find(query["repo"], query["ref"])
        return (200, json.dumps(reply).encode()) if reply else (404, b"{}")

    return answer
