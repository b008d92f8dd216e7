"""The bench of the cache server measures what it says, here with small numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.cache_server import _PROGRAM
from bench.refbatch import ask, make_repositories
from bench.serving import download, make_artifact, run_cache_server
from morphlib.errors import MorphError


def test_downloads_are_measured(tmp_path: Path) -> None:
    (tmp_path / "gits").mkdir()
    name = make_artifact(tmp_path / "artifacts", 3 << 20)
    assert make_artifact(tmp_path / "artifacts", 3 << 20) == name
    with run_cache_server(_PROGRAM, tmp_path, name) as server:
        figures = download(server, 4, 1 << 20)
        assert (figures.server, figures.clients, figures.size) == ("morph", 4, 4 << 20)
        assert 0 < figures.seconds < 30
        assert figures.rate == figures.size / figures.seconds
        assert 5_000_000 < figures.memory_before <= figures.memory_peak < 500_000_000
        with pytest.raises(MorphError, match="instead of 4194304"):
            download(server, 1, 4 << 20)


def test_refs_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    wanted = make_repositories(tmp_path / "gits", 3, 10)
    assert len(set(wanted)) == 10
    assert {len(ref) == 40 for _, ref in wanted} == {True, False}
    assert make_repositories(tmp_path / "gits", 3, 10) == wanted
    with run_cache_server(_PROGRAM, tmp_path, "none") as server:
        seconds = ask(server.url, wanted, 3)
        assert len(seconds) == 3 and all(0 < each < 30 for each in seconds)
        with pytest.raises(MorphError, match="10 of 11 refs"):
            ask(server.url, [*wanted, ("git://bench/none", "x")], 1)
