"""Old artifacts go, by age and by size, and never what somebody uses."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from pathlib import Path

from morphlib.cache.inuse import InUse
from morphlib.cache.store import ArtifactStore
from morphlib.process import wait_until
from tests.cacheserver.server import command, running

DAY = 86400
SIZE = 100_000


def key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def fill(home: Path, **days: float) -> None:
    """Sources by name, each of one file, last used so many days ago."""
    (home / "artifacts").mkdir(exist_ok=True)
    with ArtifactStore(home / "artifacts") as store:
        for name, age in days.items():
            path = store.temporary()
            path.write_bytes(os.urandom(SIZE))
            store.publish(key(name), {f"{key(name)}.chunk.{name}": path})
            then = time.time() - age * DAY
            os.utime(home / "artifacts" / f"{key(name)}.manifest", (then, then))


def left(home: Path) -> set[str]:
    return {path.name.rpartition(".")[2] for path in (home / "artifacts").glob("*.chunk.*")}


def collect(home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    for name in ("gits", "bundles"):
        (home / name).mkdir(exist_ok=True)
    return subprocess.run(
        command(home, "--gc", *options), capture_output=True, text=True, check=False
    )


def test_by_size_the_oldest_go_first(tmp_path: Path) -> None:
    fill(tmp_path, a=30, b=20, c=10, d=0)
    done = collect(tmp_path, f"--gc-max-size={2 * SIZE + SIZE // 2}")
    assert (done.returncode, done.stderr) == (0, "")
    assert left(tmp_path) == {"c", "d"}
    assert f"removed source {key('a')}: not used for 30 days" in done.stdout
    assert f"kept source {key('d')}: used " in done.stdout
    assert done.stdout.splitlines()[-1].startswith("removed 2, ")


def test_by_age(tmp_path: Path) -> None:
    fill(tmp_path, a=30, b=20, c=10)
    done = collect(tmp_path, f"--gc-expire-after={15 * DAY}")
    assert done.returncode == 0
    assert left(tmp_path) == {"c"}


def test_a_dry_run_removes_nothing(tmp_path: Path) -> None:
    fill(tmp_path, a=30, b=20)
    done = collect(tmp_path, f"--gc-expire-after={25 * DAY}", "--dry-run")
    assert f"would remove source {key('a')}: not used for 30 days" in done.stdout
    assert f"kept source {key('b')}" in done.stdout
    assert left(tmp_path) == {"a", "b"}


def test_without_limits_all_stays(tmp_path: Path) -> None:
    fill(tmp_path, a=3000)
    assert collect(tmp_path).returncode == 0
    assert left(tmp_path) == {"a"}


def test_what_a_build_uses_stays(tmp_path: Path) -> None:
    fill(tmp_path, a=30, b=20)
    with InUse(tmp_path / "in-use", {key("a")}):
        done = collect(tmp_path, f"--gc-expire-after={15 * DAY}")
    assert left(tmp_path) == {"a"}
    assert f"kept source {key('a')}: a running build uses it" in done.stdout


def test_too_much_that_was_used_lately_is_said(tmp_path: Path) -> None:
    fill(tmp_path, a=0, b=0)
    done = collect(tmp_path, "--gc-max-size=1000")
    assert done.returncode == 1
    assert left(tmp_path) == {"a", "b"}


def test_a_server_collects_by_itself_and_keeps_what_it_hands_out(tmp_path: Path) -> None:
    fill(tmp_path, a=30, b=30, c=1)
    options = [f"--gc-expire-after={15 * DAY}", "--gc-interval=1"]
    with running(tmp_path, "--enable-writes", "--no-dry-run", *options) as server:
        assert wait_until(lambda: left(tmp_path) == {"c"}, 30)
        assert wait_until(lambda: "removed 2 sources" in server.events, 30)
    fill(tmp_path, a=30)
    with running(tmp_path, f"--gc-expire-after={15 * DAY}", "--gc-interval=0") as server:
        assert server.artifact(f"{key('a')}.chunk.a").status == 200
        assert collect(tmp_path, f"--gc-expire-after={15 * DAY}").returncode == 0
        assert server.artifact(f"{key('a')}.chunk.a").status == 200
