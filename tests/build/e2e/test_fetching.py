"""Builds with a cache server: what it has is not built, and whatever it does fails no build."""

from __future__ import annotations

import io
import json
import shutil
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from morphlib.events import BuildFinished, BuildStarted, SourceFinished, Status
from morphlib.progress.state import BuildState
from tests.build.e2e.conftest import MakeTrove
from tests.build.e2e.trove import Ran, Trove
from tests.cache.fickle_server import fickle_server
from tests.cacheserver.server import CacheServer, running


@pytest.fixture
def server(tmp_path: Path) -> Iterator[CacheServer]:
    with running(tmp_path) as server:
        yield server


@pytest.fixture
def built(trove: Trove) -> Trove:
    """A trove in which a system of two chunks was built."""
    trove.chunk("lib", install=['mkdir -p "$DESTDIR/lib"; echo lib > "$DESTDIR/lib/lib"'])
    app = 'mkdir -p "$DESTDIR/bin"; cp /lib/lib "$DESTDIR/bin/app"'
    trove.chunk("app", needs=["lib"], install=[app])
    trove.build()
    return trove


def hand_over(trove: Trove, server: CacheServer) -> bytes:
    """All artifacts go to the server, and are nowhere else. Returns the system."""
    image = trove.image().read_bytes()
    server.artifacts.rmdir()
    shutil.move(trove.artifacts, server.artifacts)
    shutil.rmtree(trove.temp / "chunks")
    trove.settings["artifact-cache-server"] = server.url
    return image


def finished(ran: Ran) -> BuildFinished:
    (event,) = [event for event in ran.events if isinstance(event, BuildFinished)]
    return event


def by_outcome(ran: Ran, outcome: str) -> set[str]:
    events = [event for event in ran.events if isinstance(event, SourceFinished)]
    return {event.name for event in events if event.outcome == outcome}


def warnings(ran: Ran) -> list[str]:
    return [e.text for e in ran.events if isinstance(e, Status) and e.level == "warning"]


def test_a_system_that_the_server_has_comes_alone(built: Trove, server: CacheServer) -> None:
    image = hand_over(built, server)
    ran = built.build("--progress=json")
    assert by_outcome(ran, "fetched") == {"sys"}
    assert by_outcome(ran, "built") == set()
    assert (finished(ran).fetched, finished(ran).built) == (1, 0)
    assert built.image().read_bytes() == image
    # One question, one file: nothing else was of use.
    assert len(server.requests()) == 2
    assert finished(built.build("--progress=json")).cached == finished(ran).cached + 1


def test_what_the_server_lacks_is_built_from_what_it_has(built: Trove, server: CacheServer) -> None:
    image = hand_over(built, server)
    for path in server.artifacts.glob("*.system.*"):
        path.unlink()
    ran = built.build("--progress=json")
    assert by_outcome(ran, "built") == {"sys"}
    assert {"app", "lib", "tools"} <= by_outcome(ran, "fetched")
    # Bootstrap chunks are in no system: nobody needs them any more.
    assert "host-tools" not in by_outcome(ran, "fetched")
    assert built.image().read_bytes() == image
    assert "Fetching to local cache: artifact app-bins" in ran.out


def test_chunks_are_built_on_what_was_fetched(built: Trove, server: CacheServer) -> None:
    hand_over(built, server)
    built.chunk("more", needs=["app"], build=["cat /bin/app"])
    ran = built.build("--progress=json")
    assert by_outcome(ran, "built") >= {"more", "sys"}
    assert by_outcome(ran, "fetched") >= {"app", "lib", "tools"}
    assert built.printed("more") == [b"lib"]


def test_a_server_that_is_not_there_is_one_warning(built: Trove, server: CacheServer) -> None:
    image = hand_over(built, server)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    built.settings["artifact-cache-server"] = f"http://127.0.0.1:{port}/"
    ran = built.build("--progress=json")
    (warning,) = [text for text in warnings(ran) if "127.0.0.1" in text]
    assert "going on without it" in warning
    assert by_outcome(ran, "fetched") == set()
    assert built.image().read_bytes() == image


def test_a_server_that_has_less_than_it_says(built: Trove, server: CacheServer) -> None:
    """What it can not give is built, with all that this takes."""
    image = hand_over(built, server)
    with fickle_server() as fickle:
        fickle.claims_all = True
        built.settings["artifact-cache-server"] = fickle.url
        ran = built.build("--progress=json")
        assert [asked[0] for asked in fickle.asked].count("POST") == 1
    assert by_outcome(ran, "fetched") == set()
    assert {"app", "lib", "tools", "host-tools", "sys"} <= by_outcome(ran, "built")
    assert built.image().read_bytes() == image
    assert len(warnings(ran)) >= 1


