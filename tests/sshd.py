"""A real ssh server on the loopback interface, for tests of what reaches other machines."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HOST = "testbox"
#: A host where nothing answers.
DEAD = "deadbox"


@dataclass(frozen=True, slots=True)
class Sshd:
    """A server that lets the user of the tests in, as `testbox` for programs with `env`.

    `commands` is a directory that stands first in the PATH of what runs over ssh.
    """

    directory: Path
    commands: Path
    env: dict[str, str]

    def add_command(self, name: str, script: str) -> Path:
        """Put a program in `commands`: the text of a shell script."""
        path = self.commands / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def login(self, *argv: str | Path, check: bool = True) -> str:
        """What a program prints over there."""
        command = [
            shutil.which("ssh", path=self.env["PATH"]) or "ssh",
            HOST,
            "--",
            shlex.join(map(str, argv)),
        ]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done.stdout

    def path_for(self, user: int, directory: Path) -> str:
        """The PATH with which another user of this machine gets in; `directory` is that user's."""
        client = directory / "client"
        client.mkdir()
        config = (self.directory / "ssh_config").read_text()
        for name in ("user", "known"):
            source = self.directory / name
            target = client / name
            target.write_bytes(source.read_bytes() if source.exists() else b"")
            target.chmod(0o600)
            config = config.replace(str(source), str(target))
        (client / "ssh_config").write_text(config)
        _make_wrapper(client, client / "ssh_config")
        for path in (client, *client.iterdir()):
            os.chown(path, user, user)
        return f"{client}:{os.environ['PATH']}"


@contextmanager
def run_sshd(directory: Path, *, start: Sequence[str | Path] = ()) -> Iterator[Sshd]:
    """Run a server whose files are in `directory`, which must be empty or new.

    `start` is a program with arguments that becomes the server, whose arguments follow: it may go
    to namespaces of its own.
    """
    directory.mkdir(parents=True, exist_ok=True)
    directory = directory.resolve()
    for key in ("host", "user"):
        file = directory / key
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)
    commands = directory / "commands"
    client = directory / "client"
    commands.mkdir()
    client.mkdir()
    for _ in range(5):  # somebody else may take the port that was free a moment ago
        port = _free_port()
        server = _start(directory, commands, port, start)
        if _answers(server, port):
            break
        server.terminate()
        server.wait()
    else:
        raise AssertionError((directory / "log").read_text())
    try:
        yield Sshd(directory, commands, _client(directory, client, port))
    finally:
        server.terminate()
        server.wait(timeout=30)


def _start(
    directory: Path, commands: Path, port: int, start: Sequence[str | Path]
) -> subprocess.Popen[bytes]:
    if os.geteuid() == 0 and not start:
        Path("/run/sshd").mkdir(exist_ok=True)
    config = directory / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {directory}/host\nPidFile none\n"
        f"AuthorizedKeysFile {directory}/user.pub\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin yes\nPermitUserRC no\n"
        "MaxStartups 100\nMaxSessions 100\n"
        f"SetEnv PATH={commands}:{os.environ['PATH']}\n"
    )
    sshd = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin")
    assert sshd, "sshd is missing: scripts/setup --test installs it"
    return subprocess.Popen(
        [*start, sshd, "-D", "-f", config, "-E", directory / "log"], stdin=subprocess.DEVNULL
    )


def _client(directory: Path, client: Path, port: int) -> dict[str, str]:
    """ssh looks for its configuration in the home that the system knows: HOME has no say."""
    config = directory / "ssh_config"
    user = pwd.getpwuid(os.getuid()).pw_name  # whatever the environment says
    config.write_text(
        f"Host {HOST}\n  HostName 127.0.0.1\n  Port {port}\n  User {user}\n"
        f"  IdentityFile {directory}/user\n  IdentitiesOnly yes\n  IdentityAgent none\n"
        f"  UserKnownHostsFile {directory}/known\n  StrictHostKeyChecking accept-new\n"
        "  LogLevel ERROR\n  KexAlgorithms curve25519-sha256\n"
        f"Host {DEAD}\n  HostName 127.0.0.1\n  Port 1\n"
        "Host *\n  BatchMode yes\n  ConnectTimeout 5\n"
    )
    _make_wrapper(client, config)
    return {**os.environ, "PATH": f"{client}:{os.environ['PATH']}"}


def _make_wrapper(client: Path, config: Path) -> None:
    real = shutil.which("ssh")
    assert real, "ssh is missing: scripts/setup --test installs it"
    wrapper = client / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {real} -F {config} "$@"\n')
    wrapper.chmod(0o755)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _answers(server: subprocess.Popen[bytes], port: int) -> bool:
    for _ in range(200):
        if server.poll() is not None:
            return False
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            time.sleep(0.05)
    return False
