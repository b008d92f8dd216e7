"""Full and read-only disks, and clocks that are wrong."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from morphlib.cache.store import ArtifactStore
from tests.cacheserver.disks import SCENARIOS
from tests.cacheserver.server import KEY, running

ROOT = Path(__file__).parents[2]
UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "-Urm"]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_disks(home: Path, scenario: str) -> None:
    command = [*UNSHARE, sys.executable, "-m", "tests.cacheserver.disks", str(home), scenario]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    events = home / "events"
    told = events.read_text() if events.exists() else ""
    assert done.returncode == 0, done.stderr + told


def test_a_download_goes_on_where_it_was_after_the_server_was_killed(home: Path) -> None:
    name = f"{KEY}.chunk.big"
    data = os.urandom(64 << 20)
    with running(home) as server:
        with ArtifactStore(server.artifacts) as store:
            path = store.temporary()
            path.write_bytes(data)
            store.publish(KEY, {name: path})
        connection = server.connect()
        connection.request("GET", f"/1.0/artifacts?filename={name}")
        response = connection.getresponse()
        etag = response.headers["ETag"]
        part = response.read(1 << 20)
        server.process.kill()
        with pytest.raises((OSError, http.client.HTTPException)):
            while block := response.read(1 << 20):
                part += block
                assert len(part) < len(data)
            raise http.client.IncompleteRead(part)
    with running(home) as server:
        rest = server.artifact(name, Range=f"bytes={len(part)}-", If_Range=etag)
        assert rest.status == 206
        assert part + rest.body == data


def test_files_from_the_future_are_handed_out(home: Path) -> None:
    name = f"{KEY}.chunk.a"
    future = time.time() + 10 * 365 * 86400
    with running(home, "--enable-writes") as server:
        with ArtifactStore(server.artifacts) as store:
            path = store.temporary()
            path.write_bytes(b"data")
            os.utime(path, (future, future))
            store.publish(KEY, {name: path})
        os.utime(server.artifacts / f"{KEY}.manifest", (future, future))
        answer = server.artifact(name)
        assert answer.body == b"data"
        modified = parsedate_to_datetime(answer.headers["last-modified"]).timestamp()
        assert modified <= time.time() + 1
        # The date may be that of another version, so all of it is sent again.
        again = server.artifact(name, If_Modified_Since=answer.headers["last-modified"])
        assert again.status == 200
        assert server.artifact(name, If_None_Match=answer.headers["etag"]).status == 304
        assert server.get("/1.0/list").json["files"][name]["size"] == 4
        assert b"just now" in server.get("/?kind=chunk").body
