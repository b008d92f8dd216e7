"""The program: command line, configuration, port file, signals, logs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from morphlib.process import wait_until
from morphlib.version import describe_version
from tests.cacheserver.server import KEY, PROGRAM, CacheServer, command, running, wait_for_log
from tests.ordinary import run_as_ordinary_user


def run(home: Path, *arguments: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    done = subprocess.run(
        [PROGRAM, *arguments],
        cwd=home,
        env={"PATH": os.environ["PATH"], "HOME": str(home), **(env or {})},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_the_version_is_that_of_morph(home: Path) -> None:
    assert run(home, "--version") == (0, describe_version() + "\n", "")


def test_help_names_every_option(home: Path) -> None:
    status, out, _ = run(home, "--help")
    assert status == 0
    for name in ("--port-file", "--direct-mode", "--enable-writes", "--token-file", "--version"):
        assert name in out
    assert "--fcgi-server" not in out


@pytest.mark.parametrize("arguments", [["--nonsense"], ["--port=x"], ["--port"], ["--tls=x"]])
def test_a_command_line_that_is_none(home: Path, arguments: list[str]) -> None:
    status, _, err = run(home, *arguments)
    assert status == 2
    assert err.startswith("ERROR: ")
    assert "Usage: morph-cache-server" in err


def test_options_may_be_short_and_words_are_ignored(home: Path) -> None:
    arguments = [
        "a",
        "--no-default-config",
        "--no-fcgi",
        "b",
        "--dump-c",
        "--direct",
        "--port",
        "1",
    ]
    status, out, err = run(home, *arguments)
    assert (status, err) == (0, "")
    assert "direct-mode = True\n" in out
    assert "port = 1\n" in out


def test_http_is_spoken_whether_or_not_fastcgi_is_declined(home: Path) -> None:
    for options in ((), ("--no-fcgi",)):
        with running(home, *options) as server:
            assert server.get("/healthz").status == 200


def test_settings_come_from_files_and_the_command_line_wins(home: Path) -> None:
    (home / ".morph-cache-server.conf").write_text("[config]\nport = 1\nenable-writes = yes\n")
    (home / "more.conf").write_text("[config]\nport = 2\nrepo-dir = gits\n")
    _, out, _ = run(home, "--config=more.conf", "--no-enable-writes", "--dump-config")
    for line in ("port = 2", "enable-writes = False", f"repo-dir = {home}/gits"):
        assert line + "\n" in out
    (home / "again.conf").write_text(out)
    assert run(home, "--no-default-configs", "--config=again.conf", "--dump-config")[1] == out


def test_a_setting_that_there_is_not(home: Path) -> None:
    (home / "bad.conf").write_text("[config]\nprot = 1\n")
    status, _, err = run(home, "--config=bad.conf")
    assert status == 1
    assert "bad.conf:2: there is no setting 'prot'\n  Did you mean port?" in err


def test_the_port_is_written_into_a_pipe_in_place(home: Path) -> None:
    pipe = home / "pipe"
    os.mkfifo(pipe)
    arguments = command(home, f"--port-file={pipe}", "--log=none", "--quiet", "--threads=2")
    with subprocess.Popen(arguments, env={"PATH": os.environ["PATH"], "HOME": str(home)}) as server:
        text = pipe.read_text()
        port = int(text)
        assert text == f"{port}\n"
        assert pipe.is_fifo()
        socket.create_connection(("127.0.0.1", port)).close()
        server.terminate()
        assert server.wait(30) == 0


def test_it_ends_though_nobody_reads_the_port(home: Path) -> None:
    pipe = home / "pipe"
    os.mkfifo(pipe)
    arguments = command(home, f"--port-file={pipe}", "--threads=2")
    with subprocess.Popen(
        arguments,
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
        stderr=subprocess.PIPE,
    ) as server:
        assert server.stderr is not None
        assert b"listening at 127.0.0.1 port" in server.stderr.readline()
        server.terminate()
        assert server.wait(30) == 0


def test_a_port_file_that_can_not_be_written(home: Path) -> None:
    status, _, err = run(home, "--no-default-configs", f"--port-file={home}/gone/port")
    assert status == 1
    assert "ERROR: can't write the port to" in err


def test_sockets_that_are_not_meant_for_it_are_left_alone(home: Path) -> None:
    with running(home, env={"LISTEN_PID": "1", "LISTEN_FDS": "1"}) as server:
        assert server.get("/healthz").status == 200


def test_it_listens_at_other_addresses_if_told(home: Path) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        port = probe.getsockname()[1]
    arguments = command(home, "--address=::1", f"--port={port}", "--threads=2", "--enable-writes")
    (home / "artifacts").mkdir()
    with subprocess.Popen(
        arguments,
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        assert f"listening at ::1 port {port}".encode() in process.stderr.readline()
        server = CacheServer(home, port, process, "::1")
        assert server.put(f"{KEY}.chunk.a", b"x").status == 201
        process.terminate()
        assert process.wait(30) == 0


def test_a_port_that_is_taken(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        status, _, err = run(home, "--no-default-configs", f"--port={port}")
    assert status == 1
    assert err.splitlines()[-2].startswith(f"ERROR: can't listen at 127.0.0.1 port {port}: ")


def test_it_listens_at_loopback_unless_told_otherwise(home: Path) -> None:
    with running(home) as server:
        text = Path("/proc/net/tcp").read_text()
        listening = [
            line.split()[1] for line in text.splitlines() if f":{server.port:04X} " in line
        ]
        assert f"0100007F:{server.port:04X}" in listening
        assert not any(each.startswith("00000000") for each in listening)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_whatever_clients_do(home: Path, number: int) -> None:
    with running(home, "--serve-unlisted") as server:
        with (server.artifacts / f"{KEY}.chunk.big").open("wb") as file:
            file.truncate(1 << 30)
        with (
            socket.create_connection((server.host, server.port)) as idle,
            socket.create_connection((server.host, server.port)) as reader,
        ):
            request = f"GET /1.0/artifacts?filename={KEY}.chunk.big HTTP/1.1\r\n\r\n"
            reader.sendall(request.encode())
            assert reader.recv(10)
            idle.sendall(b"GET /he")
            began = time.monotonic()
            server.process.send_signal(number)
            assert server.process.wait(30) == 0
            assert time.monotonic() - began < 25  # 8 s, on a machine that has time


def test_what_is_being_sent_is_sent_to_the_end(home: Path) -> None:
    size = 200 << 20
    with running(home, "--serve-unlisted") as server:
        with (server.artifacts / f"{KEY}.chunk.big").open("wb") as file:
            file.truncate(size)
        connection = server.connect()
        connection.request("GET", f"/1.0/artifacts?filename={KEY}.chunk.big")
        response = connection.getresponse()
        server.process.terminate()
        assert len(response.read()) == size
        assert server.process.wait(30) == 0


def test_requests_are_logged_as_json_lines(home: Path) -> None:
    with running(home) as server:
        server.get("/1.0/artifacts", filename=f"{KEY}.chunk.a", headers={"User-Agent": 'x\xe9"\\'})
        server.get("/1.0/sha1s", repo="git://host/none", ref="master")
        # Each is logged after its answer was sent, so the order may be another.
        first, second = sorted(wait_for_log(server, 2), key=lambda entry: str(entry["path"]))
    assert first["status"] == 404
    assert first["client"] == "127.0.0.1"
    assert (first["method"], first["path"]) == ("GET", "/1.0/artifacts")
    assert first["query"] == f"filename={KEY}.chunk.a"
    assert first["sent"] == 0 and first["seconds"] > 0
    assert first["agent"] == 'x\xe9"\\'
    assert second["why"] == "Repository git://host/none does not exist in the cache"


def test_the_log_of_requests_can_be_moved_away(home: Path) -> None:
    log = home / "access.log"
    with running(home, f"--output={log}") as server:
        server.get("/healthz")
        assert wait_until(lambda: log.stat().st_size > 0, 10)
        log.rename(home / "old.log")
        server.process.send_signal(signal.SIGHUP)
        assert wait_until(log.exists, 10)
        server.get("/healthz")
        assert wait_until(lambda: log.stat().st_size > 0, 10)
        assert (home / "old.log").read_text().count("\n") == 1


def test_events_go_to_the_log(home: Path) -> None:
    with running(home, f"--log={home / 'server.log'}") as server:
        server.get("/healthz")
    text = (home / "server.log").read_text()
    assert f"listening at 127.0.0.1 port {server.port}" in text
    assert (home / "events").read_text() == ""


def test_many_clients_at_once(home: Path) -> None:
    size = 8 << 20
    name = f"{KEY}.chunk.big"
    with running(home, "--serve-unlisted", "--threads=70") as server:
        data = os.urandom(size)
        (server.artifacts / name).write_bytes(data)
        barrier = threading.Barrier(64)

        def download(number: int) -> bool:
            barrier.wait()
            part = server.artifact(name, Range=f"bytes={number * 1000}-")
            return part.body == data[number * 1000 :]

        with ThreadPoolExecutor(64) as threads:
            assert all(threads.map(download, range(64)))


def test_it_runs_as_an_ordinary_user() -> None:
    run_as_ordinary_user(
        """
import os
from pathlib import Path
from tests.cacheserver.server import KEY, running

with running(Path.cwd(), "--enable-writes") as server:
    assert server.put(f"{KEY}.chunk.a", b"x").status == 201
    assert server.artifact(f"{KEY}.chunk.a").body == b"x"
    os.chmod(server.artifacts, 0o500)
    assert server.put(f"{KEY}.chunk.b", b"x").status == (500 if os.geteuid() else 201)
    assert server.artifact(f"{KEY}.chunk.a").body == b"x"
    assert "Traceback" not in server.events
    os.chmod(server.artifacts, 0o700)
"""
    )
