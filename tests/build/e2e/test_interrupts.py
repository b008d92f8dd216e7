"""Builds that are interrupted or killed: nothing stays running, mounted or half-written."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.build.e2e.trove import Trove, digests, finish, git, mounts_below, relatives


def _define(trove: Trove) -> None:
    """Something that builds for a while, with several at once and children of their own."""
    for name in ("one", "two", "three"):
        trove.chunk(
            name,
            build=["(sleep 900 & :); sleep 0.2; seq 1000 > numbers"],
            install=["mkdir -p $DESTDIR/usr/bin; cp numbers $DESTDIR/usr/bin/" + name],
        )
    trove.chunk("last", needs=["one", "two"], install=["cp -r /usr/bin $DESTDIR/all"])


def _endless(trove: Trove) -> None:
    sleep = f"sleep {trove.forever}"
    trove.chunk("one", build=[f"(trap '' TERM INT HUP; {sleep} & {sleep})"])
    trove.chunk("two", build=[f"{sleep} & {sleep}"])


def _wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def _building(trove: Trove) -> bool:
    return list(relatives(trove).values()).count(f"sleep {trove.forever} ") == 4


def _assert_nothing_left(trove: Trove) -> None:
    _wait_for(lambda: not relatives(trove), 5)
    assert mounts_below(trove.root) == []


def _assert_nothing_half_written(trove: Trove) -> None:
    """A file is in the store when its manifest is, and then it is what the manifest says."""
    assert not [path for path in trove.artifacts.glob("tmp*") if path.is_file()]
    manifests = {path.name.partition(".")[0] for path in trove.artifacts.glob("*.manifest")}
    for path in trove.artifacts.glob("*.*.*"):
        assert path.name.partition(".")[0] in manifests, path


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_interrupted_build_clears_up(any_trove: Trove, how: str) -> None:
    """Ctrl-C goes to all of a terminal's processes, the others to the one that is meant."""
    trove = any_trove
    _endless(trove)
    trove.write()
    process = trove.start("build", "systems/sys.morph")
    _wait_for(lambda: _building(trove))
    if how == "SIGINT":
        os.killpg(process.pid, signal.SIGINT)
    else:
        os.kill(process.pid, getattr(signal, how))
    ran = finish(process, 15)
    assert ran.status == 255
    assert "interrupted" in ran.err
    assert "Traceback" not in ran.err
    assert relatives(trove) == {}
    assert mounts_below(trove.root) == []
    _assert_nothing_half_written(trove)
    assert list(trove.temp.glob("staging/*")) == []
    for name in ("one", "two"):
        trove.chunk(name, build=["true"])
    trove.build()


def test_second_interrupt_while_clearing_up(trove: Trove) -> None:
    _endless(trove)
    trove.write()
    process = trove.start("build", "systems/sys.morph")
    _wait_for(lambda: _building(trove))
    for _ in range(3):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.01)
    ran = finish(process, 15)
    assert ran.status == 255
    assert "Traceback" not in ran.err
    _assert_nothing_left(trove)


