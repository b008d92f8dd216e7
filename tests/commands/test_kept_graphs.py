"""What a commit of definitions resolves to is kept, and never taken for something else."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from bench.trove import serve
from tests.commands.world import SYSTEM, World


def listing(world: World, *options: str, **settings: str) -> str:
    return world.data("list-artifacts", *options, SYSTEM, **settings)


def test_the_second_run_takes_what_the_first_one_kept(world: World) -> None:
    first = listing(world)
    (kept,) = world.kept()
    # What is read is what is kept: without sources nothing could be resolved.
    (world.cache / "gits/trees.cache.json").unlink()
    (world.root / "gits").rename(world.root / "gone")
    os.utime(kept, (1, 1))
    assert listing(world) == first
    assert world.kept() == [kept]
    assert kept.stat().st_mtime > 1, "how long ago it was used counts"


def test_every_command_gets_the_same(world: World) -> None:
    commands = (
        ["list-artifacts", SYSTEM],
        ["explain-key", SYSTEM],
        ["explain-key", SYSTEM, "app"],
        ["explain-key", "--json", SYSTEM, "top"],
        ["show-dependencies", "defs:definitions", "master", SYSTEM],
    )
    first = [world.data(*command) for command in commands]
    (world.root / "gits").rename(world.root / "gone")
    assert [world.data(*command) for command in commands] == first
    # One for the checkout and one for the repository, whose names stand in metadata.
    assert len(world.kept()) == 2


@pytest.mark.parametrize("damage", ["truncate", "empty", "alter", "garbage", "directory"])
def test_a_damaged_entry_is_worked_out_again(world: World, damage: str) -> None:
    first = listing(world)
    (kept,) = world.kept()
    content = kept.read_bytes()
    match damage:
        case "truncate":
            kept.write_bytes(content[: len(content) // 2])
        case "empty":
            kept.write_bytes(b"")
        case "alter":
            kept.write_bytes(content.replace(b"echo building app", b"echo building APP"))
        case "garbage":
            kept.write_bytes(bytes(range(256)) * 10)
        case "directory":
            kept.unlink()
            kept.mkdir()
    assert listing(world) == first
    if damage != "directory":
        assert kept.read_bytes() == content


def test_an_entry_that_another_program_wrote_is_worked_out_again(world: World) -> None:
    first = listing(world)
    (kept,) = world.kept()
    content = kept.read_bytes()
    for text in (b"{}", b'{"warnings":[],"graph":{}}', b'{"warnings":[],"graph":7}', b"[1,2]"):
        kept.write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
        assert listing(world) == first
        assert kept.read_bytes() == content


def test_graphs_that_cannot_be_kept_are_worked_out(world: World) -> None:
    first = listing(world)
    (kept,) = world.kept()
    kept.unlink()
    kept.parent.rmdir()
    kept.parent.write_text("no directory")
    assert listing(world) == first


def test_a_new_commit_is_seen(world: World) -> None:
    first = listing(world)
    world.documents["chunks/app.morph"]["build-commands"] = ["echo other"]
    world.commit()
    second = listing(world)
    assert second != first
    world.definitions.git("checkout", "-q", "HEAD~1")
    assert listing(world) == first
    assert len(world.kept()) == 2


def test_local_changes_are_seen_and_not_kept(world: World) -> None:
    first = listing(world)
    world.documents["chunks/app.morph"]["build-commands"] = ["echo other"]
    world.write()
    changed = listing(world)
    assert changed != first
    assert len(world.kept()) == 1
    world.documents["chunks/app.morph"]["build-commands"] = ["echo another"]
    world.write()
    assert listing(world) not in (first, changed)
    world.definitions.git("checkout", "-q", ".")
    assert listing(world) == first
    assert len(world.kept()) == 1


def test_other_aliases_are_seen(world: World) -> None:
    listing(world)
    elsewhere = world.root / "elsewhere"
    (world.root / "gits").rename(elsewhere)
    ran = world.run(
        "--quiet", "list-artifacts", SYSTEM, repo_alias=f"test={elsewhere.as_uri()}/%s#x"
    )
    assert (ran.status, ran.err) == (0, "")
    assert len(world.kept()) == 2
    listing(world, trove_host="127.0.0.1", git_resolve_cache_server="")
    assert len(world.kept()) == 3


def test_names_of_branches_are_resolved_each_time(world: World) -> None:
    world.chunk_spec("top", "app")["ref"] = "master"
    world.commit()
    first = listing(world)
    assert world.kept() == []
    world.sources["app"].commit({"README": "changed\n"})
    assert listing(world) != first
    assert world.kept() == []


def test_refs_that_a_server_resolves(world: World) -> None:
    with serve() as url:
        listing(world, cache_server=url, repo_alias="test=git://example.com/%s#x")
        assert len(world.kept()) == 1
        world.chunk_spec("top", "app")["ref"] = "master"
        world.commit()
        listing(world, cache_server=url, repo_alias="test=git://example.com/%s#x")
        assert len(world.kept()) == 1


def test_warnings_are_told_again(world: World) -> None:
    world.documents["chunks/app.morph"]["name"] = "application"
    world.commit()
    first = world.run("list-artifacts", SYSTEM)
    assert first.status == 0
    assert first.err.startswith("WARNING: ")
    assert "application" in first.err
    assert len(world.kept()) == 1
    assert world.run("list-artifacts", SYSTEM).err == first.err


def test_each_warning_is_told_once(world: World) -> None:
    world.documents["chunks/app.morph"]["name"] = "application"
    world.documents["systems/other.morph"] = {**world.documents[SYSTEM], "name": "other"}
    world.commit()
    runs = [world.run("list-artifacts", SYSTEM, "systems/other.morph") for _ in range(2)]
    assert runs[0].err.count("WARNING: ") == 1
    assert runs[1].err == runs[0].err


def test_warnings_stay_with_the_system_that_they_are_about(world: World) -> None:
    world.documents["chunks/app.morph"]["name"] = "application"
    strata = [{"name": "base", "morph": "strata/base.morph"}]
    world.documents["systems/small.morph"] = {
        **world.documents[SYSTEM],
        "name": "small",
        "strata": strata,
    }
    world.commit()
    world.run("list-artifacts", SYSTEM, "systems/small.morph")
    assert world.run("list-artifacts", "systems/small.morph").err == ""


def test_the_place_of_the_cache_is_left_as_it_was(world: World, tmp_path: Path) -> None:
    listing(world)
    (kept,) = world.kept()
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]
    assert len(kept.name) == 64
