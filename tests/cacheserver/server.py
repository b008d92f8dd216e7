"""The real server in a process of its own, and a plain client for it."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from morphlib.cache.digests import format_digest
from morphlib.process import wait_until

PROGRAM = Path(__file__).parents[2] / "morph-cache-server"
KEY = hashlib.sha256(b"key").hexdigest()
OTHER_KEY = hashlib.sha256(b"other").hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Answer:
    """Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class CacheServer:
    """A running server. All of its directories and logs are in `home`."""

    home: Path
    port: int
    process: subprocess.Popen[bytes]
    host: str = "127.0.0.1"
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/"

    @property
    def artifacts(self) -> Path:
        return self.home / "artifacts"

    @property
    def events(self) -> str:
        """What the server wrote to standard error."""
        return (self.home / "events").read_text()

    def requests(self) -> list[dict[str, Any]]:
        """The access log."""
        return [json.loads(line) for line in (self.home / "requests").read_text().splitlines()]

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=30)

    def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        connection = self.connect()
        try:
            target = path + ("?" + urlencode(query) if query else "")
            connection.request(method, target, body, {**self.headers, **(headers or {})})
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def get(self, path: str, *, headers: Mapping[str, str] | None = None, **query: str) -> Answer:
        return self.ask("GET", path, query, headers=headers)

    def post(self, path: str, value: object) -> Answer:
        return self.ask("POST", path, body=json.dumps(value).encode())

    def artifact(self, name: str, **headers: str) -> Answer:
        dashed = {key.replace("_", "-"): value for key, value in headers.items()}
        return self.get("/1.0/artifacts", headers=dashed, filename=name)

    def put(self, name: str, data: bytes, digest: str | None = None) -> Answer:
        """Upload an artifact, truthfully unless another digest is given."""
        headers = {"Repr-Digest": format_digest(digest or sha256(data))}
        return self.ask("PUT", "/1.0/artifacts", {"filename": name}, data, headers)

    def stop(self) -> int:
        """Its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextmanager
def running(
    home: Path,
    *options: str,
    env: Mapping[str, str] | None = None,
    wrap: Sequence[str] = (),
) -> Iterator[CacheServer]:
    """A server with directories in `home`, at a port of its own. `wrap` precedes its command."""
    for name in ("artifacts", "gits", "bundles"):
        (home / name).mkdir(exist_ok=True)
    port_file = home / "port"
    port_file.unlink(missing_ok=True)
    with (home / "events").open("ab") as events, (home / "requests").open("ab") as requests:
        process = subprocess.Popen(
            [*wrap, *command(home, f"--port-file={port_file}", "--threads=8", *options)],
            stdin=subprocess.DEVNULL,
            stdout=requests,
            stderr=events,
            env={"PATH": os.environ["PATH"], "HOME": str(home), **(env or {})},
        )
    try:
        assert wait_until(lambda: bool(process.poll() is not None or _read_port(port_file)), 30), (
            "the server does not say its port"
        )
        assert process.poll() is None, (home / "events").read_text()
        yield CacheServer(home, _read_port(port_file), process)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(30)


def command(home: Path, *options: str) -> list[str]:
    return [
        str(PROGRAM),
        "--no-default-configs",
        f"--artifact-dir={home / 'artifacts'}",
        f"--repo-dir={home / 'gits'}",
        f"--bundle-dir={home / 'bundles'}",
        *options,
    ]


def _read_port(path: Path) -> int:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return 0
    return int(text) if text.endswith("\n") else 0


def wait_for_log(server: CacheServer, count: int) -> list[dict[str, Any]]:
    """The access log, once it has that many lines: a request is logged after its answer."""
    deadline = time.monotonic() + 10
    while len(server.requests()) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    return server.requests()
