"""A tiny world to build in: sources and definitions in git, caches, and the real program.

The base of every build is a static busybox, which one bootstrap chunk takes over from the host's
hands and a second chunk builds with nothing but that.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import yaml

from bench.repositories import find_static_busybox
from morphlib.events import AnyEvent
from tests.commandline import MORPH

APPLETS = (
    *("sh", "ash", "awk", "cat", "chmod", "chown", "cp", "cut", "date", "dd", "df", "echo", "env"),
    *("false", "find", "grep", "head", "id", "ln", "ls", "mkdir", "mkfifo", "mknod", "mv", "nc"),
    *("printf", "ps", "readlink", "rm", "rmdir", "sed", "seq", "sleep", "sort", "stat", "tail"),
    *("tar", "test", "touch", "tr", "true", "uname", "wc", "wget", "which", "xargs"),
)

#: When every commit of a trove was made.
COMMIT_TIME = 1_500_000_000

_GIT_ENVIRONMENT = {
    "GIT_AUTHOR_NAME": "Tester",
    "GIT_AUTHOR_EMAIL": "tester@example.com",
    "GIT_AUTHOR_DATE": f"{COMMIT_TIME} +0000",
    "GIT_COMMITTER_NAME": "Tester",
    "GIT_COMMITTER_EMAIL": "tester@example.com",
    "GIT_COMMITTER_DATE": f"{COMMIT_TIME} +0000",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_COUNT": "2",
    "GIT_CONFIG_KEY_0": "protocol.file.allow",
    "GIT_CONFIG_VALUE_0": "always",
    "GIT_CONFIG_KEY_1": "safe.directory",
    "GIT_CONFIG_VALUE_1": "*",
}

_DEFAULTS = r"""
split-rules:
  chunk:
  - artifact: -bins
    include: ['(usr/)?s?bin/.*']
  - artifact: -misc
    include: ['.*']
  stratum:
  - artifact: -runtime
    include: ['.*']
