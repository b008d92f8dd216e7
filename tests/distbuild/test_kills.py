"""Each party is killed at each stage of a build, and started again. The build succeeds, but for
that of an initiator that is no more."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from distbuild.builders import SILENT_SECONDS
from distbuild.crashing import CRASH_STATUS
from morphlib.process import wait_until
from tests.commandline import MORPH
from tests.commands.world import SYSTEM
from tests.distbuild.network import PATIENCE, Meanwhile, Network

Networks = Callable[..., Network]


T = TypeVar("T")


def ask(network: Network) -> Meanwhile:
    """Begin a build that somebody follows."""
    return Meanwhile(lambda: network.run("distbuild", SYSTEM))


def ask_by_program(network: Network) -> subprocess.Popen[bytes]:
    """The same by a program that can be killed."""
    options = [f"--{name}={value}" for name, value in network.all_settings({}).items()]
    return subprocess.Popen(
        [str(MORPH), "--no-default-configs", *options, "distbuild", SYSTEM],
        cwd=network.world.definitions.path,
        env=network.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@contextmanager
def graphing(network: Network, begin: Callable[[Network], T]) -> Iterator[T]:
    """A build whose graph is being computed, by a helper that is held up."""
    network.signal("controller-helper", signal.SIGSTOP)
    try:
        building = begin(network)
        network.find_id()
    finally:
        # It goes on only to find that the other side is gone.
        network.signal("controller-helper", signal.SIGCONT)
    yield building


@contextmanager
def building(network: Network, begin: Callable[[Network], T]) -> Iterator[T]:
    """A build of which a chunk is being built."""
    network.change_app("sleep 3")
    running = begin(network)
    network.wait_for_app()
    yield running


@contextmanager
def transferring(network: Network, begin: Callable[[Network], T]) -> Iterator[T]:
    """A build of which a result is on its way into the shared cache, which is held up."""
    network.signal("shared-write", signal.SIGSTOP)
    running = begin(network)
    artifacts = network.home / "worker" / "artifacts"
    found = lambda: any(artifacts.glob("*.chunk.shell-runtime"))  # noqa: E731
    assert wait_until(found, PATIENCE), network.logs()
    assert wait_until(lambda: "Finished build of demo" in shell_log(network), PATIENCE)
    yield running
    network.signal("shared-write", signal.SIGCONT)


def shell_log(network: Network) -> str:
    return (network.world.root / "logs" / "build-step-shell.log").read_text()


@pytest.mark.parametrize(
    ("stage", "party"),
    [
        (graphing, "controller-helper"),
        (graphing, "controller"),
        (graphing, "worker-0"),
        (graphing, "worker-0-helper"),
        (graphing, "builder"),
        (building, "controller-helper"),
        (building, "worker-0"),
        (building, "worker-0-helper"),
        (building, "builder"),
        (transferring, "controller"),
        (transferring, "controller-helper"),
        (transferring, "worker-0"),
        (transferring, "worker-0-helper"),
        (transferring, "builder"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_party_that_is_killed_costs_no_build(
    networks: Networks, stage: Callable[..., AbstractContextManager[Meanwhile]], party: str
) -> None:
    network = networks()
    with stage(network, ask) as running:
        network.kill_and_restart(party)
    ran = running.result()
    assert ran.status == 0, ran.out + ran.err + network.logs()


@pytest.mark.parametrize("stage", [graphing, building, transferring])
def test_an_initiator_that_is_killed_takes_its_build_along(
    networks: Networks, stage: Callable[..., AbstractContextManager[subprocess.Popen[bytes]]]
) -> None:
    network = networks()
    with stage(network, ask_by_program) as initiator:
        build = network.find_id()
        initiator.kill()
        initiator.wait(30)
        network.wait_for("controller", f"{build}: Cancelled")
    listed = network.run("distbuild-list-jobs")
    assert "0 distbuild requests(s) currently in progress" in listed.out
    ran = network.run("distbuild", SYSTEM)  # whoever asks next is not hindered by what it left
    assert ran.status == 0, ran.out + ran.err + network.logs()


def test_a_builder_that_hangs_costs_no_build(networks: Networks) -> None:
    network = networks()
    network.change_app("echo begun", "sleep 3")
    running = Meanwhile(lambda: network.run("distbuild", SYSTEM))
    network.wait_for_app()
    builder = network.builder()
    os.kill(builder, signal.SIGSTOP)
    running.join(SILENT_SECONDS)
    ran = running.result()
    assert ran.status == 0, ran.out + ran.err + network.logs()
    silence = f"its builder gave no sign of life for {SILENT_SECONDS:.0f} seconds"
    assert f"app is begun again: {silence}\n" in network.log("worker-0")
    assert not Path(f"/proc/{builder}").exists()
    # The worker did that, and troubled nobody with it.
    assert ran.out.count("Started building app on") == 1


def test_a_controller_that_is_killed_takes_up_its_builds(networks: Networks) -> None:
    network = networks()
    network.change_app("sleep 20")
    running = Meanwhile(lambda: network.run("distbuild", SYSTEM))
    step_log = network.wait_for_app()
    build = network.find_id()
    network.kill_and_restart("controller")
    ran = running.result()
    assert ran.status == 0, ran.out + ran.err + network.logs()
    assert f"Taking up build {build} of systems/demo.morph again" in network.log("controller")
    # What was being built went on, and was not begun a second time.
    assert "app is already building on 127.0.0.1:" in ran.out
    assert ran.out.count("Started building app on") == 1
    assert step_log.read_text().count("sleep 20") <= 1


def test_a_controller_that_stops_for_a_while_costs_no_build(networks: Networks) -> None:
    """Longer than the others wait for a sign of life from it."""
    network = networks(peer_timeout="10")
    network.change_app("sleep 20")
    running = Meanwhile(lambda: network.run("distbuild", SYSTEM))
    network.wait_for_app()
    controller = network.processes["controller"].child
    controller.send_signal(signal.SIGSTOP)
    try:
        time.sleep(14)
    finally:
        controller.send_signal(signal.SIGCONT)
    ran = running.result()
    assert ran.status == 0, ran.out + ran.err + network.logs()
    assert "silent for 10 seconds; trying to reach it again" in ran.out
    assert network.log("controller").count("Finished") == 1


def test_a_controller_that_dies_before_it_answers_is_asked_again(networks: Networks) -> None:
    """The build that it wrote down is taken up, and no second one is begun."""
    network = networks()
    network.processes["controller"].kill()
    network.processes["controller-helper"].child.wait(30)
    network.start_controller(crash_condition="controller:begin:1")
    running = Meanwhile(lambda: network.run("distbuild", SYSTEM))
    assert network.processes["controller"].child.wait(PATIENCE) == CRASH_STATUS
    network.processes["controller-helper"].child.wait(30)
    network.start_controller()
    ran = running.result()
    assert ran.status == 0, ran.out + ran.err + network.logs()
    log = network.log("controller")
    assert log.count("Taking up build") == 1
    begun = {
        line.split("Build ")[1].split(":")[0] for line in log.splitlines() if "Build build" in line
    }
    assert len(begun) == 1


@pytest.mark.parametrize("ends", ["before it is back", "after that"])
def test_what_is_printed_while_the_controller_is_away_is_in_the_log(
    networks: Networks, ends: str
) -> None:
    network = networks()
    rounds = 30 if ends == "after that" else 12
    line = 'echo "line $number"; number=$((number + 1)); sleep 0.3'
    network.change_app(f"set +x; number=0; while [ $number -lt {rounds} ]; do {line}; done")
    running = Meanwhile(lambda: network.run("distbuild", SYSTEM))
    step_log = network.wait_for_app()
    assert wait_until(lambda: "line 3\n" in step_log.read_text(), PATIENCE)
    network.processes["controller"].kill()
    network.processes["controller-helper"].child.wait(30)
    if ends == "before it is back":
        built = network.home / "worker" / "artifacts"
        assert wait_until(lambda: any(built.glob("*.chunk.app-runtime")), PATIENCE)
    network.start_controller()
    ran = running.result()
    assert ran.status == 0, ran.out + ran.err + network.logs()
    found = [each for each in step_log.read_text().splitlines() if each.startswith("line ")]
    assert found == [f"line {number}" for number in range(rounds)]


def test_a_build_that_nobody_comes_back_for_after_a_restart_is_still_known(
    networks: Networks,
) -> None:
    network = networks()
    network.change_app("sleep 100")
    ran = network.run("distbuild-start", SYSTEM)
    assert ran.status == 0, ran.out + ran.err
    build = network.find_id()
    network.kill_and_restart("controller")
    status = network.run("distbuild-status", build)
    assert "  System build: systems/demo.morph\n  Build status: " in status.out
    assert network.run("distbuild-cancel", build).status == 0
    listed = network.run("distbuild-list-jobs")
    assert "0 distbuild requests(s) currently in progress" in listed.out


@pytest.mark.parametrize(
    "condition", ["controller:begin:1", "controller:start:3", "transfers:stored:2"]
)
def test_a_controller_that_crashes_at_a_point_goes_on_from_there(
    networks: Networks, condition: str
) -> None:
    network = networks()
    network.processes["controller"].kill()
    network.processes["controller-helper"].child.wait(30)
    network.start_controller(crash_condition=condition)
    started = network.run("distbuild-start", SYSTEM, "app")
    assert network.processes["controller"].child.wait(60) == 255, network.logs()
    module, point, _ = condition.split(":")
    assert f"Crash triggered from {module}:{point}\n" in network.log("controller")
    network.processes["controller-helper"].child.wait(30)
    network.start_controller()
    build = network.find_id()
    followed = network.run("distbuild-attach", build)
    assert followed.status == 0, started.out + followed.out + followed.err + network.logs()
    assert any(".chunk.app-runtime" in name for name in network.shared)
