"""A real ssh server on the loopback interface, for tests of what reaches other machines."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
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


@contextmanager
def run_sshd(directory: Path) -> Iterator[Sshd]:
    """Run a server whose files are in `directory`, which must be empty or new."""
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
        server = _start(directory, commands, port)
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


def _start(directory: Path, commands: Path, port: int) -> subprocess.Popen[bytes]:
    if os.geteuid() == 0:
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
        [sshd, "-D", "-f", config, "-E", directory / "log"], stdin=subprocess.DEVNULL
    )


def _client(directory: Path, client: Path, port: int) -> dict[str, str]:
    """ssh looks for its configuration in the home that the system knows: HOME has no say."""
    config = directory / "ssh_config"
    config.write_text(
        f"Host {HOST}\n  HostName 127.0.0.1\n  Port {port}\n  User {getpass.getuser()}\n"
        f"  IdentityFile {directory}/user\n  IdentitiesOnly yes\n  IdentityAgent none\n"
        f"  UserKnownHostsFile {directory}/known\n  StrictHostKeyChecking accept-new\n"
        "  LogLevel ERROR\n"
        f"Host {DEAD}\n  HostName 127.0.0.1\n  Port 1\n"
        "Host *\n  BatchMode yes\n  ConnectTimeout 5\n"
    )
    real = shutil.which("ssh")
    assert real, "ssh is missing: scripts/setup --test installs it"
    wrapper = client / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {real} -F {config} "$@"\n')
    wrapper.chmod(0o755)
    return {**os.environ, "PATH": f"{client}:{os.environ['PATH']}"}


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
