"""Deployments of some components of a system."""

from __future__ import annotations

import json
import tarfile

from tests.deploy.world import World


def test_some_components(any_world: World) -> None:
    world = any_world
    world.write("never.configure", "#!/bin/sh\nexit 1\n")
    world.configure_with("never")
    world.cluster(
        one={
            "type": "tar",
            "location": "one.tar",
            "partial-deploy-components": ["chunks/small.morph"],
        },
        two={
            "type": "sysroot",
            "location": "two",
            "partial-deploy-components": ["strata/main.morph"],
        },
    )
    ran = world.deploy("--partial")
    assert "WARNING: Not running configuration extensions as --partial is set!" in ran.err
    assert "This was a partial deployment" in ran.err
    with tarfile.open(world.definitions / "one.tar") as archive:
        names = archive.getnames()
        assert "./usr/hello.c" in names
        assert "./bin/tool" not in names  # of another chunk of the stratum
        assert "./bin/sh" in names  # what it is built on
        file = archive.extractfile("./baserock/deployment.meta")
        assert file is not None
        document = json.load(file)
    assert document["partial"] is True
    assert document["partial-components"] == ["chunks/small.morph"]
    two = world.definitions / "two"
    assert (two / "bin/tool").exists()
    assert (two / "usr/hello.c").exists()
    assert (two / "baserock/main-runtime.meta").exists()


def test_components_from_where_the_user_is(world: World) -> None:
    world.cluster(one={"type": "tar", "location": "one.tar"})
    world.give()
    for where, name in (
        ("strata", "main.morph"),
        ("chunks", "small"),
        (".", "./strata/main.morph"),
    ):
        ran = world.run(
            "deploy",
            "--partial",
            str(world.definitions / "clusters/c.morph"),
            f"one.partial-deploy-components={name}",
            wrap=["env", f"--chdir={world.definitions / where}"],
        )
        assert ran.status == 0, ran.err
        (world.definitions / "one.tar").unlink()


def test_what_partial_deployments_refuse(world: World) -> None:
    world.cluster(one={"type": "rawdisk", "location": "x", "partial-deploy-components": ["a"]})
    assert (
        "Not deploying systems/sys.morph, --partial was set and partial deployment only supports "
        "tar, sysroot deployments."
    ) in world.fail("--partial").err
    world.cluster(one={"type": "tar", "location": "x"})
    assert (
        "Deployment failed as no components were specified for deployment and --partial was set."
    ) in world.fail("--partial").err
    components = ["strata/none.morph", "chunks/small.morph", "systems/sys.morph", "../x"]
    world.cluster(one={"type": "tar", "location": "x", "partial-deploy-components": components})
    assert (
        "Components strata/none.morph, systems/sys.morph, ../x not found in system sys."
    ) in world.fail("--partial").err
    assert not (world.definitions / "x").exists()


def test_the_setting_in_a_file(world: World) -> None:
    world.cluster(
        one={"type": "tar", "location": "x", "partial-deploy-components": ["strata/base.morph"]}
    )
    config = world.write("more.conf", "[config]\npartial=True\n")
    ran = world.deploy(f"--config={config}")
    assert "This was a partial deployment" in ran.err