def test_what_comes_slowly_holds_up_only_what_needs_it(built: Trove, server: CacheServer) -> None:
    image = hand_over(built, server)
    built.chunk("beside", build=["true"])
    with fickle_server() as fickle:
        fickle.stalls, fickle.stalls_at = 10.0, ".chunk.app-bins"
        for path in server.artifacts.iterdir():
            if ".system." not in path.name:
                fickle.files[path.name] = path.read_bytes()
        built.settings["artifact-cache-server"] = fickle.url
        ran = built.build("--progress=json")
    assert by_outcome(ran, "built") >= {"beside", "sys"}
    ends = [event.name for event in ran.events if isinstance(event, SourceFinished)]
    assert ends.index("beside") < ends.index("app") < ends.index("sys")
    assert "app" in by_outcome(ran, "fetched")
    assert built.image().read_bytes() != image


def tar_without_description(name: str, lie: str) -> bytes:
    """A tar that can be unpacked, and is not that of a chunk artifact."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        if lie == "a link in it":
            link = tarfile.TarInfo(f"baserock/{name.split('.', 2)[2]}.meta")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
    return made.getvalue()


@pytest.mark.parametrize("lie", ["digest", "content", "nothing in it", "a link in it"])
def test_a_server_that_lies_fails_no_build(built: Trove, server: CacheServer, lie: str) -> None:
    image = hand_over(built, server)
    with fickle_server() as fickle:
        for path in server.artifacts.iterdir():
            fickle.files[path.name] = path.read_bytes()
            if ".system." in path.name:
                del fickle.files[path.name]
            elif ".chunk.app-" in path.name and lie == "digest":
                fickle.digests[path.name] = "0" * 64
            elif ".chunk.app-" in path.name and lie != "content":
                fickle.files[path.name] = tar_without_description(path.name, lie)
            elif ".chunk.app-" in path.name:
                fickle.files[path.name] = b"what the server says" * 1000
        built.settings["artifact-cache-server"] = fickle.url
        ran = built.build("--progress=json")
    assert by_outcome(ran, "built") == {"app", "sys"}
    assert "lib" in by_outcome(ran, "fetched")
    assert [text for text in warnings(ran) if "chunk app will be built" in text]
    assert built.image().read_bytes() == image


def test_a_system_that_is_broken_there_is_made_of_its_chunks(
    built: Trove, server: CacheServer
) -> None:
    """Of those that are here, and of those that the server has."""
    here = [path.read_bytes() for path in sorted(built.artifacts.glob("*.chunk.lib-*"))]
    kept = [path.name for path in built.artifacts.glob("*") if ".chunk.lib-" in path.name]
    keys = {name.partition(".")[0] for name in kept}
    image = hand_over(built, server)
    built.artifacts.mkdir()
    with fickle_server() as fickle:
        for path in server.artifacts.iterdir():
            if path.name.partition(".")[0] in keys:
                shutil.copy2(path, built.artifacts)
            else:
                fickle.files[path.name] = path.read_bytes()
            if ".system." in path.name:
                fickle.digests[path.name] = "0" * 64
        built.settings["artifact-cache-server"] = fickle.url
        ran = built.build("--progress=json")
    assert here
    assert by_outcome(ran, "built") == {"sys"}
    assert by_outcome(ran, "waited") == set()
    assert {"app", "tools"} <= by_outcome(ran, "fetched")
    assert "lib" not in by_outcome(ran, "fetched")
    assert built.image().read_bytes() == image
    end, (started,) = finished(ran), [e for e in ran.events if isinstance(e, BuildStarted)]
    assert (started.fetch, started.cached) == (1, started.total - 1)
    assert end.built + end.cached + end.fetched == started.total
    state = BuildState()
    for event in ran.events[: ran.events.index(end)]:
        state.update(event, 0.0)
    assert state.done == state.total


def test_deploying_fetches_a_system_that_was_not_built_here(
    built: Trove, server: CacheServer, tmp_path: Path
) -> None:
    hand_over(built, server)
    target = tmp_path / "sys.tar"
    deploy = {"d": {"type": "tar", "location": str(target)}}
    system = {"morph": "systems/sys.morph", "deploy": deploy}
    built.write_yaml("clusters/c.morph", {"name": "c", "kind": "cluster", "systems": [system]})
    built.write()
    ran = built.run("deploy", "clusters/c.morph")
    assert (ran.status, ran.err) == (0, "")
    assert "Fetching to local cache: artifact sys-rootfs" in ran.out
    assert target.stat().st_size > 0


def test_without_a_server_nothing_is_asked(make_trove: MakeTrove) -> None:
    trove = make_trove()
    trove.chunk("lib")
    ran = trove.build("--progress=json")
    assert finished(ran).fetched == 0
    assert json.loads(ran.out.splitlines()[-1])["fetched"] == 0
