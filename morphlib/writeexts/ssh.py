"""Other machines, reached with the user's own ssh: its configuration, keys and agent hold.

Programs there get their arguments one by one, whatever is in them; the login shell of the other
side must be one that understands POSIX quoting.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from morphlib import process
from morphlib.errors import MorphError, Reason
from morphlib.process import Completed, ProcessError

if TYPE_CHECKING:
    from subprocess import Popen  # noqa: TID251  (the type of what `spawn` gives)

# What no host or user name has, and what would mean something to ssh, rsync or a proxy command.
_WRONG = re.compile(r"""[\s\x00-\x1f\x7f'"`$\\;&<>|(){}/]|(^|@)-""")


def checked_host(host: str) -> str:
    """`HOST` or `USER@HOST`, as ssh takes it. Raises MorphError for what could mean more."""
    if not host or host.endswith("@") or _WRONG.search(host):
        raise MorphError(f"{host!r} is no host for ssh", reason=Reason.DEPLOY)
    return host


# Nothing of the user's session goes to the other side. A host that does not answer is given up.
_OPTIONS = (
    "-T",
    *("-o", "ClearAllForwardings=yes"),
    *("-o", "ForwardAgent=no"),
    *("-o", "ForwardX11=no"),
    *("-o", "ConnectTimeout=30"),
    *("-o", "ServerAliveInterval=30"),
)


def ssh_command(host: str, argv: Sequence[str | Path]) -> list[str]:
    """The arguments that run a program on a host. Raises MorphError for a wrong host."""
    assert argv, "this would be an interactive login"
    return [*ssh_to(host), "--", checked_host(host), shlex.join(str(arg) for arg in argv)]


def ssh_to(host: str) -> tuple[str, ...]:
    """ssh with the options for a host, which are to be followed by the host itself."""
    return ("ssh", *_OPTIONS, *_key_options(checked_host(host)))


@cache
def _key_options(host: str) -> tuple[str, ...]:
    """Refuse changed keys of hosts also where the user's configuration lets them pass.

    What is sent may be secret, and what comes back decides what is done next.
    """
    asked = process.run(["ssh", "-G", "--", host], check=False)
    wishes = [line.split() for line in asked.stdout.lower().splitlines()]
    is_lax = any(wish == [b"stricthostkeychecking", b"false"] for wish in wishes)
    return ("-o", "StrictHostKeyChecking=accept-new") if is_lax else ()


def run_remote(
    host: str,
    argv: Sequence[str | Path],
    *,
    stdin: bytes | None = None,
    check: bool = True,
    timeout: float | None = None,
) -> Completed:
    """Run a program on a host to its end and keep what it prints.

    The exit status is that of the program, or 255 if ssh itself fails. Raises MorphError if ssh
    can't be started or the program outlives `timeout` (seconds), or, with `check`, if it fails.
    """
    try:
        return process.run(ssh_command(host, argv), stdin=stdin, check=check, timeout=timeout)
    except ProcessError as error:
        raise _failure(host, argv, error) from error


def spawn_remote(
    host: str,
    argv: Sequence[str | Path],
    *,
    stdin: int = process.DEVNULL,
    stdout: int = process.DEVNULL,
    stderr: int = process.DEVNULL,
) -> Popen[bytes]:
    """Start a program on a host; its streams are descriptors, or `process.PIPE`."""
    try:
        return process.spawn(ssh_command(host, argv), stdin=stdin, stdout=stdout, stderr=stderr)
    except ProcessError as error:
        raise _failure(host, argv, error) from error


def remote_succeeds(host: str, argv: Sequence[str | Path]) -> bool:
    """Whether a program succeeds on a host. Raises MorphError if the host can't be reached."""
    done = run_remote(host, argv, check=False)
    if done.status == 255:
        raise _failure(host, argv, ProcessError(done.argv, done.status, done.stderr))
    return done.status == 0


def check_ssh_connectivity(host: str) -> None:
    """Raises MorphError unless programs can be run on the host and it returns what they print."""
    try:
        done = process.run(ssh_command(host, ["echo", "test"]))
    except ProcessError as error:
        raise MorphError(
            f"Unable to SSH to {host}: {error}",
            reason=Reason.DEPLOY,
            hint=f"Try it by hand: ssh {host}",
        ) from error
    if done.stdout.strip() != b"test":
        shown = done.stdout.decode("utf-8", "backslashreplace").strip()
        raise MorphError(
            f"Unexpected output from remote machine: {shown}",
            reason=Reason.DEPLOY,
            hint="Its shell must print nothing of its own when programs are run over ssh.",
        )


def rsync_to(
    host: str,
    source: Path,
    target: str,
    options: Sequence[str] = ("--archive", "--numeric-ids", "--delete"),
    *,
    env: Mapping[str, str] | None = None,
) -> None:
    """Copy what is in the directory `source` into the directory `target` (absolute) on a host.

    Raises MorphError if that fails.
    """
    argv = rsync_command(host, source, target, options)
    try:
        process.run(argv, env=env)
    except ProcessError as error:
        raise MorphError(
            f"Can't copy to {target} on {host}: {error}", reason=Reason.DEPLOY
        ) from error


def rsync_command(host: str, source: Path, target: str, options: Sequence[str]) -> list[str]:
    """The arguments of `rsync_to`. File names reach the other side as they are (`-s`)."""
    if not target.startswith("/"):
        raise MorphError(f"{target!r} is no absolute path", reason=Reason.DEPLOY)
    user, at, name = checked_host(host).rpartition("@")
    if ":" in name and not name.startswith("["):
        name = f"[{name}]"  # an IPv6 address, which rsync would split
    destination = f"{user}{at}{name}:{target.rstrip('/')}/"
    shell = shlex.join(ssh_to(host))
    return ["rsync", "-s", *options, "-e", shell, "--", f"{source.resolve()}/", destination]


def _failure(host: str, argv: Sequence[str | Path], error: ProcessError) -> MorphError:
    output = error.output.decode("utf-8", "replace").strip()
    if error.status is None:
        return MorphError(str(error), reason=Reason.DEPLOY)
    if error.status == 255:
        return MorphError(f"Can't reach {host} with ssh: {output}", reason=Reason.DEPLOY)
    command = shlex.join(str(arg) for arg in argv)
    ended = f"exit status {error.status}" if error.status > 0 else "killed"
    tail = "".join(f"\n    {line}" for line in output.splitlines()[-20:])
    return MorphError(f"{command} failed on {host} ({ended}){tail}", reason=Reason.DEPLOY)
