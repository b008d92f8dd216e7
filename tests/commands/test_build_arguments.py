"""morph build: what its arguments mean, and what is refused before anything is built."""

from __future__ import annotations

import re

import pytest

from morphlib.architecture import host_architecture
from tests.commands.world import SYSTEM, World, chunk_file


def built(out: str) -> set[str]:
    return set(re.findall(r"\] Building (\w+ \S+)", out))


def cached(out: str) -> set[str]:
    """What the end of a build names, as it does for scripts."""
    found = re.findall(r"^[-0-9]{10} [0-9:]{8} (\w+ \S+) is cached at (\S+)$", out, re.MULTILINE)
    assert all(path.endswith("." + what.replace(" ", ".")) for what, path in found)
    return {what for what, _ in found}


def test_without_arguments(world: World) -> None:
    assert "usage: morph build" in world.fail("build", status=2)


def test_a_chunk_and_what_it_needs(world: World) -> None:
    ran = world.build("lib")
    assert built(ran.out) == {
        *("chunk shell", "stratum base-devel", "stratum base-runtime", "chunk lib"),
    }
    assert cached(ran.out) == {"chunk lib-devel", "chunk lib-runtime"}


def test_a_stratum_is_all_of_its_artifacts(world: World) -> None:
    ran = world.build("base")
    assert built(ran.out) == {"chunk shell", "stratum base-devel", "stratum base-runtime"}
    assert cached(ran.out) == {"stratum base-devel", "stratum base-runtime"}
    more = world.build("base-runtime", "lib", "lib")
    assert built(more.out) == {"chunk lib"}
    assert cached(more.out) == {"stratum base-runtime", "chunk lib-devel", "chunk lib-runtime"}


def test_components_that_are_not_there_are_told_together(world: World) -> None:
    said = world.fail("build", SYSTEM, "nope", "lib", "chunks/app.morph", "")
    assert f"Components nope, chunks/app.morph,  are not in {SYSTEM}" in said
    assert not list((world.cache / "artifacts").glob("*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "Couldn't find definition file to build: none.morph"),
        (["systems/demo"], "Couldn't find definition file to build: systems/demo"),
        (["../demo.morph"], "File ../demo.morph is not in repo "),
        (["/systems/demo.morph"], "File /systems/demo.morph is not in repo "),
        (["strata/base.morph"], "In order to build this stratum directly"),
        (["chunks/app.morph"], "In order to build this chunk directly"),
        (["clusters/c.morph"], "Cannot build a morphology of type 'cluster'"),
        (["VERSION"], "Couldn't find definition file to build: VERSION.morph"),
        (["--repo=defs:definitions", SYSTEM], "--repo and --ref work to"),
        (["--ref=master", SYSTEM], "--repo and --ref work to"),
        (["--repo=defs:none", "--ref=master", SYSTEM], "Cannot find remote git repository: "),
        (["--repo=defs:definitions", "--ref=none", SYSTEM], "Ref none was not found in repo "),
    ],
)
def test_what_is_refused(world: World, arguments: list[str], message: str) -> None:
    deploy = {"d": {"type": "tar", "location": "x"}}
    world.documents["clusters/c.morph"] = {
        "name": "c",
        "kind": "cluster",
        "systems": [{"morph": SYSTEM, "deploy": deploy}],
    }
    world.write()
    ran = world.run("build", *arguments)
    assert ran.status in (1, 2)
    assert ran.err.startswith("ERROR: ")
    assert message in ran.err
    assert "Starting build" not in ran.out


def test_another_architecture(world: World) -> None:
    other = "ppc64" if host_architecture() != "ppc64" else "x86_64"
    world.documents[SYSTEM]["arch"] = other
    world.write()
    said = world.fail("build", SYSTEM)
    assert "Are you trying to cross-build? Host architecture is " in said
    assert f"is {host_architecture()} but target is {other}" in said


def test_disk_space(world: World) -> None:
    said = world.fail("build", SYSTEM, cachedir_min_space="1000t", tempdir_min_space="500t")
    assert said.startswith("ERROR: Insufficient space on disk:\n")
    # Both are on one device, which has to have room for both.
    for place in (world.cache, world.temp):
        required = 1500 * 1000**4
        assert re.search(f"{place} requires {required} bytes free, has [0-9]+\n", said)
    assert "morph gc" in said
    assert "tempdir-min-space" in said
    assert "cachedir-min-space" in said
    assert "trying to" not in said


def test_mistakes_are_told_at_once_with_their_places(world: World) -> None:
    world.chunk_spec("base", "shell")["ref"] = ""
    world.chunk_spec("top", "lib")["build-depends"] = ["none"]
    world.documents["chunks/app.morph"] = {**chunk_file("app"), "nonsense": 1}
    world.documents[SYSTEM]["arch"] = "pdp11"
    world.write()
    said = world.fail("build", SYSTEM)
    for path in (SYSTEM, "strata/base.morph", "strata/top.morph", "chunks/app.morph"):
        assert re.search(rf"^ERROR: {path}:[0-9]+:[0-9]+: ", said, re.MULTILINE), said


def test_a_cyclic_dependency_is_shown_whole(world: World) -> None:
    world.documents["strata/base.morph"]["build-depends"] = [{"morph": "strata/top.morph"}]
    world.write()
    said = world.fail("build", SYSTEM)
    assert "Cyclic dependency between" in said
    assert "strata/base.morph" in said
    assert "strata/top.morph" in said
