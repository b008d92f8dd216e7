"""Cache keys: every input counts, nothing else does, and differences can be explained."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from morphlib.definitions.models import (
    STEPS,
    BuildMode,
    Chunk,
    ChunkSpec,
    Definitions,
    Device,
    Integration,
    SplitRule,
    Stratum,
    System,
)
from morphlib.graph.keys import (
    canonical_json,
    digest,
    explain_difference,
    identities_of,
    identity_of,
)
from tests.graph.samples import (
    SYSTEM,
    chunk,
    definitions,
    demo,
    graph_of,
    origins,
    spec,
    stratum,
    system,
)


def key_of(
    *,
    edit_chunk: Callable[[Chunk], Chunk] = lambda c: c,
    edit_spec: Callable[[ChunkSpec], ChunkSpec] = lambda s: s,
    edit_stratum: Callable[[Stratum], Stratum] = lambda s: s,
    edit_system: Callable[[System], System] = lambda s: s,
    tree: str = "1" * 40,
    of: str = "chunk:tool",
) -> str:
    """The key of a source when one thing is edited."""
    tool = edit_chunk(chunk("tool", commands={"build": ("make", "make check")}))
    defs = definitions(
        edit_system(system("core")),
        edit_stratum(stratum("core", spec("zlib"), edit_spec(spec("tool", "zlib")))),
        chunks={"tool": tool},
    )
    return graph_of(defs, {"tool": tree}).source(of).key


PLAIN = key_of()


def with_commands(**commands: tuple[str | bytes, ...]) -> Callable[[Chunk], Chunk]:
    given = {name.replace("_", "-"): value for name, value in commands.items()}
    return lambda c: replace(c, commands={**c.commands, **given})


def test_tree_counts() -> None:
    assert key_of(tree="2" * 40) != PLAIN


@pytest.mark.parametrize("step", STEPS)
def test_each_list_of_commands_counts(step: str) -> None:
    edited = replace(chunk("tool"), commands={**chunk("tool").commands, step: ("true",)})
    assert key_of(edit_chunk=lambda c: edited) != key_of(edit_chunk=lambda c: chunk("tool"))


@pytest.mark.parametrize(
    "edit",
    [
        lambda c: replace(c, max_jobs=1),
        lambda c: replace(c, devices=(Device("c", "/dev/null", "0666", 1, 3, 0, 0),)),
        lambda c: replace(c, products=(SplitRule("tool-odd", ("x",)),)),
        lambda c: replace(
            c, system_integration=(Integration("tool-runtime", (("00-x", ("true",)),)),)
        ),
        lambda c: replace(c, name="other"),
    ],
    ids=["max-jobs", "devices", "split-rules", "system-integration", "name"],
)
def test_each_field_of_a_chunk_counts(edit: Callable[[Chunk], Chunk]) -> None:
    source = "chunk:other" if edit(chunk("tool")).name == "other" else "chunk:tool"
    assert key_of(edit_chunk=edit, of=source) != PLAIN


@pytest.mark.parametrize(
    "edit",
    [
        lambda s: replace(s, prefix="/plover"),
        lambda s: replace(s, build_mode=BuildMode.TEST),
        lambda s: replace(s, build_depends=()),
    ],
    ids=["prefix", "build-mode", "build-depends"],
)
def test_each_field_of_a_chunk_spec_counts(edit: Callable[[ChunkSpec], ChunkSpec]) -> None:
    assert key_of(edit_spec=edit) != PLAIN


def test_visible_bootstrap_chunks_count() -> None:
    def key(*, visible: bool) -> str:
        boot = spec("boot", build_mode=BuildMode.BOOTSTRAP)
        middle, late = spec("middle", "boot"), spec("late", "middle")
        strata = [stratum("one", boot, middle, late)]
        if not visible:
            strata = [stratum("one", boot, middle), stratum("other", spec("middle"), late)]
        defs = definitions(system(*(s.name for s in strata)), *strata)
        return graph_of(defs).source("chunk:late").key

    assert key(visible=True) != key(visible=False)


@pytest.mark.parametrize("of", ["chunk:tool", "stratum:core-runtime", "system:demo"])
def test_dependencies_count(of: str) -> None:
    defs = demo()
    plain = graph_of(defs).source(of).key
    assert graph_of(defs, {"zlib": "2" * 40}).source(of).key != plain


def test_artifact_names_of_dependencies_count() -> None:
    """Another artifact of the same source has the same key, but is another input."""

    def select(*artifacts: str) -> Callable[[System], System]:
        return lambda s: replace(s, strata=(replace(s.strata[0], artifacts=artifacts),))

    assert key_of(edit_system=select("core-devel"), of="system:demo") != key_of(
        edit_system=select("core-runtime"), of="system:demo"
    )


def test_name_and_arch_of_a_system_count() -> None:
    plain = key_of(of="system:demo")
    assert key_of(edit_system=lambda s: replace(s, name="x"), of="system:x") != plain
    edited = key_of(edit_system=lambda s: replace(s, arch="armv7l"), of="system:demo")
    assert edited != plain


def test_arch_counts_for_chunks() -> None:
    assert key_of(edit_system=lambda s: replace(s, arch="armv7l")) != PLAIN


def test_name_of_a_stratum_artifact_counts() -> None:
    graph = graph_of(demo())
    assert graph.source("stratum:core-devel").key != graph.source("stratum:core-runtime").key


@pytest.mark.parametrize("of", ["chunk:tool", "stratum:core-runtime", "system:demo"])
@pytest.mark.parametrize(
    "edits",
    [
        {"edit_chunk": lambda c: replace(c, description="better words")},
        {"edit_chunk": lambda c: replace(c, path="elsewhere/tool.morph"), "moved": True},
        {"edit_spec": lambda s: replace(s, repo="mirror:tool")},
        {"edit_spec": lambda s: replace(s, ref="v1.2")},
        {"edit_spec": lambda s: replace(s, unpetrify_ref="v1")},
        {"edit_spec": lambda s: replace(s, submodules=(("sub", "git://x/y"),))},
        {"edit_stratum": lambda s: replace(s, description="better words")},
        {"edit_system": lambda s: replace(s, description="better words")},
        {"edit_system": lambda s: replace(s, configuration_extensions=("set-hostname",))},
    ],
    ids=lambda edits: "-".join(edits),
)
def test_nothing_else_counts(of: str, edits: dict[str, object]) -> None:
    if edits.pop("moved", False):
        edits["edit_spec"] = lambda s: replace(s, morph="elsewhere/tool.morph")
    assert key_of(of=of, **edits) == key_of(of=of)  # type: ignore[arg-type]  # one of the edits


def test_framing_is_unambiguous() -> None:
    keys = {
        key_of(edit_chunk=with_commands(build=("ab", "c"))),
        key_of(edit_chunk=with_commands(build=("a", "bc"))),
        key_of(edit_chunk=with_commands(build=("abc",))),
        key_of(edit_chunk=with_commands(build=("ab",), post_build=("c",))),
        key_of(edit_chunk=with_commands(build=(b"ab", "c"))),
    }
    assert len(keys) == 5


def test_text_of_any_language_has_a_key() -> None:
    assert key_of(edit_chunk=with_commands(build=("echo Привет",))) != PLAIN


def test_a_key_is_the_digest_of_its_canonical_document() -> None:
    graph = graph_of(demo())
    for source in graph.sources:
        document = identity_of(graph, source)
        text = canonical_json(document)
        assert source.key == hashlib.sha256(text).hexdigest() == digest(document)
        assert msgspec.json.encode(msgspec.json.decode(text), order="sorted") == text


#: These may change only together with a version number in keys.py: users' caches go by them.
GOLDEN = {
    "chunk:stage1": "0453f228344e880de14ee0dec234f73aa8814314befce43611cb83246109b62b",
    "chunk:stage2": "ec92c7fe56a81bf793cca6868a58b30b4e39933380534becd1102b04acd04ec1",
    "chunk:tool": "ae2325945a5f09cfa1ef00ea8cbb936bf69f4fd0cd842c43c3171ad6bc6d7878",
    "stratum:core-runtime": "26c735d26632f8fdb3a996216a5c45012cdad4c92e8461a413b674d4383db88e",
    "system:demo": "3e60b6370873549ca2168ed87a36231552e56b392cea86c095188fa1462a1b3f",
}


@pytest.mark.parametrize("source_id", GOLDEN)
def test_golden_keys(source_id: str) -> None:
    assert graph_of(demo()).source(source_id).key == GOLDEN[source_id]


def explain(old: Definitions, new: Definitions, of: str, **trees: str) -> list[tuple[str, str]]:
    before, after = graph_of(old), graph_of(new, trees)
    known = {**identities_of(before), **identities_of(after)}
    found = explain_difference(
        identity_of(before, before.source(of)), identity_of(after, after.source(of)), known
    )
    return [(difference.source, difference.field) for difference in found]


def test_difference_is_followed_to_where_it_begins() -> None:
    assert explain(demo(), demo(), "system:demo", zlib="2" * 40) == [("zlib", "source")]


def test_no_difference() -> None:
    assert explain(demo(), demo(), "system:demo") == []


def test_new_dependency_is_named() -> None:
    old = demo()
    core = old.strata["strata/core.morph"]
    tool = replace(core.chunks[1], build_depends=())
    edited = replace(core, chunks=(core.chunks[0], tool))
    new = replace(old, strata={**old.strata, core.path: edited})
    assert explain(old, new, "chunk:tool") == [
        ("tool", "dependency zlib-devel"),
        ("tool", "dependency zlib-runtime"),
    ]


def test_origins_cover_every_spec() -> None:
    assert set(origins(demo())) == {
        (one.repo, one.ref) for s in demo().strata.values() for one in s.chunks
    }
    assert SYSTEM in demo().systems
