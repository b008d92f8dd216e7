"""Deploying to disk images as a whole: what is in the tree is on the disk, whoever deploys."""

from __future__ import annotations

import os
from typing import Any

from morphlib.images.btrfs.reader import Image
from tests.deploy.world import CLUSTER, World

DISK = {"type": "rawdisk", "location": "disk.img", "DISK_SIZE": "64M"}


def test_disk_has_what_is_in_the_tree(any_world: World) -> None:
    world = any_world
    world.configure_with("c")
    world.write("c.configure", '#!/bin/sh\necho "$NOTE" > "$1/root/note"\n')
    deployments: dict[str, Any] = {
        "disk": {**DISK, "NOTE": "one"},
        "seen": {"type": "inventory", "location": "seen.json", "NOTE": "one"},
    }
    world.cluster(**deployments)
    world.deploy()
    wanted = world.inventory("seen.json")["files"]
    with Image(world.definitions / "disk.img") as disk:
        for path, (mode, uid, gid, *_) in wanted.items():
            if path == "root/note":
                assert disk.read_file("state/root/note") == b"one\n"
                continue
            found = disk.stat(f"systems/default/run/{path}", follow=False)
            if path == "dev/null":
                assert (found.mode, found.rdev) == (0o20666, os.makedev(1, 3))
            else:
                assert (found.mode, found.uid, found.gid) == (mode, uid, gid), path
        assert disk.stat("state/root").mode == 0o40700
        assert disk.stat("systems/factory/orig/d/first").nlink == 2
        fstab = disk.read_file("systems/factory/run/etc/fstab").decode()
        assert f"UUID={disk.fsid}  / btrfs defaults,rw,noatime 0 1\n" in fstab


def test_upgrades_and_going_back(any_world: World) -> None:
    world = any_world
    world.cluster(disk=DISK)
    world.deploy()
    again = world.fail()
    assert "already exists. Use `morph upgrade`" in again.err
    for variable, label in (("VERSION_LABEL", "v2"), ("SET_DEFAULT", "factory")):
        ran = world.run("upgrade", CLUSTER, "disk", f"disk.{variable}={label}")
        assert ran.status == 0, ran.err
        with Image(world.definitions / "disk.img") as disk:
            assert disk.readlink("systems/default") == label
            assert disk.listdir("systems") == ["default", "factory", "v2"]


def test_disk_inside_another_system(any_world: World) -> None:
    world = any_world
    system = {"morph": "systems/sys.morph"}
    inner = {**system, "deploy": {"inner": {**DISK, "location": "srv/images/inner.img"}}}
    outer = {"type": "sysroot", "location": "outer"}
    world.cluster({**system, "deploy": {"outer": outer}, "subsystems": [inner]})
    world.deploy()
    with Image(world.definitions / "outer/srv/images/inner.img") as disk:
        assert disk.exists("systems/default/run/bin/tool")
