"""morph show-dependencies: every artifact of a build, last built first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands.world import SYSTEM, World

REPO = "defs:definitions"


def blocks_of(text: str) -> dict[str, list[str]]:
    """artifact -> what it depends on, in the order in which they are shown, without the header."""
    blocks: dict[str, list[str]] = {}
    for line in text.splitlines()[1:]:
        name = line.strip().removeprefix("-> ")
        if line.startswith("    -> "):
            blocks[list(blocks)[-1]].append(name)
        else:
            assert line == f"  {name}"
            assert name not in blocks
            blocks[name] = []
    return blocks


def test_the_whole_of_a_listing(world: World, tmp_path: Path) -> None:
    head = {name: repository.head for name, repository in world.sources.items()}
    text = world.data("show-dependencies", REPO, "master", SYSTEM, cwd=tmp_path)
    base = "defs:definitions|master|strata/base.morph|"
    shell = f"test:shell|{head['shell']}|shell.morph|shell|"
    lib = f"test:lib|{head['lib']}|lib.morph|lib|"
    app = f"test:app|{head['app']}|chunks/app.morph|app|"
    assert text.splitlines() == [
        "dependency graph for defs:definitions|master|systems/demo.morph:",
        "  defs:definitions|master|systems/demo.morph|demo|demo-rootfs",
        f"    -> {base}base-devel|base-devel",
        f"    -> {base}base-runtime|base-runtime",
        "    -> defs:definitions|master|strata/top.morph|top-runtime|top-runtime",
        "  defs:definitions|master|strata/top.morph|top-runtime|top-runtime",
        f"    -> {base}base-devel|base-devel",
        f"    -> {base}base-runtime|base-runtime",
        *sorted([f"    -> {app}app-runtime", f"    -> {lib}lib-runtime"]),
        f"  {app}app-runtime",
        f"    -> {base}base-devel|base-devel",
        f"    -> {base}base-runtime|base-runtime",
        f"    -> {lib}lib-devel",
        f"    -> {lib}lib-runtime",
        f"  {lib}lib-runtime",
        f"    -> {base}base-devel|base-devel",
        f"    -> {base}base-runtime|base-runtime",
        f"  {lib}lib-devel",
        f"    -> {base}base-devel|base-devel",
        f"    -> {base}base-runtime|base-runtime",
        f"  {base}base-runtime|base-runtime",
        f"    -> {shell}shell-runtime",
        f"  {base}base-devel|base-devel",
        f"    -> {shell}shell-devel",
        f"  {shell}shell-runtime",
        f"  {shell}shell-devel",
    ]


def test_blocks_come_in_reverse_build_order(world: World) -> None:
    text = world.data("show-dependencies", world.definitions.url, "master", SYSTEM)
    blocks = blocks_of(text)
    order = list(blocks)
    for artifact, needed in blocks.items():
        assert needed == sorted(needed)
        assert all(order.index(artifact) < order.index(name) for name in needed)


def test_several_triplets(world: World) -> None:
    world.definitions.git("tag", "v1")
    world.chunk_spec("base", "shell")["name"] = "renamed"
    world.commit()
    new = world.data("show-dependencies", REPO, "master", "systems/demo.morph")
    old = world.data("show-dependencies", REPO, "v1", SYSTEM)
    assert "|renamed|" in new
    assert "|renamed|" not in old
    both = ["show-dependencies", REPO, "master", SYSTEM, REPO, "v1", SYSTEM]
    assert world.data(*both) == new + old


def test_statuses_are_told_unless_quiet(world: World) -> None:
    quiet = world.data("show-dependencies", REPO, "master", SYSTEM)
    ran = world.run("show-dependencies", REPO, "master", SYSTEM)
    lines = ran.out.splitlines()
    statuses = [line for line in lines if "Deciding on task order" in line]
    assert len(statuses) == 1
    assert quiet.splitlines() == [line for line in lines if not line.startswith("2")]


def test_json(world: World) -> None:
    text = world.data("show-dependencies", REPO, "master", SYSTEM)
    ran = world.run("show-dependencies", "--json", REPO, "master", SYSTEM, REPO, "HEAD", SYSTEM)
    first, second = json.loads(ran.out)
    assert (first["repo"], first["ref"], first["morphology"]) == (REPO, "master", SYSTEM)
    assert second["ref"] == "HEAD"
    shown = []
    for artifact in first["artifacts"]:
        shown.append(f"  {artifact['artifact']}")
        shown += [f"    -> {name}" for name in artifact["dependencies"]]
    assert shown == text.splitlines()[1:]


@pytest.mark.parametrize("count", [0, 1, 2, 4, 5])
def test_arguments_come_in_threes(world: World, count: int) -> None:
    arguments = [REPO, "master", SYSTEM, REPO, "master"][:count]
    said = world.fail("show-dependencies", *arguments, status=2)
    assert "Argument list must have full triplets" in said
    assert not (world.cache / "gits").is_dir() or not list((world.cache / "gits").iterdir())


def test_wrong_arguments(world: World) -> None:
    assert "Ref none was not found in repo" in world.fail("show-dependencies", REPO, "none", SYSTEM)
    said = world.fail("show-dependencies", REPO, "master", "systems/none.morph")
    assert "Couldn't find definition file to build: systems/none.morph" in said
    for ref in ("--upload-pack=touch /tmp/x", "a..b", "", "a b"):
        assert "Refusing ref" in world.fail("show-dependencies", "--", REPO, ref, SYSTEM)
    for repo in ("", "--x", "ext::sh -c true", "x\ny"):
        said = world.fail("show-dependencies", "--", repo, "master", SYSTEM)
        assert "Refusing repository" in said
    for path in ("../outside.morph", "/etc/x.morph", ""):
        world.fail("show-dependencies", REPO, "master", path)
