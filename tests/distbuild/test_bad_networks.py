"""Distributed builds where the network is cut, slow, or loses what it is given.

Each party is in a network namespace of its own: hub (controller and shared cache), workers,
initiator. Machines count as lost after a few seconds of silence.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from morphlib.process import wait_until
from tests.commands.world import SYSTEM, World
from tests.distbuild.hosts import Namespaces, namespaces, needs_namespaces
from tests.distbuild.network import PATIENCE, Meanwhile, Network

pytestmark = needs_namespaces

#: Seconds of silence after which a machine counts as lost.
LOST = 6


class Apart(Network):
    """A network over links that can be changed."""

    hosts: Namespaces

    def __init__(self, world: World, workers: int, hosts: Namespaces, **settings: str) -> None:
        self.hosts = hosts
        super().__init__(world, workers, **settings)

    def distbuild(self, *arguments: str, **settings: str) -> Meanwhile:
        return Meanwhile(lambda: self.run("distbuild", SYSTEM, *arguments, **settings))

    def who_builds_app(self) -> str:
        """The worker that was given `app` first."""
        found = re.search(r" on (\S+)", self.wait_for_app().read_text())
        assert found
        return next(name for name in self.workers if self.address(name) == found[1])

    def other_than(self, worker: str) -> str:
        return next(name for name in self.workers if name != worker)


Networks = Callable[..., Apart]


@pytest.fixture
def apart(world: World, tmp_path: Path) -> Iterator[Networks]:
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef0123456789abcdef")
    secret.chmod(0o600)
    with ExitStack() as stack:

        def make(workers: int = 1, **settings: str) -> Apart:
            names = [f"worker-{number}" for number in range(workers)]
            hosts = stack.enter_context(namespaces(*names, "initiator"))
            values = {"distbuild_secret_file": str(secret), "peer_timeout": str(LOST)}
            network = Apart(world, workers, hosts, **values, **settings)
            stack.callback(network.close)
            return network

        yield make


def finish(network: Apart, running: Meanwhile) -> str:
    """What a build told that has to succeed."""
    ran = running.result()
    assert ran.status == 0, ran.out + ran.err + network.logs()
    assert "Traceback" not in network.logs()
    return ran.out


def begin(network: Apart, *build: str) -> tuple[Meanwhile, str]:
    """A build of which `app` is being built, and by which worker. All else is there already."""
    network.build("base", "lib")
    network.change_app(*build)
    running = network.distbuild()
    return running, network.who_builds_app()


def begin_transfer(network: Apart) -> tuple[Meanwhile, str]:
    """A build of which a result is on its way, for some ten seconds."""
    noise = "head -c 3000000 /dev/urandom > usr/noise"
    running, worker = begin(network, "sleep 2", noise)
    network.hosts.limit(worker, "2mbit")
    log = network.world.root / "logs" / "build-step-app.log"
    assert wait_until(lambda: "Finished build of demo" in log.read_text(), PATIENCE)
    time.sleep(1)
    assert not any(".chunk.app-" in name for name in network.shared), "it was too fast"
    return running, worker


def test_a_build_over_links(apart: Networks) -> None:
    network = apart(workers=2)
    ran = network.build()
    assert "Started building shell on 10.77.0." in ran.out
    assert "Artifact: http://10.77.0.1:8080/" in ran.out


def test_a_link_that_comes_back_soon_costs_nothing(apart: Networks) -> None:
    network = apart(workers=2)
    running, worker = begin(network, "sleep 6")
    network.hosts.cut(worker)
    time.sleep(LOST / 3)
    network.hosts.mend(worker)
    out = finish(network, running)
    assert out.count("Started building app on") == 1
    assert "again" not in out
    assert f"Finished building app on {network.address(worker)}" in out


def test_a_worker_that_is_cut_off_is_replaced(apart: Networks) -> None:
    network = apart(workers=2)
    running, worker = begin(network, "sleep 4")
    cut = time.monotonic()
    network.hosts.cut(worker)
    out = finish(network, running)
    assert time.monotonic() - cut < LOST + 30
    assert f"again: worker {network.address(worker)} was lost" in out
    assert f"Finished building app on {network.address(network.other_than(worker))}" in out
    # When it is back it does not go on with what nobody wants of it.
    network.hosts.mend(worker)
    network.change_app("true")
    network.build()


def test_a_worker_that_comes_back_late_goes_on(apart: Networks) -> None:
    network = apart()
    running, worker = begin(network, f"sleep {3 * LOST}", "echo the only time")
    network.hosts.cut(worker)
    network.wait_for("controller", "is lost: silent for")
    network.hosts.mend(worker)
    out = finish(network, running)
    assert out.count("Started building app on") == 1
    assert f"app is already building on {network.address(worker)}" in out
    log = (network.world.root / "logs" / "build-step-app.log").read_text()
    assert log.count("\nthe only time\n") == 1


def test_a_worker_that_vanished_without_a_word_is_found_again(apart: Networks) -> None:
    network = apart()
    running, worker = begin(network, "sleep 3")
    network.hosts.cut(worker)
    # Nothing of this reaches the controller: to it the connection is as it was.
    network.processes[worker].kill()
    network.processes[f"{worker}-helper"].child.wait(30)
    network.hosts.mend(worker)
    network.start_worker(0)
    out = finish(network, running)
    assert f"Building app again: worker {network.address(worker)} was lost" in out
    assert f"Finished building app on {network.address(worker)}" in out


def test_a_transfer_outlives_a_short_cut(apart: Networks) -> None:
    network = apart(workers=2)
    running, worker = begin_transfer(network)
    network.hosts.cut(worker)
    time.sleep(LOST / 3)
    network.hosts.mend(worker)
    out = finish(network, running)
    assert out.count("Started building app on") == 1
    assert f"Finished building app on {network.address(worker)}" in out


def test_what_can_not_be_brought_over_is_built_elsewhere(apart: Networks) -> None:
    network = apart(workers=2)
    running, worker = begin_transfer(network)
    cut = time.monotonic()
    network.hosts.cut(worker)
    out = finish(network, running)
    assert time.monotonic() - cut < LOST + 45
    assert f"Finished building app on {network.address(network.other_than(worker))}" in out
    # Nothing of what did not come over whole is left among what is shared.
    names = [name for name in network.shared if ".chunk.app-" in name]
    assert len(names) == 2


def test_slow_links_do_for_a_build(apart: Networks) -> None:
    network = apart(workers=2)
    for machine in ("worker-0", "worker-1", "initiator"):
        network.hosts.limit(machine, "200kbit")
    out = network.build().out
    assert "again" not in out
    assert out.count("Finished building ") == 7


def test_lossy_links_do_for_a_build(apart: Networks) -> None:
    network = apart(workers=2)
    for machine in ("worker-0", "worker-1", "initiator"):
        network.hosts.spoil(machine, 0.1)
    out = network.build().out
    assert out.count("Finished building ") == 7


def test_an_initiator_that_is_cut_off_finds_its_build_again(apart: Networks) -> None:
    network = apart()
    running, worker = begin(network, f"sleep {4 * LOST}")
    network.hosts.cut("initiator")
    build = network.find_id()
    network.wait_for("controller", f"Build {build}: its initiator is silent")
    network.hosts.mend("initiator")
    out = finish(network, running)
    assert "trying to reach it again" in out
    assert f"app is already building on {network.address(worker)}" in out
    assert f"Finished building app on {network.address(worker)}" in out


def test_a_build_whose_initiator_vanished_does_not_go_on_for_ever(apart: Networks) -> None:
    network = apart()
    running, _ = begin(network, "sleep 500")
    network.hosts.cut("initiator")
    build = network.find_id()
    network.wait_for("controller", f"Build {build}: Cancelled")
    network.hosts.mend("initiator")
    ran = running.result()
    assert ran.status == 1, ran.out
    assert ran.err.startswith("ERROR: ")
