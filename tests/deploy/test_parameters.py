"""Variables, secrets, upgrades: what reaches extensions, and what nobody else sees."""

from __future__ import annotations

import json
import tarfile
from typing import Any

import pytest

from morphlib.credentials import HIDDEN, hide_assignments
from tests.deploy.world import CLUSTER, World

#: Says what it was told, and on which command line.
TELL = """#!/bin/sh
set -e
echo "$A|$B|$C|$D|${E-unset}|$LIST|$YES|${NONE-unset}|$UPGRADE" > "$2"
"""


def test_what_overrides_what(any_world: World) -> None:
    world = any_world
    world.write("tell.write", TELL)
    own = {
        "B": "own",
        "C": "own",
        "D": "own",
        "LIST": ["a", {"b": None}],
        "YES": True,
        "NONE": None,
    }
    world.cluster(
        {
            "morph": "systems/sys.morph",
            "deploy-defaults": {"type": "tell", "A": "default", "B": "default", "E": "default"},
            "deploy": {"one": {"location": "out", **own}, "other": {"location": "other"}},
        }
    )
    ran = world.deploy("one.D=line", "one.LATER=x", env={"C": "env", "D": "env"})
    assert world.output("out") == "default|own|env|line|default|['a', {'b': None}]|True||no\n"
    assert "WARNING: C from the environment overrides C of deployment one" in ran.err
    assert "D from the environment" not in ran.err
    # Nothing of one reaches the other.
    assert world.output("other") == "default|default|env|env|default|||unset|no\n"


def test_secrets_stay_where_they_are_needed(any_world: World) -> None:
    """They reach extensions, and neither the system, nor the log, nor what is shown, nor `ps`."""
    world = any_world
    world.write("spy.write.help", "help: x\nsecret: [HUSH]\n")
    world.write(
        "spy.configure",
        '#!/bin/sh\ncat /proc/[0-9]*/cmdline 2>/dev/null | tr "\\0" " " > commands\n',
    )
    world.write(
        "spy.write",
        "#!/bin/sh\nset -e\n"
        '[ "$HUSH$DB_PASSWORD$API_TOKEN" = hidden-1hidden-2hidden-3 ]\n'
        'tar -C "$1" -cf "$2" .\n',
    )
    world.configure_with("spy")
    world.cluster(
        one={
            "type": "spy",
            "location": "out.tar",
            "HUSH": "hidden-1",
            "DB_PASSWORD": "hidden-2",
            "URL": "https://me:hidden-4@example.com/",
        }
    )
    log = world.definitions / "log"
    environment = {"API_TOKEN": "hidden-3", "SESSION": "the-session"}
    arguments = (f"--log={log}", "--log-level=debug", "--verbose")
    ran = world.deploy(*arguments, env=environment)
    with tarfile.open(world.definitions / "out.tar") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isreg() else None
            content = file.read() if file is not None else b""
            assert b"hidden-" not in content, member.name
            assert b"the-session" not in content, member.name
    assert "hidden-" not in ran.out + ran.err
    assert "hidden-" not in log.read_text()
    assert "morph" in world.output("commands")
    assert "hidden-" not in world.output("commands")
    # Those of the command line are there while it runs, but nowhere else.
    ran = world.deploy(*arguments, "one.GIT_TOKEN=hidden-6", env=environment)
    assert "hidden-" not in ran.out + ran.err + log.read_text()
    for form in ((), ("--json",)):
        plan = world.run("deploy", "--plan", *form, CLUSTER, "one.GIT_TOKEN=hidden-6")
        assert plan.status == 0
        assert "DB_PASSWORD" in plan.out
        assert "hidden-" not in plan.out


def test_secrets_of_built_in_extensions_stay_out_of_the_log(world: World) -> None:
    """They log their environment, all of it."""
    world.cluster(
        one={
            "type": "tar",
            "location": "out.tar",
            "passphrase": "hidden-1",
            "PROXY_AUTH": "hidden-2",
            "SSH_KEY": "hidden-3",
            "URL": "https://me:hidden-4@example.com/",
            "NAME": "shown",
        }
    )
    log = world.definitions / "log"
    world.deploy(f"--log={log}", "--log-level=debug")
    for name in ("check", "write"):
        (line,) = [line for line in log.read_text().splitlines() if f"tar.{name}: Environ" in line]
        assert "shown" in line
        assert "hidden-" not in line


def test_secrets_of_extensions_that_are_not_run(world: World) -> None:
    """Partial deployments run no configuration extensions, but have their parameters."""
    world.write("spy.configure", "#!/bin/sh\n")
    world.write("spy.configure.help", "help: x\nsecret: [HUSH]\n")
    world.configure_with("spy")
    components = ["strata/main.morph"]
    one = {"type": "sysroot", "location": "out", "partial-deploy-components": components}
    world.cluster(one={**one, "HUSH": "hidden-1", "NAME": "shown"})
    world.deploy("--partial")
    meta = world.output("out/baserock/deployment.meta")
    assert "shown" in meta
    assert "hidden-" not in meta


