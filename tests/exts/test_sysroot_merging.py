"""Systems that are written into directories which have something in them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.exts.programs import EXTS, fail, succeed
from tests.exts.trees import fill, seen
from tests.mounting import needs_root


@pytest.fixture
def target(tmp_path: Path) -> Path:
    target = tmp_path / "root"
    for name in ("etc/mine", "etc/both", "usr/share/old"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text(f"old {name}\n")
    return target


@pytest.fixture
def system(tree: Path) -> Path:
    (tree / "etc/both").write_text("new\n")
    (tree / "etc/both").chmod(0o640)
    (tree / "etc").chmod(0o711)
    (tree / "usr/lib").mkdir(parents=True)
    for number in range(300):
        (tree / f"usr/lib/{number}").write_text(f"{number}\n" * 50)
    os.link(tree / "usr/lib/1", tree / "usr/one")
    return tree


def start(system: Path, target: Path, **more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, EXTS / "sysroot.write", system, target],
        env={"PATH": os.environ["PATH"], **more},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def below(target: Path) -> dict[str, tuple[object, ...]]:
    """All that is in it; its own time is that of the last thing that came or went."""
    return {name: what for name, what in seen(target).items() if name != "."}


def assert_merged(system: Path, target: Path) -> None:
    found, wanted = seen(target), seen(system)
    assert {name: found[name] for name in wanted} == wanted
    assert set(found) - set(wanted) == {"etc/mine", "usr/share", "usr/share/old"}
    assert (target / "etc/mine").read_text() == "old etc/mine\n"


def test_both_are_there(system: Path, target: Path) -> None:
    (target / "usr/lib").mkdir()
    fill(system)
    succeed("sysroot.write", system, target)
    assert_merged(system, target)
    assert (target / "usr/one").samefile(target / "usr/lib/1")
    succeed("sysroot.write", system, target)
    assert_merged(system, target)


@pytest.mark.parametrize("how", ["fails", "is killed"])
def test_nothing_changes_while_it_is_copied(
    system: Path, target: Path, tmp_path: Path, how: str
) -> None:
    before = below(target)
    program = tmp_path / "bin/cp"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\nfor last; do :; done\necho half >"$last/etc"\n'
        + ("exit 1\n" if how == "fails" else f": >{tmp_path}/started; exec sleep 1000\n")
    )
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    if how == "fails":
        fail("sysroot.write", system, target, env={"PATH": path})
        assert below(target) == before
        return
    process = start(system, target, PATH=path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (copying,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    os.kill(int(copying), signal.SIGKILL)
    left = [name for name in below(target) if name not in before]
    assert left
    assert all(name.startswith(".morph-merge.") for name in left)
    assert all((target / name).is_file() for name in ("etc/mine", "etc/both", "usr/share/old"))
    succeed("sysroot.write", system, target)
    assert_merged(system, target)


def test_killed_at_any_moment_the_next_one_is_whole(system: Path, target: Path) -> None:
    """And every file is the old one or the new one."""
    began = time.monotonic()
    assert start(system, target).wait(timeout=60) == 0
    whole = time.monotonic() - began
    chance = random.Random(5)
    for number in range(12):
        (system / "etc/both").write_text(f"{number}\n")
        old = (target / "etc/both").read_text()
        process = start(system, target)
        time.sleep(chance.uniform(0.5 * whole, whole))
        process.kill()
        process.wait()
        assert (target / "etc/both").read_text() in (old, f"{number}\n")
    succeed("sysroot.write", system, target)
    assert_merged(system, target)


@pytest.mark.parametrize("clash", ["directory", "file", "link"])
def test_what_can_not_take_the_place(system: Path, target: Path, clash: str) -> None:
    if clash == "directory":
        (target / "etc/both").unlink()
        (target / "etc/both/deep").mkdir(parents=True)
    elif clash == "file":
        (target / "usr/lib").write_text("old\n")
    else:
        (target / "usr/lib").symlink_to("share")
    before = below(target)
    said = fail("sysroot.write", system, target)
    assert f"in the system and {'a directory' if clash == 'directory' else 'none'} in" in said
    assert "Nothing was changed." in said
    assert below(target) == before


@needs_root
def test_other_file_systems_are_part_of_it(system: Path, target: Path) -> None:
    script = 'mkdir "$1/usr/lib"; mount -t tmpfs none "$1/usr/lib"; shift; "$@"; ls "$OUT" | wc -l'
    done = subprocess.run(
        [
            *("unshare", "--mount", "sh", "-euc", script, "sh", target),
            *(sys.executable, EXTS / "sysroot.write", system, target),
        ],
        env={"PATH": os.environ["PATH"], "OUT": f"{target}/usr/lib"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "300"
    assert (target / "etc/both").read_text() == "new\n"
