"""Sending what was built to a cache server."""

from __future__ import annotations

import shutil
import socket
import threading
from pathlib import Path

import pytest

from morphlib.events import SourceFinished, Status
from tests.build.e2e.trove import Ran, Trove
from tests.cache.fickle_server import fickle_server
from tests.cacheserver.server import CacheServer, running

TOKEN = "a-token-that-is-long-enough"


@pytest.fixture
def two_chunks(trove: Trove) -> Trove:
    trove.chunk("lib", install=['mkdir -p "$DESTDIR/lib"; echo lib > "$DESTDIR/lib/lib"'])
    trove.chunk("app", needs=["lib"], install=['mkdir -p "$DESTDIR/bin"; : > "$DESTDIR/bin/app"'])
    return trove


def forget(trove: Trove) -> None:
    for directory in (trove.cache, trove.temp):
        shutil.rmtree(directory)


def fetched(ran: Ran) -> set[str]:
    events = [event for event in ran.events if isinstance(event, SourceFinished)]
    return {event.name for event in events if event.outcome == "fetched"}


def push(trove: Trove, *options: str) -> Ran:
    return trove.run("push-artifacts", "systems/sys.morph", *options)


def files(server: CacheServer) -> set[str]:
    return {path.name for path in server.artifacts.iterdir() if not path.name.startswith("tmp-")}


def test_builds_send_what_they_build(two_chunks: Trove, tmp_path: Path) -> None:
    with running(tmp_path, "--enable-writes") as server:
        two_chunks.settings["share-server"] = server.url
        two_chunks.build()
        image = two_chunks.image().read_bytes()
        here = {path.name for path in two_chunks.artifacts.iterdir() if path.is_file()}
        assert files(server) == {name for name in here if not name.startswith("tmp-")}
        forget(two_chunks)
        two_chunks.settings = {"artifact-cache-server": server.url}
        assert fetched(two_chunks.build("--progress=json")) == {"sys"}
        assert two_chunks.image().read_bytes() == image


def test_a_command_sends_what_was_built_before(two_chunks: Trove, tmp_path: Path) -> None:
    with running(tmp_path, "--enable-writes") as server:
        two_chunks.build()
        ran = push(two_chunks, f"--share-server={server.url}")
        assert (ran.status, ran.err) == (0, "")
        assert f"to {server.url.rstrip('/')}; 0 were there, 0 were not built here" in ran.out
        ran = push(two_chunks, f"--artifact-cache-server={server.url}")
        assert "Sent 0 to" in ran.out
        uploads = [r for r in server.requests() if "/uploads/" in str(r)]
        assert len(uploads) == len({str(r["path"]) for r in uploads}) * 2  # asked for, then sent


def test_a_component_goes_with_what_it_needs(two_chunks: Trove, tmp_path: Path) -> None:
    with running(tmp_path, "--enable-writes") as server:
        two_chunks.build()
        ran = push(two_chunks, "lib", f"--share-server={server.url}")
        assert ran.status == 0, ran.err
        names = {name.split(".", 2)[2] for name in files(server) if ".chunk." in name}
        assert any(name.startswith("lib-") for name in names)
        assert not any(name.startswith("app-") for name in names)


def test_who_may_write_has_the_token(two_chunks: Trove, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"# writers\nbuilder {TOKEN}\n")
    tokens.chmod(0o600)
    with running(tmp_path, "--enable-writes", f"--token-file={tokens}") as server:
        two_chunks.build()
        to = f"--share-server={server.url}"
        refused = push(two_chunks, to)
        assert refused.status == 1
        assert "answers 401" in refused.err and "--enable-writes" in refused.err
        assert not files(server)
        ran = push(two_chunks, to, f"--server-token-file={tokens}")
        assert ran.status == 0, ran.err
        assert TOKEN not in ran.out + ran.err
        tokens.chmod(0o644)
        open_to_all = push(two_chunks, to, f"--server-token-file={tokens}")
        assert open_to_all.status == 1
        assert f"chmod 600 {tokens}" in open_to_all.err


@pytest.mark.parametrize("option", ["--enable-writes", "--no-enable-writes"])
def test_no_build_fails_for_a_server_that_takes_nothing(
    two_chunks: Trove, tmp_path: Path, option: str
) -> None:
    with running(tmp_path, option) as server:
        two_chunks.settings["share-server"] = server.url
        if option == "--enable-writes":
            server.stop()
        ran = two_chunks.build("--progress=json")
    warnings = [e.text for e in ran.events if isinstance(e, Status) and e.level == "warning"]
    (warning,) = [text for text in warnings if server.url.rstrip("/") in text]
    assert "nothing more is sent there" in warning


def test_a_server_that_dies_is_one_error(two_chunks: Trove) -> None:
    two_chunks.build()

    def answer_once() -> None:
        connection, _ = server.accept()
        server.close()
        with connection:
            request = b""
            while not request.endswith(b"]"):
                request += connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        thread = threading.Thread(target=answer_once)
        thread.start()
        ran = push(two_chunks, f"--share-server={url}")
        thread.join()
    assert ran.status == 1
    assert ran.err.count("can't send what was built as") == 1, ran.err
    assert "Sent 0 to" in ran.out and " could not be sent" in ran.out


def test_what_can_not_be_sent_is_an_error_of_the_command(two_chunks: Trove) -> None:
    two_chunks.write()
    assert "no cache server" in push(two_chunks).err
    with fickle_server() as server:
        ran = push(two_chunks, f"--share-server={server.url}")
        assert ran.status == 1
        assert "nothing of systems/sys.morph was built here" in ran.err
        two_chunks.build()
        ran = push(two_chunks, f"--share-server={server.url}")
        assert ran.status == 1
        assert "Traceback" not in ran.err
        assert "can't send what was built as" in ran.err
