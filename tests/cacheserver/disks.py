"""Runs one scenario with the server's artifacts on a disk of their own.

A program of its own, since mounting takes a mount namespace of its own:
unshare ... python -m tests.cacheserver.disks DIRECTORY SCENARIO
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from morphlib import process
from morphlib.cache.digests import format_digest
from morphlib.cache.store import ArtifactStore
from tests.cache.small_disk import MIB, fill_up
from tests.cacheserver.server import KEY, OTHER_KEY, CacheServer, running, sha256

OLD, NEW = f"{KEY}.chunk.old", f"{OTHER_KEY}.chunk.new"


def left_over(server: CacheServer) -> list[str]:
    names = [
        name for name in os.listdir(server.artifacts) if not name.endswith((".lock", ".manifest"))
    ]
    return sorted(name for name in names if name != "filler")


def a_full_disk(home: Path) -> None:
    """Uploads are refused, lose nothing and leave nothing; with room they work again."""
    process.run(["mount", "-t", "tmpfs", "-o", f"size={8 * MIB}", "none", home / "artifacts"])
    with running(home, "--enable-writes") as server:
        assert server.put(OLD, b"o" * MIB).status == 201
        # What can't fit is refused before it is sent.
        assert server.put(NEW, b"n" * 20 * MIB).status == 507
        assert left_over(server) == [OLD]
        # What fits at first may not fit at last.
        data = b"n" * 4 * MIB
        connection = server.connect()
        connection.putrequest("PUT", f"/1.0/artifacts?filename={NEW}")
        connection.putheader("Content-Length", str(len(data)))
        connection.putheader("Repr-Digest", format_digest(sha256(data)))
        connection.endheaders(data[:MIB])
        assert process.wait_until(lambda: len(left_over(server)) == 2, 10)
        filler = fill_up(server.artifacts)
        connection.send(data[MIB:])
        assert connection.getresponse().status == 507
        assert left_over(server) == [OLD]
        assert server.artifact(OLD).body == b"o" * MIB
        assert server.get("/healthz").status == 200
        filler.unlink()
        assert server.put(NEW, data).status == 201
        assert "Traceback" not in server.events


def a_disk_that_can_only_be_read(home: Path) -> None:
    """Artifacts are handed out, verified by digest where their stamps changed."""
    artifacts = home / "artifacts"
    with ArtifactStore(artifacts) as store:
        path = store.temporary()
        path.write_bytes(b"data")
        store.publish(KEY, {OLD: path})
    os.utime(artifacts / OLD, (1, 1))
    process.run(["mount", "--bind", artifacts, artifacts])
    process.run(["mount", "-o", "remount,bind,ro", artifacts])
    with running(home, "--enable-writes") as server:
        for _ in range(2):
            assert server.artifact(OLD).body == b"data"
            assert server.post("/1.0/artifacts", [OLD]).json == {OLD: True}
        assert server.put(NEW, b"data").status == 500
        assert server.ask("DELETE", "/1.0/artifacts", {"filename": OLD}).status == 500
        assert server.artifact(OLD).body == b"data"
        assert "Traceback" not in server.events


SCENARIOS: dict[str, Callable[[Path], None]] = {
    scenario.__name__: scenario for scenario in (a_full_disk, a_disk_that_can_only_be_read)
}


def main() -> None:
    home, scenario = Path(sys.argv[1]), SCENARIOS[sys.argv[2]]
    (home / "artifacts").mkdir()
    scenario(home)


if __name__ == "__main__":
    main()
