"""What deployments change has no time of its own: the same cluster gives the same bytes."""

from __future__ import annotations

import tarfile

from tests.deploy.world import World

#: Changes, makes, links and removes, and says that it was some hours later each time.
CHANGE = """#!/bin/sh
set -e
cd "$1"
echo more >> etc/app.conf
mkdir -p new/deep
echo new > new/deep/file
ln -s file new/deep/link
rm etc/odd
hours=$(cat "$COUNTER" | wc -l)
find . -mmin -60 -exec touch -h -d "2020-01-01 $hours:00" {} +
touch -d "1980-01-01" new/old
touch -d "1980-01-01" new/deep
echo >> "$COUNTER"
"""


def test_the_same_cluster_gives_the_same_bytes(any_world: World) -> None:
    world = any_world
    world.write("change.configure", CHANGE)
    world.write("counter", "")
    world.configure_with("change")
    counter = str(world.definitions / "counter")
    tar = {"type": "tar", "COUNTER": counter}
    inner = {"type": "initramfs", "location": "boot/initramfs.gz", "COUNTER": counter}
    world.cluster(
        {
            "morph": "systems/sys.morph",
            "deploy": {"one": {**tar, "location": "one.tar"}},
            "subsystems": [{"morph": "systems/sys.morph", "deploy": {"inner": inner}}],
        }
    )
    world.deploy()
    first = (world.definitions / "one.tar").read_bytes()
    world.deploy()
    assert len(world.output("counter")) == 4
    assert (world.definitions / "one.tar").read_bytes() == first
    world.deploy(env={"SOURCE_DATE_EPOCH": "1000000000"})
    with tarfile.open(world.definitions / "one.tar") as archive:
        times = {member.name: int(member.mtime) for member in archive}
    old = times["./d/first"]
    assert old < 1_000_000_000
    assert times["./new/deep/link"] == times["./etc"] == times["./etc/app.conf"] == 1_000_000_000
    assert times["./boot/initramfs.gz"] == 1_000_000_000
    assert times["./new/old"] == times["./new/deep"] < old


def test_a_date_that_is_none(world: World) -> None:
    world.cluster(one="one")
    err = world.fail(env={"SOURCE_DATE_EPOCH": "yesterday"}).err
    assert "SOURCE_DATE_EPOCH is a number of seconds since 1970, not yesterday" in err
    assert not (world.definitions / "one").exists()
