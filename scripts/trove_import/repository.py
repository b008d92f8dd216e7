"""Writing a commit that comes out the same everywhere.

The content goes through `git fast-import`, which knows no attributes, filters, line endings or
ignore rules, into a bare repository. The commit has no parent, a fixed author, and the time of the
source itself in UTC: so its SHA1 depends on the source alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from morphlib.errors import MorphError, Reason
from morphlib.process import PIPE, ProcessError, run, spawn
from trove_import.tree import Entry

#: Who makes the commits. No person: they must be the same whoever runs the importer.
AUTHOR = b"Trove import <trove-import@localhost>"

_PENDING = "refs/import/pending"


@dataclass(frozen=True, slots=True)
class Repository:
    """A bare repository of the trove."""

    path: Path

    def has(self, commit: str) -> bool:
        if not (self.path / "HEAD").exists():
            return False
        return self._git("cat-file", "-e", f"{commit}^{{commit}}", check=False) == 0

    def create(self) -> None:
        """Make the bare repository unless it is there. An interrupted attempt leaves nothing."""
        if (self.path / "HEAD").exists():
            return
        aside = self.path.with_name(f".{self.path.name}.new")
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(parents=True, exist_ok=True)
        argv = ["git", "init", "--quiet", "--bare", "--template=", "--object-format=sha1"]
        run([*argv, "--initial-branch=main", "--", aside], env=git_environment())
        aside.rename(self.path)

    def commit(self, entries: Iterable[Entry], *, message: str, time: int) -> str:
        """Write one commit without parents and return it; no branch names it yet."""
        self.create()
        self._git("update-ref", "-d", _PENDING)
        # trees are read often and written once: little compression is the quicker bargain
        argv = ["git", "-C", str(self.path), "-c", "core.compression=1"]
        argv += ["fast-import", "--quiet", "--date-format=raw"]
        child = spawn(argv, env=git_environment(), stdin=PIPE, stderr=PIPE)
        assert child.stdin is not None and child.stderr is not None
        try:
            _write_stream(child.stdin, entries, message=message.encode(), time=time)
            child.stdin.close()
        except BrokenPipeError:
            pass  # its standard error, below, says why it went away
        except BaseException:
            child.kill()
            child.wait()
            child.stderr.close()
            raise
        complaint = child.stderr.read()
        child.stderr.close()
        if child.wait() != 0:
            raise ProcessError(argv, child.returncode, complaint)
        done = run(["git", "-C", self.path, "rev-parse", _PENDING], env=git_environment())
        return done.stdout.decode().strip()

    def publish(self, commit: str, branch: str) -> None:
        """Let `branch` and the repository's main branch name the commit."""
        for name in (branch, "main"):
            self._git("update-ref", f"refs/heads/{name}", commit)
        self._git("update-ref", "-d", _PENDING)

    def _git(self, *arguments: str, check: bool = True) -> int:
        return run(["git", "-C", self.path, *arguments], env=git_environment(), check=check).status


def git_environment() -> dict[str, str]:
    """Nothing of the user's or the machine's configuration counts."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LC_ALL": "C",
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_NO_REPLACE_OBJECTS": "1",
    }


def _write_stream(pipe: IO[bytes], entries: Iterable[Entry], *, message: bytes, time: int) -> None:
    if time < 0:
        raise MorphError(f"{time} is no time that git can keep", reason=Reason.SOURCE)
    pipe.write(b"feature done\ncommit %s\n" % _PENDING.encode())
    pipe.write(b"committer %s %d +0000\n" % (AUTHOR, time))
    pipe.write(b"data %d\n%s\n" % (len(message), message))
    pipe.write(b"deleteall\n")
    for entry in entries:
        quoted = entry.path.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
        pipe.write(b'M %s inline "%s"\n' % (entry.mode.encode(), quoted))
        pipe.write(b"data %d\n" % entry.size)
        with entry.open() as content:
            copied = 0
            while block := content.read(1 << 20):
                copied += len(block)
                pipe.write(block)
        if copied != entry.size:
            raise MorphError(
                f"{entry.path!r} is {copied} bytes long where {entry.size} were announced",
                reason=Reason.SOURCE,
            )
        pipe.write(b"\n")
    pipe.write(b"done\n")
