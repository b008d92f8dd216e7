"""What can't be deployed: it is told before anything is done, with what to do about it."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.build.e2e.trove import finish
from tests.deploy.world import CLUSTER, World


def test_what_is_no_deployment(world: World) -> None:
    inner = {"morph": "systems/sys.morph", "deploy": {"inner": "x"}}
    world.cluster(
        {
            "morph": "systems/sys.morph",
            "deploy": {"one": "a", "two": "b"},
            "subsystems": [{**inner, "deploy": {"inner": {"type": "touch", "location": "x"}}}],
        }
    )
    for words, message in (
        (["three"], "Variable referenced a non-existent deployment name: three"),
        (["one", "tow"], "non-existent deployment name: tow\n  Did you mean two?"),
        (["inner"], "Create a top level deployment for the subsystem inner instead."),
        (["one.inner"], "one.inner sets no variable"),
        (["two", "location=x"], "non-existent deployment name: location=x"),
    ):
        ran = world.run("deploy", CLUSTER, *words)
        assert ran.status in (1, 2), words
        assert message in ran.err
        assert "Traceback" not in ran.err
    assert not (world.definitions / "a").exists()
    world.deploy("two")
    assert not (world.definitions / "a").exists()
    assert (world.definitions / "b").exists()


def test_a_system_that_is_not_built_yet(world: World) -> None:
    """The error has the command that builds it, to be pasted as it is."""
    system = (world.definitions / "systems/sys.morph").read_text()
    world.write("systems/new one.morph", system.replace("name: sys", "name: newone"))
    world.cluster(
        {"morph": "systems/sys.morph", "deploy": {"one": "a"}},
        {"morph": "systems/new one.morph", "deploy": {"two": "b"}},
    )
    ran = world.fail()
    assert "is not present in the artifact cache" in ran.err
    assert "Please ensure that newone is built before deployment" in ran.err
    assert not (world.definitions / "a").exists()
    (line,) = [line for line in ran.err.splitlines() if "To build it: " in line]
    command = shlex.split(line.partition("To build it: ")[2])
    assert command[-2:] == ["build", "systems/new one.morph"]
    built = world.run(*[word for word in command[1:] if word != "--no-default-configs"])
    assert built.status == 0, built.err
    world.deploy()
    assert (world.definitions / "b").exists()


def test_a_cache_server_that_does_not_have_it_either(world: World) -> None:
    system = (world.definitions / "systems/sys.morph").read_text()
    world.write("systems/newer.morph", system.replace("name: sys", "name: newer"))
    world.cluster({"morph": "systems/newer.morph", "deploy": {"two": "b"}})
    ran = world.fail("--artifact-cache-server=http://127.0.0.1:1/")
    assert "newer-rootfs is not present in the artifact cache" in ran.err
    assert "http://127.0.0.1:1/" in ran.err


def test_extensions_that_there_are_not(world: World) -> None:
    world.configure_with("nothing", "extensions/none")
    world.cluster(
        one={"type": "nowhere", "location": "x"}, two={"type": "exts/tar", "location": "x"}
    )
    err = world.fail().err
    for name in (
        "nowhere.write",
        "exts/tar.write",
        "nothing.configure",
        "extensions/none.configure",
    ):
        assert f"Could not find extension {name}" in err


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ("#!/usr/bin/env no-such-python2", "needs the interpreter no-such-python2"),
        ("#!/usr/bin/no-such-python2 -u", "needs the interpreter /usr/bin/no-such-python2"),
        ("echo nothing said", "its first line must begin with #!"),
        ("#!/bin/sh\r", "needs the interpreter /bin/sh\\r"),
        ("", "its first line must begin with #!"),
    ],
)
def test_extensions_that_nothing_runs(world: World, first: str, message: str) -> None:
    (world.definitions / "odd.write").write_bytes(f"{first}\nexit 0\n".encode())
    world.cluster(one={"type": "odd", "location": "x"}, two="y")
    ran = world.fail()
    assert message in ran.err
    assert "odd.write" in ran.err
    assert "Unpacking" not in ran.out
    assert not (world.definitions / "y").exists()


def test_an_extension_that_fails_says_why(world: World) -> None:
    world.write("bad.write", "#!/bin/sh\necho one >&2; echo fine; echo two >&2; exit 12\n")
    world.cluster(one={"type": "bad", "location": "x"})
    ran = world.fail()
    assert "Deployment one failed: bad.write failed with code 12: one\n" in ran.err
    assert ran.err.count("two") == 2  # when it came, and in the end
    assert "[one]fine" in ran.out


def test_a_program_that_is_its_own_interpreter(world: World) -> None:
    (world.definitions / "elf.write").write_bytes(Path("/bin/true").read_bytes())
    world.cluster(one={"type": "elf", "location": "x"})
    world.deploy()


def test_an_artifact_that_was_damaged(world: World) -> None:
    """It is not deployed, and deployed again when it was built again."""
    world.cluster(one="x")
    image = world.trove.image()
    whole = image.read_bytes()
    changed = bytearray(whole)
    changed[600] ^= 1
    key = image.name.partition(".")[0]
    try:
        image.write_bytes(changed)
        for path in world.trove.cache.rglob(f"{key}*.d"):
            subprocess.run(["rm", "-rf", "--", path], check=True)
        ran = world.run("deploy", CLUSTER)
        assert ran.status == 1, ran.out
        assert "Traceback" not in ran.err
        assert "internal" not in ran.err
        assert not (world.definitions / "x").exists()
    finally:
        image.write_bytes(whole)
        world.trove.build()
    world.deploy()


def test_clusters_that_make_no_sense(world: World) -> None:
    path = world.write(CLUSTER, "")

    def one(system: str, deployment: str) -> str:
        lines = (f"- morph: {system}", "  deploy:", f"    one: {deployment}")
        return "\n".join(("name: c", "kind: cluster", "systems:", *lines, ""))

    def parameters(text: str) -> str:
        return one("systems/sys.morph", f"{{type: tar, location: x, {text}}}")

    place = "{type: tar, location: x}"
    for text, message in (
        (one("systems/sys.morph", "text"), f"{CLUSTER}:6"),
        (one("systems/sys.morph", "[type, tar]"), f"{CLUSTER}:6"),
        (one("systems/sys.morph", "{type: tar}"), '"location" is undefined'),
        (one("systems/sys.morph", "{type: tar, location: ''}"), '"location" is undefined'),
        (one("systems/sys.morph", "{type: [a], location: x}"), f"{CLUSTER}:6"),
        (parameters('"A\\0B": 1'), "'A\\x00B' can't be the name of a variable"),
        (parameters("A=B: 1"), "'A=B' can't be the name of a variable"),
        (parameters("1: 2"), "1 can't be the name of a variable"),
        (one("systems/none.morph", place), "systems/none.morph"),
        (one("strata/main.morph", place), "strata/main.morph"),
        (one("../../x.morph", place), "x.morph"),
        ("name: c\nkind: cluster\nsystems: []\n", "has no deployments"),
        ("- nothing\n", CLUSTER),
        ("\tname: [\n", CLUSTER),
        ("", CLUSTER),
    ):
        path.write_text(text)
        ran = world.fail()
        assert message in ran.err, (text, ran.err)


def test_names_that_lead_elsewhere(world: World) -> None:
    for name in ("../c.morph", "/etc/passwd", "clusters/none", "-", "clusters", "", "a\nb"):
        world.give()
        ran = world.run("deploy", "--", name)
        assert ran.status in (1, 2), name
        assert "Traceback" not in ran.err
        assert "internal error" not in ran.err


def test_odd_names_and_values(world: World) -> None:
    """Nothing in them is taken for an option, a path or a command."""
    world.write("tell.write", '#!/bin/sh\nprintf "%s|" "$A" "$2" > out\n')
    names = ["--help", "a b", "a.b=c", "$(touch pwned)", "ü", ".", "no"]
    world.cluster(**{n: {"type": "tell", "location": f"-rf {n}\n;"} for n in names})
    for name in names:
        if name == "--help":
            ran = world.run("deploy", CLUSTER, "--", name, f"{name}.A=* \"'`id`")
            assert ran.status == 0, ran.err
        else:
            world.deploy(name, f"{name}.A=* \"'`id`")
        assert world.output("out") == f"* \"'`id`|-rf {name}\n;|"
    assert not (world.definitions / "pwned").exists()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_descriptors_that_the_caller_closed(world: World, closed: str) -> None:
    world.write(
        "tell.write", '#!/bin/sh\nset -e\necho x; echo y >&2; echo z >&"$MORPH_LOG_FD"; : > "$2"\n'
    )
    world.cluster(one={"type": "tell", "location": "out"})
    ran = world.run("deploy", CLUSTER, wrap=["sh", "-c", f'exec "$@" {closed}', "sh"])
    assert ran.status == 0, ran.err
    assert (world.definitions / "out").exists()


def test_somebody_who_stops_listening(world: World) -> None:
    """`morph deploy | head -1`: no trace, nothing left."""
    world.write("loud.write", '#!/bin/sh\nseq 100000; echo done > "$2"\n')
    world.cluster(one={"type": "loud", "location": "out"})
    world.give()
    process = world.start("deploy", CLUSTER, wrap=["sh", "-c", '"$@" | head -n 1', "sh"])
    ran = finish(process)
    assert "Traceback" not in ran.err
    assert "internal error" not in ran.err
    assert not world.runs


def test_no_room_for_working_files(world: World) -> None:
    world.cluster(one="x")
    ran = world.fail("--tempdir-min-space=1000000G")
    assert "tempdir" in ran.err
    assert not (world.definitions / "x").exists()


def test_parameters_of_configure_extensions_are_checked_first(world: World) -> None:
    """Those of extensions that come with Morph, of all deployments."""
    world.write("greet.configure", "#!/bin/sh\nexit 0\n")
    world.configure_with("greet", "set-hostname", "simple-network")
    inner = {"type": "sysroot", "location": "in", "HOSTNAME": "a/b"}
    world.cluster(
        {"morph": "systems/sys.morph", "deploy": {"one": "a", "two": "b"}},
        {
            "morph": "systems/sys.morph",
            "deploy": {"three": "c"},
            "subsystems": [{"morph": "systems/sys.morph", "deploy": {"inner": inner}}],
        },
    )
    ran = world.fail("two.HOSTNAME=a b", "two.NETWORK_CONFIG=eth0")
    assert "HOSTNAME 'a b' is no host name" in ran.err
    assert "eth0 is missing its type" in ran.err.replace("'", "")
    assert "HOSTNAME 'a/b' is no host name" in ran.err
    assert "Unpacking" not in ran.out
    assert not any((world.definitions / name).exists() for name in "abc")
    world.deploy("one.HOSTNAME=a", "inner.HOSTNAME=b")


def test_an_environment_that_is_too_large(world: World) -> None:
    """For the kernel, where each variable would do."""
    world.cluster(
        one={"type": "tar", "location": "x", **{f"V{n:02}": "v" * 99000 for n in range(80)}}
    )
    ran = world.fail()
    assert "tar.check can't be started: its environment has 7,9" in ran.err
    assert "The largest variables are V00 (99,005 bytes), V01 (99,005 bytes)" in ran.err
