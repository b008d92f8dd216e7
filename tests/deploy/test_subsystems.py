"""Systems inside of systems."""

from __future__ import annotations

import gzip
import json
import tarfile
from typing import Any

import pytest

from tests.build.e2e.trove import mounts_below
from tests.deploy.world import World

SYSTEM = "systems/sys.morph"


def entry(deploy: dict[str, Any], *subsystems: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"morph": SYSTEM, "deploy": deploy, "subsystems": list(subsystems), **more}


def test_systems_to_any_depth(any_world: World) -> None:
    world = any_world
    inner = entry({"inner": {"type": "tar", "location": "deep.tar", "WHO": "inner"}})
    middle = entry({"middle": {"type": "sysroot", "location": "/var/lib/sys"}}, inner)
    early = entry({"early": {"type": "initramfs", "location": "boot/initramfs.gz"}})
    world.cluster(entry({"outer": {"type": "tar", "location": "outer.tar"}}, middle, early))
    ran = world.deploy()
    with tarfile.open(world.definitions / "outer.tar") as outer:
        names = set(outer.getnames())
        assert "./var/lib/sys/bin/tool" in names
        assert "./var/lib/sys/baserock/deployment.meta" in names
        file = outer.extractfile("./var/lib/sys/deep.tar")
        assert file is not None
        with tarfile.open(fileobj=file) as deep:
            assert "./bin/tool" in deep.getnames()
            meta = deep.extractfile("./baserock/deployment.meta")
            assert meta is not None
            document = json.load(meta)
        packed = outer.extractfile("./boot/initramfs.gz")
        assert packed is not None
        assert gzip.decompress(packed.read()).startswith(b"070701")
        owner = outer.getmember("./var/lib/sys/bin/tool")
    assert (owner.uid, owner.gid, owner.mode) == (0, 0, 0o4755)
    # The place as the cluster has it, and no variable of the systems around.
    assert document["location"] == "deep.tar"
    assert document["configuration"]["WHO"] == "inner"
    prefix = f"[{SYSTEM}][outer][{SYSTEM}][middle][{SYSTEM}][inner]"
    assert f"{prefix}Writing to device" in ran.out
    assert mounts_below(world.trove.root) == []


def test_the_order_of_things(world: World) -> None:
    """Subsystems are written before what is around them is configured."""
    for kind in ("configure", "write"):
        world.write(f"tell.{kind}", '#!/bin/sh\necho "$NAME $(basename "$0")" >/dev/null\n')
    world.write("tell.configure", '#!/bin/sh\necho "configure $NAME $(ls "$1/x" 2>/dev/null)"\n')
    world.write("tell.write", '#!/bin/sh\necho "write $NAME"\necho inside > "$2"\n')
    world.write("tell.check", '#!/bin/sh\necho "check $NAME $UPGRADE"\n')
    world.configure_with("tell")
    inner = entry({"inner": {"type": "tell", "location": "x", "NAME": "inner"}})
    world.cluster(entry({"outer": {"type": "tell", "location": "out", "NAME": "outer"}}, inner))
    ran = world.run("upgrade", "clusters/c.morph")
    assert ran.status == 0, ran.err
    told = [
        line.rpartition("]")[2].split(" /")[0]
        for line in ran.out.splitlines()
        if line.rpartition("]")[2].split()[0] in ("check", "configure", "write")
    ]
    assert told[:2] == ["check outer yes", "check inner no"]
    assert [line.rstrip() for line in told[2:4]] == ["configure inner", "write inner"]
    assert told[4].startswith("configure outer")
    assert told[5] == "write outer"


