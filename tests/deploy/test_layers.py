"""What a write extension learns of the strata that a system was put together from."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.deploy.world import World

#: Says which layers there are: JSON, or nothing.
LAYERED = """#!/usr/bin/env python3
import json, os, sys

name = os.environ.get("MORPH_LAYERS")
found = json.load(open(name)) if name else None
for stratum in found or ():
    for tree in stratum["trees"]:
        tree["files"] = sorted(
            os.path.relpath(os.path.join(directory, each), tree["root"])
            for directory, folders, files in os.walk(tree["root"])
            for each in files
        )
json.dump(found, open(sys.argv[2], "w"))
"""


@pytest.fixture
def layered(any_world: World) -> World:
    any_world.write("layered.write", LAYERED)
    any_world.cluster(one={"type": "layered", "location": "one.json"})
    return any_world


def deployed(world: World) -> list[dict[str, Any]] | None:
    world.deploy()
    found: list[dict[str, Any]] | None = json.loads(world.output("one.json"))
    return found


def test_layers_are_told_to_who_asks(layered: World) -> None:
    assert deployed(layered) is None
    layered.write("layered.write.help", "help: x\nlayers: true\n")
    found = deployed(layered)
    assert found is not None
    assert [each["stratum"] for each in found] == [
        name for name, stratum in layered.trove.strata.items() if stratum["chunks"]
    ]
    odd, small = found[-1]["trees"]
    assert {"bin/tool", "d/e", "dev/null"} <= set(odd["files"])
    assert odd["devices"] == {
        "dev/null": {"mode": 0o20666, "uid": 0, "gid": 0, "major": 1, "minor": 3}
    }
    assert "usr/hello.c" in small["files"]
    assert small["devices"] == {}


def test_no_layers_are_told_if_some_are_not_cached(layered: World) -> None:
    layered.write("layered.write.help", "help: x\nlayers: true\n")
    (chunk,) = layered.trove.cache.rglob("*.chunk.small-misc")
    kept = [chunk, chunk.with_name(f"{layered.trove.key('small')}.manifest")]
    aside = [path.rename(path.with_name(f"aside-{path.name}")) for path in kept]
    try:
        assert deployed(layered) is None
    finally:
        for path, place in zip(aside, kept, strict=True):
            path.rename(place)
    assert deployed(layered) is not None
