"""Finding out whether this machine can build, and what to change where it can't.

Each check says what it found. The namespaces of builds are tried out in a process of their own,
since there is no way back out of them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from morphlib.build.namespace import enter_build_namespace, namespace_remedy
from morphlib.cache.space import add_up, measure
from morphlib.errors import MorphError
from morphlib.process import ProcessError, run
from morphlib.settings import Settings

#: The oldest git that has what is used: `safe.directory`, and its being set for one command.
_OLDEST_GIT = (2, 38)

_SECONDS_TO_CONNECT = 3.0

_OVERLAY_REMEDY = "Load the module (sudo modprobe overlay), with Linux 5.11 or later."
_OWNERS_REMEDY = (
    "Install newuidmap (package uidmap) and run: sudo usermod --add-subuids 100000-165535"
    " --add-subgids 100000-165535 $USER"
)


class Health(StrEnum):
    """How well something works: BROKEN keeps Morph from building, WEAK does not."""

    FINE = "fine"
    WEAK = "weak"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. `remedy` says what to change where all is not fine."""

    name: str
    health: Health
    text: str
    remedy: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """The findings of all checks, each as soon as it is there."""
    checks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
        _check_git,
        _check_sandbox,
        _check_directories,
        _check_space,
        _check_tools,
        _check_servers,
    )
    for check in checks:
        yield from check(settings)


def _check_git(settings: Settings) -> Iterator[Finding]:
    try:
        shown = run(["git", "--version"]).stdout.decode("utf-8", "replace").strip()
    except ProcessError as error:
        yield Finding("git", Health.BROKEN, error.message, "Install git (package git).")
        return
    version = tuple(int(part) for part in re.findall(r"[0-9]+", shown)[:2])
    if version < _OLDEST_GIT:
        wanted = ".".join(map(str, _OLDEST_GIT))
        yield Finding("git", Health.BROKEN, shown, f"Install git {wanted} or later.")
    else:
        yield Finding("git", Health.FINE, shown)


def _check_sandbox(settings: Settings) -> Iterator[Finding]:
    program = shutil.which("bwrap")
    if program is None:
        text = "bubblewrap, which isolates builds, is not installed"
        yield Finding("sandbox", Health.BROKEN, text, "Install bwrap (package bubblewrap).")
        return
    # -I keeps the caller's Python settings out, as in the program itself.
    code = "import sys; sys.path[:] = sys.argv[1:]; from morphlib.doctor import probe; probe()"
    try:
        probed = run([sys.executable, "-I", "-X", "utf8", "-c", code, *sys.path], timeout=60)
        found = json.loads(probed.stdout)
    except (ProcessError, ValueError) as error:
        yield Finding("sandbox", Health.BROKEN, str(error), namespace_remedy())
        return
    yield from judge_probe(found)


def judge_probe(found: Mapping[str, object]) -> Iterator[Finding]:
    """What the probe's result means for building."""
    problems = found["problems"]
    assert isinstance(problems, list)
    told = list(map(str, problems))
    if error := found["error"]:
        fix = " ".join(told) or namespace_remedy()
        yield Finding("sandbox", Health.BROKEN, str(error), fix)
        return
    about_ids = [text for text in told if "subordinate" in text or "newuidmap" in text]
    about_mounts = [text for text in told if text not in about_ids]
    yield Finding("sandbox", Health.FINE, "builds run isolated, without network")
    if found["overlay"]:
        yield Finding("overlay", Health.FINE, "staging areas are overlay mounts")
    else:
        text = "no overlay mounts here: staging areas are made of hard links, which takes longer"
        yield Finding("overlay", Health.WEAK, text, " ".join(about_mounts) or _OVERLAY_REMEDY)
    if found["subordinate_ids"]:
        yield Finding("owners", Health.FINE, "builds can give files any owner")
    else:
        text = "no subordinate ids: builds that give files to other users than root will fail"
        yield Finding("owners", Health.WEAK, text, " ".join(about_ids) or _OWNERS_REMEDY)


