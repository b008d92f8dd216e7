"""morph explain-key: what a key is made of, and why two of them differ."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.commands.world import SYSTEM, World


def canonical(document: Any) -> bytes:
    """JSON with sorted names and no blanks, in UTF-8: what keys are digests of."""
    text = json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.encode()


def documents(world: World, *arguments: str) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = json.loads(world.data("explain-key", "--json", *arguments))
    return shown


def differences(world: World, *arguments: str) -> list[tuple[str, str, Any, Any]]:
    """(source, field, old, new) for every difference of the one thing that is compared."""
    (one,) = json.loads(world.data("explain-key", "--json", *arguments))
    assert (one["old"] == one["new"]) == (not one["differences"])
    return [(d["source"], d["field"], d["old"], d["new"]) for d in one["differences"]]


def changed_fields(world: World, *arguments: str) -> list[tuple[str, str]]:
    return [(source, field) for source, field, _, _ in differences(world, *arguments)]


# What a key is made of


@pytest.mark.parametrize("component", [[], ["app"], ["shell"], ["base"], ["top-runtime"]])
def test_the_document_is_what_hashes_to_the_key(world: World, component: list[str]) -> None:
    world.documents["chunks/app.morph"]["build-commands"] = ["echo \u00fc\u2028", "printf '\\x00'"]
    world.commit()
    for document in documents(world, SYSTEM, *component):
        digest = hashlib.sha256(canonical(document["inputs"])).hexdigest()
        assert digest == document["key"]
        assert f"{document['key']}." in world.data("list-artifacts", SYSTEM)


def test_binary_commands_are_in_the_document(world: World) -> None:
    world.documents["chunks/app.morph"]["build-commands"] = [b"echo \xff\xfe"]
    world.commit()
    (document,) = documents(world, SYSTEM, "app")
    assert document["inputs"]["build-commands"] == [{"type": "binary", "base64": "ZWNobyD//g=="}]
    assert hashlib.sha256(canonical(document["inputs"])).hexdigest() == document["key"]


def test_a_stratum_has_one_document_for_each_artifact(world: World) -> None:
    names = [document["inputs"]["artifact"] for document in documents(world, SYSTEM, "base")]
    assert names == ["base-devel", "base-runtime"]


def test_the_document_as_text(world: World) -> None:
    text = world.data("explain-key", SYSTEM, "app")
    title, _, document = text.partition("\n")
    (known,) = documents(world, SYSTEM, "app")
    assert title.startswith(f"{known['key']} is the SHA-256 of")
    assert json.loads(document) == known["inputs"]


def test_a_system_at_a_ref(world: World) -> None:
    old = documents(world, SYSTEM)
    world.chunk_spec("top", "app")["prefix"] = "/opt"
    world.commit()
    at = ["--repo=defs:definitions", "--ref=HEAD~1"]
    assert documents(world, *at, SYSTEM) == old
    assert documents(world, SYSTEM) != old


# What differs


def test_equal_keys_say_so(world: World) -> None:
    world.commit()
    (key,) = {document["key"] for document in documents(world, SYSTEM)}
    assert world.data("explain-key", "HEAD~1..HEAD", SYSTEM) == f"demo: the same key, {key}\n"
    assert differences(world, "HEAD..", SYSTEM) == []


def test_a_change_of_a_source(world: World) -> None:
    old = world.sources["lib"].tree
    new = world.sources["lib"].commit({"README": "changed\n"})
    world.chunk_spec("top", "lib")["ref"] = new
    world.commit()
    expected = [
        (
            "lib",
            "source",
            {"kind": "git", "tree": old},
            {"kind": "git", "tree": world.sources["lib"].tree},
        )
    ]
    # It is followed down from wherever one starts.
    for component in ([], ["app"], ["top-runtime"], ["lib"]):
        assert differences(world, "HEAD~1..HEAD", SYSTEM, *component) == expected
    assert differences(world, "HEAD~1..HEAD", SYSTEM, "shell") == []
    text = world.data("explain-key", "HEAD~1..", SYSTEM)
    assert f'-   "tree": "{old}"' in text
    assert f'+   "tree": "{world.sources["lib"].tree}"' in text


def test_a_commit_with_the_same_tree_changes_nothing(world: World) -> None:
    world.chunk_spec("top", "lib")["ref"] = world.sources["lib"].commit(message="reworded")
    world.commit()
    assert differences(world, "HEAD~1..HEAD", SYSTEM) == []


def edit_commands(world: World) -> None:
    world.documents["chunks/app.morph"]["build-commands"] = ["echo building app", "echo more"]


def edit_mode(world: World) -> None:
    world.chunk_spec("top", "app")["build-mode"] = "staging"


def edit_prefix(world: World) -> None:
    world.chunk_spec("top", "app")["prefix"] = "/opt"


def edit_jobs(world: World) -> None:
    world.documents["chunks/app.morph"]["max-jobs"] = 3


def edit_products(world: World) -> None:
    world.documents["chunks/app.morph"]["products"] = [
        {"artifact": "app-runtime", "include": ["README"]}
    ]


def edit_integration(world: World) -> None:
    world.documents["chunks/app.morph"]["system-integration"] = {
        "app-runtime": {"00-x": ["echo integrated"]}
    }


def edit_devices(world: World) -> None:
    device: dict[str, Any] = {"type": "c", "filename": "/dev/null", "permissions": "0666"}
    device |= {"major": 1, "minor": 3, "uid": 0, "gid": 0}
    world.documents["chunks/app.morph"]["devices"] = [device]


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (edit_commands, "build-commands"),
        (edit_mode, "build-mode"),
        (edit_prefix, "prefix"),
        (edit_jobs, "max-jobs"),
        (edit_products, "split-rules"),
        (edit_integration, "system-integration"),
        (edit_devices, "devices"),
    ],
)
def test_a_change_of_a_chunk_is_named_where_it_begins(
    world: World, edit: Callable[[World], None], field: str
) -> None:
    edit(world)
    world.write()
    assert changed_fields(world, "HEAD..", SYSTEM) == [("app", field)]
    assert changed_fields(world, "HEAD..", SYSTEM, "app") == [("app", field)]


def test_lines_of_commands_that_stay_are_not_marked(world: World) -> None:
    commands = [f"echo {number}" for number in range(20)]
    world.documents["chunks/app.morph"]["build-commands"] = commands
    world.commit()
    commands[10] = "echo ten"
    world.commit()
    lines = world.data("explain-key", "HEAD~1..", SYSTEM, "app").splitlines()
    assert "    - echo 10" in lines
    assert "    + echo ten" in lines
    marked = [line for line in lines if line.startswith(("    - ", "    + "))]
    assert len(marked) == 2
    assert len(lines) < 15


def test_changed_rules_for_strata_and_chunks(world: World) -> None:
    rules = world.documents["DEFAULTS"]["split-rules"]
    rules["chunk"][0]["include"] = ["include/.*"]
    world.write()
    assert set(changed_fields(world, "HEAD..", SYSTEM)) == {
        (name, "split-rules") for name in ("app", "lib", "shell")
    }


def test_another_architecture(world: World) -> None:
    world.documents[SYSTEM]["arch"] = "ppc64"
    world.write()
    found = changed_fields(world, "HEAD..", SYSTEM)
    assert ("demo", "arch") in found
    assert ("shell", "env") in found


def test_dependencies_that_come_and_go(world: World) -> None:
    world.chunk_spec("top", "app")["build-depends"] = []
    world.commit()
    old, new = "HEAD~1", "HEAD"
    found = differences(world, f"{old}..{new}", SYSTEM, "app")
    assert [(source, field) for source, field, _, _ in found] == [
        ("app", "dependency lib-devel"),
        ("app", "dependency lib-runtime"),
    ]
    assert all(before and after is None for _, _, before, after in found)
    back = differences(world, f"{new}..{old}", SYSTEM, "app")
    assert back == [(s, f, after, before) for s, f, before, after in found]
    text = world.data("explain-key", f"{old}..{new}", SYSTEM, "app")
    assert "app: dependency lib-devel is gone" in text
    assert "app: dependency lib-devel is new" in world.data("explain-key", "HEAD..HEAD~1", SYSTEM)


def test_the_order_of_dependencies(world: World) -> None:
    strata = world.documents[SYSTEM]["strata"]
    strata.reverse()
    world.chunk_spec("top", "lib")["prefix"] = "/opt"
    world.write()
    assert set(changed_fields(world, "HEAD..", SYSTEM)) == {
        ("demo", "order of dependencies"),
        ("lib", "prefix"),
    }


def test_which_bootstrap_chunks_are_visible(world: World) -> None:
    """What the chunks between need decides what of the bootstrap a chunk sees."""
    chunks = world.documents["strata/top.morph"]["chunks"]
    chunks.append(world.spec("shell", name="boot", **{"build-mode": "bootstrap"}))
    world.commit()
    world.chunk_spec("top", "lib")["build-depends"] = ["boot"]
    world.write()
    found = {(s, f): (old, new) for s, f, old, new in differences(world, "HEAD..", SYSTEM, "app")}
    assert found["app", "bootstrap"] == ([], ["boot-devel", "boot-runtime"])
    assert set(found) == {
        ("app", "bootstrap"),
        ("lib", "bootstrap"),
        ("lib", "dependency boot-devel"),
        ("lib", "dependency boot-runtime"),
    }


def test_a_component_that_comes_or_goes(world: World) -> None:
    world.documents["strata/base.morph"]["chunks"].append(world.spec("lib", name="extra"))
    world.commit()
    text = world.data("explain-key", "HEAD~1..HEAD", SYSTEM, "extra")
    assert text.startswith("extra: is new, ")
    assert world.data("explain-key", "HEAD..HEAD~1", SYSTEM, "extra").startswith("extra: is gone, ")
    (one,) = json.loads(world.data("explain-key", "--json", "HEAD~1..HEAD", SYSTEM, "extra"))
    assert one["old"] is None
    assert one["new"]
    assert "Components none are not in" in world.fail("explain-key", "HEAD~1..", SYSTEM, "none")


def test_a_system_of_another_name(world: World) -> None:
    world.documents[SYSTEM]["name"] = "renamed"
    world.write()
    assert changed_fields(world, "HEAD..", SYSTEM) == [("renamed", "name")]


def test_a_range_in_other_places(world: World) -> None:
    edit_prefix(world)
    world.commit()
    expected = [("app", "prefix")]
    world.definitions.git("branch", "feature/old", "HEAD~1")
    for arguments, cwd in (
        (["HEAD~1..HEAD", "demo"], "systems"),
        (["HEAD~1..HEAD", "../systems/demo.morph"], "strata"),
        (["feature/old..master", SYSTEM], ""),
        (["feature/old..", f"{world.definitions.path}/{SYSTEM}"], ""),
        (["--repo=defs:definitions", "--ref=master", "feature/old..", SYSTEM], ""),
        (["--repo=defs:definitions", "--ref=none", "feature/old..master", SYSTEM], ""),
    ):
        (one,) = json.loads(world.data("explain-key", "--json", *arguments, cwd=cwd))
        assert [(d["source"], d["field"]) for d in one["differences"]] == expected
    tree = world.root / "work tree"
    world.definitions.git("worktree", "add", "-q", str(tree), "feature/old")
    (one,) = json.loads(world.data("explain-key", "--json", "master..", SYSTEM, cwd=tree))
    assert [(d["source"], d["field"]) for d in one["differences"]] == expected


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["HEAD.."],
        ["..", SYSTEM],
        ["..HEAD", SYSTEM],
        ["HEAD..", SYSTEM, "app", "lib"],
        ["HEAD..", ""],
        [""],
        [SYSTEM, "app", "lib"],
        ["0" * 8, "1" * 8, "2" * 8],
    ],
)
def test_usage(world: World, arguments: list[str]) -> None:
    said = world.fail("explain-key", *arguments, status=2)
    assert "usage: morph explain-key" in said


def test_what_is_not_there(world: World) -> None:
    assert "Ref none was not found in repo" in world.fail("explain-key", "none..", SYSTEM)
    assert "Ref none was not found in repo" in world.fail("explain-key", "HEAD..none", SYSTEM)
    assert "Couldn't find definition file" in world.fail("explain-key", "HEAD..", "none")
    assert "is not in repo" in world.fail("explain-key", "HEAD..", "../x.morph")
    assert "is not in repo" in world.fail("explain-key", "../../x.morph", "app")
    assert "Components none are not in" in world.fail("explain-key", SYSTEM, "none")
    assert "Refusing ref" in world.fail("explain-key", "--", "--x..", SYSTEM)
    assert "Couldn't find definition file" in world.fail("explain-key", "strata/a..b.morph")


# Keys in the cache


@pytest.fixture
def built(world: World) -> World:
    world.build()
    return world


def test_keys_in_the_cache(built: World) -> None:
    for name, kind in (("app-runtime", "chunk"), ("top-runtime", "stratum"), ("*", "system")):
        key = built.key(name, kind)
        component = {"chunk": ["app"], "stratum": ["top-runtime"], "system": []}[kind]
        expected = documents(built, SYSTEM, *component)
        assert documents(built, key) == expected
        assert documents(built, key[:8]) == expected
        # As list-artifacts gives them.
        (file,) = (built.cache / "artifacts").glob(f"{key}.{kind}.{name}")
        assert documents(built, file.name) == expected


def test_two_keys_in_the_cache(built: World) -> None:
    old = {name: built.key(f"{name}-runtime") for name in ("app", "lib")}
    old_system = built.key("*", "system")
    lib = built.sources["lib"].commit({"README": "new\n"})
    built.chunk_spec("top", "lib")["ref"] = lib
    built.commit()
    built.build()
    keys = {p.name[:64] for p in (built.cache / "artifacts").glob("*.chunk.app-runtime")}
    (new_app,) = keys - {old["app"]}
    keys = {p.name[:64] for p in (built.cache / "artifacts").glob("*.system.*")}
    (new_system,) = keys - {old_system}
    assert changed_fields(built, old["app"], new_app) == [("lib", "source")]
    assert changed_fields(built, old_system[:10], new_system[:12]) == [("lib", "source")]
    assert differences(built, old["app"], old["app"][:9]) == []
    assert ("lib", "name") in changed_fields(built, old["app"], old["lib"])
    # Where an inner document is gone, the story ends one step earlier.
    (built.cache / "artifacts" / f"{old['lib']}.meta").unlink()
    assert changed_fields(built, old["app"], new_app) == [
        ("app", "dependency lib-devel"),
        ("app", "dependency lib-runtime"),
    ]


def test_keys_that_are_not_in_the_cache(built: World) -> None:
    key = built.key("app-runtime")
    absent = "0" * 64
    for arguments in ([absent], [absent[:8]], [key, absent], [absent, key]):
        assert f"no source is cached under key {absent[:8]}" in built.fail(
            "explain-key", *arguments
        )


def test_a_key_that_is_too_short_to_tell(built: World) -> None:
    artifacts = built.cache / "artifacts"
    key = built.key("app-runtime")
    other = key[:8] + "0" * 56
    for suffix in (".meta", ".manifest"):
        (artifacts / f"{other}{suffix}").write_bytes((artifacts / f"{key}{suffix}").read_bytes())
    said = built.fail("explain-key", key[:8])
    assert f"2 sources are cached under key {key[:8]}" in said
    assert key in said
    assert other in said


def test_an_empty_cache(world: World) -> None:
    assert "no source is cached under key" in world.fail("explain-key", "a" * 64)


@pytest.mark.parametrize(
    "damage", ["gone", "garbage", "null", "types", "altered", "kids", "binary"]
)
def test_metadata_that_is_damaged(built: World, damage: str) -> None:
    key = built.key("app-runtime")
    path = built.cache / "artifacts" / f"{key}.meta"
    meta = json.loads(path.read_text())
    match damage:
        case "gone":
            path.unlink()
        case "garbage":
            path.write_bytes(os.urandom(100))
        case "null":
            path.write_text(json.dumps(meta | {"cache-id": None}))
        case "types":
            path.write_text(json.dumps([meta]))
        case "altered":
            meta["cache-id"]["prefix"] = "/opt"
            path.write_text(json.dumps(meta))
        case "kids":
            path.write_text(json.dumps({"cache-id": {"kids": 7}}))
        case "binary":
            path.write_bytes(path.read_bytes().replace(b"echo building", b"echo \xff"))
    for arguments in ([key], [key, built.key("lib-runtime")], [built.key("lib-runtime"), key]):
        said = built.fail("explain-key", *arguments)
        assert f"the inputs behind {key} are not in" in said
    # In the middle of a comparison it is as good as absent.
    stratum = built.key("top-runtime", "stratum")
    assert differences(built, stratum, built.key("base-runtime", "stratum"))
