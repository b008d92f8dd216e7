"""The server behind nginx, with the configuration that the documentation gives."""

from __future__ import annotations

import os
import socket
import subprocess
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from morphlib.cache.remote import Access, RemoteArtifacts
from morphlib.process import wait_until
from tests.cacheserver.server import KEY, CacheServer, running, sha256

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "cache-server.md"
TOKEN = "a-token-that-is-long-enough"
NAME = f"{KEY}.chunk.a"
DATA = os.urandom(3 << 20)


def documented() -> str:
    """The file that the documentation shows."""
    text = DOCUMENTATION.read_text().partition("For nginx, in ")[2]
    block = text.partition("\n\n")[2].partition("\n\nMorph asks")[0]
    return textwrap.dedent(block)


def configure(home: Path, port: int, behind: int, *changes: tuple[str, str]) -> Path:
    served = documented()
    places = ("listen 80;", f"listen 127.0.0.1:{port};"), (":8080;", f":{behind};")
    for old, new in (*places, *changes):
        assert served.count(old) == 1
        served = served.replace(old, new)
    directories = "".join(
        f"{name}_temp_path {home}/temp-{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path = home / "nginx.conf"
    path.write_text(
        f"daemon off;\npid {home}/nginx.pid;\nerror_log {home}/nginx.log;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{directories}{served}\n}}\n"
    )
    return path


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def behind_nginx(home: Path, *changes: tuple[str, str]) -> Iterator[CacheServer]:
    """A server that takes writers with a token, as clients of nginx see it. `changes` are made to
    what the documentation shows."""
    (home / "tokens").write_text(f"builder {TOKEN}\n")
    (home / "tokens").chmod(0o600)
    with running(home, "--enable-writes", f"--token-file={home / 'tokens'}") as server:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        path = configure(home, port, server.port, *changes)
        command = ["nginx", "-p", str(home), "-e", str(home / "nginx.log"), "-c", str(path)]
        process = subprocess.Popen(command)
        try:
            assert wait_until(lambda: process.poll() is not None or listens(port), 30)
            assert process.poll() is None, (home / "nginx.log").read_text()
            yield replace(server, port=port, headers={"Authorization": f"Bearer {TOKEN}"})
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CacheServer]:
    with behind_nginx(tmp_path_factory.mktemp("nginx")) as server:
        yield server


def test_artifacts_go_in_and_out(proxied: CacheServer, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(DATA)
    remote = RemoteArtifacts(proxied.url, access=Access(token=TOKEN))
    remote.upload(KEY, {NAME: (path, sha256(DATA))})
    assert remote.find([NAME, f"{KEY}.chunk.b"]) == {NAME}
    assert remote.fetch(NAME, tmp_path / "fetched") == sha256(DATA)
    assert (tmp_path / "fetched").read_bytes() == DATA
    remote.close()


def test_parts_tags_and_heads_pass(proxied: CacheServer) -> None:
    assert proxied.put(NAME, DATA).status in (200, 201)
    whole = proxied.artifact(NAME)
    assert whole.headers["repr-digest"].startswith("sha-256=:")
    etag = whole.headers["etag"]
    part = proxied.artifact(NAME, Range="bytes=5-9", If_Range=etag)
    assert (part.status, part.body) == (206, DATA[5:10])
    assert proxied.artifact(NAME, If_None_Match=etag).status == 304
    head = proxied.ask("HEAD", "/1.0/artifacts", {"filename": NAME})
    assert head.headers["content-length"] == str(len(DATA))
    many = [f"{KEY}.chunk.{number}" for number in range(20_000)]
    assert len(proxied.post("/1.0/artifacts", many).json) == len(many)


def test_who_asks_stands_in_the_log_and_needs_the_token(proxied: CacheServer) -> None:
    def asked() -> list[str]:
        return [e["forwarded"] for e in proxied.requests() if "who-asks" in str(e)]

    proxied.artifact("who-asks")
    assert wait_until(lambda: bool(asked()), 30)
    assert asked() == ["127.0.0.1"]
    nobody = replace(proxied, headers={})
    assert nobody.put(NAME, DATA).status == 401


def test_a_limit_makes_clients_slower_and_loses_nothing(home: Path, tmp_path: Path) -> None:
    """They are told to come again (503), which is no reason to leave the server alone."""
    keys = [sha256(b"%d" % number) for number in range(15)]
    files = {key: (f"{key}.chunk.a", tmp_path / key) for key in keys}
    limits = ("rate=200r/s", "rate=20r/s"), ("burst=1000", "burst=5")
    with behind_nginx(home, *limits) as server:
        remote = RemoteArtifacts(server.url, access=Access(token=TOKEN))

        def send(key: str) -> None:
            name, path = files[key]
            path.write_text(key)
            remote.upload(key, {name: (path, sha256(key.encode()))})

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(send, keys))
        # Others that come from the same address may have used up what is allowed.
        turned_away = [server.artifact("other").status for _ in range(50)].count(503)
        assert turned_away > 0
        assert remote.find([name for name, _ in files.values()]) == {n for n, _ in files.values()}
        remote.close()


def test_without_a_token_file_nobody_writes_through_a_proxy(home: Path) -> None:
    with running(home, "--enable-writes") as server:
        forwarded = replace(server, headers={"X-Forwarded-For": "192.0.2.1"})
        assert forwarded.put(NAME, b"data").status == 403
        assert server.put(NAME, b"data").status == 201
