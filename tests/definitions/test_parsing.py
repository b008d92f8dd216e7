from __future__ import annotations

import datetime
import time

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from morphlib.definitions import MappingReader, load_morphology, validate
from morphlib.definitions.parsing import DuplicateKey, parse
from morphlib.errors import MorphError
from tests.definitions.helpers import failure, ignore, repository


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("", None),
        ("a: [yes, 0777, 1:30, 1_0, ~, 1.5, 2015-01-02]",
         {"a": [True, 511, 90, 10, None, 1.5, datetime.date(2015, 1, 2)]}),
        ("a: !!binary aGk=", {"a": b"hi"}),
        ("base: &b {x: 1, y: 2}\nother:\n  <<: *b\n  y: 3",
         {"base": {"x": 1, "y": 2}, "other": {"x": 1, "y": 3}}),
        ("a: &a {x: 1}\nb: &b {x: 2, y: 2}\nc: {<<: [*a, *b]}",
         {"a": {"x": 1}, "b": {"x": 2, "y": 2}, "c": {"x": 1, "y": 2}}),
        ("a: {=: x, 1: y}", {"a": {"=": "x", 1: "y"}}),
        ("\ufeffa: b", {"a": "b"}),
    ],
)  # fmt: skip
def test_yaml_1_1(text: str, data: object) -> None:
    assert parse(text.encode(), "x") == data
    assert yaml.safe_load(text) == data


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (b"a: [", "x:2:1"),
        (b"a: b\nc: \xff", "x:2:4"),
        (b"a: b\nc: \0", "x:2:4"),
        (b"a: *unknown", "x:1:4"),
        (b"a: !!python/object/apply:os.system [x]", "x:1:4"),
        (b"a: 1\n--- \nb: 2", "x:2:1"),
        (b"a: " + b"9" * 5000, "x:1:4"),
        (b"a: " + b"1" + b":59" * 2000, "x:1:4"),
        (b"{a: b}: c", "x:1:1"),
        (b"a: &a [*a]\n", "x"),
        (b"a: &a {<<: *a}\n", "x:1:4"),
        (b"a: {<<: [1]}\n", "x:1:10"),
        (b"a: 2015-02-30", "x"),
        (b"a: !!int ''", "x"),
        (b"a: !!int x", "x"),
        (b"a: !!bool maybe", "x"),
        (b"a: !!timestamp x", "x"),
        (b"a: !!binary \xc3\xa9", "x:1:4"),
        (b"[" * 250 + b"]" * 250, "x:1:101"),
        # libyaml has a limit of its own since 0.2.6, which it notices before we notice ours.
        (b"[" * 200_000, "x:1:101 x:1:1001"),
        (b"- " * 100_000 + b"a", "x:1:201"),
        (b"".join(b" " * depth + b"a:\n" for depth in range(2000)), "x:101:101"),
        ("".join("\u2028" + " " * depth + "a:" for depth in range(2000)).encode(), "x:102:101"),
        (("[" * 5000).encode("utf-16"), "x:1:101 x:1:1001"),
    ],
)
def test_bad_text_is_a_syntax_error_with_its_place(text: bytes, place: str) -> None:
    started = time.monotonic()
    error = failure(lambda: parse(text, "x"))
    assert "Syntax error in morphology x" in error.message
    assert str(error.location) in place.split()
    assert time.monotonic() - started < 5


def bomb(template: str) -> bytes:
    lines = ["a0: &a0 [x, x]"] + [
        template.format(n, ", ".join([f"*a{n - 1}"] * 10)) for n in range(1, 20)
    ]
    return "\n".join(lines).encode()


def test_aliases_that_stand_for_too_much() -> None:
    error = failure(lambda: parse(bomb("a{0}: &a{0} [{1}]"), "x"))
    assert "aliases stand for too much data" in error.message


def test_merges_that_grow_without_bounds() -> None:
    text = bomb("a{0}: &a{0} {{<<: [{1}], k{0}: v}}").replace(b"[x, x]", b"{x: y}")
    assert "merges (<<) grow without bounds" in failure(lambda: parse(text, "x")).message


def test_aliases_of_ordinary_size_are_fine() -> None:
    assert parse(b"a: &a |\n  x\nb: [*a, *a]", "x") == {"a": "x\n", "b": ["x\n", "x\n"]}


@pytest.mark.parametrize(
    ("text", "duplicates"),
    [
        ("a: 1\nb: 2\na: 3", [DuplicateKey("a", 3, 1)]),
        ("x:\n- {k: 1, k: 2}", [DuplicateKey("k", 2, 10)]),
        ("a: &a {k: 1}\nb: {<<: *a, k: 2}\nc: *a", []),
        ("a: &a {k: 1}\nb: {<<: *a, k: 2, k: 3}", [DuplicateKey("k", 2, 19)]),
    ],
)
def test_duplicate_keys_are_noticed(text: str, duplicates: list[DuplicateKey]) -> None:
    found: list[DuplicateKey] = []
    parse(text.encode(), "x", duplicate=found.append)
    assert found == duplicates


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8)
    | st.sampled_from(["chunk", "stratum", "system", "cluster", "manual", "x86_64", "a", "x.morph"])
)
names = st.sampled_from(
    [
        "name", "kind", "arch", "strata", "chunks", "morph", "build-depends", "products", "include",
        "artifact", "artifacts", "devices", "systems", "deploy", "subsystems", "build-commands",
        "system-integration", "submodules", "url", "repo", "ref", "build-system", "max-jobs",
        "build-mode", "prefix", "description", "version", "split-rules", "build-systems",
    ]
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names | scalars, inner, max_size=6),
    max_leaves=25,
)
kinds = st.sampled_from(["chunk", "stratum", "system", "cluster"])


def survives(reader: MappingReader) -> None:
    """Anything but a MorphError is a bug. Every error must be printable."""
    for call in (
        lambda: load_morphology(reader, "x.morph"),
        lambda: validate(reader, warn=ignore),
    ):
        try:
            call()
        except MorphError as error:
            assert str(error)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(names | scalars, values, max_size=8), kinds)
def test_any_document_gives_a_morphology_or_errors(fields: dict[object, object], kind: str) -> None:
    text = yaml.safe_dump({**fields, "kind": kind}, encoding="utf-8", allow_unicode=True)
    survives(repository({"x.morph": text}))


@settings(max_examples=200, deadline=None)
@given(values)
def test_any_version_and_defaults_give_definitions_or_errors(value: object) -> None:
    text = yaml.safe_dump(value, encoding="utf-8", allow_unicode=True)
    survives(repository({"VERSION": text}))
    survives(repository({"DEFAULTS": text}))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | st.text("&*a<:-[]{}!?|>'\"% \n#,=0.", max_size=60).map(str.encode))
@example(b"&a !!map {*a : *a}")
@example(b"!!set {a, b}")
@example(b"!!omap [a: !!omap [b: c]]")
@example(b"!!pairs [a]")
def test_any_text_gives_a_morphology_or_errors(text: bytes) -> None:
    survives(repository({"x.morph": text, "DEFAULTS": text}))
    survives(repository({"x.morph": b"kind: chunk\nname: " + text}))
