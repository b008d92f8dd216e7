"""Definitions with a system that is built, and clusters and extensions to deploy it with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.build.e2e.trove import Ran, Trove, git, give, relatives

CLUSTER = "clusters/c.morph"

#: A write extension that says what is in the tree: JSON, path -> what can be seen of it.
INVENTORY = """#!/usr/bin/env python3
import hashlib, json, os, sys

root, location = sys.argv[1:]
found, names = {}, {}
for directory, folders, files in os.walk(root):
    for path in [directory, *(os.path.join(directory, name) for name in [*folders, *files])]:
        seen = os.lstat(path)
        name = os.path.relpath(path, root)
        entry = [seen.st_mode, seen.st_uid, seen.st_gid, seen.st_mtime_ns, seen.st_rdev]
        if seen.st_mode & 0o170000 == 0o100000:
            with open(path, "rb") as file:
                entry.append(hashlib.sha256(file.read()).hexdigest())
            names.setdefault((seen.st_dev, seen.st_ino), []).append(name)
        elif seen.st_mode & 0o170000 == 0o120000:
            entry.append(os.readlink(path))
        entry.append(os.listxattr(path, follow_symlinks=False))
        found[name] = entry
links = sorted(sorted(each) for each in names.values() if len(each) > 1)
with open(location, "w") as out:
    json.dump({"files": found, "links": links}, out)
"""

#: A write extension that does next to nothing.
TOUCH = '#!/bin/sh\nset -e\necho done > "$2"\n'


@dataclass
class World:
    """A trove whose system `sys` is built. Tests write clusters and extensions, uncommitted."""

    trove: Trove

    @property
    def definitions(self) -> Path:
        return self.trove.definitions

    @property
    def runs(self) -> list[Path]:
        """The directories of runs, going on or left over."""
        return sorted((self.trove.temp / "deployments").iterdir())

    def cluster(self, *systems: dict[str, Any], **deploy: dict[str, Any] | str) -> None:
        """Write a cluster: of one system's deployments, or of entries.

        A deployment that is a text is one with that location by the extension `touch`.
        """
        entries = list(systems) or [{"morph": "systems/sys.morph", "deploy": deploy}]
        for entry in entries:
            entry["deploy"] = {
                name: {"type": "touch", "location": value} if isinstance(value, str) else value
                for name, value in entry["deploy"].items()
            }
        self.trove.write_yaml(CLUSTER, {"name": "c", "kind": "cluster", "systems": entries})

    def configure_with(self, *names: str) -> None:
        self.trove.write_yaml(
            "systems/sys.morph", {**self._system, "configuration-extensions": list(names)}
        )

    @property
    def _system(self) -> dict[str, Any]:
        used = [name for name, stratum in self.trove.strata.items() if stratum["chunks"]]
        strata = [{"name": name, "morph": f"strata/{name}.morph"} for name in used]
        return {"name": "sys", "kind": "system", "arch": "x86_64", "strata": strata}

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        path = self.definitions / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def give(self) -> None:
        if os.getuid() == 0 and self.trove.user != 0:
            give(self.definitions, self.trove.user)

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[bytes]:
        self.give()
        return self.trove.start(*arguments, **more)

    def run(self, *arguments: str, **more: Any) -> Ran:
        self.give()
        return self.trove.run(*arguments, **more)

    def deploy(self, *arguments: str, **more: Any) -> Ran:
        """Deploy from the cluster, which has to succeed."""
        ran = self.run("deploy", CLUSTER, *arguments, **more)
        assert ran.status == 0, ran.out + ran.err
        assert not self.runs
        return ran

    def fail(self, *arguments: str, **more: Any) -> Ran:
        """Try to deploy, which has to fail as expected failures do."""
        ran = self.run("deploy", CLUSTER, *arguments, **more)
        assert ran.status == 1, ran.out + ran.err
        assert "Traceback" not in ran.err, ran.err
        assert "internal error" not in ran.err, ran.err
        assert not self.runs
        return ran

    def output(self, name: str) -> str:
        return (self.definitions / name).read_text()

    def inventory(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.output(name))
        return found

    def reset(self) -> None:
        """Forget what a test did."""
        assert not relatives(self.trove), relatives(self.trove)
        git(self.definitions, "clean", "-fdxq")
        git(self.definitions, "checkout", "-q", ".")
        for path in (self.trove.temp / "deployments").iterdir():
            shutil.rmtree(path)


def make_world(trove: Trove) -> World:
    """Build the system of a trove: one with everything that systems can have in them."""
    owner = " chown 7:8 etc/odd;" if trove.user == 0 else ""
    trove.source(
        "odd",
        {"etc/app.conf": "x = 1\n", "etc/escape": "->/etc", "bin/tool": "#!/bin/sh\n", "d/e": ""},
    )
    commands = (
        'mkdir -p "$DESTDIR"; cp -a etc bin d "$DESTDIR"; cd "$DESTDIR"; mkdir dev root; chmod 700 '
        "root; echo two > d/first; ln d/first d/second; ln -s ../etc d/link; mkfifo d/pipe;"
        " chmod 4755 bin/tool; echo odd > etc/odd; chmod 640 etc/odd;" + owner
    )
    null = {"type": "c", "filename": "/dev/null", "permissions": "0666", "major": 1, "minor": 3}
    integration = {"odd-misc": {"00-x": ["echo integrated >> /etc/app.conf; rm /d/e; mkdir /d/e"]}}
    trove.chunk(
        "odd",
        repo="odd",
        install=[commands],
        devices=[{**null, "uid": 0, "gid": 0}],
        system_integration=integration,
    )
    trove.chunk("small", install=['mkdir -p "$DESTDIR/usr"; cp hello.c "$DESTDIR/usr"'])
    (trove.definitions / "touch.write").write_text(TOUCH)
    (trove.definitions / "inventory.write").write_text(INVENTORY)
    trove.build()
    return World(trove)


def wait_until_nothing_runs(trove: Trove, seconds: float = 60) -> None:
    """Wait until no process belongs to a trove any more."""
    deadline = time.monotonic() + seconds
    while left := relatives(trove):
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.02)


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)
