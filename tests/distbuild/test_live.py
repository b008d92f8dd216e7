"""What an initiator shows of builds by others: on a terminal, as JSON, and as lines."""

from __future__ import annotations

import json
import re
import termios
from collections.abc import Callable
from typing import Any

from morphlib.process import wait_until
from tests.commands.world import SYSTEM
from tests.distbuild.network import PATIENCE, Network

Networks = Callable[..., Network]


def worker_of(network: Network, number: int = 0) -> str:
    return f"127.0.0.1:{network.ports[f'worker-{number}']}"


def test_the_view_tells_who_builds_what(network: Network) -> None:
    network.change_app("sleep 2")
    network.build()
    network.change_app("echo other", "sleep 4")
    terminal = network.open_terminal("distbuild", SYSTEM)
    who = re.escape(worker_of(network))
    terminal.read_until(rf"{who} +app +\S*.* 00:00:0[1-4] of about 00:00:0[2-9]\s", PATIENCE)
    assert re.search(r"[0-9]/7 \([0-9] built, 4 cached\)  00:00:0[0-9], about 00:", terminal.plain)
    assert "idle" not in terminal.plain
    assert not terminal.shows_cursor
    assert terminal.finish(PATIENCE) == 0
    assert terminal.shows_cursor
    assert "Need to build 3/7 artifacts" in terminal.plain
    assert re.search(rf"chunk app built in 00:00:0[4-9] on {who}", terminal.plain)
    assert re.search(r"Finished build of demo in 00:00:[0-9]+: 3 built, 4 cached", terminal.plain)
    assert re.search(r"Artifact: http://\S+rootfs", terminal.plain)
    # The view says so.
    assert "Started building app" not in terminal.plain
    assert "Progress: Transferring" not in terminal.plain


def test_ctrl_c_leaves_the_terminal_as_it_was(network: Network) -> None:
    network.change_app("sleep 100")
    terminal = network.open_terminal("distbuild", SYSTEM)
    terminal.read_until(r":\d+ +app ", PATIENCE)
    build = network.find_id()
    terminal.type(b"\x03")
    text = f"To cancel the build use `morph distbuild-cancel {build}`."
    terminal.read_until(re.escape(text), PATIENCE)
    assert termios.tcgetattr(terminal.main) == terminal.settings
    assert terminal.finish(PATIENCE) == 255, terminal.plain
    assert terminal.shows_cursor
    log = network.world.root / "logs" / "build-step-app.log"
    assert log.read_text().endswith("Initiator cancelled\n")
    # The branch with the local changes is taken away.
    origin = network.world.root / "gits" / "definitions"
    assert (
        network.world.definitions.git("ls-remote", "--heads", str(origin)).count("refs/heads/") == 1
    )
    network.wait_for("controller", f"{build}: Cancelled")


def test_a_failure_is_told_as_one_of_this_machine(network: Network) -> None:
    network.change_app("echo about to fail", "false")
    terminal = network.open_terminal("distbuild", SYSTEM)
    assert terminal.finish(PATIENCE) == 1
    assert terminal.shows_cursor
    text = terminal.plain.replace("\r\n", "\n")
    log = network.world.root / "logs" / "build-step-app.log"
    for phrase in (
        "Build of app failed.\n",
        f"[app] Build log: {log}\n",
        "    + false\n",
        "Error when running build-commands (exit code 1)",
        "Failed build of demo in 00:00:",
    ):
        assert phrase in text, text
    assert text.count("ERROR: Failed to build") == 1


def events_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_programs_get_the_events_of_a_local_build(network: Network) -> None:
    network.build("base", "lib")
    network.change_app("echo for programs", "sleep 1")
    ran = network.build("--progress=json")
    told = events_of(ran.out)
    worker = worker_of(network)
    (begun,) = (each for each in told if each["event"] == "build_started")
    assert (begun["target"], begun["total"], begun["cached"]) == ("demo", 7, 4)
    assert begun["remote"] is True
    started = {e["name"]: e for e in told if e["event"] == "source_started"}
    assert list(started) == ["app", "top-runtime", "demo"]
    app = started["app"]
    assert (app["kind"], app["worker"], app["joined"]) == ("chunk", worker, False)
    assert re.fullmatch("[0-9a-f]{64}", app["key"])
    assert [each["index"] for each in started.values()] == [5, 6, 7]
    steps = [each["step"] for each in told if each["event"] == "step_started"]
    assert steps.count("transfer") == 3
    of_app = [e["step"] for e in told if e["event"] == "step_started" and e["name"] == "app"]
    commands = ["build", "install"]
    assert [step for step in of_app if step in commands] == commands
    assert of_app[-1] == "transfer"
    finished = {e["name"]: e for e in told if e["event"] == "source_finished"}
    assert finished["app"]["outcome"] == "built"
    assert finished["app"]["duration"] > 1
    assert finished["app"]["worker"] == worker
    (end,) = (each for each in told if each["event"] == "build_finished")
    assert (end["succeeded"], end["built"], end["cached"], end["failed"]) == (True, 3, 4, 0)
    (artifact,) = (each for each in told if each["event"] == "artifact_cached")
    assert (artifact["kind"], artifact["name"]) == ("system", "demo-rootfs")
    assert artifact["url"].endswith(".system.demo-rootfs")


def test_who_comes_later_sees_for_how_long_it_goes_on(network: Network) -> None:
    network.build("base", "lib")
    network.change_app("echo later", "sleep 6")
    network.forget()
    ran = network.run("distbuild-start", SYSTEM)
    assert ran.status == 0, ran.out + ran.err
    build = network.find_id()

    def runs() -> bool:
        return "Build status: Building app" in network.run("distbuild-status", build).out

    assert wait_until(runs, PATIENCE)
    followed = network.run("distbuild-attach", "--progress=json", build)
    assert followed.status == 0, followed.out + followed.err
    told = events_of(followed.out)
    (begun,) = (each for each in told if each["event"] == "build_started")
    assert (begun["total"], begun["cached"], begun["built"]) == (7, 4, 0)
    (app,) = (e for e in told if e["event"] == "source_started" and e["name"] == "app")
    assert app["joined"] is True
    assert 0 < app["elapsed"] < PATIENCE
    (end,) = (each for each in told if each["event"] == "build_finished")
    assert (end["built"], end["cached"], end["skipped"]) == (3, 4, 0)


def test_what_its_worker_lost_leaves_the_view(networks: Networks) -> None:
    network = networks(workers=2)
    network.build("base", "lib")
    network.change_app("sleep 4")
    terminal = network.open_terminal("distbuild", SYSTEM)
    step_log = network.wait_for_app()
    first = step_log.read_text().splitlines()[0].rpartition(" ")[2]
    ports = {f"127.0.0.1:{network.ports[name]}": name for name in network.workers}
    network.processes[ports.pop(first)].kill()
    (other,) = ports
    terminal.read_until(rf"{re.escape(other)} +app ", PATIENCE)
    assert "Progress: Building app again: worker" in terminal.plain
    assert terminal.finish(PATIENCE) == 0
    assert re.search(rf"chunk app built in 00:00:\d\d on {re.escape(other)}", terminal.plain)
    assert "0 failed" not in terminal.plain