"""

_decode_event: Callable[[str], AnyEvent] = msgspec.json.Decoder(AnyEvent).decode


def git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=directory,
        env={"PATH": os.environ["PATH"], "HOME": "/", **_GIT_ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def make_repository(directory: Path, files: Mapping[str, str | bytes]) -> str:
    """A git repository of these files (a text that begins with `->` makes a symlink)."""
    directory.mkdir(parents=True)
    git(directory, "init", "-q", "-b", "master", ".")
    return commit_files(directory, files)


def commit_files(directory: Path, files: Mapping[str, str | bytes]) -> str:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str) and content.startswith("->"):
            path.symlink_to(content[2:])
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    git(directory, "add", "--force", "--all", ".")
    git(directory, "commit", "-q", "--allow-empty", "-m", "files")
    return git(directory, "rev-parse", "HEAD")


def make_base(directory: Path) -> str:
    """The repository of the base: a static busybox with names for what it does."""
    tools = directory / "bin"
    tools.mkdir(parents=True)
    shutil.copy(find_static_busybox(), tools / "busybox")
    (tools / "busybox").chmod(0o755)
    git(directory, "init", "-q", "-b", "master", ".")
    return commit_files(directory, {f"bin/{name}": "->busybox" for name in APPLETS})


@dataclass(frozen=True)
class Ran:
    """How a run of morph ended."""

    status: int
    out: str
    err: str

    @property
    def built(self) -> list[str]:
        """The names of the sources that were built, in the order in which they began."""
        return [
            line.split("] [", 1)[1].split("] ", 1)[0]
            for line in self.out.splitlines()
            if "] Building " in line
        ]

    @property
    def events(self) -> list[AnyEvent]:
        """What was told with --progress=json; every line has to be an event."""
        return [_decode_event(line) for line in self.out.splitlines()]


@dataclass
class Trove:
    """Sources, definitions, caches. What is not said otherwise is made by `write`."""

    root: Path
    base: Path  # a repository that `make_base` made
    user: int = field(default_factory=os.getuid)
    strata: dict[str, dict[str, Any]] = field(default_factory=dict)
    system: dict[str, Any] = field(default_factory=dict)
    defaults: str = _DEFAULTS
    cache: Path = Path()
    temp: Path = Path()
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cache, self.temp = self.root / "cache", self.root / "temp"
        self.definitions = self.root / "definitions"
        # A time to sleep for, by which commands inside sandboxes are found on the outside.
        self.forever = f"1000.{random.randrange(10**9):09}"
        make_repository(self.definitions, {"VERSION": "version: 8\n"})
        (self.root / "home").mkdir()
        shutil.copytree(self.base / ".git", self.root / "gits/base/.git")
        self.source("src", {"hello.c": "int hello;\n", "d/f": "f\n"})
        copy = 'mkdir -p "$DESTDIR/bin" && cp -a bin/* "$DESTDIR/bin/"'
        self.stratum("base", build_depends=None)
        self.chunk("host-tools", "base", repo="base", mode="bootstrap", install=[copy])
        self.chunk("tools", "base", repo="base", needs=["host-tools"], install=[copy])
        self.stratum("main")

    # Sources and definitions

    def source(self, name: str, files: Mapping[str, str | bytes]) -> str:
        """Commit files to the repository `name`, which is made if missing."""
        directory = self.root / "gits" / name
        if directory.exists():
            return commit_files(directory, files)
        return make_repository(directory, files)

    def head(self, repo: str) -> str:
        return git(self.root / "gits" / repo, "rev-parse", "HEAD")

    def stratum(
        self, name: str, *, build_depends: Sequence[str] | None = ("base",), **fields: Any
    ) -> None:
        self.strata[name] = {"name": name, "kind": "stratum", "chunks": [], **fields}
        if build_depends is not None:
            paths = [{"morph": f"strata/{each}.morph"} for each in build_depends]
            self.strata[name]["build-depends"] = paths

    def chunk(
        self,
        name: str,
        stratum: str = "main",
        *,
        repo: str = "src",
        needs: Sequence[str] = (),
        mode: str | None = None,
        spec: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        """Define a chunk; `build=[...]` and the like are its build-commands and the like."""
        entry: dict[str, Any] = {
            "name": name,
            "morph": f"chunks/{name}.morph",
            "repo": f"test:{repo}",
            "ref": self.head(repo),
            "build-depends": list(needs),
            **(spec or {}),
        }
        if mode is not None:
            entry["build-mode"] = mode
        chunks = self.strata[stratum]["chunks"]
        chunks[:] = [each for each in chunks if each["name"] != name] + [entry]
        document: dict[str, Any] = {"name": name, "kind": "chunk"}
        for key, value in fields.items():
            key = key.replace("_", "-")
            document[f"{key}-commands" if key in _STEPS else key] = value
        self.write_yaml(f"chunks/{name}.morph", document)

    def write_yaml(self, path: str, document: object) -> None:
        full = self.definitions / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_text(yaml.safe_dump(document, sort_keys=False))

    def write(self) -> None:
        """Commit the definitions as they are now."""
        for name, stratum in self.strata.items():
            if stratum["chunks"]:
                self.write_yaml(f"strata/{name}.morph", stratum)
        used = [name for name, stratum in self.strata.items() if stratum["chunks"]]
        system = {
            "name": "sys",
            "kind": "system",
            "arch": "x86_64",
            "strata": [{"name": name, "morph": f"strata/{name}.morph"} for name in used],
            **self.system,
        }
        self.write_yaml("systems/sys.morph", system)
        (self.definitions / "DEFAULTS").write_text(self.defaults)
        if git(self.definitions, "status", "--porcelain"):
            commit_files(self.definitions, {})
        gits = (self.root / "gits").as_uri()
        values = {
            "repo-alias": f"test={gits}/%s#{gits}/%s",
            "cachedir": str(self.cache),
            "tempdir": str(self.temp),
            "cache-server": "",
            "tarball-server": "",
            "cachedir-min-space": "0",
            "tempdir-min-space": "0",
            "builders": "2",
            "max-jobs": "4",
            **self.settings,
        }
        lines = [f"{name} = {value}" for name, value in values.items()]
        (self.root / "morph.conf").write_text("\n".join(["[config]", *lines, ""]))
        if os.getuid() == 0 and self.user != 0:
            # The repositories too: git reads none that are somebody else's.
            give(self.root, self.user)

    # Running

    def start(
        self,
        *arguments: str | bytes,
        env: Mapping[str, str] | None = None,
        wrap: Sequence[str] = (),
    ) -> subprocess.Popen[bytes]:
        """Start morph in a session of its own, with the definitions as its working directory."""
        command: list[str | bytes] = [*wrap]
        if os.getuid() == 0 and self.user != 0:
            who = str(self.user)
            command += ["setpriv", f"--reuid={who}", f"--regid={who}", "--clear-groups"]
        command += [os.fspath(MORPH), "--no-default-configs"]
        command += [f"--config={self.root}/morph.conf", *arguments]
        return subprocess.Popen(
            command,
            cwd=self.definitions,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.root / "home"),
                "GIT_CONFIG_NOSYSTEM": "1",
                MARKER: str(self.root),
                **(env or {}),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def run(self, *arguments: str | bytes, **more: Any) -> Ran:
        return finish(self.start(*arguments, **more))

    def build(self, *arguments: str, **more: Any) -> Ran:
        """Write the definitions and build, which has to succeed."""
        self.write()
        ran = self.run("build", "systems/sys.morph", *arguments, **more)
        assert ran.status == 0, ran.out + ran.err
        return ran

    def fail(self, *arguments: str, **more: Any) -> Ran:
        """Write the definitions and build, which has to fail as expected failures do."""
        self.write()
        ran = self.run("build", "systems/sys.morph", *arguments, **more)
        assert ran.status == 1, ran.out + ran.err
        assert "Traceback" not in ran.err
        assert "internal error" not in ran.err
        return ran

    # Results

    @property
    def artifacts(self) -> Path:
        return self.cache / "artifacts"

    def artifact(self, name: str, kind: str = "chunk") -> Path:
        """The one artifact of that name."""
        (found,) = self.artifacts.glob(f"*.{kind}.{name}")
        return found

    def image(self) -> Path:
        return self.artifact("sys-rootfs", "system")

    def log(self, chunk: str) -> bytes:
        """The build log of the one chunk of that name that was built."""
        key = self.key(chunk)
        return (self.artifacts / f"{key}.build-log").read_bytes()

    def key(self, chunk: str) -> str:
        keys = {path.name.partition(".")[0] for path in self.artifacts.glob(f"*.chunk.{chunk}-*")}
        (key,) = keys
        return key

    def printed(self, chunk: str) -> list[bytes]:
        """The lines of a chunk's log without what the shell traced."""
        lines = self.log(chunk).splitlines()
        return [line for line in lines if not line.startswith((b"+ ", b"###"))]

    def meta(self, name: str) -> dict[str, Any]:
        """The metadata of something in the system."""
        document: dict[str, Any] = json.loads(read_member(self.image(), f"baserock/{name}.meta"))
        return document


