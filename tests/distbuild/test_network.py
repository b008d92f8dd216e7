"""Distributed builds by real processes on this machine."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from pathlib import Path

import yaml

from distbuild.oldprotocol import encode_old
from morphlib.cache.records import Records
from morphlib.cache.signing import generate_signing_key
from morphlib.process import wait_until
from tests.commands.world import SYSTEM, World
from tests.distbuild.network import PATIENCE, Meanwhile, Network

Networks = Callable[..., Network]


def without_times(text: str) -> list[str]:
    return [re.sub(r"^\S+ \S+ ", "", line) for line in text.splitlines()]


def test_a_system_is_built_by_others(networks: Networks, world: World) -> None:
    network = networks()
    world.documents["systems/untracked.morph"] = {**world.documents[SYSTEM], "name": "other"}
    world.write()
    ran = network.run("distbuild", "systems/untracked.morph")
    assert ran.status == 0, ran.out + ran.err + network.logs()
    lines = without_times(ran.out)
    worker = f"127.0.0.1:{network.ports['worker-0']}"
    begun = next(line for line in lines if line.startswith("Distbuild started"))
    build = network.find_id()
    assert begun == (
        f"Distbuild started with build request ID: {build}. To cancel, use `morph distbuild-cancel"
        f" {build}`."
    )
    at = lines.index("Computing build graph")
    assert lines[at + 1 : at + 6] == [
        "Finished computing build graph",
        begun,
        "Need to build 7/7 artifacts",
        f"Started building shell on {worker}",
        "Progress: Transferring shell to shared artifact cache",
    ]
    assert f"Finished building app on {worker}" in lines
    artifact = rf"{network.url('shared-read')}1\.0/artifacts\?filename=\w+\.system\.other-rootfs"
    assert re.fullmatch(f"Artifact: {artifact}", lines[-1])
    log = (world.root / "logs" / "build-step-app.log").read_text()
    assert "building app\n" in log
    assert without_times(log)[0] == f"Started building app on {worker}"
    assert without_times(log)[-1] == f"Finished building app on {worker}"
    assert any(name.endswith(".build-log") for name in network.shared)
    # The branch is gone from the origin, and nothing changed in the checkout.
    origin = world.root / "gits" / "definitions"
    assert world.definitions.git("ls-remote", "--heads", str(origin)).count("refs/heads/") == 1
    assert "?? systems/untracked.morph" in world.definitions.git("status", "--porcelain")


def test_what_is_in_the_shared_cache_is_not_built_again(networks: Networks, world: World) -> None:
    network = networks()
    network.build("base")
    network.change_app("echo changed")
    assert "Need to build 4/7 artifacts" in without_times(network.build().out)
    again = without_times(network.build().out)
    assert "Need to build 0/7 artifacts" in again
    assert not any("Started" in line for line in again)
    # Another machine takes it from there.
    ran = world.run("build", SYSTEM, artifact_cache_server=network.url("shared-read"))
    assert ran.status == 0, ran.err
    assert "Starting actual build" not in ran.out


def test_what_workers_sign_is_what_others_trust(
    networks: Networks, world: World, tmp_path: Path
) -> None:
    key = generate_signing_key(tmp_path / "key")
    trusted = tmp_path / "trusted"
    trusted.write_text(f"workers {key.public()}\n")
    network = networks(signing_key=str(key.path), trusted_keys=str(trusted))
    network.build()
    shared = network.home / "shared/artifacts"
    signed = {path.name.partition(".")[0] for path in shared.glob("*.signatures")}
    assert signed == {path.name.partition(".")[0] for path in shared.glob("*.manifest")}
    ran = world.run(
        "build",
        SYSTEM,
        artifact_cache_server=network.url("shared-read"),
        trusted_keys=str(trusted),
    )
    assert ran.status == 0, ran.err
    assert "Fetching to local cache" in ran.out
    assert "Building" not in ran.out
    # What is not signed is as good as absent; who built it signs it by sending it again.
    for path in shared.glob("*.signatures"):
        path.unlink()
    assert "Need to build 7/7 artifacts" in without_times(network.build().out)
    assert signed == {path.name.partition(".")[0] for path in shared.glob("*.signatures")}


def test_how_long_steps_took_is_known_to_the_next_build(network: Network) -> None:
    network.change_app("sleep 2")
    network.build()
    records = Records(network.home / "controller" / "records.sqlite")
    with records:
        times = records.estimate([("app", "0" * 64), ("lib", "0" * 64), ("never", "0" * 64)])
    assert set(times) == {"app", "lib"}
    assert times["app"] > times["lib"]
    assert times["app"] > 2


def test_a_failure_is_told_with_its_reason(network: Network) -> None:
    network.change_app("echo about to fail", "false")
    ran = network.run("distbuild", SYSTEM)
    assert ran.status == 1
    assert "Build of app failed." in without_times(ran.out)
    assert re.search(r"ERROR: Failed to build \S+ \w{40} systems/demo.morph: ", ran.err)
    assert "Building failed for app: ERROR: " in ran.err
    assert "build failed (exit_code=1) while building app" in ran.err
    log = (network.world.root / "logs" / "build-step-app.log").read_text()
    assert "about to fail\n" in log
    assert without_times(log)[-1] == "Build of app failed."


def test_what_can_not_be_computed_is_told(network: Network) -> None:
    network.world.documents["strata/top.morph"]["chunks"][0]["ref"] = "nowhere"
    network.world.write()
    ran = network.run("distbuild", SYSTEM)
    assert ran.status == 1
    assert "nowhere" in ran.err
    assert "Started building" not in ran.out


def test_unknown_components_build_nothing(network: Network) -> None:
    before = network.shared
    ran = network.run("distbuild", SYSTEM, "app", "nothing", "nobody")
    assert ran.status == 1
    assert "Some of the requested components are not in demo: nothing, nobody" in ran.err
    assert network.shared == before


def test_builds_are_listed_and_cancelled(network: Network) -> None:
    network.change_app("sleep 100")
    building = Meanwhile(lambda: network.run("distbuild", SYSTEM))
    build = network.find_id()
    network.wait_for_app()
    listed = network.run("distbuild-list-jobs")
    assert "1 distbuild requests(s) currently in progress\n\nBuild request ID: " in listed.out
    assert re.search(rf"{build}\n  Initiator: 127.0.0.1:\d+\n  Repo: \S+\n  Ref: \w+\n", listed.out)
    status = network.run("distbuild-status", build)
    assert "  System build: systems/demo.morph\n  Build status: Building app\n" in status.out
    cancelled = network.run("distbuild-cancel", build)
    assert cancelled.status == 0
    assert f"Cancelling build request with ID {build}" in cancelled.out
    ran = building.result()
    assert ran.status == 1
    assert "Build was cancelled" in ran.err
    assert "Build status: Cancelled" in network.run("distbuild-status", build).out
    for command in ("distbuild-cancel", "distbuild-attach", "distbuild-status"):
        unknown = network.run(command, "build-none")
        assert unknown.status == 1
        assert "Given build-request ID does not match any" in unknown.err
    # The worker is free again.
    network.change_app("true")
    network.build()


def test_a_build_goes_on_alone_and_can_be_followed_later(network: Network) -> None:
    network.change_app("echo still here", "sleep 3")
    ran = network.run("distbuild-start", SYSTEM)
    assert ran.status == 0, ran.out + ran.err
    build = network.find_id()
    assert f"build request ID: {build}." in ran.out
    followed = network.run("distbuild-attach", build)
    assert followed.status == 0, followed.out + followed.err
    assert "Artifact: " in followed.out
    assert network.run("distbuild-attach", build).status == 0


def test_an_initiator_that_goes_takes_its_build_along(network: Network) -> None:
    network.change_app("sleep 100")
    network.world.commit()
    address = ("127.0.0.1", network.ports["controller"])
    with socket.create_connection(address) as peer, peer.makefile("rb") as file:
        assert json.loads(file.readline())["role"] == "controller"
        hello = {"type": "hello", "role": "initiator", "protocol": 5, "program": "x"}
        say = {"type": "build-request", "id": "x", "repo": str(network.world.definitions.path)}
        say |= {"ref": network.world.definitions.head, "morphology": SYSTEM}
        for message in ({**hello, "nonce": "0" * 32}, say):
            peer.sendall(json.dumps(message).encode() + b"\n")
        network.find_id()
    network.wait_for("controller", f"{network.find_id()}: Cancelled")


def test_the_more_urgent_build_goes_first(networks: Networks, world: World) -> None:
    network = networks()
    network.build("base")

    def ask(what: str, seconds: int, priority: int) -> Meanwhile:
        """Have a chunk built that is like no other; return when the controller knows of it."""
        before = len(network.builds())
        network.change_app(f"echo {what}", f"sleep {seconds}")
        logs = str(world.root / what)
        asking = Meanwhile(
            lambda: network.run(
                "distbuild",
                SYSTEM,
                "app",
                initiator_step_output_dir=logs,
                priority=str(priority),
            )
        )
        assert wait_until(lambda: len(network.builds()) > before, PATIENCE), network.logs()
        return asking

    first = ask("first", 1000, 100)
    step_log = world.root / "first" / "build-step-app.log"
    assert wait_until(step_log.exists, PATIENCE), network.logs()
    builds = [ask("patient", 1, -1), ask("usual", 1, 0), ask("urgent", 1, 1)]
    # All of them wait for the worker, until what it builds is cancelled.
    names = network.builds()[-4:]
    known = [re.compile(rf"Build {name}: \d of \d steps are to be built") for name in names]
    assert wait_until(
        lambda: all(each.search(network.log("controller")) for each in known), PATIENCE
    ), network.logs()
    assert network.run("distbuild-cancel", names[0]).status == 0
    assert first.result().status == 1
    for build in builds:
        ran = build.result()
        assert ran.status == 0, ran.out + ran.err + network.logs()
    begun = {
        path.parent.name: path.read_text().split(" Started building app")[0]
        for path in world.root.glob("*/build-step-app.log")
    }
    assert sorted(begun, key=begun.__getitem__) == ["first", "urgent", "usual", "patient"]


def test_another_worker_takes_over(networks: Networks, world: World) -> None:
    network = networks(workers=2)
    network.change_app("sleep 3")
    building = Meanwhile(lambda: network.run("distbuild", SYSTEM))
    step_log = network.wait_for_app()
    ports = {f"127.0.0.1:{network.ports[name]}": name for name in network.workers}
    first = ports[step_log.read_text().splitlines()[0].rpartition(" ")[2]]
    network.processes[first].kill()
    ran = building.result()
    assert ran.status == 0, ran.out + ran.err + network.logs()
    assert "Progress: Building app again: worker 127.0.0.1:" in ran.out


def test_a_worker_without_room_is_passed_over(networks: Networks) -> None:
    network = networks(workers=2)
    network.build("base")
    for name in network.workers:
        network.processes[name].kill()
        network.processes[f"{name}-helper"].child.wait(30)
    network.start_worker(0, cachedir_min_space="999T")
    running = Meanwhile(lambda: network.run("distbuild", SYSTEM))
    network.wait_for("controller", "rests: ERROR: Insufficient space")
    network.start_worker(1)
    ran = running.result()
    assert ran.status == 0, ran.out + ran.err + network.logs()
    assert "Progress: Building lib again: ERROR: Insufficient space" in ran.out
    full, other = (f" on 127.0.0.1:{network.ports[name]}" for name in network.workers)
    assert ran.out.count(f"Started building lib{full}") == 1
    assert f"Finished building demo{other}" in ran.out
    # It is left alone for a while.
    assert ran.out.count(full) == 1


def test_a_build_says_what_it_waits_for(networks: Networks) -> None:
    network = networks()
    network.processes["worker-0"].kill()
    running = Meanwhile(lambda: network.run("distbuild", SYSTEM, "shell"))
    network.processes["worker-0-helper"].child.wait(30)
    network.wait_for("controller", "1 of 1 steps are to be built")
    network.start_worker(0)
    ran = running.result()
    assert ran.status == 0, ran.out + ran.err
    assert (
        "Progress: Ready to build shell: waiting for a worker that builds for x86_64 to become"
        " available\n"
    ) in ran.out


def test_an_old_initiator_understands_the_answer(network: Network) -> None:
    with socket.create_connection(("127.0.0.1", network.ports["controller"])) as peer:
        file = peer.makefile("rb")
        file.readline()  # our hello, which old initiators ignore
        peer.sendall(encode_old({"type": "list-requests", "id": "7", "protocol_version": 4}))
        answer = yaml.safe_load(json.loads(file.readline()))
    assert (answer["type"], answer["id"]) == ("build-failed", "7")
    assert "client uses version 4" in answer["reason"]


def test_a_secret_is_asked_for(networks: Networks, world: World, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef0123")
    secret.chmod(0o600)
    network = networks(distbuild_secret_file=str(secret))
    network.build("base")
    other = tmp_path / "other"
    other.write_text("another secret of enough letters")
    other.chmod(0o600)
    wrong = network.run("distbuild-list-jobs", distbuild_secret_file=str(other))
    assert wrong.status == 1
    assert "different secrets" in wrong.err
    settings = network.initiator_settings()
    del settings["distbuild_secret_file"]
    without = world.run("distbuild-list-jobs", env=None, **settings)
    assert without.status == 1
    assert "that is not how a connection begins here" in without.err
    other.chmod(0o644)
    assert (
        "others may read"
        in network.run("distbuild-list-jobs", distbuild_secret_file=str(other)).err
    )


def test_a_controller_without_a_helper_says_so(networks: Networks) -> None:
    network = networks()
    network.processes["controller-helper"].kill()
    ran = network.run("distbuild", SYSTEM)
    assert ran.status == 1
    assert "No distbuild-helper process running on controller!" in ran.err


def test_a_controller_without_workers_does_not_start(world: World) -> None:
    ran = world.run("controller-daemon")
    assert ran.status == 1
    assert ran.err.startswith("ERROR: Distbuild controller has no workers configured. Refusing to")


def test_an_initiator_needs_a_controller(world: World) -> None:
    assert "Need address of controller to run a distbuild" in world.fail("distbuild", SYSTEM)
