"""Graphs, journals, logs of steps, faults: the small parts."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import Logger

from distbuild.addresses import Address
from distbuild.builds import Builds, describe_running
from distbuild.daemon import observe
from distbuild.faults import STATUS_MACHINE, STATUS_SPACE, fault_of, status_of
from distbuild.graphs import (
    Graph,
    GraphSource,
    decode_graph,
    encode_graph,
    find_targets,
    plan_work,
)
from distbuild.journal import Begun, Journal, Over
from distbuild.messages import BuildRequest
from distbuild.policy.state import State
from distbuild.sharedcache import SharedCache, TransferError, open_shared_cache
from distbuild.status.history import History
from distbuild.status.overview import Watched, view_line
from distbuild.steplogs import StepLogs, log_name
from distbuild.workermessages import Fault
from morphlib.definitions.models import Kind
from morphlib.errors import MorphError, MorphErrors, Reason

KEYS = {name: f"{number:064x}" for number, name in enumerate(("a", "b", "core", "sys"))}


def source(name: str, kind: Kind, *needs: str, component: str = "") -> GraphSource:
    key = KEYS[name]
    return GraphSource(
        key=key,
        name=name,
        component=component or name,
        kind=kind,
        needs=tuple(KEYS[each] for each in needs),
        files=(f"{key}.{kind}.{name}",),
        logs=(),
        cost=1.0,
    )


GRAPH = Graph(
    5,
    "x86_64",
    KEYS["sys"],
    (
        source("a", Kind.CHUNK),
        source("b", Kind.CHUNK, "a"),
        source("core", Kind.STRATUM, "b", component="core-stratum"),
        source("sys", Kind.SYSTEM, "core", "b"),
    ),
)


def names(work: object) -> list[str]:
    by_key = {key: name for name, key in KEYS.items()}
    return [by_key[task.id] for task in getattr(work, "tasks")]  # noqa: B009


def test_a_graph_survives_the_trip() -> None:
    assert decode_graph(encode_graph(GRAPH)) == GRAPH


def changed(**fields: object) -> bytes:
    return encode_graph(msgspec.structs.replace(GRAPH, **fields))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        encode_graph(GRAPH)[:-1],
        changed(protocol=4),
        changed(root="f" * 64),
        changed(sources=GRAPH.sources[::-1]),
        changed(sources=(msgspec.structs.replace(GRAPH.sources[0], files=("../x",)),)),
        changed(sources=(msgspec.structs.replace(GRAPH.sources[0], cost=-1.0),)),
    ],
    ids=range(9),
)
def test_what_is_no_graph_is_told(data: bytes) -> None:
    with pytest.raises(MorphError, match="Failed to compute build graph: "):
        decode_graph(data)


@given(st.binary(max_size=300))
def test_bytes_are_no_graph(data: bytes) -> None:
    with pytest.raises(MorphError):
        decode_graph(data)


def test_what_is_there_hides_what_it_was_made_from() -> None:
    system = find_targets(GRAPH, ())
    assert names(plan_work(GRAPH, system, ())) == ["a", "b", "core", "sys"]
    assert names(plan_work(GRAPH, system, {KEYS["b"]})) == ["core", "sys"]
    assert names(plan_work(GRAPH, system, {KEYS["sys"]})) == []
    assert plan_work(GRAPH, system, {KEYS["sys"]}).total == 4


def test_components_go_by_the_names_of_sources_and_of_strata() -> None:
    assert names(plan_work(GRAPH, find_targets(GRAPH, ["a"]), ())) == ["a"]
    for name in ("core", "core-stratum"):
        assert names(plan_work(GRAPH, find_targets(GRAPH, [name]), ())) == ["a", "b", "core"]
    with pytest.raises(MorphError, match="components are not in sys: x, y"):
        find_targets(GRAPH, ["a", "x", "y"])


# ---- Journal ---------------------------------------------------------------------------------


def begun(name: str) -> Begun:
    request = BuildRequest(id="1", repo="r", ref="f" * 40, morphology="m", allow_detach=True)
    return Begun(name, request, "127.0.0.1:1")


def test_a_journal_keeps_what_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "new" / "journal"
    journal = Journal(path, print)
    assert journal.unfinished == ()
    for entry in (begun("a"), begun("b"), Over("a"), begun("c"), Over("unknown")):
        journal.add(entry)
    journal.close()
    again = Journal(path, print)
    assert again.unfinished == (begun("b"), begun("c"))
    assert len(path.read_bytes().splitlines()) == 2
    again.add(Over("b"))
    again.close()
    assert Journal(path, print).unfinished == (begun("c"),)


@settings(deadline=None)  # on a machine with other work
@given(st.integers(0, 400))
def test_a_journal_that_was_cut_short_keeps_what_is_whole(cut: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "journal"
        journal = Journal(path, print)
        journal.add(begun("a"))
        whole = path.stat().st_size
        journal.add(begun("b"))
        journal.close()
        path.write_bytes(path.read_bytes()[: whole + cut])
        found = Journal(path, print)
        assert found.unfinished[0] == begun("a")
        found.add(begun("c"))
        found.close()
        assert Journal(path, print).unfinished[-1] == begun("c")


def test_a_journal_that_can_not_be_kept_is_told(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    with pytest.raises(MorphError, match="can't keep the journal"):
        Journal(tmp_path / "journal", print)


def test_a_journal_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    first = Journal(path, print)
    first.add(begun("a"))
    with pytest.raises(MorphError, match="another controller keeps its journal in"):
        Journal(path, print)
    first.add(begun("b"))
    first.close()
    assert Journal(path, print).unfinished == (begun("a"), begun("b"))


def test_a_journal_is_read_by_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.touch(0o644)
    journal = Journal(path, print)
    journal.add(begun("a"))  # the URL of a repository may hold a password
    journal.close()
    assert {each.stat().st_mode & 0o077 for each in tmp_path.glob("journal")} == {0}


def test_what_a_journal_has_of_another_version_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    newer = b'{"type":"begun","build":"b","request":{"type":"build-request","colour":"red"}}\n'
    path.write_bytes(newer + b"\0\0\0\n" + msgspec.json.encode(begun("a")) + b'\n{"type":"be')
    told: list[str] = []
    journal = Journal(path, told.append)
    assert journal.unfinished == (begun("a"),)
    journal.close()
    assert told == [f"Lines of {path} that this version can't read are in {path}.unread now"]
    assert (tmp_path / "journal.unread").read_bytes() == newer + b"\0\0\0\n"
    Journal(path, told.append).close()
    assert len(told) == 1


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """As on a disk that is full."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 1, 20])
def test_a_journal_on_a_full_disk_remembers_nothing_that_was_refused(
    tmp_path: Path, room: int
) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, print)
    journal.add(begun("a"))
    with no_file_longer_than(path.stat().st_size + room):
        with pytest.raises(MorphError, match="can't keep the journal"):
            journal.add(begun("refused"))
        with pytest.raises(MorphError, match="can't keep the journal"):
            journal.add(Over("a"))
    journal.add(begun("b"))
    journal.close()
    assert Journal(path, print).unfinished == (begun("b"),)


