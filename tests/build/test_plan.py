"""What to build is a pure function of the graph and of what the store holds."""

from __future__ import annotations

from collections.abc import Collection

from morphlib.build.plan import Plan, inputs, make_plan, revise_plan
from morphlib.graph.model import BuildGraph
from tests.graph.samples import demo, graph_of

GRAPH = graph_of(demo())
EVERYTHING = {source.key for source in GRAPH.sources}


def plan(
    present: Collection[str],
    *targets: str,
    damaged: Collection[str] = (),
    graph: BuildGraph = GRAPH,
) -> Plan:
    return make_plan(graph, targets or (graph.root,), present, damaged)


def keys(*ids: str) -> set[str]:
    return {GRAPH.source(source_id).key for source_id in ids}


def test_everything_is_built_in_order_when_nothing_is_there() -> None:
    made = plan(())
    assert made.build == tuple(source.id for source in GRAPH.sources)
    assert made.cached == ()
    assert made.total == len(GRAPH.sources)


def test_a_cached_system_needs_nothing() -> None:
    made = plan(keys("system:demo"))
    assert made.build == ()
    assert made.cached == ("system:demo",)


def test_only_what_is_missing_is_built() -> None:
    made = plan(EVERYTHING - keys("system:demo", "chunk:tool"))
    assert made.build == ("chunk:tool", "system:demo")
    assert "chunk:stage1" not in made.cached  # a chunk that nothing to build is staged with


def test_a_missing_chunk_that_nothing_missing_needs_is_left_alone() -> None:
    made = plan(EVERYTHING - keys("chunk:zlib"))
    assert made.build == ()


def test_a_damaged_source_is_built_again_in_any_case() -> None:
    made = plan(EVERYTHING - keys("chunk:zlib"), damaged=keys("chunk:zlib"))
    assert made.build == ("chunk:zlib",)


def test_what_a_chunk_is_staged_with_must_be_there() -> None:
    made = plan(EVERYTHING - keys("chunk:tool", "chunk:stage2"), "chunk:tool")
    assert made.build == ("chunk:stage2", "chunk:tool")


def test_a_component_needs_only_its_own() -> None:
    made = plan((), "chunk:stage2")
    assert made.build == ("chunk:stage1", "chunk:stage2")
    assert made.total == 2


def test_a_system_needs_the_chunks_in_its_strata() -> None:
    needed = inputs(GRAPH, GRAPH.system)
    assert {"chunk:stage2", "chunk:zlib", "chunk:tool"} <= set(needed)
    assert "chunk:stage1" not in needed


def test_what_a_server_has_is_fetched_and_hides_what_it_was_made_from() -> None:
    made = make_plan(GRAPH, (GRAPH.root,), (), remote=EVERYTHING)
    assert (made.fetch, made.build) == (("system:demo",), ())
    made = make_plan(GRAPH, (GRAPH.root,), (), remote=EVERYTHING - keys("system:demo"))
    assert made.build == ("system:demo",)
    assert "chunk:tool" in made.fetch
    assert "chunk:stage1" not in made.fetch


def test_what_is_here_is_not_fetched() -> None:
    made = make_plan(
        GRAPH, (GRAPH.root,), keys("chunk:tool"), remote=EVERYTHING - keys("system:demo")
    )
    assert "chunk:tool" in made.cached
    assert "chunk:tool" not in made.fetch


def test_what_can_not_be_fetched_is_built_with_all_that_this_takes() -> None:
    remote = EVERYTHING - keys("system:demo")
    before = make_plan(GRAPH, (GRAPH.root,), (), remote=remote)
    after = revise_plan(GRAPH, before, ("chunk:zlib",), remote - keys("chunk:tool"))
    assert set(after.build) == {"chunk:tool", "system:demo"}
    assert set(after.fetch) >= set(before.fetch) - {"chunk:tool"}
    assert set(inputs(GRAPH, GRAPH.source("chunk:tool"))) <= set(after.fetch)
    nothing = revise_plan(GRAPH, before, ("chunk:zlib",), ())
    assert set(nothing.build) == {s.id for s in GRAPH.sources} - {"chunk:zlib"}
    assert nothing.fetch == ("chunk:zlib",)


def test_what_was_not_asked_for_before_comes_from_where_it_is() -> None:
    """A system that can't be had is put together of what is here and of what can."""
    present, remote = keys("chunk:zlib"), EVERYTHING - keys("chunk:zlib")
    before = make_plan(GRAPH, (GRAPH.root,), present, remote=remote)
    assert (before.fetch, before.cached) == ((GRAPH.root,), ())
    after = revise_plan(GRAPH, before, (), remote - keys(GRAPH.root))
    assert after.build == (GRAPH.root,)
    assert after.cached == ("chunk:zlib",)
    assert "chunk:tool" in after.fetch
    again = revise_plan(GRAPH, after, ("chunk:tool",), ())
    assert "chunk:tool" in again.fetch and "chunk:zlib" in again.cached
    assert set(again.build) == {s.id for s in GRAPH.sources} - {"chunk:tool", "chunk:zlib"}


def test_what_was_damaged_is_not_fetched_for_ever() -> None:
    remote = keys("chunk:zlib")
    before = make_plan(GRAPH, (GRAPH.root,), EVERYTHING - remote, remote, remote)
    assert before.fetch == ("chunk:zlib",)
    after = revise_plan(GRAPH, before, (), ())
    assert (after.fetch, after.build) == ((), ("chunk:zlib",))
