"""Another machine as extensions see it: programs and files there, and what went wrong with them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from morphlib.errors import MorphError, Reason
from morphlib.process import Completed
from morphlib.text import make_printable
from morphlib.writeexts.ssh import check_ssh_connectivity, checked_host, run_remote
from morphlib.writeexts.undo import undone_always

#: The exit status of ssh when it can't connect.
NO_CONNECTION = 255


@dataclass(frozen=True, slots=True)
class Remote:
    """A machine that ssh logs in to as `host`: `HOST` or `USER@HOST`, checked to be no more."""

    host: str

    def __post_init__(self) -> None:
        checked_host(self.host)

    def __str__(self) -> str:
        return self.host

    def run(
        self, *argv: str, stdin: bytes | None = None, check: bool = True, what: str = ""
    ) -> Completed:
        """Run a program there to its end.

        `what` names the program in errors, if its arguments say little. Raises MorphError if the
        machine can't be reached, or, with `check`, if the program fails.
        """
        done = run_remote(self.host, argv, stdin=stdin, check=False)
        if done.status == NO_CONNECTION:
            text = _printable(done.stderr)
            raise MorphError(f"Unable to SSH to {self.host}: {text}", reason=Reason.DEPLOY)
        if check and done.status != 0:
            raise self.failure(what or shlex.join(argv), done.status, done.stderr or done.stdout)
        return done

    def script(
        self, text: str, *args: str, stdin: bytes | None = None, check: bool = True, what: str
    ) -> Completed:
        """Run a script of the POSIX shell there, which finds `args` as $1 and so on."""
        return self.run("sh", "-c", text, "sh", *args, stdin=stdin, check=check, what=what)

    def output(self, *argv: str, what: str = "") -> str:
        """What a program there prints. Bytes that are no UTF-8 come as surrogates."""
        return self.run(*argv, what=what).stdout.decode("utf-8", "surrogateescape")

    def succeeds(self, *argv: str) -> bool:
        return self.run(*argv, check=False).status == 0

    def run_anyway(self, *argv: str) -> None:
        """Run a program that may well take the connection down with it."""
        run_remote(self.host, argv, check=False)

    def exists(self, path: str) -> bool:
        """Whether something is at an absolute path there, be it a link that leads nowhere."""
        return self.succeeds("sh", "-c", '[ -e "$1" ] || [ -L "$1" ]', "sh", path)

    def is_directory(self, path: str) -> bool:
        return self.succeeds("test", "-d", path)

    def has_program(self, name: str) -> bool:
        return self.succeeds("sh", "-c", 'command -v -- "$1" >/dev/null', "sh", name)

    def missing_programs(self, *names: str) -> list[str]:
        """Which of some programs are not there."""
        script = 'for each; do command -v -- "$each" >/dev/null || echo "$each"; done'
        done = self.script(script, *names, what="looking for programs")
        return done.stdout.decode("utf-8", "replace").split()

    def check_reachable(self) -> None:
        """Raises MorphError unless one can log in and have programs run."""
        check_ssh_connectivity(self.host)

    def free_space(self, directory: str) -> int:
        """Bytes that can be written to a directory there. Raises MorphError if df can't tell."""
        lines = self.output("df", "-P", "-k", directory).splitlines()
        try:
            return int(lines[-1].split()[-3]) * 1024
        except (IndexError, ValueError):
            raise MorphError(
                f"df on {self.host} does not tell how much room there is in {directory}",
                reason=Reason.DEPLOY,
            ) from None

    @contextmanager
    def temporary_directory(self) -> Iterator[str]:
        """An empty directory there, which is removed in the end: it must be empty again then."""
        path = self.output("mktemp", "-d").strip("\n")
        if not path.startswith("/"):
            raise MorphError(f"mktemp on {self.host} gave {path!r}", reason=Reason.DEPLOY)
        with undone_always(f"remove {path}", lambda: self.run("rmdir", path)):
            yield path

    def failure(self, what: str, status: int, output: bytes) -> MorphError:
        """The error to raise for a program that failed there."""
        tail = "".join(f"\n    {line}" for line in _printable(output).splitlines()[-20:])
        how = f"exit status {status}" if status >= 0 else f"ssh was killed by signal {-status}"
        return MorphError(f"{what} failed on {self.host} ({how}){tail}", reason=Reason.DEPLOY)


def root_at(location: str) -> Remote:
    """The machine that a location names where it is root who has to log in.

    The location may say `root@` itself. Raises MorphError for another user.
    """
    user, at, host = checked_host(location).rpartition("@")
    if at and user != "root":
        raise MorphError(
            f"it is root that logs in, so {location} should be {host}", reason=Reason.DEPLOY
        )
    return Remote(f"root@{host}")


def checked_remote_path(path: str) -> str:
    """An absolute path of a file there. Raises MorphError for one that is odd."""
    parts = path.split("/")
    if (
        not path.startswith("/")
        or not path.isprintable()
        or re.search(r"//|/$", path)
        or "." in parts
        or ".." in parts
    ):
        raise MorphError(
            f"{make_printable(path)!r} is no plain absolute path of a file", reason=Reason.DEPLOY
        )
    return path


def _printable(output: bytes) -> str:
    return make_printable(output.decode("utf-8", "replace")).strip()
