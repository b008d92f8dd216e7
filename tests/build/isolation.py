"""Running parts of tests in the namespaces of a builder, as root and as an ordinary user."""

from __future__ import annotations

import os
import pickle
import re
import resource  # noqa: F401 (os.wait4 needs it, and a child that turned into another user can't load it)
import shutil
import subprocess
import traceback
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from morphlib.build import syscalls
from morphlib.build.layers import Layer, Part, layers_from_install
from morphlib.build.members import Member, walk_tree
from morphlib.build.namespace import enter_build_namespace

T = TypeVar("T")

#: An ordinary user that tests which root runs turn into.
NOBODY = 65534
_PR_SET_DUMPABLE = 4

TOOLS = ("sh", "cat", "ls", "id", "touch", "sleep", "env", "chown", "mknod", "mkdir", "stat", "ln")


class Failed(Exception):
    """What a child raised, as text: class and message are part of it."""


def in_child(function: Callable[[], T], *, user: int | None = None) -> T:
    """The result of a function in a forked child, which may turn into another user first."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            if user is not None and os.getuid() == 0 and user != 0:
                os.setgroups([])
                os.setresgid(user, user, user)
                os.setresuid(user, user, user)
                # What changes its user may not be looked at by that user, who here is ourselves.
                syscalls.prctl(_PR_SET_DUMPABLE, 1)
            result: tuple[Any, str | None] = (function(), None)
        except BaseException as error:
            result = (None, f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(result, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    value: Any
    failure: str | None
    value, failure = pickle.loads(data) if data else (None, "the child died")
    if failure is not None:
        raise Failed(failure)
    returned: T = value
    return returned


def in_namespace(function: Callable[[], T], *, user: int | None = None) -> T:
    """The result of a function in a child that has entered the namespaces of a builder."""

    def enter() -> T:
        enter_build_namespace()
        return function()

    return in_child(enter, user=user)


def make_layer(
    directory: Path, name: str, fill: Callable[[Path], object], *, has_top: bool = True
) -> Layer:
    """A layer with what `fill` puts into a directory."""
    install = directory / f"{name}.install"
    install.mkdir(parents=True)
    fill(install)
    members = walk_tree(install, normalise=True)
    chosen = tuple(members if has_top else members[1:])
    (layer,) = layers_from_install(install, [Part(name + ".d", chosen)], directory, members=members)
    return layer


def tools_layer(directory: Path, tools: Sequence[str] = TOOLS) -> Layer:
    """A layer with some of this machine's programs and their libraries."""

    def fill(install: Path) -> None:
        for tool in tools:
            for source, place in needed_files(tool):
                target = install / place
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.exists():
                    shutil.copy(source, target)

    return make_layer(directory, "tools", fill)


@cache
def needed_files(tool: str) -> tuple[tuple[Path, str], ...]:
    """A program and the libraries that it needs, and where they belong."""
    program = shutil.which(tool)
    assert program is not None, f"this machine has no {tool}"
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    libraries = [name for name in re.findall(r"(/\S+)", listed) if Path(name).is_file()]
    files = [(Path(program).resolve(), f"bin/{tool}")]
    return (*files, *((Path(name).resolve(), name.lstrip("/")) for name in libraries))


def list_tree(root: Path) -> dict[str, tuple[int, str | bytes]]:
    """Modes and contents (or targets) of all that is in a tree, but for its top."""
    result: dict[str, tuple[int, str | bytes]] = {}
    for member in walk_tree(root)[1:]:
        result[member.path] = (member.mode, _content(root, member))
    return result


def _content(root: Path, member: Member) -> str | bytes:
    if member.target is not None:
        return member.target
    return "" if member.is_directory else (root / member.path).read_bytes()