def test_a_plan_of_what_is_no_system(world: World) -> None:
    world.cluster({"morph": "strata/main.morph", "deploy": {"one": "out"}})
    assert "strata/main.morph is no system" in world.fail("--plan").err


def upgradable(**more: Any) -> dict[str, Any]:
    return {"type": "tell", "location": "first", **more}


def test_upgrades(world: World) -> None:
    world.write("tell.write", TELL)
    world.write("tell2.write", TELL)
    both = {"upgrade-type": "tell2", "upgrade-location": "later"}
    world.cluster(one=upgradable(**both), two=upgradable(location="second"))
    world.deploy()
    assert world.output("first").strip().endswith("|no")
    assert not (world.definitions / "later").exists()
    ran = world.run("upgrade", CLUSTER)
    assert ran.status == 0, ran.err
    assert world.output("later").strip().endswith("|yes")
    assert world.output("second").strip().endswith("|yes")
    assert (
        '"upgrade-type" and "upgrade-location" were not specified for system two, using "type" '
        'and "location"'
    ) in ran.err
    assert "one, using" not in ran.err


def test_upgrades_one_by_one(world: World) -> None:
    world.write("tell.write", TELL)
    world.cluster(one=upgradable(location="a"), two=upgradable(location="b"))
    world.deploy("two.UPGRADE=True")
    assert world.output("a").strip().endswith("|no")
    assert world.output("b").strip().endswith("|yes")
    ran = world.run("upgrade", CLUSTER, "two.UPGRADE=no")
    assert ran.status == 0
    assert world.output("a").strip().endswith("|yes")
    assert world.output("b").strip().endswith("|no")
    ran = world.deploy("--upgrade", "one")
    assert "morph deploy --upgrade is deprecated: use morph upgrade" in ran.err
    assert world.output("a").strip().endswith("|yes")


def test_upgrades_that_are_half_told(world: World) -> None:
    world.cluster(one={"type": "tar", "location": "x", "upgrade-type": "tar"})
    ran = world.run("upgrade", CLUSTER)
    assert ran.status == 1
    assert '"upgrade-type" was set for system one, but not "upgrade-location"' in ran.err
    world.cluster(one={"upgrade-type": "touch", "upgrade-location": "x"})
    assert '"type" is undefined for system "one"' in world.fail().err
    assert world.run("upgrade", CLUSTER).status == 0


def test_what_can_not_be_upgraded(any_world: World) -> None:
    world = any_world
    for kind, message in (
        ("tar", "ERROR: Cannot upgrade a tar file deployment."),
        ("sysroot", "ERROR: Cannot upgrade a sysroot deployment"),
    ):
        world.cluster(one={"type": kind, "location": "x"}, two="y")
        ran = world.run("upgrade", CLUSTER)
        assert ran.status == 1
        assert message in ran.err
        assert not (world.definitions / "x").exists()
        assert not (world.definitions / "y").exists()


def test_a_plan_as_data(world: World) -> None:
    inner = {"inner": {"type": "sysroot", "location": "/in", "N": 1}}
    world.cluster(
        {
            "morph": "systems/sys.morph",
            "deploy-defaults": {"X": "x"},
            "deploy": {"one": {"type": "tar", "location": "a", "Y": [1]}},
            "subsystems": [{"morph": "systems/sys.morph", "deploy": inner}],
        }
    )
    ran = world.run("deploy", "--plan", "--json", CLUSTER, "inner.N=2", env={"X": "env"})
    assert ran.status == 0, ran.err
    document = json.loads(ran.out)
    warning = "X from the environment overrides X of deployment one in clusters/c.morph"
    assert document["cluster"] == CLUSTER
    assert document["warnings"] == [warning]
    (one,) = document["deployments"]
    (nested,) = one.pop("subsystems")
    assert one == {
        "name": "one",
        "system": "systems/sys.morph",
        "type": "tar",
        "location": "a",
        "upgrade": False,
        "partial": False,
        "components": [],
        "parameters": {"UPGRADE": "no", "X": "env", "Y": "[1]", "location": "a", "type": "tar"},
    }
    assert (nested["location"], nested["parameters"]["N"]) == ("/in", "2")
    text = world.run("deploy", "--plan", CLUSTER, "inner.N=2").out
    assert "    inner: deploy systems/sys.morph\n        with sysroot to /in\n" in text
    assert "        N=2\n" in text
    assert not world.runs


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("one.API_TOKEN=x=y", f"one.API_TOKEN={HIDDEN}"),
        ("a=b.c.DB_PASSWORD=x", f"a=b.c.DB_PASSWORD={HIDDEN}"),
        ("TOKEN=x", f"TOKEN={HIDDEN}"),
        ("token.A=x", "token.A=x"),
        ("one.A=", "one.A="),
        ("one.TOKEN", "one.TOKEN"),
    ],
)
def test_secrets_of_a_command_line(word: str, shown: str) -> None:
    assert hide_assignments([word]) == [shown]
