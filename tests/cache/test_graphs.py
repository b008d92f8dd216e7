"""Kept graphs: an entry is whole and its own, or not there."""

from __future__ import annotations

import os
from pathlib import Path

from morphlib.cache.graphs import GraphCache, graph_name


def test_what_is_put_comes_back(tmp_path: Path) -> None:
    cache = GraphCache(tmp_path / "graphs")
    name = graph_name(["some", "inputs"])
    assert cache.get(name) is None
    cache.put(name, b"text\nwith lines\n")
    assert cache.get(name) == b"text\nwith lines\n"


def test_names_tell_all_inputs_apart() -> None:
    names = {graph_name(inputs) for inputs in (["ab", "c"], ["a", "bc"], ["abc"], ["ab", "c", ""])}
    assert len(names) == 4


def test_damaged_entries_are_absent(tmp_path: Path) -> None:
    cache = GraphCache(tmp_path)
    cache.put("name", b"some text")
    path = tmp_path / "name"
    for damaged in (path.read_bytes()[:-1], b"", b"no digest\n", path.read_bytes()[:64]):
        path.write_bytes(damaged)
        assert cache.get("name") is None


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = GraphCache(tmp_path)
    for number in range(64):
        cache.put(f"n{number}", b"x")
        os.utime(tmp_path / f"n{number}", (number, number))
    assert cache.get("n0") == b"x"  # used just now
    cache.put("new", b"x")
    assert cache.get("n0") == b"x"
    assert cache.get("n1") is None
    assert len(list(tmp_path.iterdir())) == 64


def test_a_place_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = GraphCache(tmp_path / "file")
    cache.put("name", b"x")
    assert cache.get("name") is None
