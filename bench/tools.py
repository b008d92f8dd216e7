"""The two builders under test: how each builds a generated project, and how it forgets."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.projects import Layout
from morphlib.errors import MorphError
from morphlib.process import run


class Tool(Protocol):
    @property
    def name(self) -> str: ...

    def version(self) -> str: ...

    def build(self, layout: Layout, builders: int) -> tuple[list[str], Path]:
        """The command that builds the whole graph, and the directory to run it in."""
        ...

    def environment(self) -> Mapping[str, str]: ...

    def forget(self, layout: Layout) -> None:
        """Empty every cache, mirrors of repositories included."""
        ...


def _clean_environment() -> dict[str, str]:
    """What a program needs from ours, without settings that change how the tools work."""
    kept = ("PATH", "HOME", "USER", "LANG", "TMPDIR", "XDG_RUNTIME_DIR")
    return {name: os.environ[name] for name in kept if name in os.environ}


@dataclass(frozen=True, slots=True)
class Morph:
    program: Path
    name: str = "morph"

    def command(self, layout: Layout, *arguments: str) -> list[str]:
        settings = ("--no-default-configs", f"--config={layout.morph_settings}")
        return [str(self.program), *settings, *arguments]

    def version(self) -> str:
        return run([self.program, "--version"]).stdout.decode("utf-8", "replace").strip()

    def build(self, layout: Layout, builders: int) -> tuple[list[str], Path]:
        command = self.command(layout, f"--builders={builders}", "build", layout.system)
        return command, layout.definitions

    def environment(self) -> Mapping[str, str]:
        return _clean_environment()

    def forget(self, layout: Layout) -> None:
        for directory in (layout.morph_cache, layout.morph_tmp):
            set_aside(directory)


_USED = ".used-"


@dataclass(frozen=True, slots=True)
class BuildStream:
    """`prefix` is the virtual environment that BuildStream is installed in."""

    prefix: Path
    name: str = "buildstream"

    @property
    def program(self) -> Path:
        return self.prefix / "bin" / "bst"

    def version(self) -> str:
        return run([self.program, "--version"]).stdout.decode("utf-8", "replace").strip()

    def build(self, layout: Layout, builders: int) -> tuple[list[str], Path]:
        options = ("--no-interactive", "--no-colors", f"--builders={builders}")
        settings = ("--config", str(layout.buildstream_settings))
        return [str(self.program), *settings, *options, "build", "bench.bst"], layout.elements

    def environment(self) -> Mapping[str, str]:
        environment = _clean_environment()
        path = environment.get("PATH", os.defpath)
        return environment | {"PATH": f"{self.program.parent}{os.pathsep}{path}"}

    def forget(self, layout: Layout) -> None:
        for directory in (layout.buildstream_cache, layout.elements / ".bst"):
            set_aside(directory)


def set_aside(directory: Path) -> None:
    """Take a cache out of the way without removing it.

    File systems make new files slowly right after many were removed, which would count for the
    build that comes next.
    """
    if directory.exists():
        directory.rename(directory.with_name(f"{directory.name}{_USED}{secrets.token_hex(4)}"))


def remove_used(layout: Layout) -> None:
    """Remove all that was set aside."""
    for place in (layout.root, layout.elements):
        for directory in place.glob(f"*{_USED}*"):
            shutil.rmtree(directory)


def find_buildstream(prefix: Path) -> BuildStream | None:
    """BuildStream as installed in `prefix`, None if it is not there or does not start."""
    tool = BuildStream(prefix)
    try:
        tool.version()
    except MorphError:
        return None
    return tool


def default_directory() -> Path:
    """Where benchmarks keep what they make: outside the project, so that it stays as it is."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches, "morph-bench")


def default_prefix() -> Path:
    """Where `setup-buildstream` installs BuildStream unless told otherwise."""
    return default_directory() / "bst"