_STEPS = frozenset(
    f"{when}{what}"
    for what in ("configure", "build", "test", "install", "strip")
    for when in ("pre-", "", "post-")
)

#: A variable by which processes that belong to a trove are told from others.
MARKER = "MORPH_TEST_TROVE"


def finish(process: subprocess.Popen[bytes], timeout: float = 60) -> Ran:
    """Wait for morph, whose output must be valid UTF-8."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"morph hangs\n{out.decode()}\n{err.decode()}") from None
    return Ran(process.returncode, out.decode("utf-8"), err.decode("utf-8"))


def give(tree: Path, user: int) -> None:
    """Make a tree somebody's own."""
    for directory, _, names in os.walk(tree):
        for path in (directory, *(os.path.join(directory, name) for name in names)):  # noqa: PTH118 - text is faster
            os.chown(path, user, user, follow_symlinks=False)


def members(tar: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(tar) as archive:
        return {info.name.removeprefix("./"): info for info in archive}


def read_member(tar: Path, name: str) -> bytes:
    with tarfile.open(tar) as archive:
        file = archive.extractfile(name)
        assert file is not None, f"{name} is no file"
        return file.read()


def digests(artifacts: Path) -> dict[str, str]:
    """The SHA-256 of every chunk and system artifact."""
    paths = [*artifacts.glob("*.chunk.*"), *artifacts.glob("*.system.*")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def relatives(trove: Trove) -> dict[int, str]:
    """Processes that are still running and belong to a trove: pid -> command line.

    What builds start belongs to it by descent: it has neither our environment nor our paths.
    """
    found: dict[int, str] = {}
    others: dict[int, tuple[int, str]] = {}
    marks = (os.fsencode(trove.root) + b"/", trove.forever.encode())
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes()
            command = (entry / "cmdline").read_bytes()
            place = os.fsencode((entry / "cwd").readlink()) + b"/"
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state == "Z":
            continue
        mine = f"{MARKER}={trove.root}".encode() in environment.split(b"\0")
        text = command.replace(b"\0", b" ").decode("utf-8", "replace")
        if mine or any(mark in command or mark in place for mark in marks):
            found[int(entry.name)] = text
        else:
            others[int(entry.name)] = (int(parent), text)
    while descendants := [pid for pid, (parent, _) in others.items() if parent in found]:
        found |= {pid: others.pop(pid)[1] for pid in descendants}
    return found


def mounts_below(directory: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split()[4].startswith(f"{directory}/")]
