"""Handing out artifacts."""

from __future__ import annotations

import os
import socket
from email.utils import formatdate
from pathlib import Path

import pytest

from morphlib.cache.digests import format_digest, parse_digest
from morphlib.cache.store import ArtifactStore
from tests.cacheserver.server import KEY, OTHER_KEY, CacheServer, running, sha256, wait_for_log

NAME = f"{KEY}.chunk.zlib-libs"
DATA = bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def stored(writable: CacheServer) -> None:
    """What builds on the same machine store is there, without the server's help."""
    with ArtifactStore(writable.artifacts) as store:
        if not store.check(KEY, [NAME]):
            path = store.temporary()
            path.write_bytes(DATA)
            store.publish(KEY, {NAME: path}, {f"{KEY}.meta": b"{}"})
        store.write_log(KEY, b"make: \xff\n")


def test_an_artifact_comes_with_its_length_date_and_digest(writable: CacheServer) -> None:
    answer = writable.artifact(NAME)
    assert (answer.status, answer.body) == (200, DATA)
    assert answer.headers["content-length"] == str(len(DATA))
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == f'attachment; filename="{NAME}"'
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["repr-digest"] == format_digest(sha256(DATA))
    assert answer.headers["etag"] == f'"{sha256(DATA)}"'
    modified = (writable.artifacts / NAME).stat().st_mtime
    assert answer.headers["last-modified"] == formatdate(modified, usegmt=True)


def test_head_tells_the_same_without_the_file(writable: CacheServer) -> None:
    whole, head = writable.artifact(NAME), writable.ask("HEAD", f"/1.0/artifacts?filename={NAME}")
    assert (head.status, head.body) == (200, b"")
    assert {**head.headers, "date": ""} == {**whole.headers, "date": ""}
    ranged = writable.ask("HEAD", f"/1.0/artifacts?filename={NAME}", headers={"Range": "bytes=1-2"})
    assert (ranged.status, ranged.headers["content-length"]) == (200, str(len(DATA)))


def test_head_and_get_of_what_is_not_there(writable: CacheServer) -> None:
    for name in (
        f"{OTHER_KEY}.chunk.zlib-libs",
        f"{KEY}.chunk.other",
        KEY,
        "tmp-x",
        ".x",
        "\ud7ff",
    ):
        for method in ("GET", "HEAD"):
            answer = writable.ask(method, "/1.0/artifacts", {"filename": name})
            assert (answer.status, answer.body) == (404, b""), name


def test_old_clients_quote_once(writable: CacheServer) -> None:
    name = f"{OTHER_KEY}.chunk.a%20b+c"
    assert writable.put(name, b"x").status == 201
    assert writable.artifact(name).body == b"x"


@pytest.mark.parametrize(
    ("asked", "part", "told"),
    [
        ("bytes=0-0", DATA[:1], "bytes 0-0/10240"),
        ("bytes=100-", DATA[100:], "bytes 100-10239/10240"),
        ("bytes=-10", DATA[-10:], "bytes 10230-10239/10240"),
        ("bytes=10000-99999", DATA[10000:], "bytes 10000-10239/10240"),
        ("bytes=-99999", DATA, "bytes 0-10239/10240"),
    ],
)
def test_parts(writable: CacheServer, asked: str, part: bytes, told: str) -> None:
    answer = writable.artifact(NAME, Range=asked)
    assert (answer.status, answer.body) == (206, part)
    assert answer.headers["content-range"] == told
    assert parse_digest(answer.headers["repr-digest"]) == sha256(DATA)


@pytest.mark.parametrize("asked", ["bytes=10240-", "bytes=99999-999999", "bytes=-0"])
def test_parts_that_are_not_there(writable: CacheServer, asked: str) -> None:
    answer = writable.artifact(NAME, Range=asked)
    assert (answer.status, answer.body) == (416, b"")
    assert answer.headers["content-range"] == "bytes */10240"


@pytest.mark.parametrize(
    "asked",
    ["bytes=5-1", "bytes=a-b", "lines=0-1", "bytes=-", "bytes=0-1,3-4", "bytes=" + "9" * 50],
)
def test_ranges_that_make_no_sense_count_for_nothing(writable: CacheServer, asked: str) -> None:
    assert writable.artifact(NAME, Range=asked).body == DATA


def test_a_part_of_another_version_is_of_no_use(writable: CacheServer) -> None:
    etag = writable.artifact(NAME).headers["etag"]
    assert writable.artifact(NAME, Range="bytes=0-0", If_Range=etag).status == 206
    assert writable.artifact(NAME, Range="bytes=0-0", If_Range='"other"').status == 200


def test_what_the_client_has_is_not_sent_again(writable: CacheServer) -> None:
    first = writable.artifact(NAME).headers
    for condition in (
        {"If_Modified_Since": first["last-modified"]},
        {"If_None_Match": first["etag"]},
        {"If_None_Match": f'"x", W/{first["etag"]}'},
    ):
        answer = writable.artifact(NAME, **condition)
        assert (answer.status, answer.body) == (304, b"")
    for condition in (
        {"If_Modified_Since": formatdate(0, usegmt=True)},
        {"If_Modified_Since": "yesterday"},
        {"If_None_Match": '"x"'},
        # The tag is what decides.
        {"If_None_Match": '"x"', "If_Modified_Since": first["last-modified"]},
    ):
        assert writable.artifact(NAME, **condition).status == 200


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "/etc/passwd", "../events", "a/../../events", "a/b", f"{NAME}\0", "a\0/"],
)
def test_names_that_lead_elsewhere(writable: CacheServer, name: str) -> None:
    answer = writable.artifact(name)
    assert (answer.status, answer.body) == (403, b"")