# ---- Builds ----------------------------------------------------------------------------------


def test_passwords_of_repositories_are_shown_to_nobody() -> None:
    builds, history = Builds(), History()
    request = BuildRequest(id="r", repo="https://me:sesame@host/x", ref="f" * 40, morphology="m")
    build = builds.new(request, "127.0.0.1:1")
    assert "  Repo: https://me:(hidden)@host/x\n" in describe_running([build])
    shown = view_line(Watched(State("j"), builds, history, ()), build)
    assert shown.repo == "https://me:(hidden)@host/x"


# ---- Logs of steps ---------------------------------------------------------------------------


def test_step_logs(tmp_path: Path) -> None:
    logs = StepLogs(str(tmp_path / "logs"))
    assert not (tmp_path / "logs").exists()
    logs.start("a/b", "Started")
    logs.write("a/b", b"\xff\n")
    path = tmp_path / "logs" / "build-step-a_b.log"
    assert path.read_bytes()[20:] == b"Started\n\xff\n"
    logs.start("a/b", "again, after a connection was lost")
    logs.write("never started", b"x")
    logs.finish("a/b", "Finished")
    logs.finish("a/b", "twice")
    assert [line[20:] for line in path.read_bytes().splitlines()] == [b"Started", b"", b"Finished"]
    logs.start("c", "Started")
    logs.finish_all("Initiator cancelled")
    assert (tmp_path / "logs" / "build-step-c.log").read_text().endswith(" Initiator cancelled\n")


def test_what_is_told_again_is_logged_once(tmp_path: Path) -> None:
    logs = StepLogs(str(tmp_path))
    logs.start("a", "Started")
    for offset, data in ((0, b"one "), (4, b"two "), (0, b"one "), (4, b"two three "), (2, b"e ")):
        logs.write("a", data, "job-1", offset)
    # Another attempt, and one of which the beginning was lost.
    logs.write("a", b"four ", "job-2", 0)
    logs.write("a", b"five ", "job-2", 100)
    logs.write("a", b"five ", "job-2", 100)
    text = (tmp_path / "build-step-a.log").read_bytes()
    assert text.endswith(b" Started\none two three four five ")


