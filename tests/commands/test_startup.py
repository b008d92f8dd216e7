"""Runs that find everything worked out already load no more than they need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.world import SYSTEM, World

ROOT = Path(__file__).parents[2]

#: Each of these takes from 5 to 60 ms to import.
SLOW = {
    "asyncio",
    "http.client",
    "multiprocessing",
    "pygit2",
    "rich",
    "sqlite3",
    "urllib.request",
}

_REPORT = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from morphlib.app import run_program
status = run_program(["morph", *sys.argv[1:]])
sys.stderr.write("loaded: " + " ".join(sys.modules))
sys.exit(status)
"""


def loaded_by(world: World, *arguments: str) -> set[str]:
    """The modules that a run of morph, which has to succeed, loads."""
    settings = world.settings | {"cache-server": "http://127.0.0.1:1/"}
    options = [f"--{name}={value}" for name, value in settings.items()]
    done = subprocess.run(
        [sys.executable, "-c", _REPORT, ROOT, "--no-default-configs", *options, *arguments],
        cwd=world.definitions.path,
        env={"PATH": os.environ["PATH"], "HOME": str(world.root), "GIT_CONFIG_NOSYSTEM": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.partition("loaded: ")[2].split())


@pytest.mark.parametrize("local_changes", [False, True])
def test_listing_what_was_resolved_before(world: World, local_changes: bool) -> None:
    if local_changes:
        world.documents["chunks/app.morph"]["description"] = "changed"
        world.write()
    first = loaded_by(world, "list-artifacts", SYSTEM)
    assert "morphlib.commands.resolution" in first
    again = loaded_by(world, "list-artifacts", SYSTEM)
    assert ("morphlib.commands.resolution" in again) is local_changes
    assert not SLOW & again


def test_a_build_with_nothing_to_do(world: World) -> None:
    loaded_by(world, "build", SYSTEM)
    again = loaded_by(world, "build", SYSTEM)
    assert not (SLOW | {"morphlib.build.local", "morphlib.build.sandbox"}) & again
