"""Parties that are let in and lie: builds succeed where they can, and nothing is harmed."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from distbuild import messages as m
from distbuild.framing import encode
from distbuild.handshake import Party
from distbuild.messages import Message, Role
from distbuild.workermessages import Fault, JobBuilt, JobFailed, JobOutput, Offer, RunStep, Step
from tests.commandline import Ran, run_morph
from tests.commands.world import SYSTEM, World
from tests.distbuild import liars
from tests.distbuild.network import PATIENCE, Meanwhile, Network

Networks = Callable[..., Network]

# ---- Initiators ------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["distbuild-status", "distbuild-cancel", "distbuild-attach"])
@pytest.mark.parametrize("name", ["a b", "", "../x", "-1"])
def test_what_is_no_id_is_the_id_of_no_build(network: Network, command: str, name: str) -> None:
    ran = network.run(command, "--", name)
    assert ran.status == 1
    assert "Given build-request ID does not match any " in ran.err


@pytest.mark.parametrize("component", ["", "x" * 1001, "two\nlines"])
def test_a_request_that_makes_no_sense_is_answered(network: Network, component: str) -> None:
    ran = network.run("distbuild", SYSTEM, component)
    assert ran.status == 1
    assert "Bad request: " in ran.err
    assert "$.components[0]" in ran.err


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("repo", "--upload-pack=touch {}"),
        ("repo", "ext::sh -c touch% {}"),
        ("ref", "--upload-pack=touch {}"),
        ("ref", "--output={}"),
        ("morphology", "../../../../../../etc/passwd"),
        ("morphology", "--config={}"),
    ],
)
def test_nothing_in_a_request_is_an_option_or_a_program(
    network: Network, tmp_path: Path, field: str, value: str
) -> None:
    touched = tmp_path / "touched"
    definitions = network.world.definitions
    request = {
        "type": "build-request",
        "id": f"request-{abs(hash((field, value)))}",
        "repo": str(definitions.path),
        "ref": definitions.git("rev-parse", "HEAD").strip(),
        "morphology": SYSTEM,
        field: value.format(touched),
    }
    with socket.create_connection(("127.0.0.1", network.ports["controller"]), PATIENCE) as peer:
        peer.sendall(encode(Party(Role.INITIATOR).hello()) + json.dumps(request).encode() + b"\n")
        with peer.makefile("rb") as lines:
            said = next(each for each in map(json.loads, lines) if each["type"] == "build-failed")
    assert said["reason"].startswith("ERROR: ")
    assert not touched.exists()


# ---- Controllers, to initiators --------------------------------------------------------------


def attach(world: World, port: int, *arguments: str) -> Ran:
    """Follow a build that a controller tells lies about."""
    settings = {
        **world.settings,
        "controller-initiator-address": "127.0.0.1",
        "controller-initiator-port": str(port),
        "initiator-step-output-dir": str(world.root / "logs"),
    }
    options = [f"--{name}={value}" for name, value in settings.items()]
    return run_morph(
        *options,
        "distbuild-attach",
        "b",
        home=world.root,
        cwd=world.definitions.path,
        timeout=PATIENCE,
    )


@pytest.mark.parametrize("step", ["../../../etc/evil", "/etc/evil", "..", "ü" * 500, "\x9b2J"])
def test_logs_stay_where_they_belong(world: World, step: str) -> None:
    lies = [
        m.StepStarted(build="b", step_name=step, worker_name="w"),
        m.StepOutput(build="b", step_name=step, stdout=b"printed\n"),
        m.StepFinished(build="b", step_name=step, worker_name="w"),
        m.BuildFinished(build="b", urls=()),
    ]
    before = {path for path in world.root.rglob("*") if "logs" not in path.parts}
    with liars.controller(*lies) as port:
        ran = attach(world, port)
    assert ran.status == 0, ran.err
    assert before == {path for path in world.root.rglob("*") if "logs" not in path.parts}
    (log,) = (world.root / "logs").iterdir()
    assert log.name.startswith("build-step-")
    assert b"printed\n" in log.read_bytes()


def test_what_a_controller_says_moves_no_cursor(world: World) -> None:
    evil = "\x1b[2J\x1b]0;name\x07 \x9b31m \u202e"
    lies = [
        m.BuildProgress(build="b", message=evil),
        m.StepStarted(build="b", step_name="a\x9b31m\u202e", worker_name="w\x9b31m"),
        m.StepFinished(build="b", step_name="a\x9b31m\u202e", worker_name="w\x9b31m"),
        m.CacheState(build="b", unbuilt=2**53, total=0, built=2**53, system="s\x9b"),
        m.BuildFailed(build="b", reason=evil),
    ]
    with liars.controller(*lies) as port:
        ran = attach(world, port)
    assert ran.status == 1
    assert "Traceback" not in ran.err
    for each in ran.out + ran.err:
        assert each == "\n" or (each.isprintable() and each != "\u202e")


# ---- Workers ---------------------------------------------------------------------------------


def nonsense(job: str) -> Sequence[Message]:
    return (
        JobOutput(job="nobody", stdout=b"of nobody"),
        JobOutput(job=job, offset=2**53, stdout=b"far away"),
        JobBuilt(job="nobody"),
        JobFailed(job=f"{job}0", fault=Fault.BUILD, reason="of others"),
        JobBuilt(job=job),
        JobBuilt(job=job),
    )


def test_a_worker_that_built_nothing_costs_no_build(networks: Networks) -> None:
    step = Step(repo="r", ref="r", morphology="m", key="0" * 64, name="x")
    offer = Offer(
        architectures=("x86_64", "no such thing", "x86_64"),
        capacity=10_000,
        running=tuple(RunStep(job=f"j-{number % 7}", step=step) for number in range(500)),
    )
    network = networks(peer_timeout="20")
    with liars.worker(offer, nonsense) as port:
        network.processes["controller"].kill()
        network.processes["controller-helper"].child.wait(30)
        network.start_controller(worker=f"127.0.0.1:{port},{network.address('worker-0')}")
        network.wait_for("controller", "Listening")
        ran = network.build()
    assert "of others" not in ran.out + ran.err
    assert f" again: {network.url('shared-write')} answers " in ran.out
    assert "Finished building demo" in ran.out


def test_a_worker_by_two_names_is_used_under_one(networks: Networks) -> None:
    network = networks()
    network.processes["controller"].kill()
    network.processes["controller-helper"].child.wait(30)
    port = network.ports["worker-0"]
    network.start_controller(
        worker=f"127.0.0.1:{port},localhost:{port},127.0.0.1:{port},127.0.0.2:{port}"
    )
    network.wait_for("controller", "and used under that name alone")
    network.change_app("sleep 4")
    running = Meanwhile(lambda: network.run("distbuild", SYSTEM))
    ran = running.result()
    assert ran.status == 0, ran.out + ran.err + network.logs()
    assert "was lost" not in ran.out
    assert ran.out.count("Started building app") == 1


# ---- Shared caches ---------------------------------------------------------------------------


def test_a_cache_that_does_not_answer_keeps_no_controller_from_ending(networks: Networks) -> None:
    network = networks()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(PATIENCE)
        network.processes["controller"].kill()
        network.processes["controller-helper"].child.wait(30)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        network.start_controller(writeable_cache_server=url)
        ran = network.run("distbuild-start", SYSTEM)
        assert ran.status == 0, ran.err
        peer, _ = silent.accept()
        with peer:
            controller = network.processes["controller"].child
            controller.terminate()
            assert controller.wait(20) in (0, -15)
