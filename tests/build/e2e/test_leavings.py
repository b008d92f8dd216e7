"""What builds leave in the directory for temporary files, and what takes it away."""

from __future__ import annotations

import os
import pwd
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.build.e2e.conftest import MakeTrove
from tests.build.e2e.trove import Trove, finish, relatives

running: dict[int, subprocess.Popen[bytes]] = {}
WITH_NO_ROOM = ("--tempdir-min-space=1000000T", "--cachedir-min-space=1000000T")


def areas(trove: Trove) -> set[str]:
    return {path.name for path in (trove.temp / "staging").iterdir() if path.is_dir()}


def start_waiting(trove: Trove) -> tuple[Path, int]:
    """Start a build that waits in a command until a file appears, which is returned."""
    trove.chunk("lib", install=['mkdir -p "$DESTDIR/lib"; echo lib > "$DESTDIR/lib/lib"'])
    wait = "touch began; for i in $(seq 600); do test -e go && break; sleep 0.1; done; test -e go"
    trove.chunk("slow", needs=["lib"], build=[wait], install=["cat /lib/lib"])
    trove.write()
    process = trove.start("build", "systems/sys.morph")
    deadline = time.monotonic() + 30
    while not (began := list(trove.temp.glob("staging/slow-*/slow.build/began"))):
        assert process.poll() is None, finish(process)
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running[process.pid] = process
    return began[0].with_name("go"), process.pid


@pytest.mark.parametrize("other_cache", [False, True])
def test_garbage_collection_takes_nothing_from_a_running_build(
    any_trove: Trove, other_cache: bool
) -> None:
    go, pid = start_waiting(any_trove)
    layers = {path.name for path in (any_trove.temp / "chunks").iterdir()}
    assert layers
    options = [f"--cachedir={any_trove.root}/elsewhere"] if other_cache else []
    collected = any_trove.run(
        "gc", "--cachedir-artifact-keep-younger-than=0", *WITH_NO_ROOM, *options
    )
    assert "Unable to clear enough space" in collected.out
    assert {path.name for path in (any_trove.temp / "chunks").iterdir()} >= layers
    go.touch()
    ran = finish(running.pop(pid))
    assert ran.status == 0, ran.out + ran.err
    # With nothing running it would have gone.
    any_trove.run("gc", *WITH_NO_ROOM, *options)
    assert list((any_trove.temp / "chunks").iterdir()) == []
    assert any_trove.image().exists()
    any_trove.image().unlink()
    any_trove.build()


def test_staging_areas_of_killed_builds_go_and_those_of_failed_ones_stay(any_trove: Trove) -> None:
    _, pid = start_waiting(any_trove)
    os.kill(pid, signal.SIGKILL)
    assert finish(running.pop(pid)).status == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while relatives(any_trove):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed = areas(any_trove)
    assert any(name.startswith("slow-") for name in killed)
    any_trove.chunk("slow", build=["exit 1"])
    any_trove.fail()
    (failed,) = areas(any_trove)
    assert failed not in killed
    any_trove.chunk("slow")
    any_trove.build()
    assert areas(any_trove) == {failed}
    assert any_trove.run("gc").status == 0
    assert not list((any_trove.temp / "staging").iterdir())


def test_garbage_collection_removes_files_of_subordinate_ids(
    make_trove: MakeTrove, tmp_path: Path
) -> None:
    user, wrap = as_user_with_subordinate_ids(tmp_path)
    trove = make_trove(user)
    trove.chunk("bad", build=["mkdir o; touch o/f; chown -R 7:7 o; chmod 0 o; exit 1"])
    trove.fail(wrap=wrap)
    (left,) = trove.temp.glob("staging/bad-*/bad.build/o")
    assert left.lstat().st_uid not in (0, trove.user)
    ran = trove.run("gc", wrap=wrap)
    assert (ran.status, ran.err) == (0, "")
    assert not list((trove.temp / "staging").iterdir())


def as_user_with_subordinate_ids(directory: Path) -> tuple[int, list[str]]:
    """A user who has subordinate ids, and what to put before a command that sees so.

    Where root runs the tests it is nobody, in a mount namespace where /etc/subuid is another file.
    """
    if os.getuid() == 0:
        ids = directory / "subids"
        ids.write_text("nobody:1000000:65536\n")
        mounts = [f"mount --bind {shlex.quote(str(ids))} /etc/sub{kind}id" for kind in "ug"]
        script = " && ".join([*mounts, 'exec "$@"'])
        return pwd.getpwnam("nobody").pw_uid, ["unshare", "--mount", "sh", "-c", script, "sh"]
    names = [line.partition(":")[0] for line in Path("/etc/subuid").read_text().splitlines()]
    mine = pwd.getpwuid(os.getuid())
    if mine.pw_name not in names and str(mine.pw_uid) not in names:
        pytest.skip(f"{mine.pw_name} has no subordinate ids in /etc/subuid")
    return mine.pw_uid, []
