"""The bench's own trove speaks the cache server's protocol."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from bench.trove import serve

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def ask(url: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=10) as answer:
        return json.load(answer)


def test_one_request_resolves_many_refs_as_single_requests_do() -> None:
    pairs = [("git://host/a", COMMIT), ("git://host/b", "refs/heads/master")]
    with serve() as url:
        many = ask(f"{url}1.0/sha1s", [{"repo": repo, "ref": ref} for repo, ref in pairs])
        single = [ask(f"{url}1.0/sha1s?repo={repo}&ref={ref}") for repo, ref in pairs]

    assert many == single
    assert [(answer["repo"], answer["ref"]) for answer in many] == pairs
    assert many[0]["sha1"] == COMMIT
    for answer in many:
        assert len(answer["sha1"]) == len(answer["tree"]) == 40


def test_it_has_no_artifacts() -> None:
    with serve() as url:
        assert ask(f"{url}1.0/artifacts", ["a", "b"]) == {"a": False, "b": False}
        with pytest.raises(urllib.error.HTTPError, match="404"):
            ask(f"{url}1.0/artifacts?filename=a")


def test_a_bad_request_is_refused() -> None:
    with serve() as url:
        with pytest.raises(urllib.error.HTTPError, match="400"):
            ask(f"{url}1.0/sha1s", {"repo": 1})
        assert ask(f"{url}1.0/sha1s", []) == []