def test_step_logs_get_a_new_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in ("00", "01"):
        StepLogs("").start("x", "Started")
        assert (tmp_path / f"build-{number}" / "build-step-x.log").is_file()
    (tmp_path / "file").touch()
    with pytest.raises(MorphError, match="can't write"):
        StepLogs(str(tmp_path / "file")).start("x", "Started")


@given(st.text(min_size=1) | st.text(st.just("ü"), min_size=200, max_size=300))
def test_names_of_logs_stay_in_their_directory(step: str) -> None:
    assert "/" not in log_name(step)
    assert log_name(step).startswith("build-step-")
    assert len(log_name(step).encode()) < 255


# ---- Faults ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "fault"),
    [
        (Reason.BUILD, Fault.BUILD),
        (Reason.SOURCE, Fault.BUILD),
        (Reason.SPACE, Fault.SPACE),
        (Reason.SANDBOX, Fault.MACHINE),
        (Reason.CACHE, Fault.MACHINE),
    ],
)
def test_an_exit_status_says_whose_fault_it_is(reason: Reason, fault: Fault) -> None:
    error = MorphError("x", reason=reason)
    assert fault_of(status_of(error)) is fault


def test_of_several_failures_lack_of_space_counts() -> None:
    errors = [MorphError("x", reason=reason) for reason in (Reason.BUILD, Reason.SPACE)]
    assert status_of(MorphErrors(errors)) == STATUS_SPACE


@pytest.mark.parametrize("status", [-9, 127, 255, 2, STATUS_MACHINE])
def test_what_was_killed_or_never_began_says_nothing_against_the_step(status: int) -> None:
    assert fault_of(status) is Fault.MACHINE


@contextmanager
def shared_cache(*missing: str, status: int = 502) -> Iterator[tuple[SharedCache, list[list[str]]]]:
    """One that can fetch all but artifacts with some suffixes, and what it was asked for."""
    asked: list[list[str]] = []

    class Writes(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            names = json.loads(body)["artifacts"]
            asked.append(names)
            self.send_response(status if set(names) & set(missing) else 200)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Writes) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        yield SharedCache(url, url), asked
        server.shutdown()


def test_a_result_and_its_log_come_over_together_or_the_result_alone() -> None:
    result = msgspec.structs.replace(GRAPH.sources[0], logs=(f"{KEYS['a']}.build-log",))
    worker = Address("127.0.0.1", 1)
    with shared_cache() as (cache, asked):
        cache.pull(worker, result)
        assert asked == [["chunk.a", "build-log"]]
        cache.pull(worker, GRAPH.sources[1])
        assert asked[1:] == [["chunk.b"]]
    with shared_cache("build-log") as (cache, asked):
        cache.pull(worker, result)
        assert asked == [["chunk.a", "build-log"], ["chunk.a"]]
    with shared_cache("chunk.a") as (cache, _), pytest.raises(TransferError, match="answers 502"):
        cache.pull(worker, result)
    full = shared_cache("chunk.a", status=507)
    with full as (cache, _), pytest.raises(TransferError, match="has no room left"):
        cache.pull(worker, result)


def test_servers_are_checked_at_the_start(tmp_path: Path) -> None:
    for reading, writing in (("", "http://x/"), ("http://x/", "x:8081"), ("ftp://x/", "http://x/")):
        with pytest.raises(MorphError, match="has to be the URL of a cache server"):
            open_shared_cache(reading, writing, None)
    with pytest.raises(MorphError, match="can't read the token"):
        open_shared_cache("http://x/", "http://x/", tmp_path / "none")
    (tmp_path / "token").write_text(" t\n")
    cache = open_shared_cache("http://x:1/path", "https://y/", tmp_path / "token")
    assert cache.token == "t"
    assert cache.url_of("a b") == "http://x:1/1.0/artifacts?filename=a%20b"


# ---- The log of daemons --------------------------------------------------------------------------


def test_errors_of_the_reactor_are_logged_in_words(caplog: pytest.LogCaptureFixture) -> None:
    observer: Any = observe
    reactors = Logger(observer=observer)
    reactors.info("of {what}", what="no interest")
    reactors.error("{number} connections are {state}", number=3, state="lost")
    try:
        raise ValueError("seen by nobody")
    except ValueError:
        reactors.failure("while {doing}", doing="testing")
    assert [record.message.splitlines()[0] for record in caplog.records] == [
        "3 connections are lost",
        "internal error",
    ]
    assert "ValueError: seen by nobody" in caplog.text
