"""The live view of a real build, on a terminal of its own."""

from __future__ import annotations

import re
import termios

from tests.commands.world import COPY, SYSTEM, World, chunk_file
from tests.terminal import Terminal


def open_terminal(world: World, *arguments: str) -> Terminal:
    return Terminal(arguments, world.settings, world.root, world.definitions.path)


def add_chunk(world: World, name: str, *commands: str) -> None:
    path = f"chunks/{name}.morph"
    world.documents[path] = chunk_file(name, build=list(commands), install=[COPY])
    chunks = world.documents["strata/top.morph"]["chunks"]
    chunks[:] = [spec for spec in chunks if spec["name"] != name]
    chunks.append(world.spec("lib", name=name, morph=path))
    world.commit()


def test_a_build_and_what_a_second_one_expects(world: World) -> None:
    add_chunk(world, "slow", "printf '\\033[2Jx\\n'", "sleep 1.2")
    terminal = open_terminal(world, "build", SYSTEM)
    terminal.read_until(r"[12] slow +Running build-commands +00:00:01\s")
    assert re.search(r"[0-9]/8 \([0-9] built, 0 cached\)  00:00:0[0-9]\s", terminal.plain)
    assert not terminal.shows_cursor
    assert terminal.finish() == 0
    assert terminal.shows_cursor
    assert "chunk slow built in 00:00:01" in terminal.plain
    assert re.search(r"system demo-rootfs is cached at \S+", terminal.plain)
    assert "Finished build of demo" in terminal.plain
    assert "\x1b[2J" not in terminal.text, "what a build prints does not reach the terminal"
    add_chunk(world, "slow", "echo changed", "sleep 1.2")
    again = open_terminal(world, "build", SYSTEM)
    again.read_until(r"slow +Running build-commands +00:00:0[01] of about 00:00:01")
    assert "5 of 8 sources are cached, 3 to build, about 00:00:01" in again.plain
    assert "about 00:00:0" in again.plain.partition("5/8 (0 built, 5 cached)")[2]
    assert again.finish() == 0


def test_interrupting_leaves_the_terminal_as_it_was(world: World) -> None:
    add_chunk(world, "slow", "echo started", "sleep 60")
    terminal = open_terminal(world, "build", SYSTEM)
    terminal.read_until("slow +Running build-commands")
    terminal.type(b"\x03")
    terminal.read_until("ERROR: interrupted")
    assert termios.tcgetattr(terminal.main) == terminal.settings
    assert terminal.finish() == 255
    assert terminal.shows_cursor
    assert not list((world.temp / "staging").iterdir())


def test_being_told_to_end_leaves_the_terminal_as_it_was(world: World) -> None:
    add_chunk(world, "slow", "sleep 60")
    terminal = open_terminal(world, "build", SYSTEM)
    terminal.read_until("slow +Running build-commands")
    terminal.process.terminate()
    assert terminal.finish() == 255
    assert terminal.shows_cursor


def test_a_failure_stays_on_the_terminal(world: World) -> None:
    add_chunk(world, "broken", "echo it is broken", "false")
    terminal = open_terminal(world, "build", SYSTEM)
    assert terminal.finish() == 1
    assert terminal.shows_cursor
    for phrase in ("[broken] Error when running build-commands (exit code 1)", "it is broken"):
        assert phrase in terminal.plain
    assert re.search(r"To step into it: \S+morph ", terminal.plain)
    assert terminal.plain.count("ERROR: ") == 1


def test_no_view_without_a_terminal_that_can_show_it(world: World) -> None:
    terminal = open_terminal(world, "--progress=plain", "build", SYSTEM)
    assert terminal.finish() == 0
    assert "\x1b" not in terminal.text
    quiet = open_terminal(world, "--quiet", "build", SYSTEM)
    assert quiet.finish() == 0
    assert "\x1b" not in quiet.text
