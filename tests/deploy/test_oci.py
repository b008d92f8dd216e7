"""Deploying as images for containers: layers of strata that systems share."""

from __future__ import annotations

import os
from typing import Any

from tests.deploy.world import World
from tests.exts.ociimages import apply_layers, read_image

_TYPES = {0o04: "directory", 0o10: "file", 0o12: "symlink", 0o01: "fifo", 0o02: "device"}


def test_layers_come_to_the_tree(any_world: World) -> None:
    world = any_world
    world.configure_with("c")
    world.write("c.configure", '#!/bin/sh\nrm "$1/usr/hello.c"; echo "$NOTE" > "$1/etc/note"\n')
    deployments: dict[str, Any] = {
        "one": {"type": "oci", "location": "one.oci", "NOTE": "one"},
        "again": {"type": "oci", "location": "again.oci", "NOTE": "one"},
        "two": {"type": "oci", "location": "two.oci", "NOTE": "two"},
        "seen": {"type": "inventory", "location": "seen.json", "NOTE": "one"},
    }
    world.cluster(**deployments)
    world.deploy()
    images = {name: read_image(world.definitions / f"{name}.oci") for name in ("one", "two")}
    strata = [name for name, stratum in world.trove.strata.items() if stratum["chunks"]]
    steps = [*(f"stratum {name}" for name in strata), "integration and configuration"]
    assert images["one"].steps == steps
    assert images["one"].digests[:-1] == images["two"].digests[:-1]
    assert images["one"].digests[-1] != images["two"].digests[-1]
    assert "usr/.wh.hello.c" in images["one"].names(-1)
    assert "bin/tool" not in images["one"].names(-1)
    assert "bin/tool" in images["one"].names(-2)

    wanted = world.inventory("seen.json")["files"]
    found = apply_layers(images["one"])
    assert found.keys() == wanted.keys()
    for path, (mode, uid, gid, *_) in wanted.items():
        if path == "dev/null":
            assert found[path] == ("device", 0o666, 0, 0, os.makedev(1, 3))
        else:
            assert found[path][:4] == (_TYPES[mode >> 12], mode & 0o7777, uid, gid), path
    # All but the name of the deployment's place is the same.
    again = read_image(world.definitions / "again.oci")
    assert again.digests[:-1] == images["one"].digests[:-1]
