"""morph show-build-log: the log of a chunk as it is defined now."""

from __future__ import annotations

import json

from tests.commands.world import SYSTEM, World


def show(world: World, chunk: str, *options: str, cwd: str = "") -> str:
    return world.data("show-build-log", *options, SYSTEM, chunk, cwd=cwd)


def test_logs_of_what_was_built_and_what_was_not(world: World) -> None:
    said = world.fail("show-build-log", SYSTEM, "app")
    (key,) = (d["key"] for d in json.loads(world.data("explain-key", "--json", SYSTEM, "app")))
    assert f"No build log for artifact {key} found on cache server" in said
    world.build()
    log = show(world, "app")
    assert "\nbuilding app\n" in log
    assert log.encode() == (world.cache / "artifacts" / f"{key}.build-log").read_bytes()
    assert "building app" not in show(world, "lib")
    # The argument is a path from the root wherever one is.
    assert show(world, "app", cwd="strata") == log
    assert json.loads(show(world, "app", "--json")) == {"chunk": "app", "key": key, "log": log}
    # What is defined now was never built.
    world.documents["chunks/app.morph"]["build-commands"] = ["echo other"]
    world.write()
    assert "No build log for artifact" in world.fail("show-build-log", SYSTEM, "app")
    assert show(world, "app", "--repo=defs:definitions", "--ref=master") == log


def test_the_log_of_a_failure(world: World) -> None:
    commands = ["echo before it fails", "false"]
    world.documents["chunks/app.morph"]["build-commands"] = commands
    world.write()
    assert world.run("build", SYSTEM).status == 1
    assert "before it fails\n" in show(world, "app")


def test_bytes_that_are_no_text(world: World) -> None:
    world.documents["chunks/app.morph"]["build-commands"] = [r"printf 'a\377\303\251\033[1mb\n'"]
    world.write()
    world.build("app")
    log = show(world, "app")
    assert "a\\xffé\x1b[1mb\n" in log
    stored = (world.cache / "artifacts" / f"{world.key('app-runtime')}.build-log").read_bytes()
    assert b"a\xff\xc3\xa9\x1b[1mb\n" in stored


def test_output_goes_where_it_is_to_go(world: World) -> None:
    world.build("shell")
    log = show(world, "shell")
    ran = world.run("--quiet", f"--output={world.root}/out", "show-build-log", SYSTEM, "shell")
    assert (ran.status, ran.out, ran.err) == (0, "", "")
    assert (world.root / "out").read_text() == log


def test_any_architecture(world: World) -> None:
    world.documents[SYSTEM]["arch"] = "ppc64"
    world.write()
    assert "No build log for artifact" in world.fail("show-build-log", SYSTEM, "app")


def test_what_is_not_in_the_system(world: World) -> None:
    for name in ("none", "base", "base-runtime", "demo", "", "../x", "app-runtime"):
        assert "Component not found" in world.fail("show-build-log", SYSTEM, name)
    for system in ("demo", "../systems/demo.morph", "/etc/x.morph", ""):
        world.fail("show-build-log", system, "app", cwd="systems")


def test_usage(world: World) -> None:
    for arguments in ([], [SYSTEM], [SYSTEM, "app", "lib"]):
        said = world.fail("show-build-log", *arguments, status=2)
        assert "usage: morph show-build-log SYSTEM CHUNK" in said