def test_no_encoding_leads_elsewhere(writable: CacheServer) -> None:
    for name in ("%2e%2e%2fevents", "..%2fevents", "%252e%252e%252fevents", "..%c0%afevents"):
        answer = writable.ask("GET", f"/1.0/artifacts?filename={name}")
        assert answer.status in (400, 403, 404), name


def test_symlinks_directories_and_pipes_are_no_artifacts(writable: CacheServer) -> None:
    link, directory, pipe = (writable.artifacts / f"{n * 64}.build-log" for n in "123")
    link.symlink_to(writable.home / "events")
    directory.mkdir()
    os.mkfifo(pipe)
    try:
        for path in (link, directory, pipe):
            assert writable.artifact(path.name).status == 404
    finally:
        link.unlink()
        directory.rmdir()
        pipe.unlink()


def test_build_logs_come_as_they_are(writable: CacheServer) -> None:
    answer = writable.artifact(f"{KEY}.build-log")
    assert answer.body == b"make: \xff\n"
    assert parse_digest(answer.headers["repr-digest"]) == sha256(b"make: \xff\n")
    with ArtifactStore(writable.artifacts) as store:
        store.write_log(KEY, b"again\n")
    answer = writable.artifact(f"{KEY}.build-log")
    assert answer.body == b"again\n"
    assert parse_digest(answer.headers["repr-digest"]) == sha256(b"again\n")


def test_one_request_for_many_names(writable: CacheServer) -> None:
    names = [NAME, f"{KEY}.build-log", f"{KEY}.meta", f"{KEY}.chunk.other", "/etc/passwd", "..", ""]
    answer = writable.post("/1.0/artifacts", names)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == dict(zip(names, [True] * 3 + [False] * 4, strict=True))
    assert writable.post("/1.0/artifacts", []).json == {}


def test_thousands_of_names_at_once(writable: CacheServer) -> None:
    names = [f"{sha256(str(i).encode())}.chunk.x{i}" for i in range(3700)]
    assert writable.post("/1.0/artifacts", [*names, NAME]).json == {
        **dict.fromkeys(names, False),
        NAME: True,
    }


@pytest.mark.parametrize("body", [b"", b"{", b"{}", b"[1]", b'["\\ud800"]', b"\xff", b"[" * 99999])
def test_lists_that_are_none(writable: CacheServer, body: bytes) -> None:
    assert writable.ask("POST", "/1.0/artifacts", body=body).status == 400


def test_an_artifact_that_was_altered_is_never_handed_out(home: Path) -> None:
    with running(home) as server:
        for change in (b"y" * 10, b"short"):
            with ArtifactStore(server.artifacts) as store:
                path = store.temporary()
                path.write_bytes(b"x" * 10)
                store.publish(KEY, {NAME: path})
            assert server.artifact(NAME).body == b"x" * 10
            (server.artifacts / NAME).write_bytes(change)
            assert server.post("/1.0/artifacts", [NAME]).json == {NAME: False}
            assert server.artifact(NAME).status == 404
        assert f"{NAME} is damaged" in server.events


def test_an_artifact_that_was_copied_is_handed_out_after_a_look_at_its_digest(home: Path) -> None:
    with running(home) as server:
        with ArtifactStore(server.artifacts) as store:
            path = store.temporary()
            path.write_bytes(b"x" * 10)
            store.publish(KEY, {NAME: path})
        os.utime(server.artifacts / NAME, (1, 1))
        assert server.artifact(NAME).body == b"x" * 10
        assert server.post("/1.0/artifacts", [NAME]).json == {NAME: True}


def test_files_put_there_by_hand(home: Path) -> None:
    name = f"{KEY}.chunk.by-hand"
    for options, status in ((), 404), (["--serve-unlisted"], 200):
        with running(home, *options) as server:
            (server.artifacts / name).write_bytes(b"by hand")
            answer = server.artifact(name)
            assert answer.status == status
            assert server.post("/1.0/artifacts", [name]).json == {name: status == 200}
            if status == 200:
                assert parse_digest(answer.headers["repr-digest"]) == sha256(b"by hand")


def test_what_is_handed_out_counts_as_used(home: Path) -> None:
    with running(home) as server, ArtifactStore(server.artifacts) as store:
        path = store.temporary()
        path.write_bytes(b"x")
        store.publish(KEY, {NAME: path})
        os.utime(server.artifacts / f"{KEY}.manifest", (1, 1))
        server.ask("HEAD", f"/1.0/artifacts?filename={NAME}")
        assert store.last_used(KEY) == 1
        server.artifact(NAME)
        used = store.last_used(KEY)
        assert used is not None and used > 1e9


def test_a_client_that_goes_away_hurts_nobody(home: Path) -> None:
    size = 64 << 20
    with running(home, "--serve-unlisted", "--threads=2") as server:
        with (server.artifacts / f"{KEY}.chunk.big").open("wb") as file:
            file.truncate(size)
        for _ in range(4):
            with socket.create_connection((server.host, server.port)) as client:
                client.sendall(
                    f"GET /1.0/artifacts?filename={KEY}.chunk.big HTTP/1.1\r\n\r\n".encode()
                )
                assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
        assert len(server.artifact(f"{KEY}.chunk.big").body) == size
        entries = wait_for_log(server, 5)
        assert [entry.get("incomplete", False) for entry in entries].count(True) == 4
        assert "Traceback" not in server.events
