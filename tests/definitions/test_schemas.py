from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from morphlib.definitions import MappingReader, load_morphology
from morphlib.definitions.schemas import main, make_schemas, outdated
from morphlib.errors import MorphError
from tests.definitions.helpers import BASE, repository

DIRECTORY = Path(__file__).parents[2] / "definitions-schema"
REAL = Path(__file__).parents[3] / "shared" / "data" / "baserock-definitions"
KINDS = ("chunk", "stratum", "system", "cluster")


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((DIRECTORY / f"{name}.schema.json").read_text()))


VALIDATORS = {name: validator(name) for name in (*KINDS, "version", "defaults")}

EXAMPLES = {
    "chunk": """
name: c
kind: chunk
description: everything a chunk can have
build-system: autotools
pre-configure-commands: [true, 'x: y']
build-commands:
max-jobs: "1"
devices:
- {type: b, filename: dev/sda, permissions: '660', major: 8, minor: 0, uid: 0, gid: 6}
products:
- {artifact: c-tools, include: [usr/bin/.*]}
system-integration: {c-tools: {00-x: [echo]}}
prefix: {of: no effect}
""",
    "stratum": """
name: s
kind: stratum
build-depends: [{morph: strata/core.morph}]
products: [{artifact: s-tools, include: [.*-tools]}]
chunks:
- name: c@1
  repo: upstream:c
  ref: 0123456789abcdef0123456789abcdef01234567
  unpetrify-ref: 1.0
  morph: strata/s/c.morph
  build-mode: test
  prefix: /tools
  build-depends: [d]
  artifacts: {c-tools: s-tools}
  submodules: {gnulib: {url: upstream:gnulib}}
- {name: d, repo: r, ref: b, build-system: manual, morph: null}
""",
    "system": """
name: x
kind: system
arch: armv7lhf
strata: [{morph: strata/core.morph, name: core, artifacts: [core-runtime]}, {morph: a}]
configuration-extensions: [set-hostname]
""",
    "cluster": """
name: c
kind: cluster
systems:
- morph: systems/x.morph
  deploy-defaults: {HOSTNAME: x}
  deploy:
    one: {type: tar, location: x.tar, upgrade-type: ssh-rsync, upgrade-location: root@x, N: 5}
  subsystems:
  - {morph: systems/y.morph, deploy: {two: {type: sysroot, location: y}}}
""",
}


def test_committed_schemas_are_current() -> None:
    assert outdated(DIRECTORY) == []
    assert {path.name for path in DIRECTORY.glob("*.json")} == set(make_schemas())


def test_the_generator_writes_and_checks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--check", str(tmp_path)]) == 1
    assert "chunk.schema.json is not current" in capsys.readouterr().err
    assert main([str(tmp_path / "new")]) == 0
    assert main(["--check", str(tmp_path / "new")]) == 0
    (tmp_path / "new" / "chunk.schema.json").write_text("{}")
    assert outdated(tmp_path / "new") == ["chunk.schema.json"]


@pytest.mark.parametrize("name", VALIDATORS)
def test_schemas_are_schemas(name: str) -> None:
    Draft202012Validator.check_schema(VALIDATORS[name].schema)


@pytest.mark.parametrize("kind", KINDS)
def test_examples_pass_the_program_and_the_schema(kind: str) -> None:
    reader = repository({"x.morph": EXAMPLES[kind]})
    assert load_morphology(reader, "x.morph").name
    assert accepts(kind, yaml.safe_load(EXAMPLES[kind]))


def test_base_files_pass_their_schemas() -> None:
    reader = repository()
    for path in BASE:
        data = yaml.safe_load(reader.read(path) or b"")
        assert accepts(data["kind"] if "kind" in data else path.lower(), data)


BAD = [
    ("chunk", {"build-commands": "make"}),
    ("chunk", {"build-commands": [5]}),
    ("chunk", {"pre-strip-commands": [{}]}),
    ("chunk", {"name": "a/b"}),
    ("chunk", {"name": "-a"}),
    ("chunk", {"max-jobs": 0}),
    ("chunk", {"products": {}}),
    ("chunk", {"products": [{"artifact": "a"}]}),
    ("chunk", {"devices": [{"type": "c"}]}),
    ("chunk", {"flavour": "up"}),
    ("chunk", {"kind": "rock"}),
    ("stratum", {"chunks": []}),
    ("stratum", {"chunks": [{"name": "a", "repo": "b", "ref": "c"}]}),
    ("stratum", {"chunks": [{"name": "a", "repo": "b", "ref": 5, "build-system": "manual"}]}),
    (
        "stratum",
        {"chunks": [{"name": "a", "repo": "b", "ref": "c", "build-system": "d", "morph": "e"}]},
    ),
    ("stratum", {"build-depends": None}),
    ("stratum", {"build-depends": [{"morph": "../x"}]}),
    ("system", {"arch": "z80"}),
    ("system", {"strata": []}),
    ("system", {"strata": ["a"]}),
    ("system", {"strata": [{"name": "a"}]}),
    ("cluster", {"systems": [{"morph": "a"}]}),
    ("cluster", {"systems": [{"morph": None, "deploy": {}}]}),
]


@pytest.mark.parametrize(("kind", "change"), BAD)
def test_what_the_program_refuses_the_schema_refuses(kind: str, change: dict[str, Any]) -> None:
    document = {**yaml.safe_load(EXAMPLES[kind]), **change}
    assert not loads(document)
    assert not accepts(kind, document)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(KINDS), st.data())
def test_what_the_program_takes_the_schema_takes(kind: str, data: st.DataObject) -> None:
    """The other way round conditions between fields remain, which a schema can't express."""
    document = yaml.safe_load(EXAMPLES[kind])
    values = (
        st.none()
        | st.booleans()
        | st.integers(-5, 5)
        | st.sampled_from(["a", "", "..", "a b", "manual", "../x", "0600", "c", "/x"])
        | st.sampled_from([[], {}, ["a"], {"a": "b"}, [{"morph": "x"}], {"a": {"url": "x"}}])
    )
    places = list(walk(document))
    for parent, key in data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=3)):
        parent[key] = data.draw(values)
    if document.get("kind") == kind and loads(document):
        errors = [error.message for error in VALIDATORS[kind].iter_errors(document)]
        assert errors == []


def walk(node: Any) -> Any:
    """Every place of a document: (mapping or list, key)."""
    keys = list(node) if isinstance(node, dict) else range(len(node))
    for key in keys:
        yield node, key
        if isinstance(node[key], dict | list):
            yield from walk(node[key])


def loads(document: object) -> bool:
    reader: MappingReader = repository({"x.morph": yaml.safe_dump(document).encode()})
    try:
        load_morphology(reader, "x.morph")
    except MorphError:
        return False
    return True


def accepts(name: str, document: object) -> bool:
    return VALIDATORS[name].is_valid(document)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no definitions in {REAL}")
def test_real_definitions_pass_the_schemas() -> None:
    for path in REAL.rglob("*.morph"):
        data = yaml.load(path.read_bytes(), yaml.CSafeLoader)
        assert accepts(data["kind"], data), path
    assert accepts("version", yaml.safe_load((REAL / "VERSION").read_bytes()))
    assert accepts("defaults", yaml.safe_load((REAL / "DEFAULTS").read_bytes()))