def test_interrupted_fetch_does_not_wait_for_the_server(trove: Trove) -> None:
    """A server that takes the connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"git://127.0.0.1:{server.getsockname()[1]}/inner"
        modules = f'[submodule "inner"]\n\tpath = inner\n\turl = {url}\n'
        trove.source("outer", {".gitmodules": modules})
        outer = trove.root / "gits/outer"
        git(outer, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},inner")
        git(outer, "commit", "-q", "-m", "a submodule")
        trove.chunk("hello", repo="outer")
        trove.write()
        process = trove.start("build", "systems/sys.morph")
        connection, _ = server.accept()
        with connection:
            os.kill(process.pid, signal.SIGTERM)
            ran = finish(process, 10)
    assert ran.status == 255
    assert "interrupted" in ran.err
    _assert_nothing_left(trove)


def _silent(server: socket.socket, answers: list[bytes], waits: threading.Event) -> None:
    """Answer so many requests, and take the next without an answer."""
    held = []
    with contextlib.suppress(OSError):
        while not waits.is_set():
            connection, _ = server.accept()
            held.append(connection)
            while answers:
                request = connection.recv(1 << 20)
                if not request:
                    break
                answer = answers.pop(0)
                if answer == b"ALL":
                    while not request.endswith(b"]"):
                        request += connection.recv(1 << 20)
                    names = json.loads(request.partition(b"\r\n\r\n")[2])
                    body = json.dumps(dict.fromkeys(names, True)).encode()
                    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
                connection.sendall(answer)
            else:
                connection.recv(1 << 16)
                waits.set()
        server.accept()  # until the server is closed
    for each in held:
        each.close()


@contextlib.contextmanager
def _silent_server(*answers: bytes) -> Iterator[tuple[str, threading.Event]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        waits = threading.Event()
        thread = threading.Thread(target=_silent, args=(server, list(answers), waits))
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/", waits
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


_NOTHING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
_NONE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize("what", ["question", "download", "push", "push-artifacts"])
def test_interrupt_does_not_wait_for_a_cache_server(trove: Trove, what: str) -> None:
    trove.chunk("one", build=["true"])
    trove.write()
    command, setting, answers = {
        "question": ("build", "artifact-cache-server", []),
        "download": ("build", "artifact-cache-server", [b"ALL"]),
        "push": ("build", "share-server", [_NOTHING]),
        "push-artifacts": ("push-artifacts", "share-server", [_NONE, _NOTHING]),
    }[what]
    if what == "push-artifacts":
        trove.build()
    with _silent_server(*answers) as (url, waits):
        trove.settings[setting] = url
        trove.write()
        process = trove.start(command, "systems/sys.morph")
        assert waits.wait(20)
        time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)
        ran = finish(process, 6)
    assert ran.status == 255
    assert "interrupted" in ran.err
    assert "Traceback" not in ran.err
    _assert_nothing_left(trove)
    _assert_nothing_half_written(trove)


def test_nohup_is_respected(trove: Trove) -> None:
    trove.chunk("one", build=["sleep 0.5"])
    trove.write()
    process = trove.start("build", "systems/sys.morph", wrap=["nohup"])
    time.sleep(0.4)
    os.killpg(process.pid, signal.SIGHUP)
    assert finish(process).status == 0


def test_killed_parent_takes_everything_along(any_trove: Trove) -> None:
    trove = any_trove
    _endless(trove)
    trove.write()
    process = trove.start("build", "systems/sys.morph")
    _wait_for(lambda: _building(trove))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=15)
    _assert_nothing_left(trove)
    for name in ("one", "two"):
        trove.chunk(name, build=["true"])
    trove.build()
    _assert_nothing_half_written(trove)
    assert trove.run("gc").status == 0
    assert list(trove.temp.glob("staging/*")) == []


def test_killed_builder_fails_its_chunk(any_trove: Trove) -> None:
    trove = any_trove
    command = f"sleep {trove.forever} "
    trove.chunk("one", build=[command])
    trove.chunk("two", build=["sleep 1.5; echo fine"])
    trove.write()
    process = trove.start("build", "systems/sys.morph", "--on-error=continue")
    _wait_for(lambda: command in relatives(trove).values())
    pid = next(p for p, c in relatives(trove).items() if c == command)
    builders = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    while str(pid) not in builders:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(pid, signal.SIGKILL)
    ran = finish(process, 20)
    assert ran.status == 1
    assert "chunk one: its builder process was killed by SIGKILL" in ran.err
    assert trove.printed("two") == [b"fine"]
    _assert_nothing_left(trove)
    assert trove.run("gc").status == 0
    _assert_nothing_half_written(trove)
    trove.chunk("one", build=["true"])
    trove.build()


def test_command_that_kills_all_it_can_kills_itself_alone(trove: Trove) -> None:
    trove.chunk("one", build=["kill -9 -1; sleep 5"])
    trove.chunk("two", build=["sleep 0.5; echo fine"])
    ran = trove.fail()
    assert "one" in ran.err
    assert trove.printed("two") == [b"fine"]


def test_killed_at_any_moment_the_next_build_is_whole(
    trove: Trove, make_trove: Callable[[], Trove]
) -> None:
    """Twenty times: the cache is as good as one that was never disturbed."""
    undisturbed = make_trove()
    _define(undisturbed)
    started = time.monotonic()
    undisturbed.build()
    whole = time.monotonic() - started
    wanted = digests(undisturbed.artifacts)
    chance = random.Random(20)
    _define(trove)
    trove.write()
    cut_short = attempts = 0
    while cut_short < 20:
        attempts += 1
        assert attempts < 80
        process = trove.start("build", "systems/sys.morph")
        time.sleep(chance.uniform(0.05, 0.9 * whole))
        killed = process.poll() is None
        process.kill()
        process.communicate(timeout=15)
        _assert_nothing_left(trove)
        cut_short += killed
        if not killed or cut_short % 5 == 0:
            trove.build()
            _assert_equal(trove, wanted)
            assert trove.run("gc").status == 0
            assert not list(trove.artifacts.glob("tmp*"))
            # Some of it goes, so that there is something to build.
            for path in list(trove.artifacts.glob("*.manifest")):
                if chance.random() < 0.6:
                    path.unlink()
            trove.image().unlink()
    trove.build()
    _assert_equal(trove, wanted)


def _assert_equal(trove: Trove, wanted: dict[str, str]) -> None:
    found = digests(trove.artifacts)
    assert found.items() <= wanted.items()
    assert trove.image().name in found


def test_full_output_pipe_ends_the_build(trove: Trove) -> None:
    """Whoever read the output went away."""
    _define(trove)
    trove.write()
    process = trove.start("build", "systems/sys.morph")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    assert process.wait(timeout=20) == 1
    process.stderr.close()
    assert b"Traceback" not in err
    _assert_nothing_left(trove)
    trove.build()
