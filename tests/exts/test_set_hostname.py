from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.exts.programs import EXTS, fail, succeed


def test_writes_the_name(tmp_path: Path) -> None:
    succeed("set-hostname.configure", tmp_path, env={"HOSTNAME": "box"})
    assert (tmp_path / "etc/hostname").read_text() == "box\n"
    assert (tmp_path / "etc/hostname").stat().st_mode & 0o777 == 0o644


def test_does_nothing_without_a_name(tmp_path: Path) -> None:
    succeed("set-hostname.configure", tmp_path)
    succeed("set-hostname.configure", tmp_path, env={"HOSTNAME": ""})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["a\nb", "a b", " ", "a/b", "../x", "-x", ".x", "x.", "a..b", "w" * 65, "ü", "a\x1bb"]
)
def test_refuses_what_is_no_name(tmp_path: Path, name: str) -> None:
    assert "is no host name" in fail("set-hostname.configure", tmp_path, env={"HOSTNAME": name})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a", "web.example.com", "Pi-4_b", "w" * 64])
def test_takes_what_hosts_are_called(tmp_path: Path, name: str) -> None:
    succeed("set-hostname.configure", tmp_path, env={"HOSTNAME": name})
    assert (tmp_path / "etc/hostname").read_text() == f"{name}\n"


def test_stays_inside_the_tree(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "hostname").write_text("host\n")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "etc").symlink_to(outside)
    succeed("set-hostname.configure", tree, env={"HOSTNAME": "box"})
    assert (outside / "hostname").read_text() == "host\n"
    assert (tree / str(outside).lstrip("/") / "hostname").read_text() == "box\n"


def test_is_a_program_of_its_own(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOSTNAME": "box"}
    subprocess.run([EXTS / "set-hostname.configure", tmp_path], env=environment, check=True)
    assert (tmp_path / "etc/hostname").read_text() == "box\n"
