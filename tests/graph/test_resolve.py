"""Sources, artifacts, edges and order."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from morphlib.definitions.models import BuildMode, Kind, SplitRule, StratumSpec
from morphlib.errors import Location, MorphError
from morphlib.graph.keys import identities_of
from morphlib.graph.model import BuildGraph
from morphlib.graph.serial import graph_from_json, graph_to_json
from tests.graph.samples import (
    SYSTEM,
    chunk,
    definitions,
    demo,
    graph_of,
    spec,
    stratum,
    system,
)


def names(graph: BuildGraph) -> list[str]:
    return [source.id for source in graph.sources]


def dependencies(graph: BuildGraph, source_id: str) -> list[str]:
    return [ref.name for ref in graph.source(source_id).dependencies]


def staged(graph: BuildGraph, source_id: str) -> list[str]:
    return [ref.name for ref in graph.staged(graph.source(source_id))]


def test_artifacts_are_those_of_the_rules() -> None:
    graph = graph_of(demo())
    assert graph.source("chunk:zlib").artifacts == ("zlib-devel", "zlib-runtime")
    assert graph.source("stratum:core-runtime").artifacts == ("core-runtime",)
    assert graph.system.artifacts == ("demo-rootfs",)


def test_order_puts_dependencies_first() -> None:
    graph = graph_of(demo())
    order = {source_id: number for number, source_id in enumerate(names(graph))}
    for source in graph.sources:
        for ref in source.dependencies:
            assert order[ref.source] < order[source.id]
    assert names(graph)[0] == "chunk:stage1"
    assert names(graph)[-1] == "system:demo"


def test_edges() -> None:
    graph = graph_of(demo())
    assert dependencies(graph, "chunk:stage2") == ["stage1-devel", "stage1-runtime"]
    assert dependencies(graph, "chunk:tool") == [
        "base-devel",
        "base-runtime",
        "zlib-devel",
        "zlib-runtime",
    ]
    assert dependencies(graph, "stratum:core-devel") == [
        "base-devel",
        "base-runtime",
        "zlib-devel",
        "tool-devel",
    ]
    assert dependencies(graph, "system:demo") == [
        "base-devel",
        "base-runtime",
        "core-devel",
        "core-runtime",
    ]


def test_bootstrap_chunks_are_seen_in_their_stratum_only() -> None:
    graph = graph_of(demo())
    assert staged(graph, "chunk:stage2") == ["stage1-devel", "stage1-runtime"]
    assert staged(graph, "chunk:tool") == [
        "stage2-devel",
        "stage2-runtime",
        "zlib-devel",
        "zlib-runtime",
    ]
    content = graph.content(graph.source("stratum:base-runtime"))
    assert [ref.name for ref in content] == ["stage2-runtime"]


def test_what_the_system_does_not_need_is_left_out() -> None:
    defs = demo()
    only_runtime = StratumSpec("strata/core.morph", "core", ("core-runtime",), Location(SYSTEM))
    defs = replace(
        defs,
        systems={SYSTEM: system(strata=(only_runtime,))},
    )
    graph = graph_of(defs)
    assert "stratum:core-devel" not in names(graph)
    assert dependencies(graph, "system:demo") == ["core-runtime"]


def test_a_chunk_that_nothing_selects_is_not_built() -> None:
    products = (SplitRule("core-runtime", (r"tool-runtime",)), SplitRule("core-devel", ()))
    defs = definitions(
        system("base", "core"),
        stratum("base", spec("stage2")),
        stratum("core", spec("unused"), spec("tool"), depends=("base",), products=products),
    )
    assert "chunk:unused" not in names(graph_of(defs))


def test_assignment_of_a_chunk_artifact_wins_over_rules() -> None:
    defs = definitions(
        system("core"),
        stratum(
            "core",
            spec("zlib", artifacts=(("zlib-devel", "core-runtime"), ("zlib-runtime", "core-odd"))),
        ),
    )
    graph = graph_of(defs)
    assert dependencies(graph, "stratum:core-runtime") == ["zlib-devel"]
    assert dependencies(graph, "stratum:core-odd") == ["zlib-runtime"]
    assert dependencies(graph, "stratum:core-devel") == []


def test_products_replace_the_default_rule_of_their_name() -> None:
    odd = chunk("zlib", products=(SplitRule("zlib-devel", (r"odd/.*",)),))
    defs = definitions(system("core"), stratum("core", spec("zlib")), chunks={"zlib": odd})
    recipe = graph_of(defs).source("chunk:zlib").recipe
    assert recipe is not None
    assert [(rule.artifact, rule.include) for rule in recipe.split_rules] == [
        ("zlib-devel", (r"odd/.*",)),
        ("zlib-runtime", (r".*",)),
    ]


def test_circle_of_chunks_is_shown_whole() -> None:
    defs = definitions(
        system("core"),
        stratum("core", spec("a", "b"), spec("b", "c"), spec("c", "a")),
    )
    with pytest.raises(MorphError, match=r"Cyclic dependency between a -> b -> c -> a"):
        graph_of(defs)


def test_a_chunk_of_two_strata_must_be_the_same_in_both() -> None:
    one = stratum("one", spec("zlib"))
    other = stratum("other", spec("zlib", prefix="/plover"))
    with pytest.raises(MorphError, match=r"Multiple 'zlib' chunks detected.*differ in prefix"):
        graph_of(definitions(system("one", "other"), one, other))
    graph = graph_of(definitions(system("one", "other"), one, stratum("other", spec("zlib"))))
    assert names(graph).count("chunk:zlib") == 1


def test_a_chunk_that_several_strata_list_sees_bootstrap_chunks_of_each() -> None:
    defs = definitions(
        system("one", "other"),
        stratum("one", spec("boot", build_mode=BuildMode.BOOTSTRAP), spec("zlib", "boot")),
        stratum("other", spec("zlib"), spec("late", "zlib")),
    )
    graph = graph_of(defs)
    assert "boot-runtime" in staged(graph, "chunk:zlib")
    assert "boot-runtime" not in staged(graph, "chunk:late")


def test_staging_order_does_not_depend_on_the_system() -> None:
    chunks = (spec("a"), spec("b"), spec("c", "b", "a"))
    lower = stratum("lower", *chunks)
    first = stratum("first", spec("x"), depends=("lower",))
    plain = graph_of(definitions(system("lower"), lower))
    other = graph_of(definitions(system("first", "lower"), lower, first))
    for graph in (plain, other):
        assert staged(graph, "chunk:c") == ["b-devel", "b-runtime", "a-devel", "a-runtime"]
    assert plain.source("chunk:c").key == other.source("chunk:c").key


def test_what_comes_with_strata_comes_first() -> None:
    graph = graph_of(demo())
    tool, zlib = graph.source("chunk:tool"), graph.source("chunk:zlib")
    shared = graph.staged_with_strata(tool)
    assert [ref.name for ref in graph.staged(tool)[:shared]] == ["stage2-devel", "stage2-runtime"]
    assert [ref.name for ref in graph.staged(tool)[shared:]] == ["zlib-devel", "zlib-runtime"]
    assert graph.staged(zlib) == graph.staged(tool)[:shared]
    assert graph.staged_with_strata(graph.source("chunk:stage2")) == 0


def test_deep_graphs_are_no_trouble() -> None:
    chunks = [spec("c0"), *(spec(f"c{n}", f"c{n - 1}") for n in range(1, 3000))]
    graph = graph_of(definitions(system("core"), stratum("core", *chunks)))
    assert len([s for s in graph.sources if s.kind is Kind.CHUNK]) == 3000


def test_round_trip_as_json() -> None:
    binary = chunk("zlib", commands={"build": (b"echo \xff\xfe", "true")})
    defs = definitions(
        system("core"), stratum("core", spec("zlib"), spec("tool", "zlib")), chunks={"zlib": binary}
    )
    graph = graph_of(defs)
    again = graph_from_json(graph_to_json(graph))
    assert again == graph
    assert identities_of(again) == identities_of(graph)
    assert graph_to_json(again) == graph_to_json(graph)


def test_other_json_is_no_graph() -> None:
    with pytest.raises(msgspec.DecodeError):
        graph_from_json(b'{"root": "system:x"}')
