"""What extensions find around them: descriptors, variables, modules."""

from __future__ import annotations

import os
import signal
import tarfile
from pathlib import Path

import pytest

from morphlib.deploy.parameters import OWN
from tests.build.e2e.trove import MARKER, relatives
from tests.deploy.world import World, wait_until_nothing_runs

#: Says what its environment is, and that of its kind.
TELL = '#!/bin/sh\nset -e\nenv > "$2"\npwd >> "$2"\n'

#: Leaves a program as little room for descriptors of its own as shells can.
CROWD = ["sh", "-c", 'exec 3<. 4<. 5<. 6<. 7<. 8<. 9<. && exec "$@"', "sh"]


def variables(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


@pytest.mark.parametrize("crowd", [[], CROWD], ids=["alone", "crowd"])
def test_shells_can_write_to_the_log(world: World, crowd: list[str]) -> None:
    """Some shells know descriptors of one digit only."""
    script = '#!/bin/dash\nset -e\necho for-the-log >&"$MORPH_LOG_FD"\n'
    world.write("log.check", script)
    world.write("log.configure", script)
    world.write("log.write", script + 'echo "$MORPH_LOG_FD" > "$2"\n')
    world.configure_with("log")
    world.cluster(one={"type": "log", "location": "one"})
    log = world.definitions / "log"
    ran = world.deploy(f"--log={log}", "--log-level=debug", wrap=crowd)
    assert len(world.output("one").strip()) == 1
    lines = log.read_text().splitlines()
    for kind in ("check", "configure", "write"):
        assert any(line.endswith(f"log.{kind}: for-the-log") for line in lines), kind
        assert any(line.endswith(f"log.{kind}: succeeded") for line in lines), kind
    assert "for-the-log" not in ran.out + ran.err


def test_no_descriptor_of_ours_reaches_extensions(world: World) -> None:
    script = '#!/bin/sh\necho "$MORPH_LOG_FD" > "$2"; ls -l /proc/self/fd >> "$2"\n'
    world.write("fds.write", script)
    world.cluster(one={"type": "fds", "location": "one"})
    world.deploy(wrap=CROWD)
    log, _, *lines = world.output("one").splitlines()
    open_files = dict(line.split()[8::2] for line in lines)
    names = {number for number, name in open_files.items() if not name.startswith("/proc/")}
    assert names == {"0", "1", "2", log}


def test_what_morph_sets(any_world: World) -> None:
    world = any_world
    world.write("extensions/tell.write", TELL)
    world.write("extensions/tell.check", '#!/bin/sh\nenv > "$1.check"\n')
    world.write("tell.configure", '#!/bin/sh\nenv > tell.out; ls -A "$TMPDIR" > listing\n')
    world.configure_with("tell")
    world.cluster(one={"type": "extensions/tell", "location": "one", "A": "1"})
    impostors = {name: "/impostor" for name in OWN if name != "MORPH_LOG_FD"}
    world.deploy(env={**impostors, "PYTHONPATH": "/mine", "TMPDIR": str(world.trove.root)})

    text = world.output("one")
    assert text.splitlines()[-1] == str(world.definitions)  # the working directory
    found = variables(text)
    assert "/impostor" not in text
    assert found["UPGRADE"] == "no"
    assert found["MORPH_SYSTEM_KEY"] == world.trove.image().name.partition(".")[0]
    assert found["MORPH_ARCH"] == "x86_64"
    assert found["SOURCE_DATE_EPOCH"].isdecimal()
    assert found[MARKER] == str(world.trove.root)
    mine, own, library = found["PYTHONPATH"].split(":")
    assert (mine, own) == ("/mine", str(world.definitions / "extensions"))
    assert library.startswith(f"{world.trove.temp}/deployments/")
    # An ordinary user's tree has no device nodes, so there is a table of them.
    assert ("MORPH_DEVICE_TABLE" in found) is (world.trove.user != 0)
    # The temporary directory is one for configuring and writing, empty in the beginning.
    assert found["TMPDIR"].startswith(f"{world.trove.temp}/deployments/")
    assert world.output("listing") == ""
    configuring = variables(world.output("tell.out"))
    assert {**configuring, "_": "", "PWD": ""} == {**found, "_": "", "PWD": ""}
    checking = variables(world.output("one.check"))
    assert checking["TMPDIR"] == str(world.trove.root)
    assert "MORPH_DEVICE_TABLE" not in checking
    assert checking["MORPH_SYSTEM_KEY"] == found["MORPH_SYSTEM_KEY"]
    assert checking["MORPH_ARCH"] == found["MORPH_ARCH"]


def test_built_in_extensions_find_all_of_it(any_world: World) -> None:
    """As told by a program that one of them starts."""
    world = any_world
    out = world.definitions / "variables"
    world.write("bin/cp", f'#!/bin/sh\nenv > {out}\nexec /bin/cp "$@"\n', 0o755)
    world.cluster(
        one={"type": "sysroot", "location": "one", "A": "1", "B": None},
        two={"type": "tar", "location": "two.tar"},
    )
    world.deploy(
        "one",
        "two",
        "one.C=c d",
        env={"PATH": f"{world.definitions}/bin:{os.environ['PATH']}", "D": "d"},
    )
    found = variables(out.read_text())
    assert [found[name] for name in "ABCD"] == ["1", "", "c d", "d"]
    expected = {"UPGRADE", "MORPH_ARCH", "MORPH_LOG_FD", "MORPH_PARAMETERS", "MORPH_SYSTEM_KEY"}
    expected |= {"SOURCE_DATE_EPOCH", "TMPDIR", "MORPH_BASE"}
    if world.trove.user != 0:
        expected |= {"MORPH_DEVICE_TABLE"}
    assert expected <= set(found)
    assert set(OWN) & set(found) == set(OWN) & expected
    with tarfile.open(world.definitions / "two.tar") as archive:
        null = archive.getmember("./dev/null")
    assert (null.type, null.devmajor, null.devminor) == (tarfile.CHRTYPE, 1, 3)


def test_the_library_can_be_imported(any_world: World) -> None:
    """By extensions of the definitions, with the machine's own Python, whatever they are called."""
    world = any_world
    world.write("helper.py", "WHAT = 'helped'\n")
    world.write(
        "extensions/motd.configure",
        "#!/usr/bin/env python3\n"
        "from morphlib.writeexts import ConfigureExtension, text\n"
        "import helper\n"
        'MOTD = text("MOTD", "What people see.")\n'
        "class Motd(ConfigureExtension):\n"
        '    description = "Write it."\n'
        "    parameters = (MOTD,)\n"
        "    def configure(self, tree, given):\n"
        '        tree.write("etc/motd", given[MOTD] + helper.WHAT)\n'
        "Motd().run()\n",
    )
    old = (
        "#!/usr/bin/python3\n"
        "import morphlib.writeexts, morphlib.util, sys\n"
        "class Old(morphlib.writeexts.WriteExtension):\n"
        "    def process_args(self, args):\n"
        "        tree, location = args\n"
        "        self.status(msg='writing %(what)s', what=location)\n"
        "        open(location, 'w').write(open(tree + '/etc/motd').read())\n"
        "Old().run()\n"
    )
    world.write("old.write", old)
    world.configure_with("extensions/motd")
    world.cluster(one={"type": "old", "location": "one", "MOTD": "Hello "})
    ran = world.deploy()
    assert world.output("one") == "Hello helped"
    assert "[one]writing one" in ran.out


def test_modules_of_definitions_do_not_get_into_morph(world: World) -> None:
    """Nor does what the caller's own PYTHONPATH has."""
    for name in ("json", "tarfile", "morphlib"):
        world.write(f"{name}.py", "raise SystemExit('taken over')\n")
    world.cluster(one={"type": "tar", "location": "one.tar"})
    world.deploy(env={"PYTHONPATH": str(world.definitions)})
    assert tarfile.is_tarfile(world.definitions / "one.tar")


def test_paths_of_the_definitions_need_not_be_plain(world: World) -> None:
    world.write("a dir/-x $HOME.write", TELL)
    world.cluster(one={"type": "a dir/-x $HOME", "location": "-o one"})
    world.deploy()
    assert str(world.definitions / "a dir") in variables(world.output("-o one"))["PYTHONPATH"]
    assert Path(world.definitions, "-o one").is_file()


def test_the_log_has_what_morph_set_and_no_secrets(world: World) -> None:
    """Of the caller's variables it has those alone that parameters of the deployment have."""
    world.write(
        "tell.configure",
        "#!/usr/bin/env python3\n"
        "from morphlib.writeexts import ConfigureExtension\n"
        "class Tell(ConfigureExtension):\n"
        "    def configure(self, tree, given): pass\n"
        "Tell().run()\n",
    )
    world.configure_with("tell", "set-hostname")
    world.cluster(
        one={"type": "tar", "location": "one.tar", "COLOUR": "blue", "ADMIN_PASSWORD": "hush-1"}
    )
    log = world.definitions / "log"
    callers = {"SSN": "hush-2", "CI_JOB": "hush-3", "HOSTNAME": "pine", "ADMIN_PASSWORD": "hush-4"}
    world.deploy(f"--log={log}", "--log-level=debug", env=callers)
    # Morph's own environment is there too, in lines of its own.
    assert " DEBUG environment: ADMIN_PASSWORD=(hidden)\n" in log.read_text()
    assert "hush-1" not in log.read_text()
    assert "hush-4" not in log.read_text()
    lines = [line for line in log.read_text().splitlines() if " DEBUG environment: " not in line]
    assert "hush" not in "".join(lines)
    for name in ("tar.check", "tell.configure", "set-hostname.configure", "tar.write"):
        (line,) = [line for line in lines if f"{name}: Environment: " in line]
        assert "'COLOUR': 'blue'" in line
        assert "'ADMIN_PASSWORD'" in line
        assert "'MORPH_ARCH': 'x86_64'" in line
        assert "'UPGRADE': 'no'" in line
        assert "SSN" not in line
        assert ("'HOSTNAME': 'pine'" in line) is name.startswith("set-hostname")


#: Starts a program that goes on with what it has open, and ends.
DAEMON = """#!/bin/sh
setsid sleep {seconds} {where} &
echo of the log >&"$MORPH_LOG_FD"
echo of standard output
[ $# = 1 ] || echo done > "$2"
"""


def test_a_daemon_that_keeps_the_log_open_is_not_waited_for(world: World) -> None:
    script = DAEMON.format(seconds=world.trove.forever, where=">/dev/null 2>&1")
    for kind in ("check", "configure", "write"):
        world.write(f"daemon.{kind}", script)
    world.configure_with("daemon")
    world.cluster(one={"type": "daemon", "location": "one"})
    log = world.definitions / "log"
    ran = world.deploy(f"--log={log}", "--log-level=debug")
    assert world.output("one") == "done\n"
    assert ran.out.count("of standard output") == 3
    for kind in ("check", "configure", "write"):
        assert f"daemon.{kind}: of the log" in log.read_text()
    daemons = relatives(world.trove)
    assert len(daemons) == 3
    for pid in daemons:
        os.kill(pid, signal.SIGKILL)
    wait_until_nothing_runs(world.trove)


def test_output_that_comes_late_is_waited_for_and_that_is_said(world: World) -> None:
    script = '#!/bin/sh\n(sleep 3; echo late; echo late-error >&2) &\n: > "$2"\n'
    world.write("late.write", script)
    world.cluster(one={"type": "late", "location": "one"})
    ran = world.deploy()
    assert "[one]late\n" in ran.out
    assert "late-error" in ran.err
    assert "late.write has ended, but something that it started holds its output open" in ran.err
