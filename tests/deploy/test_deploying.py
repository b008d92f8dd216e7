"""The command `morph deploy` as a whole."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from typing import Any

from morphlib.build.members import MTIME
from tests.deploy.world import CLUSTER, World

OWN = {".", "baserock", "baserock/deployment.meta"}


def expected(world: World, *, nodes: bool) -> dict[str, Any]:
    """What unpacking the artifact gives, as the extension `inventory` tells it."""
    files: dict[str, Any] = {}
    kinds = {
        tarfile.DIRTYPE: 0o040000,
        tarfile.REGTYPE: 0o100000,
        tarfile.SYMTYPE: 0o120000,
        tarfile.FIFOTYPE: 0o010000,
        tarfile.CHRTYPE: 0o020000,
    }
    links: dict[str, list[str]] = {}
    with tarfile.open(world.trove.image()) as archive:
        for info in archive:
            name = info.name.removeprefix("./") or "."
            if info.islnk():
                files[name] = files[info.linkname]
                links.setdefault(info.linkname, [info.linkname]).append(name)
                continue
            number = os.makedev(info.devmajor, info.devminor) if info.ischr() else 0
            mode, content = kinds[info.type] | info.mode, []
            if info.ischr() and not nodes:
                mode, number = 0o100000, 0
                content = ["e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]
            elif info.isreg():
                file = archive.extractfile(info)
                assert file is not None
                content = [hashlib.sha256(file.read()).hexdigest()]
            elif info.issym():
                content = [info.linkname]
            files[name] = [mode, info.uid, info.gid, MTIME * 10**9, number, *content, []]
    return {"files": files, "links": sorted(sorted(each) for each in links.values())}


def test_a_tree_is_what_the_artifact_holds(any_world: World) -> None:
    """Owners, modes, times, links, attributes and devices, for the first deployment and others."""
    world = any_world
    world.cluster(
        one={"type": "inventory", "location": "one.json"},
        two={"type": "inventory", "location": "two.json"},
    )
    wanted = expected(world, nodes=world.trove.user == 0)
    assert "d/e" in wanted["files"]
    assert wanted["links"]
    for _ in range(2):
        world.deploy()
        for name in ("one.json", "two.json"):
            found = world.inventory(name)
            assert found["files"].pop("baserock/deployment.meta")[0] == 0o100644
            assert found == wanted


def test_what_is_told(world: World) -> None:
    world.write("c.configure", "#!/bin/sh\necho configuring; echo careful >&2\n")
    world.configure_with("c")
    world.cluster(one="out")
    ran = world.deploy()
    prefix = "[systems/sys.morph][one]"
    lines = [line[20:] for line in ran.out.splitlines()]
    lines = [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]
    place = next(line for line in lines if line.startswith("System unpacked at "))
    assert place.startswith(f"System unpacked at {world.trove.temp}/deployments/")
    assert lines[:-1] == [
        "Deploying with touch to out",
        "Unpacking system for configuration",
        place,
        "Writing deployment metadata file",
        "Configure system",
        "configuring",
        "Writing to device",
    ]
    assert ran.out.endswith(" Finished deployment\n")
    assert "careful" in ran.err.splitlines()
    assert world.output("out") == "done\n"


def test_the_metadata(any_world: World) -> None:
    world = any_world
    world.write("meta.write", '#!/bin/sh\ncp "$1/baserock/deployment.meta" "$2"\n')
    world.write("meta.write.help", "help: x\nsecret:\n- HUSH\n")
    world.cluster(
        one={
            "type": "meta",
            "location": "https://me:hidden-1@example.com/x",
            "A": [1, None],
            "HUSH": "hidden-2",
            "DB_PASSWORD": "hidden-3",
            "SSHKEYS": "a.pub",
        },
    )
    world.write("VERSION", "version:  8\n")
    world.deploy(
        "one.location=meta.json", "one.API_KEY=hidden-4", "one.B=b", env={"SECRET_X": "hidden-5"}
    )
    text = world.output("meta.json")
    assert "hidden-" not in text
    document = json.loads(text)
    morph = document.pop("morph-version")
    assert set(morph) == {"ref", "tree", "commit", "version"}
    assert document.pop("definitions-version")["describe"].endswith("-unreproducible")
    assert document == {
        "system-artifact-name": "sys-rootfs",
        "configuration": {
            "A": "[1, None]",
            "B": "b",
            "SSHKEYS": "a.pub",
            "UPGRADE": "no",
            "type": "meta",
            "location": "meta.json",
        },
        "deployment-type": "meta",
        "location": "meta.json",
        "partial": False,
    }
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=4) + "\n"


def test_clusters_are_found_from_anywhere(world: World) -> None:
    world.cluster(one="out")
    for where, name in (
        ("clusters", "c"),
        ("clusters", "c.morph"),
        ("clusters", "../clusters/c.morph"),
        ("strata", str(world.definitions / CLUSTER)),
    ):
        world.give()
        ran = world.run("deploy", name, wrap=["env", f"--chdir={world.definitions / where}"])
        assert ran.status == 0, ran.err
        path = world.definitions / "out"  # relative to the root of the definitions, always
        path.unlink()


def test_a_plan_does_nothing(world: World) -> None:
    world.cluster(one={"type": "nowhere", "location": "x", "A": None}, two="y")
    ran = world.run("deploy", "--plan", CLUSTER, "two", "two.X_TOKEN=hidden-1")
    assert ran.status == 0
    assert ran.out.splitlines()[-3:] == [
        "two: deploy systems/sys.morph",
        "    with touch to y",
        "    X_TOKEN=(hidden)",
    ]
    ran = world.run("upgrade", "--plan", "--json", CLUSTER)
    document = json.loads(ran.out)
    assert [each["name"] for each in document["deployments"]] == ["one", "two"]
    assert document["deployments"][0]["upgrade"] is True
    assert not (world.definitions / "y").exists()


def test_what_is_no_cluster(world: World) -> None:
    for path in ("systems/sys.morph", "strata/main.morph"):
        ran = world.run("deploy", path)
        assert ran.status == 1
        assert "morph deployment commands are only supported for cluster morphologies." in ran.err


def test_too_few_arguments(world: World) -> None:
    for command in ("deploy", "upgrade"):
        ran = world.run(command)
        assert ran.status == 2
        assert f"Too few arguments to {command} command" in ran.err