def probe() -> None:
    """Enter the namespaces of a build, run something isolated there, and print how it went."""
    found: dict[str, object] = {"overlay": False, "subordinate_ids": False, "problems": []}
    error = ""
    try:
        report = enter_build_namespace()
        found["overlay"] = report.overlay
        found["subordinate_ids"] = report.subordinate_ids
        found["problems"] = list(report.problems)
        run(["bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--", "true"])
    except (MorphError, OSError) as failure:
        error = str(failure)
    print(json.dumps(found | {"error": error}))


def _check_directories(settings: Settings) -> Iterator[Finding]:
    for name, path in (("cachedir", settings.cachedir), ("tempdir", settings.tempdir)):
        # What is not there yet is made, in the nearest directory that is.
        existing = next(each for each in (path, *path.parents) if os.access(each, os.F_OK))
        if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
            yield Finding(name, Health.FINE, f"{path} can be written")
        else:
            text = f"{path} can't be written"
            yield Finding(name, Health.BROKEN, text, f"Choose another place with --{name}=DIR.")


def _check_space(settings: Settings) -> Iterator[Finding]:
    try:
        cache = measure(settings.cachedir, settings.cachedir_min_space)
        rooms = add_up([cache, measure(settings.tempdir, settings.tempdir_min_space)])
    except MorphError as error:
        yield Finding("space", Health.BROKEN, str(error))
        return
    for room in rooms:
        text = f"{room.path}: {room.available:,} bytes free, {room.required:,} wanted"
        if room.available >= room.required or room.required == 0:
            yield Finding("space", Health.FINE, text)
        else:
            remedy = (
                "Run morph gc, or lower the limits with --cachedir-min-space and"
                " --tempdir-min-space."
            )
            yield Finding("space", Health.BROKEN, text, remedy)


def _check_tools(settings: Settings) -> Iterator[Finding]:
    missing = [name for name in ("cc", "make", "tar") if shutil.which(name) is None]
    if missing:
        text = f"not here: {', '.join(missing)}; bootstrap builds mostly need them"
        yield Finding("tools", Health.WEAK, text, "Install build-essential, or what it is here.")
    else:
        yield Finding("tools", Health.FINE, "cc, make and tar are here for bootstrap builds")
    if not settings.no_ccache:
        if shutil.which("ccache"):
            yield Finding("ccache", Health.FINE, "ccache is used where builds have it")
        else:
            text = "ccache is not installed on this machine; bootstrap builds do without"
            yield Finding("ccache", Health.FINE, text)


def _check_servers(settings: Settings) -> Iterator[Finding]:
    """What is not there is no obstacle: sources may come from elsewhere, or be cached."""
    urls = {}
    if settings.trove_host:
        urls["trove"] = (f"git://{settings.trove_host}/", "trove-host")
    if settings.cache_server:
        urls["cache server"] = (settings.cache_server, "cache-server")
    if settings.tarball_server:
        urls["tarball server"] = (settings.tarball_server, "tarball-server")
    for name, (url, setting) in urls.items():
        problem = try_to_connect(url)
        if problem is None:
            yield Finding(name, Health.FINE, f"{url} answers")
        else:
            text = f"{url} can't be reached: {problem}"
            remedy = f"Set {setting}, on the command line or in a configuration file"
            remedy += "." if name == "trove" else "; empty is none."
            yield Finding(name, Health.WEAK, text, remedy)


def try_to_connect(url: str) -> str | None:
    """What is wrong with the server of this URL, None if it takes connections."""
    ports = {"git": 9418, "http": 80, "https": 443, "ssh": 22}
    try:
        parts = urlsplit(url)
        port = parts.port or ports.get(parts.scheme)
    except ValueError as error:
        return str(error)
    if parts.scheme == "file":
        return None if Path(parts.path).exists() else "there is no such directory"
    if not parts.hostname or port is None:
        return "it is no URL of a server"
    try:
        socket.create_connection((parts.hostname, port), _SECONDS_TO_CONNECT).close()
    except (OSError, UnicodeError) as error:
        return getattr(error, "strerror", None) or str(error)
    return None
