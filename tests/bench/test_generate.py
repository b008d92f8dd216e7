"""The generator makes projects that are sound and that keep the graph."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.graph import Chunk, Graph, Stratum, read_graph, synthetic_graph
from bench.projects import write_projects
from bench.repositories import git
from morphlib.errors import MorphError

GENERATE = Path(__file__).resolve().parents[2] / "bench" / "generate.py"

SMALL = Graph(
    "small",
    (
        Stratum("lower", (), (Chunk("first", ()), Chunk("second", ("first",)))),
        Stratum("upper", ("lower",), (Chunk("third", ()),)),
    ),
)


def write_definitions(root: Path, strata: Mapping[str, Mapping[str, Any]]) -> Path:
    """A definitions repository whose system sys.morph has all the strata."""
    (root / "strata").mkdir()
    for name, fields in strata.items():
        document = {"name": name, "kind": "stratum", **fields}
        (root / "strata" / f"{name}.morph").write_text(yaml.safe_dump(document))
    specs = [{"morph": f"strata/{name}.morph"} for name in strata]
    system = {"name": "sys", "kind": "system", "arch": "x86_64", "strata": specs}
    (root / "sys.morph").write_text(yaml.safe_dump(system))
    return root


def chunks(*names: str) -> list[dict[str, str]]:
    return [{"name": name, "repo": "up:x", "ref": "master"} for name in names]


def test_definitions_keep_the_graph(tmp_path: Path) -> None:
    layout = write_projects(SMALL, tmp_path / "out")

    base, *strata = read_graph(layout.definitions, layout.system).strata

    assert [(s.name, s.chunks) for s in strata] == [(s.name, s.chunks) for s in SMALL.strata]
    assert [s.build_depends for s in strata] == [(base.name,), (base.name, "lower")]


def test_elements_keep_the_graph(tmp_path: Path) -> None:
    layout = write_projects(SMALL, tmp_path / "out")

    top = layout.elements / "elements"
    elements = {
        path.relative_to(top).as_posix(): yaml.safe_load(path.read_text())
        for path in top.rglob("*.bst")
    }

    depends = {name: element.get("build-depends") for name, element in elements.items()}
    assert depends["lower/second.bst"] == ["bench-base.bst", "lower/first.bst"]
    assert depends["upper/third.bst"] == ["bench-base.bst", "lower.bst"]
    assert depends["bench.bst"] == ["bench-base.bst", "lower.bst", "upper.bst"]
    assert elements["lower.bst"]["depends"] == ["lower/first.bst", "lower/second.bst"]
    wanted = {
        name
        for e in elements.values()
        for k in ("depends", "build-depends")
        for name in e.get(k, ())
    }
    assert wanted < elements.keys()


def test_both_projects_build_from_commits_that_exist(tmp_path: Path) -> None:
    layout = write_projects(SMALL, tmp_path / "out", files=7)

    stratum = yaml.safe_load((layout.definitions / "strata/upper.morph").read_text())
    element = yaml.safe_load((layout.elements / "elements/upper/third.bst").read_text())

    (chunk,) = stratum["chunks"]
    (source,) = element["sources"]
    assert source["ref"] == chunk["ref"]
    listing = git(layout.root / "gits/src", "ls-tree", "-r", "--name-only", chunk["ref"])
    assert len(listing.splitlines()) == 7


def test_equal_graphs_give_equal_commits(tmp_path: Path) -> None:
    commits = {
        git(write_projects(SMALL, tmp_path / name).definitions, "rev-parse", "HEAD")
        for name in ("one", "two")
    }
    assert len(commits) == 1


def test_a_project_is_written_over_but_other_files_are_not(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    write_projects(synthetic_graph(3), own)
    write_projects(SMALL, own)
    other.mkdir()
    (other / "letter").write_text("keep me")

    with pytest.raises(MorphError, match="holds other things"):
        write_projects(SMALL, other)

    assert (other / "letter").read_text() == "keep me"
    assert sorted(p.name for p in (own / "definitions/strata").iterdir()) == [
        "bench-base.morph",
        "lower.morph",
        "upper.morph",
    ]


@pytest.mark.parametrize("count", [1, 13, 117, 431])
def test_a_synthetic_graph_has_the_chunks_asked_for_and_no_circles(count: int) -> None:
    graph = synthetic_graph(count)

    assert graph.chunk_count == count
    strata: set[str] = set()
    for stratum in graph.strata:
        assert set(stratum.build_depends) <= strata
        strata.add(stratum.name)
        members: set[str] = set()
        for chunk in stratum.chunks:
            assert set(chunk.build_depends) <= members
            members.add(chunk.name)


def test_a_synthetic_graph_depends_on_its_seed_alone() -> None:
    assert synthetic_graph(50, seed=3) == synthetic_graph(50, seed=3)
    assert synthetic_graph(50, seed=3) != synthetic_graph(50, seed=4)


def test_reading_takes_strata_that_are_only_build_depended_upon(tmp_path: Path) -> None:
    definitions = write_definitions(
        tmp_path,
        {"low": {"chunks": chunks("a")}, "high": {"chunks": chunks("b")}},
    )
    high = {"name": "high", "kind": "stratum", "chunks": chunks("b")}
    high["build-depends"] = [{"morph": "strata/low.morph"}]
    (definitions / "strata/high.morph").write_text(yaml.safe_dump(high))
    system = {"name": "sys", "kind": "system", "strata": [{"morph": "strata/high.morph"}]}
    (definitions / "sys.morph").write_text(yaml.safe_dump(system))

    graph = read_graph(definitions, "sys.morph")

    assert [stratum.name for stratum in graph.strata] == ["low", "high"]
    assert graph.chunk_count == 2


@pytest.mark.parametrize(
    ("strata", "message"),
    [
        ({"a": {"chunks": chunks("x")}, "b": {"chunks": chunks("x")}}, "several chunks.* x"),
        ({"a": {"chunks": chunks("x; reboot")}}, "can't be used"),
        ({"a": {"chunks": chunks("../x")}}, "can't be used"),
        ({"a": {"chunks": []}}, "no chunks"),
        ({"a": {"chunks": "x"}}, "list of mappings"),
        ({"a": {"chunks": chunks("x"), "build-depends": [{"morph": "gone"}]}}, "can't read gone"),
        (
            {"a": {"chunks": chunks("x"), "build-depends": [{"morph": "strata/a.morph"}]}},
            "builds upon itself",
        ),
        (
            {"a": {"chunks": [{"name": "x", "build-depends": ["y"]}]}},
            "chunk x needs y, not in a",
        ),
    ],
)
def test_graphs_that_cannot_be_built_are_refused(
    tmp_path: Path, strata: Mapping[str, Mapping[str, Any]], message: str
) -> None:
    definitions = write_definitions(tmp_path, strata)

    with pytest.raises(MorphError, match=message):
        read_graph(definitions, "sys.morph")


def test_the_program_writes_projects_and_says_how_to_build_them(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, GENERATE, "--synthetic", "20", "--files", "3", out],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "20 chunks" in done.stdout
    assert f"--config={out}/morph.conf" in done.stdout
    assert (out / "definitions/systems/bench.morph").is_file()


def test_the_program_reports_errors_without_a_trace(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, GENERATE, tmp_path, "gone.morph", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr.startswith("ERROR: can't read gone.morph")
