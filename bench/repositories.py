"""Makes the git repositories that benchmarks build from, with the same commits on every run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from morphlib.errors import MorphError, Reason
from morphlib.process import run

#: Fixed, so that equal content gives equal commits, and nothing of the user's own settings counts.
_ENVIRONMENT = {
    "GIT_AUTHOR_NAME": "Bench",
    "GIT_AUTHOR_EMAIL": "bench@example.com",
    "GIT_AUTHOR_DATE": "2020-01-01T00:00:00Z",
    "GIT_COMMITTER_NAME": "Bench",
    "GIT_COMMITTER_EMAIL": "bench@example.com",
    "GIT_COMMITTER_DATE": "2020-01-01T00:00:00Z",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
}

#: What the commands of the trivial chunks use.
_APPLETS = ("sh", "mkdir", "cp", "echo", "ls", "cat", "find", "ln", "rm", "chmod", "touch", "true")

_BUSYBOXES = (Path("/bin/busybox"), Path("/usr/bin/busybox"))


def git(directory: Path, *arguments: str) -> str:
    """Run git in `directory` and return what it prints, without the line's end."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), **_ENVIRONMENT}
    done = run(["git", *arguments], cwd=directory, env=environment)
    return done.stdout.decode().strip()


def commit_all(directory: Path) -> str:
    """Make `directory` a repository whose branch master holds all its files; return the commit."""
    git(directory, "init", "-q", "-b", "master", ".")
    git(directory, "add", "--force", "--all", ".")
    git(directory, "commit", "-q", "-m", "Files of a benchmark")
    return git(directory, "rev-parse", "HEAD")


def make_source(directory: Path, files: int) -> str:
    """A small source tree of `files` files of 1 to 2 kB in five directories; return its commit."""
    for number in range(files):
        path = directory / f"d{number % 5}" / f"f{number}.c"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"int f{number}(void) {{ return {number}; }}\n" * 40)
    return commit_all(directory)


def make_base(directory: Path) -> str:
    """A root file system with one static busybox, all that the chunks run; return its commit.

    Raises MorphError if this machine has no static busybox.
    """
    busybox = find_static_busybox()
    tools = directory / "bin"
    tools.mkdir(parents=True)
    shutil.copy(busybox, tools / "busybox")
    (tools / "busybox").chmod(0o755)
    for name in _APPLETS:
        (tools / name).symlink_to("busybox")
    return commit_all(directory)


def find_static_busybox() -> Path:
    for path in _BUSYBOXES:
        if path.exists() and not _names_an_interpreter(path):
            return path
    raise MorphError(
        "no static busybox on this machine",
        reason=Reason.NOT_FOUND,
        hint="On Debian: apt-get install busybox-static",
    )


def _names_an_interpreter(program: Path) -> bool:
    """Whether an ELF program is linked dynamically: only then has it an interpreter's path, which
    stands near the file's begin."""
    with program.open("rb") as stream:
        return b"/ld-" in stream.read(4096)
