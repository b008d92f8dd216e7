from __future__ import annotations

import hashlib
import json
import socket
import time

import pytest

from morphlib.errors import MorphError
from morphlib.sources.model import Resolved
from morphlib.sources.remote import RemoteResolver
from tests.sources.conftest import Told
from tests.sources.servers import answer_refs, serve


def sha(text: object) -> str:
    return hashlib.sha1(str(text).encode()).hexdigest()


KNOWN = {
    ("git://h/a", "master"): (sha(1), sha("t1")),
    ("git://h/b", sha(2)): (sha(2), sha("t2")),
    ("git://h/c d&e", "re/f=x"): (sha(3), sha("t3")),
}
WANTED = [*KNOWN, ("git://h/unknown", "master")]
EXPECTED = {pair: Resolved(*found) for pair, found in KNOWN.items()}


def test_one_request_for_all() -> None:
    with serve(answer_refs(KNOWN)) as server:
        assert RemoteResolver(server.url).resolve(WANTED * 2) == EXPECTED
        assert [method for method, _, _ in server.requests] == ["POST"]


def test_path_of_the_server_is_kept() -> None:
    with serve(answer_refs(KNOWN, prefix="/below/here")) as server:
        for slash in ("", "/"):
            resolver = RemoteResolver(f"{server.url}below/here{slash}")
            assert resolver.resolve(WANTED) == EXPECTED


def test_old_servers_are_asked_one_by_one() -> None:
    with serve(answer_refs(KNOWN, batched=False)) as server:
        assert RemoteResolver(server.url).resolve(WANTED) == EXPECTED
        methods = [method for method, _, _ in server.requests]
        assert methods == ["POST"] + ["GET"] * len(WANTED)


def test_nothing_listens(told: Told) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/"
    resolver = RemoteResolver(url, listener=told)
    start = time.perf_counter()
    for _ in range(100):
        assert resolver.resolve(WANTED) == {}
    assert time.perf_counter() - start < 2
    assert len([text for text in told.texts("chatty") if "Failed" in text]) == 1


def test_server_that_says_nothing_is_given_up_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        resolver = RemoteResolver(f"http://127.0.0.1:{server.getsockname()[1]}", timeout=0.3)
        start = time.perf_counter()
        for _ in range(10):
            assert resolver.resolve(WANTED) == {}
        assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"not json",
        b"{}",
        b"null",
        b"[null, 1, [], {}]",
        b"\xff\xfe",
        b"[" * 50_000,
        json.dumps(
            [{"repo": "git://h/a", "ref": "master", "sha1": "--x", "tree": sha(1)}]
        ).encode(),
        json.dumps([{"repo": "git://h/a", "ref": "master", "sha1": sha(1)}]).encode(),
        json.dumps([{"repo": ["a"], "ref": {}, "sha1": sha(1), "tree": sha(1)}]).encode(),
        json.dumps([{"repo": "git://h/b", "ref": sha(2), "sha1": sha(9), "tree": sha(1)}]).encode(),
        json.dumps(
            [{"repo": "git://not", "ref": "asked", "sha1": sha(9), "tree": sha(1)}]
        ).encode(),
    ],
)
def test_replies_that_make_no_sense_count_for_nothing(reply: bytes) -> None:
    with serve(lambda method, path, body: (200, reply)) as server:
        assert RemoteResolver(server.url).resolve(WANTED) == {}


def test_errors_of_the_server_count_for_nothing() -> None:
    for status in (403, 500, 503):
        with serve(lambda method, path, body, status=status: (status, b"")) as server:  # type: ignore[misc]  # default argument
            assert RemoteResolver(server.url).resolve(WANTED) == {}


@pytest.mark.parametrize("url", ["file:///etc/passwd", "nonsense", "http://", "ftp://h/"])
def test_bad_server_urls(url: str) -> None:
    with pytest.raises(MorphError, match="is not a url"):
        RemoteResolver(url)
