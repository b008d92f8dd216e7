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

from tests.exts.programs import EXTS, NOBODY, fail, succeed
from tests.exts.trees import fill, seen
from tests.mounting import mounted, needs_root


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
    while Path(f"/proc/{copying}/exe").exists():  # it ends, too
        assert time.monotonic() < deadline
        time.sleep(0.01)
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


def in_namespace(script: str, system: Path, target: Path) -> str:
    """Run a script of the shell with the writing as its arguments from the second on; the first is
    the target. Returns what it prints."""
    done = subprocess.run(
        [
            *("unshare", "--mount", "sh", "-euc", script, "sh", target),
            *(sys.executable, EXTS / "sysroot.write", system, target),
        ],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_root
@pytest.mark.parametrize("kind", ["-t tmpfs none", "--bind $1/usr/share"])
def test_other_file_systems_are_part_of_it(system: Path, target: Path, kind: str) -> None:
    script = f"""
        top=$1
        mkdir "$1/usr/lib"
        mount {kind} "$1/usr/lib"
        echo old > "$1/usr/lib/1"
        chmod 700 "$1/usr/lib"
        shift
        "$@" >&2
        ls -A "$top/usr/lib" | grep -vx old | wc -l
        stat -c %a "$top/usr/lib"
        head -1 "$top/usr/lib/1"
        umount "$top/usr/lib"
        ls -A "$top/usr/lib" | wc -l
    """
    assert in_namespace(script, system, target).split() == ["300", "755", "1", "0"]
    assert (target / "etc/both").read_text() == "new\n"
    assert not list(target.glob("**/.morph*"))


@needs_root
def test_an_empty_file_system_is_filled(system: Path, target: Path) -> None:
    empty = target.with_name("empty")
    empty.mkdir()
    script = 'mount -t tmpfs none "$1"; top=$1; shift; "$@" >&2; stat -c %a "$top"; ls -A "$top"'
    system.chmod(0o751)
    assert in_namespace(script, system, empty).split() == ["751", "etc", "usr"]
    assert not list(empty.iterdir())
    assert set(target.parent.iterdir()) == {target, system, empty}


@needs_root
def test_subvolumes_are_part_of_it(system: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    with mounted(image) as root:
        (root / "usr").mkdir()
        subprocess.run(["btrfs", "-q", "subvolume", "create", root / "usr/lib"], check=True)
        (root / "usr/lib/1").write_text("old\n")
        succeed("sysroot.write", system, root)
        found, wanted = seen(root), seen(system)
        assert {name: what[:4] for name, what in found.items()} == {
            name: what[:4] for name, what in wanted.items()
        }
        for name in ("etc/both", "usr/one", "usr/lib/1", "usr/lib/299"):
            assert (root / name).read_text() == (system / name).read_text()
        assert (root / "usr/lib").stat().st_ino == 256


@needs_root
def test_no_room_in_another_file_system_changes_nothing(system: Path, target: Path) -> None:
    before = below(target)
    (system / "usr/lib/large").write_bytes(os.urandom(4 << 20))
    script = """
        top=$1
        mkdir "$top/usr/lib"
        mount -t tmpfs -o size=2m none "$top/usr/lib"
        shift
        ! "$@"
        ls -A "$top/usr/lib"
        umount "$top/usr/lib"
        rmdir "$top/usr/lib"
    """
    assert in_namespace(script, system, target).split() == []
    assert {**below(target), "usr": None} == {**before, "usr": None}


@needs_root
@pytest.mark.parametrize("how", ["sticky", "not writable"])
def test_directories_of_others_are_refused(users_tree: Path, how: str) -> None:
    (users_tree / "etc/both").write_text("new\n")
    (users_tree / "usr").mkdir()
    target = users_tree.with_name("root")
    for path in (target, target / "etc"):
        path.mkdir()
        os.chown(path, NOBODY, NOBODY)
    (target / "etc/both").write_text("old\n")
    (target / "usr").mkdir()
    (target / "usr").chmod(0o1777 if how == "sticky" else 0o755)
    said = fail("sysroot.write", users_tree, target, user=NOBODY)
    assert f"{target}/usr can't be changed" in said
    assert (target / "etc/both").read_text() == "old\n"
    assert set(below(target)) == {"etc", "etc/both", "usr"}


def test_interrupted_too_late_it_comes_to_its_end(system: Path, target: Path) -> None:
    (target / "usr/lib").mkdir()
    for number in range(5000):
        (system / f"usr/lib/{number}").write_text("x")
    process = start(system, target)
    while process.poll() is None and not (target / "usr/lib/0").exists():
        pass
    process.terminate()
    assert process.wait(timeout=60) in (0, -signal.SIGTERM)
    assert len(list((target / "usr/lib").iterdir())) == 5000
    found, wanted = below(target), below(system)
    assert {name: found[name] for name in wanted} == wanted
    assert not list(target.glob(".morph*"))


def test_links_that_come_meanwhile_do_not_lead_out(system: Path, target: Path) -> None:
    """Whose home is in the target may be quick."""
    outside = target.with_name("outside")
    outside.mkdir()
    (target / "home/me").mkdir(parents=True)
    (system / "home/me").mkdir(parents=True)
    for number in range(5000):
        (system / f"home/me/{number:04}").touch()
    process = start(system, target)
    while process.poll() is None and not (target / "home/me/0000").exists():
        pass
    process.send_signal(signal.SIGSTOP)
    (target / "home/me").rename(target / "home/was")
    (target / "home/me").symlink_to(outside)
    process.send_signal(signal.SIGCONT)
    process.wait(timeout=60)
    assert (target / "home/was/0000").exists()
    assert not list(outside.iterdir())
    assert outside.stat().st_mode & 0o777 == 0o755
