"""git-daemon-wrap, serving real repositories to a real git."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.scripts.running import SCRIPTS, run_script

IDENTITY = {
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.com",
    "GIT_CONFIG_GLOBAL": "/dev/null",
}


def git(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", *map(str, arguments)],
        env={**os.environ, **IDENTITY},
        capture_output=True,
        text=True,
        timeout=60,
        check=check,
    )


@pytest.fixture
def repositories(tmp_path: Path) -> Path:
    base = tmp_path / "repositories"
    git("init", "-q", base / "one")
    git("-C", base / "one", "commit", "-q", "--allow-empty", "-m", "first")
    return base


@contextmanager
def serving(
    tmp_path: Path, base: Path, *options: str, env: dict[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The wrapper and its port."""
    fifo = tmp_path / "port"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [
            SCRIPTS / "git-daemon-wrap",
            f"--port-file={fifo}",
            "--export-all",
            f"--base-path={base}",
            *options,
        ],
        env={**os.environ, **(env or {})},
        stderr=subprocess.DEVNULL,
    )
    try:
        text = fifo.read_text()
        assert text.endswith("\n")
        yield process, int(text)
    finally:
        process.kill()
        process.wait()


def test_it_listens_when_it_says_the_port(tmp_path: Path, repositories: Path) -> None:
    with serving(tmp_path, repositories) as (_, port):
        done = git("ls-remote", f"git://127.0.0.1:{port}/one", "HEAD")
    assert done.stdout.endswith("\tHEAD\n")


def test_options_go_to_git(tmp_path: Path, repositories: Path) -> None:
    with serving(tmp_path, repositories, "--enable=receive-pack") as (_, port):
        url = f"git://127.0.0.1:{port}/one"
        git("-C", repositories / "one", "push", "-q", url, "HEAD:refs/heads/pushed")
    assert git("-C", repositories / "one", "rev-parse", "pushed").returncode == 0


def test_what_one_client_gets_wrong_hurts_no_other(tmp_path: Path, repositories: Path) -> None:
    with serving(tmp_path, repositories) as (process, port):
        url = f"git://127.0.0.1:{port}"
        assert git("ls-remote", f"{url}/none", check=False).returncode != 0
        git("init", "-q", tmp_path / "clone")
        absent = git("-C", tmp_path / "clone", "fetch", f"{url}/one", "1" * 40, check=False)
        assert absent.returncode != 0
        socket.create_connection(("127.0.0.1", port)).close()
        time.sleep(0.3)
        assert process.poll() is None
        assert git("ls-remote", f"{url}/one").returncode == 0


def test_connections_are_served_side_by_side(tmp_path: Path, repositories: Path) -> None:
    with serving(tmp_path, repositories) as (_, port):
        with socket.create_connection(("127.0.0.1", port)) as idle:
            idle.sendall(b"0032git-upload-pack /one")  # and never the rest
            done = git("ls-remote", f"git://127.0.0.1:{port}/one", "HEAD")
        assert done.stdout.endswith("\tHEAD\n")


def test_other_failures_end_it_with_their_status(tmp_path: Path, repositories: Path) -> None:
    with serving(tmp_path, repositories, "--no-such-option") as (process, port):
        git("ls-remote", f"git://127.0.0.1:{port}/one", check=False)
        assert process.wait(timeout=20) == 129  # what git answers to wrong options


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_what_it_serves(
    tmp_path: Path, repositories: Path, number: signal.Signals
) -> None:
    with serving(tmp_path, repositories) as (process, port):
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(b"0032git-upload-pack /one")
        time.sleep(0.5)
        process.send_signal(number)
        assert process.wait(timeout=20) == 128 + number
        client.settimeout(20)
        assert client.recv(1) == b""
        client.close()


def test_a_plain_port_file(tmp_path: Path, repositories: Path) -> None:
    port_file = tmp_path / "port"
    process = subprocess.Popen(
        [SCRIPTS / "git-daemon-wrap", f"--port-file={port_file}", "--listen=127.0.0.2"]
    )
    try:
        for _ in range(200):
            if port_file.exists() and port_file.read_text().endswith("\n"):
                break
            time.sleep(0.05)
        with socket.create_connection(("127.0.0.2", int(port_file.read_text()))):
            pass
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "option", ["--user=me", "--group=us", "--detach", "--port=1", "--syslog", "--pid-file=x"]
)
def test_options_that_make_no_sense_here(tmp_path: Path, option: str) -> None:
    result = run_script("git-daemon-wrap", f"--port-file={tmp_path / 'port'}", option)
    assert result.status == 1
    assert "not supported" in result.err
    assert not (tmp_path / "port").exists()


def test_the_port_file_is_required() -> None:
    result = run_script("git-daemon-wrap", "--export-all")
    assert result.status != 0
    assert "--port-file" in result.err


def test_a_port_file_that_can_not_be_written(tmp_path: Path) -> None:
    result = run_script("git-daemon-wrap", f"--port-file={tmp_path / 'no' / 'port'}")
    assert result.status == 1
    assert "port" in result.err
    assert "Traceback" not in result.err


def test_a_signal_ends_it_while_nobody_reads_the_port(tmp_path: Path) -> None:
    fifo = tmp_path / "port"
    os.mkfifo(fifo)
    process = subprocess.Popen([SCRIPTS / "git-daemon-wrap", f"--port-file={fifo}"])
    time.sleep(0.5)
    process.terminate()
    assert process.wait(timeout=20) == -signal.SIGTERM
