"""Deployments that are interrupted or killed: nothing stays running, mounted or half-written."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.build.e2e.trove import finish, mounts_below
from tests.deploy.world import CLUSTER, World, wait_for, wait_until_nothing_runs

STAGES = ("check", "configure", "write")

#: An extension that mounts something in the tree, starts programs, and waits.
SLOW = """#!/bin/sh
set -e
trap 'rm -f half; exit 3' TERM INT HUP
if [ -d "$1" ]; then
    mount -t tmpfs none "$1/mnt" 2>/dev/null || { mkdir "$1/mnt"; mount -t tmpfs none "$1/mnt"; }
    mount --bind "$1" "$1"
fi
echo half > half
sleep FOREVER & (setsid sleep FOREVER &)
: > started
wait
"""


def slow(world: World, stage: str) -> None:
    """A deployment `one`, of which one stage does not end."""
    fast = '#!/bin/sh\n[ $# = 1 ] || echo done > "$2"\n'
    for each in STAGES:
        script = SLOW.replace("FOREVER", world.trove.forever)
        world.write(f"slow.{each}", script if each == stage else fast)
    world.configure_with("slow")
    world.cluster(one={"type": "slow", "location": "out"})


def start_until_it_waits(world: World, *arguments: str) -> subprocess.Popen[bytes]:
    started = world.definitions / "started"
    process = world.start("deploy", CLUSTER, *arguments)
    wait_for(lambda: started.exists() or process.poll() is not None)
    assert process.poll() is None, finish(process)
    return process


def assert_nothing_left(world: World) -> None:
    wait_until_nothing_runs(world.trove)
    assert mounts_below(world.trove.root) == []
    assert not (world.definitions / "half").exists()
    assert not (world.definitions / "out").exists()


def deploy_again(world: World) -> None:
    """Which has to work as if nothing had been, and removes what was left."""
    world.cluster(one="out")
    world.configure_with()
    world.deploy()
    assert world.output("out") == "done\n"


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_an_interrupted_deployment_clears_up(any_world: World, how: str, stage: str) -> None:
    """Ctrl-C goes to all of a terminal's processes, the others to the one that is meant."""
    world = any_world
    slow(world, stage)
    process = start_until_it_waits(world)
    if how == "SIGINT":
        os.killpg(process.pid, signal.SIGINT)
    else:
        os.kill(process.pid, getattr(signal, how))
    ran = finish(process)
    assert ran.status == 255
    assert "interrupted" in ran.err
    assert "Traceback" not in ran.err
    assert not world.runs
    assert_nothing_left(world)
    deploy_again(world)


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_morph_takes_everything_along(any_world: World, stage: str) -> None:
    world = any_world
    slow(world, stage)
    process = start_until_it_waits(world)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert_nothing_left(world)
    deploy_again(world)


def test_an_extension_gets_time_to_clear_up(world: World) -> None:
    """Longer than an instant, whether morph is told to end or is killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        script = "#!/bin/sh\ntrap 'sleep 1; echo cleared > cleared; exit 1' TERM\n"
        world.write("slow.write", f"{script}: > started\nsleep {world.trove.forever} & wait\n")
        world.cluster(one={"type": "slow", "location": "out"})
        process = start_until_it_waits(world)
        process.send_signal(number)
        process.communicate(timeout=60)
        wait_until_nothing_runs(world.trove)
        assert world.output("cleared") == "cleared\n"
        for name in ("cleared", "started"):
            (world.definitions / name).unlink()


def test_impatient_people(world: World) -> None:
    slow(world, "write")
    process = start_until_it_waits(world)
    for _ in range(3):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.01)
    ran = finish(process)
    assert ran.status == 255
    assert "Traceback" not in ran.err
    assert not world.runs
    assert_nothing_left(world)


def half_an_image(world: World) -> dict[str, str]:
    """Variables with which squashfs writes half a file and does not come to an end."""
    program = world.write(
        "bin/mksquashfs",
        f'#!/bin/sh\necho half > "$2"\n: > started\nexec sleep {world.trove.forever}\n',
        0o755,
    )
    return {"PATH": f"{program.parent}:{os.environ['PATH']}"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["TERM", "KILL"])
def test_a_target_is_old_or_new(any_world: World, number: signal.Signals) -> None:
    world = any_world
    world.cluster(one={"type": "squashfs", "location": "images/one"})
    images = world.write("images/one", "the old one").parent
    started = world.definitions / "started"
    world.give()
    process = world.start("deploy", CLUSTER, env=half_an_image(world))
    wait_for(lambda: started.exists() or process.poll() is not None)
    assert len(list(images.iterdir())) == 2  # the other one is being written
    process.send_signal(number)
    process.communicate(timeout=60)
    wait_until_nothing_runs(world.trove)
    assert [path.name for path in images.iterdir()] == ["one"]
    assert (images / "one").read_text() == "the old one"
    world.deploy()
    assert (images / "one").read_bytes().startswith(b"hsqs")
    assert [path.name for path in images.iterdir()] == ["one"]


def test_a_killed_process_fails_its_deployment(any_world: World) -> None:
    """Not morph itself, but one of those that do the work, for want of memory for example."""
    world = any_world
    slow(world, "write")
    process = start_until_it_waits(world)
    (worker,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(worker), signal.SIGKILL)
    ran = finish(process)
    assert ran.status == 1
    assert "Deployment one failed: its process was killed by SIGKILL" in ran.err
    assert "Traceback" not in ran.err
    assert not world.runs
    assert_nothing_left(world)
    deploy_again(world)


def test_killed_at_any_moment_the_next_run_is_whole(world: World) -> None:
    world.cluster(
        one={"type": "tar", "location": "one.tar"}, two={"type": "sysroot", "location": "two"}
    )
    began = time.monotonic()
    world.deploy()
    whole = time.monotonic() - began
    wanted = (world.definitions / "one.tar").read_bytes()
    chance = random.Random(3)
    for _ in range(12):
        process = world.start("deploy", CLUSTER)
        time.sleep(chance.uniform(0.3 * whole, whole))
        process.kill()
        process.communicate(timeout=60)
        wait_until_nothing_runs(world.trove)
        assert mounts_below(world.trove.root) == []
        assert (world.definitions / "one.tar").read_bytes() == wanted
    world.deploy()
    assert (world.definitions / "one.tar").read_bytes() == wanted
    left = [path.name for path in world.definitions.iterdir() if path.name.startswith(".one")]
    assert left == []


#: An extension that nothing but SIGKILL ends.
DEAF = """#!/bin/sh
trap '' TERM INT HUP
[ -d "$1" ] || exit 0
: > started
while :; do sleep 0.2; done
"""


def test_what_is_waited_for_is_said_and_another_interrupt_ends_it(any_world: World) -> None:
    world = any_world
    world.write("deaf.write", DEAF)
    world.cluster(one={"type": "deaf", "location": "out"})
    process = start_until_it_waits(world)
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    assert process.stderr is not None
    said = b""
    while b"Waiting" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    assert b"Waiting up to 60 s for the extension of one to end. Another Ctrl-C ends it" in said
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 255
    assert time.monotonic() - began < 30
    assert b"Traceback" not in rest
    assert not world.runs
    assert_nothing_left(world)
    deploy_again(world)
