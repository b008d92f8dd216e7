"""morph list-artifacts: names by the rules, wherever the definitions are; nothing is touched."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.commands.world import SYSTEM, World, chunk_file
from tests.sources.repositories import snapshot

NAMES = [
    *("chunk.app-runtime", "chunk.lib-devel", "chunk.lib-runtime"),
    *("chunk.shell-devel", "chunk.shell-runtime"),
    *("stratum.base-devel", "stratum.base-runtime", "stratum.top-runtime"),
    "system.demo-rootfs",
]


def names_in(text: str) -> list[str]:
    """The names of the listed artifacts without their keys."""
    lines = [line.partition(".")[2] for line in text.splitlines()]
    return sorted(name for name in lines if name.count(".") == 1)


def test_the_files_of_a_system(world: World) -> None:
    text = world.data("list-artifacts", SYSTEM)
    lines = text.splitlines()
    assert names_in(text) == NAMES
    assert lines == sorted(set(lines))
    assert all(re.match(r"[0-9a-f]{64}\.", line) for line in lines)
    keys = {line.partition(".")[0] for line in lines}
    expected = {line for line in lines if line.partition(".")[2] in NAMES}
    expected |= {f"{line}.meta" for line in expected if ".stratum." in line}
    expected |= {f"{key}.meta" for key in keys}
    expected |= {f"{line[:64]}.build-log" for line in expected if ".chunk." in line}
    assert set(lines) == expected
    assert not (world.cache / "artifacts").exists() or not any(
        (world.cache / "artifacts").iterdir()
    )


def test_json_holds_the_same_names(world: World) -> None:
    listed = world.data("list-artifacts", SYSTEM).splitlines()
    assert json.loads(world.data("list-artifacts", "--json", SYSTEM)) == listed


def test_listings_go_to_standard_output_in_spite_of_output(world: World, tmp_path: Path) -> None:
    ran = world.run("list-artifacts", f"--output={tmp_path}/out", SYSTEM)
    assert names_in(ran.out) == NAMES
    assert "Deciding on task order" in (tmp_path / "out").read_text()


def test_several_systems_are_one_sorted_set(world: World) -> None:
    small = {"name": "small", "kind": "system", "arch": "ppc64"}
    strata = [{"name": "base", "morph": "strata/base.morph"}]
    world.documents["systems/small.morph"] = {**small, "strata": strata}
    world.commit()
    one = world.data("list-artifacts", SYSTEM).splitlines()
    other = world.data("list-artifacts", "systems/small.morph").splitlines()
    assert any(line.endswith(".system.small-rootfs") for line in other)
    both = world.data("list-artifacts", SYSTEM, "systems/small.morph").splitlines()
    assert both == sorted({*one, *other})
    # The keys of two architectures have nothing in common.
    assert len(both) == len(one) + len(other)
    assert world.data("list-artifacts", SYSTEM, SYSTEM).splitlines() == one


@pytest.mark.parametrize(
    ("cwd", "argument"),
    [
        ("systems", "demo.morph"),
        ("systems", "demo"),
        ("systems", "../systems/demo.morph"),
        ("strata", "../systems/demo.morph"),
        ("", "./systems//demo.morph"),
        ("", "strata/../systems/demo.morph"),
        ("strata", "{definitions}/systems/demo.morph"),
    ],
)
def test_ways_to_name_a_system(world: World, cwd: str, argument: str) -> None:
    argument = argument.format(definitions=world.definitions.path)
    expected = world.data("list-artifacts", SYSTEM)
    assert world.data("list-artifacts", argument, cwd=cwd) == expected


def test_a_system_at_the_root(world: World) -> None:
    world.documents["demo.morph"] = world.documents.pop(SYSTEM)
    world.commit()
    assert names_in(world.data("list-artifacts", "demo")) == NAMES
    assert "Couldn't find definition file to build: systems/none" in world.fail(
        "list-artifacts", "systems/none"
    )


def test_a_repository_at_a_ref(world: World, tmp_path: Path) -> None:
    expected = world.data("list-artifacts", SYSTEM)
    world.definitions.git("tag", "v1")
    world.chunk_spec("base", "shell")["name"] = "renamed"
    world.commit()
    for repo in ("defs:definitions", world.definitions.url):
        named = world.data("list-artifacts", f"--repo={repo}", "--ref=v1", SYSTEM, cwd=tmp_path)
        assert named == expected
        older = world.data("list-artifacts", repo, "v1", SYSTEM, cwd=tmp_path)
        assert older == expected
    both = world.data("list-artifacts", "defs:definitions", "v1", SYSTEM, SYSTEM, cwd=tmp_path)
    assert both == expected
    now = world.data("list-artifacts", "defs:definitions", "master", SYSTEM, cwd=tmp_path)
    assert "chunk.renamed-runtime" in names_in(now)


def test_three_systems_are_no_older_form(world: World) -> None:
    expected = world.data("list-artifacts", SYSTEM)
    assert world.data("list-artifacts", SYSTEM, SYSTEM, SYSTEM) == expected


@pytest.mark.parametrize("options", [["--repo=defs:definitions"], ["--ref=master"]])
def test_repo_and_ref_go_together(world: World, options: list[str]) -> None:
    for arguments in ([SYSTEM], ["defs:definitions", "master", SYSTEM]):
        said = world.fail("list-artifacts", *options, *arguments, status=2)
        assert "--repo and --ref work to" in said


def test_what_is_missing_is_said(world: World, tmp_path: Path) -> None:
    assert "usage: morph list-artifacts" in world.fail("list-artifacts", status=2)
    assert "must be run from inside a Git repository" in world.fail(
        "list-artifacts", SYSTEM, cwd=tmp_path
    )
    said = world.fail("list-artifacts", "--repo=defs:definitions", "--ref=none", SYSTEM)
    assert "Ref none was not found in repo" in said
    assert "Couldn't find definition file to build: x.morph" in world.fail("list-artifacts", "x")
    for outside in ("../elsewhere.morph", "/etc/passwd.morph", "../definitions"):
        said = world.fail("list-artifacts", outside)
        assert f"File {outside} is not in repo {world.definitions.path}" in said


def test_only_systems_are_listed(world: World) -> None:
    world.documents["clusters/c.morph"] = {
        "name": "c",
        "kind": "cluster",
        "systems": [{"morph": SYSTEM, "deploy": {"d": {"type": "tar", "location": "x"}}}],
    }
    world.commit()
    said = world.fail("list-artifacts", "clusters/c.morph")
    assert "Cannot build a morphology of type 'cluster'" in said
    assert "In order to build this stratum directly" in world.fail(
        "list-artifacts", "strata/base.morph"
    )
    assert "In order to build this chunk directly" in world.fail(
        "list-artifacts", "chunks/app.morph"
    )


def test_local_changes_count(world: World) -> None:
    before = world.data("list-artifacts", SYSTEM)
    world.documents["chunks/app.morph"]["build-commands"] = ["echo something else"]
    world.write()
    changed = world.data("list-artifacts", SYSTEM)
    assert names_in(changed) == NAMES
    unchanged = set(before.splitlines()) & set(changed.splitlines())
    gone = {line[65:] for line in set(before.splitlines()) - unchanged}
    assert {"chunk.app-runtime", "stratum.top-runtime", "system.demo-rootfs"} <= gone
    assert not any("lib" in name or "base" in name for name in gone)


def test_new_definitions_count_whether_added_or_not(world: World) -> None:
    world.documents["systems/new.morph"] = {**world.documents[SYSTEM], "name": "new"}
    world.documents["strata/base.morph"]["chunks"].append(
        world.spec("lib", name="extra", morph="chunks/extra.morph")
    )
    world.documents["chunks/extra.morph"] = chunk_file("extra", build=["true"])
    world.write()
    world.definitions.git("add", "chunks/extra.morph")
    listed = names_in(world.data("list-artifacts", "systems/new.morph"))
    assert {"system.new-rootfs", "chunk.extra-runtime"} <= set(listed)


def test_other_new_files_do_not_count(world: World) -> None:
    defaults = world.documents.pop("DEFAULTS")
    world.chunk_spec("base", "shell")["build-system"] = "manual"
    world.chunk_spec("top", "lib")["build-system"] = "manual"
    del world.documents[SYSTEM]["strata"][1]["artifacts"]
    (world.definitions.path / "DEFAULTS").unlink()
    world.commit()
    ran = world.run("--quiet", "list-artifacts", SYSTEM)
    assert "No DEFAULTS file found." in ran.err
    world.documents["DEFAULTS"] = defaults
    world.write()
    world.definitions.git("add", "DEFAULTS")
    added = world.run("--quiet", "list-artifacts", SYSTEM)
    assert (added.out, added.err) == (ran.out, ran.err)
    assert "chunk.app" in names_in(ran.out)


def test_deleted_definitions_are_gone(world: World) -> None:
    (world.definitions.path / "strata/base.morph").unlink()
    said = world.fail("list-artifacts", SYSTEM)
    assert "strata/base.morph" in said


def test_local_changes_can_be_ignored(world: World) -> None:
    expected = world.data("list-artifacts", SYSTEM)
    said = world.fail("list-artifacts", "--local-changes=ignore", SYSTEM)
    assert "no remote called origin" in said
    origin = world.root / "origin"
    world.definitions.git("clone", "-q", "--bare", ".", str(origin))
    world.definitions.git("remote", "add", "origin", f"file://{origin}")
    world.documents["chunks/app.morph"]["build-commands"] = ["echo something else"]
    world.write()
    assert world.data("list-artifacts", "--local-changes=ignore", SYSTEM) == expected
    world.commit()
    said = world.fail("list-artifacts", "--local-changes=ignore", SYSTEM)
    assert 'wasn\'t found in the "origin" remote' in said
    assert "--local-changes=include" in said


def test_branches_and_tags_and_worktrees(world: World) -> None:
    expected = world.data("list-artifacts", SYSTEM)
    world.definitions.git("checkout", "-q", "-b", "feature/x")
    assert world.data("list-artifacts", SYSTEM) == expected
    world.definitions.git("checkout", "-q", "--detach")
    assert world.data("list-artifacts", SYSTEM) == expected
    tree = world.root / "work tree"
    world.definitions.git("worktree", "add", "-q", str(tree), "master")
    assert world.data("list-artifacts", SYSTEM, cwd=tree) == expected


def test_the_checkout_is_not_touched(world: World) -> None:
    world.documents["chunks/app.morph"]["build-commands"] = ["echo stashed"]
    world.write()
    world.definitions.git("stash")
    world.documents["systems/new.morph"] = {**world.documents[SYSTEM], "name": "new"}
    world.write()
    world.definitions.git("add", "chunks/app.morph")
    (world.definitions.path / "untracked").write_text("x")
    (world.definitions.path / "VERSION").chmod(0o755)
    before = snapshot(world.definitions.path)
    refs = world.definitions.git("for-each-ref")
    for arguments in (
        ["list-artifacts", SYSTEM],
        ["list-artifacts", "--local-changes=include", "systems/new.morph"],
        ["show-dependencies", world.definitions.url, "master", SYSTEM],
        ["explain-key", "HEAD..", SYSTEM],
        ["explain-key", SYSTEM, "app"],
    ):
        world.data(*arguments)
        assert snapshot(world.definitions.path) == before
    assert world.definitions.git("for-each-ref") == refs


def test_mistakes_in_definitions_are_told_at_once_with_places(world: World) -> None:
    world.chunk_spec("base", "shell")["repo"] = ""
    world.documents["chunks/app.morph"]["build-comands"] = ["x"]
    world.commit()
    said = world.fail("list-artifacts", SYSTEM)
    assert re.search(r"^ERROR: strata/base\.morph:\d+:\d+: ", said, re.MULTILINE)
    assert re.search(r"^ERROR: chunks/app\.morph:\d+:\d+: ", said, re.MULTILINE)
    assert said.count("ERROR: ") == 2


def test_refs_that_are_not_there_are_named(world: World) -> None:
    world.chunk_spec("top", "lib")["ref"] = "no-such-branch"
    world.chunk_spec("base", "shell")["repo"] = "test:nothing"
    world.commit()
    said = world.fail("list-artifacts", SYSTEM)
    assert "gits/lib has no commit at ref no-such-branch" in said
    assert re.search("Cannot find remote git repository: .*gits/nothing$", said, re.MULTILINE)
