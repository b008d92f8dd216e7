"""A cloud on the loopback interface that speaks OpenStack's protocols and is strict about them.

Keystone's version 3, with passwords, domains, projects and tokens; Glance's version 2, with images
that go through the same states as real ones. `faults` makes it fail.
"""

from __future__ import annotations

import hashlib
import json
import ssl
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PASSWORD = "pass wörd-$(x)"
DOMAIN = "Default"


@dataclass
class Image:
    name: str
    status: str = "queued"
    size: int | None = None
    sha512: str | None = None
    content: bytes = b""


@dataclass
class Cloud:
    """What a cloud has, and what it was asked. `url` is Keystone's."""

    url: str = ""
    images: dict[str, Image] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    faults: set[str] = field(default_factory=set)
    regions: tuple[str, ...] = ("north",)
    #: a directory for the content of images, under their names
    keep: Path | None = None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cloud: Cloud
    base: str

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_DELETE = do_GET

    def _answer(self) -> None:
        self.cloud.requests.append(f"{self.command} {self.path}")
        path = self.path.strip("/")
        if path == "identity/v3/auth/tokens" and self.command == "POST":
            self._authenticate(json.loads(self._body()))
        elif path == "image" and self.command == "GET":
            link = {"rel": "self", "href": f"{self.base}/image/v2/"}
            versions = [{"id": "v2.13", "status": "CURRENT", "links": [link]}]
            self._send(300, {"versions": versions})
        elif path.startswith("image/v2/images"):
            if self.headers.get("X-Auth-Token") in self.cloud.tokens:
                self._images(path.split("/")[3:])
            else:
                self._body()
                self._send(401, {"message": "who are you?"})
        else:
            self._body()
            self._send(404, {"message": "no such thing"})

    def _authenticate(self, asked: Any) -> None:
        domain = {"name": DOMAIN}
        user = {"name": "demo", "domain": domain, "password": PASSWORD}
        wanted = {
            "auth": {
                "identity": {"methods": ["password"], "password": {"user": user}},
                "scope": {"project": {"name": "demos", "domain": domain}},
            }
        }
        if asked != wanted:
            self._send(
                401,
                {"error": {"code": 401, "title": "Unauthorized", "message": "Wrong credentials."}},
            )
            return
        token = uuid.uuid4().hex
        self.cloud.tokens.add(token)
        endpoints = [
            {"interface": "public", "region": region, "region_id": region, "id": region}
            | {"url": f"{self.base}/image"}
            for region in self.cloud.regions
        ]
        catalog = [{"type": "image", "name": "glance", "id": "1", "endpoints": endpoints}]
        body = {
            "methods": ["password"],
            "expires_at": "2099-01-01T00:00:00.000000Z",
            "issued_at": "2020-01-01T00:00:00.000000Z",
            "user": {"id": "7", "name": "demo", "domain": {"id": "default", **domain}},
            "project": {"id": "8", "name": "demos", "domain": {"id": "default", **domain}},
            "roles": [{"id": "9", "name": "member"}],
            "catalog": [] if "no images" in self.cloud.faults else catalog,
        }
        self._send(201, {"token": body}, {"X-Subject-Token": token})

    def _images(self, path: list[str]) -> None:
        match self.command, path:
            case "POST", []:
                asked = json.loads(self._body())
                if "quota" in self.cloud.faults:
                    self._send(413, {"message": "too many images"})
                    return
                assert asked == {
                    "name": asked["name"],
                    "disk_format": "raw",
                    "container_format": "bare",
                }
                number = str(uuid.uuid4())
                self.cloud.images[number] = Image(asked["name"])
                self._show(201, number)
            case "PUT", [number, "file"]:
                self._store(self.cloud.images[number], number)
            case "GET", [number]:
                image = self.cloud.images[number]
                if image.status == "saving":
                    image.status = "active"
                    self._show(200, number, {"status": "saving"})
                else:
                    self._show(200, number)
            case "DELETE", [number]:
                self._body()
                del self.cloud.images[number]
                self._send(204)
            case _:
                self._body()
                self._send(405, {"message": "not so"})

    def _store(self, image: Image, number: str) -> None:
        assert self.headers["Content-Type"] == "application/octet-stream"
        length = int(self.headers["Content-Length"])
        if "hang up" in self.cloud.faults:
            self.rfile.read(1000)
            self.close_connection = True
            self.connection.shutdown(2)
            return
        content = self._body()
        assert len(content) == length
        if "redirect" in self.cloud.faults:
            self._send(307, {}, {"Location": f"{self.base}/image/v2/images/{number}/other"})
            return
        if "token" in self.cloud.faults:
            self._send(401, {"message": "who are you?"})
            return
        if "full" in self.cloud.faults:
            self._send(500, {"message": "no room"})
            return
        if "bad disk" in self.cloud.faults:
            content = b"x" + content[1:]
        if "short" in self.cloud.faults:
            content = content[:-1]
        image.content, image.size = content, len(content)
        image.sha512 = hashlib.sha512(content).hexdigest()
        image.status = "killed" if "killed" in self.cloud.faults else "saving"
        if self.cloud.keep is not None:
            (self.cloud.keep / image.name).write_bytes(content)
        self._send(204)

    def _show(self, status: int, number: str, more: dict[str, str] | None = None) -> None:
        image = self.cloud.images[number]
        shown = {
            "id": number,
            "name": image.name,
            "status": image.status,
            "size": image.size,
            "os_hash_algo": "sha512",
            "os_hash_value": image.sha512,
            **(more or {}),
        }
        self._send(status, shown)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(
        self, status: int, body: object = None, headers: dict[str, str] | None = None
    ) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def run_cloud(certificate: Path | None = None, *, keep: Path | None = None) -> Iterator[Cloud]:
    """Run a cloud. With a certificate (PEM, with its key) over https."""
    cloud = Cloud(keep=keep)

    class Handler(_Handler):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    scheme = "http"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    Handler.cloud = cloud
    Handler.base = f"{scheme}://localhost:{server.server_address[1]}"
    cloud.url = f"{Handler.base}/identity/v3"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield cloud
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself: (with its key, without)."""
    both, alone = directory / "both.pem", directory / "certificate.pem"
    key = directory / "key.pem"
    options = (
        "-x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    )
    subprocess.run(
        [
            *("openssl", "req", *options.split(), "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", key, "-out", alone),
        ],
        check=True,
        capture_output=True,
    )
    both.write_text(key.read_text() + alone.read_text())
    return both, alone
