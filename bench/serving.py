"""The cache server and nginx side by side, handing out the same large file."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from morphlib.errors import MorphError, Reason
from morphlib.process import wait_until

_NGINX = """\
daemon off;
master_process on;
worker_processes auto;
pid {work}/nginx.pid;
error_log {work}/nginx.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    client_body_temp_path {work}/nginx-tmp;
    proxy_temp_path {work}/nginx-tmp;
    fastcgi_temp_path {work}/nginx-tmp;
    uwsgi_temp_path {work}/nginx-tmp;
    scgi_temp_path {work}/nginx-tmp;
    server {{
        listen 127.0.0.1:{port};
        root {root};
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that listens. `target` is the URL of the large file."""

    name: str
    target: str
    url: str
    pid: int


@dataclass(frozen=True, slots=True)
class Download:
    """`size` counts the bytes of all clients, `seconds` goes from the first's start to the last's
    end. Memory is the server's, in bytes: before, and at its peak."""

    server: str
    clients: int
    size: int
    seconds: float
    memory_before: int
    memory_peak: int

    @property
    def rate(self) -> float:
        """Bytes per second."""
        return self.size / self.seconds


@contextmanager
def run_cache_server(program: Path, work: Path, name: str) -> Iterator[Running]:
    """Morph's, with the artifacts in `work`/artifacts and the repositories in `work`/gits."""
    port_file = work / "port"
    port_file.unlink(missing_ok=True)
    command = [str(program), "--no-default-configs", "--quiet", f"--port-file={port_file}"]
    command += [f"--artifact-dir={work / 'artifacts'}", f"--repo-dir={work / 'gits'}"]
    with _run([*command, "--direct-mode"], work / "cache-server.log") as process:
        _wait(lambda: port_file.exists() and port_file.read_text().endswith("\n"), process)
        url = f"http://127.0.0.1:{int(port_file.read_text())}"
        yield Running("morph", f"{url}/1.0/artifacts?filename={name}", url, process.pid)


@contextmanager
def run_nginx(work: Path, name: str) -> Iterator[Running]:
    """nginx, with the same artifacts. Raises MorphError where it is not installed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (work / "nginx-tmp").mkdir(exist_ok=True)
    configuration = work / "nginx.conf"
    configuration.write_text(_NGINX.format(work=work, port=port, root=work / "artifacts"))
    command = ["nginx", "-c", str(configuration), "-e", str(work / "nginx.log"), "-p", str(work)]
    with _run(command, work / "nginx.log") as process:
        _wait(lambda: _listens(port), process)
        url = f"http://127.0.0.1:{port}"
        yield Running("nginx", f"{url}/{name}", url, process.pid)


@contextmanager
def _run(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        except OSError as error:
            raise MorphError(
                f"can't start {command[0]}: {error.strerror}", reason=Reason.NOT_FOUND
            ) from error
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _wait(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    if not wait_until(lambda: process.poll() is not None or condition(), 30):
        raise MorphError("a server does not listen", reason=Reason.NOT_FOUND)
    if process.poll() is not None:
        raise MorphError("a server ended at once; see its log", reason=Reason.NOT_FOUND)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def download(server: Running, clients: int, size: int) -> Download:
    """Let curl fetch the first `size` bytes of the file, as many at once as there are clients.

    Raises MorphError if one of them does not get them.
    """
    before = _memory(server.pid)
    peak = before
    command = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{size_download}"]
    command += ["-r", f"0-{size - 1}", server.target]
    begin = time.perf_counter()
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(clients)]
    while any(each.poll() is None for each in running):
        peak = max(peak, _memory(server.pid))
        time.sleep(0.01)
    seconds = time.perf_counter() - begin
    for each in running:
        assert each.stdout is not None
        with each.stdout:
            told = each.stdout.read().decode()
        if told not in (f"206 {size}", f"200 {size}"):
            raise MorphError(f"{server.name} sent {told} instead of {size}", reason=Reason.BUILD)
    return Download(server.name, clients, clients * size, seconds, before, peak)


def _memory(pid: int) -> int:
    """The memory that a process and its children have to themselves, in bytes."""
    pids = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            pids += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return sum(_private_memory(each) for each in pids)


def _private_memory(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    fields = ("Private_Clean:", "Private_Dirty:")
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(fields))


def make_artifact(directory: Path, size: int) -> str:
    """Store an artifact of that size; its file name is returned. It is made once."""
    from morphlib.cache.store import ArtifactStore

    key = "ca" * 32
    name = f"{key}.system.large-rootfs"
    with ArtifactStore(directory) as store:
        if not store.check(key, [name]) or store.path(name).stat().st_size != size:
            path = store.temporary()
            block = os.urandom(1 << 20)
            with path.open("wb") as file:
                for _ in range(size >> 20):
                    file.write(block)
            store.publish(key, {name: path})
    return name
