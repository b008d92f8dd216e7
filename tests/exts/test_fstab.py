"""fstab.configure and vdaboot.configure."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.exts.programs import EXTS, NOBODY, fail, run_in_namespace, succeed

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")


def mode_of(path: Path) -> int:
    return path.lstat().st_mode & 0o7777


def test_is_made_empty_by_the_program_alone(tree: Path) -> None:
    subprocess.run([EXTS / "fstab.configure", tree], env={"PATH": os.environ["PATH"]}, check=True)
    assert (tree / "etc/fstab").read_bytes() == b""
    assert mode_of(tree / "etc/fstab") == 0o644


def test_lines_are_appended_in_order_of_the_values(tree: Path) -> None:
    (tree / "etc/fstab").write_text("# mine\n/dev/sda / ext4")
    succeed(
        "fstab.configure",
        tree,
        env={
            "FSTAB_A": "c /c",
            "FSTAB_B": "Z /z\n",
            "FSTAB_": "b /b",
            "FSTAB_NO": "",
            "FSTABX": "no",
            "MY_FSTAB_": "no",
        },
    )
    expected = "# mine\n/dev/sda / ext4\nZ /z\nb /b\nc /c\n"
    assert (tree / "etc/fstab").read_text() == expected


@NEEDS_ROOT
@pytest.mark.parametrize("name", ["fstab", "hosts"])
def test_owner_and_mode_are_reset(tree: Path, name: str) -> None:
    path = tree / "etc" / name
    path.write_text("x\n")
    os.chown(path, 1000, 1000)
    path.chmod(0o600)
    succeed(f"{name}.configure", tree)
    assert path.read_text() == "x\n"
    assert (path.stat().st_uid, path.stat().st_gid, mode_of(path)) == (0, 0, 0o644)


def test_as_an_ordinary_user(users_tree: Path) -> None:
    path = users_tree / "etc/fstab"
    path.write_text("x\n")
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    done = run_in_namespace("fstab.configure", users_tree, env={"FSTAB_A": "a /a"})
    assert done.returncode == 0, done.stderr
    assert path.read_text() == "x\na /a\n"
    assert mode_of(path) == 0o644


@pytest.mark.parametrize("name", ["fstab", "hosts"])
def test_needs_etc(tmp_path: Path, name: str) -> None:
    assert "the system has no directory /etc" in fail(f"{name}.configure", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("program", "env"),
    [
        ("fstab", {"FSTAB_A": "evil / x"}),
        ("hosts", {"HOSTS_A": "1.2.3.4 evil"}),
        ("vdaboot", {"OPENSTACK_USER": "me"}),
    ],
)
def test_links_do_not_lead_out(tree: Path, program: str, env: dict[str, str]) -> None:
    outside = tree.parent / "outside"
    outside.write_text("host\n")
    (tree / "etc" / ("hosts" if program == "hosts" else "fstab")).symlink_to(outside)
    succeed(f"{program}.configure", tree, env=env)
    assert outside.read_text() == "host\n"
    assert (tree / str(outside).lstrip("/")).is_file()


def test_vda_is_the_root_for_openstack(tree: Path) -> None:
    line = "/dev/vda / btrfs defaults,rw,noatime 0 1\n"
    succeed("vdaboot.configure", tree)
    succeed("vdaboot.configure", tree, env={"OPENSTACK_USER": ""})
    assert not (tree / "etc/fstab").exists()
    succeed("vdaboot.configure", tree, env={"OPENSTACK_USER": "me"})
    assert (tree / "etc/fstab").read_text() == line
    (tree / "etc/fstab").write_text("# all\nLABEL=x\t/ ext4\n/dev/sdb /srv auto\n")
    (tree / "etc/fstab").chmod(0o664)
    succeed("vdaboot.configure", tree, env={"OPENSTACK_USER": "me"})
    assert (tree / "etc/fstab").read_text() == line + "# all\n/dev/sdb /srv auto\n"
    assert mode_of(tree / "etc/fstab") == 0o664