def test_variables_go_to_the_one_that_is_named(world: World) -> None:
    world.write("tell.write", '#!/bin/sh\necho "$NAME ${ONLY-unset} $BOTH" | tee -a told > "$2"\n')
    inner = entry(
        {"a.b": {"type": "tell", "location": "x"}}, **{"deploy-defaults": {"BOTH": "default"}}
    )
    world.cluster(entry({"a": {"type": "tell", "location": "out", "BOTH": "own"}}, inner))
    world.deploy("a.b.NAME=inner", "a.NAME=outer", "a.b.ONLY=1=2 ", env={"BOTH": "environment"})
    assert world.output("told") == "inner 1=2  environment\nouter unset environment\n"
    (world.definitions / "told").unlink()
    world.deploy("a.b.NAME=inner", "a.NAME=outer", "a.b.BOTH=line", "a.b.location=y")
    assert world.output("told") == "inner unset line\nouter unset own\n"


def test_a_location_does_not_lead_out(any_world: World) -> None:
    """Neither by `..` nor by links that the system has."""
    world = any_world
    world.write("say.write", '#!/bin/sh\necho "$2" > place; echo gotcha > "$2"\n')
    for location in ("../../x", "/../x", "a/../../../x"):
        world.cluster(
            entry({"outer": "out"}, entry({"inner": {"type": "say", "location": location}}))
        )
        assert "leads out of the system" in world.fail().err
    world.cluster(
        entry(
            {"outer": {"type": "tar", "location": "out.tar"}},
            entry({"inner": {"type": "say", "location": "etc/escape/gotcha"}}),  # a link to /etc
        )
    )
    world.deploy()
    assert world.output("place").strip().endswith("/1/root/etc/gotcha")
    with tarfile.open(world.definitions / "out.tar") as archive:
        assert "./etc/gotcha" in archive.getnames()


def test_a_failure_inside_fails_the_whole(world: World) -> None:
    world.write("fail.write", "#!/bin/sh\necho no such luck >&2\nexit 7\n")
    world.cluster(entry({"outer": "out"}, entry({"inner": {"type": "fail", "location": "x"}})))
    ran = world.fail()
    assert (
        "Deployment outer failed: subsystem inner: fail.write failed with code 7: no such luck"
        in ran.err
    )
    assert not (world.definitions / "out").exists()


def test_every_deployment_has_its_own(world: World) -> None:
    world.write("list.write", '#!/bin/sh\ncat "$1/x" > "$2"; echo by-$$ >> "$2"\n')
    world.write("in.write", '#!/bin/sh\necho "in $(dirname "$2")" > "$2"\n')
    inner = entry({"inner": {"type": "in", "location": "x"}})
    world.cluster(
        entry(
            {
                "one": {"type": "list", "location": "a"},
                "two": {"type": "list", "location": "b"},
            },
            inner,
        )
    )
    world.deploy()
    first, second = world.output("a").split("\n")[0], world.output("b").split("\n")[0]
    assert first.startswith("in ")
    assert second.startswith("in ")
    assert first != second


def test_failures_name_the_subsystem(world: World) -> None:
    world.write("no.check", "#!/bin/sh\necho no >&2; exit 1\n")
    world.write("no.write", "#!/bin/sh\necho never >&2; exit 1\n")
    world.write("bad.write", "#!/bin/sh\necho bad >&2; exit 1\n")
    for kind, said in (
        ("no", "checking outer failed: subsystem inner: no.check failed with code 1: no"),
        ("bad", "Deployment outer failed: subsystem inner: bad.write failed with code 1: bad"),
    ):
        world.cluster(
            entry({"outer": "out"}, entry({"inner": {"type": kind, "location": "x"}})),
        )
        assert said in world.fail().err


@pytest.mark.parametrize("location", ["dev/null", "/dev//null", "d/pipe"])
def test_a_subsystem_does_not_go_to_a_device(any_world: World, location: str) -> None:
    """For an ordinary user an empty file stands for it, which would lose what is written."""
    world = any_world
    inner = entry({"inner": {"type": "touch", "location": location}})
    world.cluster(entry({"outer": {"type": "tar", "location": "outer.tar"}}, inner))
    ran = world.fail()
    assert "subsystem inner: the location " in ran.err
    assert "but a device or pipe" in ran.err
    assert not (world.definitions / "outer.tar").exists()
