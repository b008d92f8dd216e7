"""A whole network that one script brings up and takes down."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.commandline import MORPH
from tests.commands.world import SYSTEM, World
from tests.distbuild.authorities import Authority
from tests.distbuild.conftest import world as world

SCRIPT = MORPH.parent / "scripts" / "run-distbuild"


@contextmanager
def running(
    world: World, *options: str, **more: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The script, and the port of its controller."""
    pipe = world.root / "port"
    os.mkfifo(pipe)
    settings = {k: v for k, v in world.settings.items() if k not in ("cachedir", "builders")}
    settings |= more
    command = [str(SCRIPT), f"--datadir={world.root / 'net'}", f"--port-file={pipe}", *options]
    child = subprocess.Popen(
        [*command, "--", *(f"--{n.replace('_', '-')}={v}" for n, v in settings.items())],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield child, pipe.read_text().strip()
    finally:
        child.terminate()
        child.wait(60)


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_helpers_know_certificates_too(world: World, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = {
        "distbuild_certificate": str(authority.sign("all", "localhost", "127.0.0.1")),
        "distbuild_authorities": str(authority.file),
    }
    with running(world, **tls) as (_, port):
        ran = world.run(
            "distbuild",
            SYSTEM,
            "shell",
            env=None,
            controller_initiator_address="127.0.0.1",
            controller_initiator_port=port,
            initiator_step_output_dir=str(world.root / "logs"),
            **tls,
        )
        assert ran.status == 0, ran.out + ran.err


def test_a_network_in_one_command(world: World) -> None:
    with running(world, "--workers=2") as (child, port):
        programs = children(child.pid)
        assert len(programs) == 9
        ran = world.run(
            "distbuild",
            SYSTEM,
            controller_initiator_address="127.0.0.1",
            controller_initiator_port=port,
            initiator_step_output_dir=str(world.root / "logs"),
        )
        assert ran.status == 0, ran.out + ran.err
        page = f"http://127.0.0.1:{(world.root / 'net' / 'status-port').read_text().strip()}/"
        with urllib.request.urlopen(page, timeout=30) as answer:
            assert b"systems/demo.morph" in answer.read()
    assert child.returncode == 0
    assert child.stdout is not None
    told = child.stdout.read()
    assert f"--controller-initiator-port={port} distbuild SYSTEM" in told
    assert f"and look at {page}" in told
    assert not any(Path(f"/proc/{pid}").exists() for pid in programs)
    assert (world.root / "net" / "morph-controller.log").read_text()


def test_when_one_program_ends_all_do(world: World) -> None:
    with running(world) as (child, _):
        programs = children(child.pid)
        os.kill(programs[-1], 9)
        assert child.wait(60) == 1
        assert child.stderr is not None
        assert "controller-helper ended with status -9, see " in child.stderr.read()
        assert not any(Path(f"/proc/{pid}").exists() for pid in programs)


def test_impatience_leaves_nothing_behind(world: World) -> None:
    with running(world) as (child, _):
        programs = children(child.pid)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            child.send_signal(number)
            time.sleep(0.1)
        assert child.wait(60) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in programs)


@pytest.mark.parametrize("option", ["--workers=x", "--nothing"])
def test_what_is_no_option_is_told(option: str) -> None:
    done = subprocess.run([SCRIPT, option], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert option.partition("=")[0] in done.stderr
