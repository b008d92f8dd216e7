"""morph doctor: what it makes of machines, and this one."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from morphlib.doctor import Finding, Health, judge_probe, try_to_connect
from tests.commandline import Ran, run_morph


def run_doctor(tmp_path: Path, *arguments: str, **env: str) -> tuple[Ran, dict[str, Finding]]:
    ran = run_morph("doctor", "--json", "--trove-host=", *arguments, home=tmp_path, env=env)
    findings = json.loads(ran.out)["findings"]
    return ran, {
        each["name"]: Finding(each["name"], Health(each["health"]), each["text"], each["remedy"])
        for each in findings
    }


def path_without(tmp_path: Path, *missing: str) -> str:
    """A PATH with the programs of this machine, some left out."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for folder in ("/bin", "/usr/bin"):
        for program in Path(folder).iterdir():
            link = programs / program.name
            if program.name not in missing and not link.is_symlink():
                link.symlink_to(program)
    return str(programs)


def test_a_machine_without_bubblewrap_cannot_build(tmp_path: Path) -> None:
    path = path_without(tmp_path, "bwrap")
    ran, findings = run_doctor(tmp_path, PATH=path)
    assert ran.status == 1
    assert findings["sandbox"].health is Health.BROKEN
    assert "package bubblewrap" in findings["sandbox"].remedy


def test_a_machine_without_git_cannot_build(tmp_path: Path) -> None:
    ran, findings = run_doctor(tmp_path, PATH=path_without(tmp_path, "git"))
    assert ran.status == 1
    assert findings["git"].health is Health.BROKEN


def test_an_old_git_is_refused(tmp_path: Path) -> None:
    path = path_without(tmp_path, "git")
    git = Path(path) / "git"
    git.write_text("#!/bin/sh\necho git version 1.9.1\n")
    git.chmod(0o755)
    ran, findings = run_doctor(tmp_path, PATH=path)
    assert ran.status == 1
    assert "or later" in findings["git"].remedy


def test_tools_for_bootstrap_are_not_necessary(tmp_path: Path) -> None:
    _, findings = run_doctor(tmp_path, PATH=path_without(tmp_path, "cc", "make"))
    assert findings["tools"].health is Health.WEAK
    assert "cc, make" in findings["tools"].text


def test_too_little_space_keeps_from_building(tmp_path: Path) -> None:
    ran, findings = run_doctor(tmp_path, "--cachedir-min-space=100000T")
    assert ran.status == 1
    assert findings["space"].health is Health.BROKEN
    assert "--cachedir-min-space" in findings["space"].remedy


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ran, findings = run_doctor(tmp_path, "--cachedir=file/x")
    assert ran.status == 1
    assert findings["cachedir"].health is Health.BROKEN
    assert "--cachedir=DIR" in findings["cachedir"].remedy


def test_a_trove_that_is_away_does_not_matter_for_building(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        url = f"http://127.0.0.1:{port}/"
        _, findings = run_doctor(
            tmp_path, f"--cache-server={url}", "--tarball-server=http://127.0.0.1:1/"
        )
    assert findings["cache server"].health is Health.FINE
    assert findings["tarball server"].health is Health.WEAK
    assert "Set tarball-server" in findings["tarball server"].remedy


def test_lines_for_people(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    ran = run_morph("doctor", "--trove-host=", home=tmp_path)
    assert ran.out.startswith("ok    git: git version ")
    assert ran.out.splitlines()[-1] in ("Morph can build here.", "Morph can't build here.")
    assert (ran.status == 0) == ("can't build" not in ran.out)


def judge(**found: object) -> dict[str, tuple[Health, str]]:
    whole = {"error": "", "problems": [], "overlay": True, "subordinate_ids": True} | found
    return {each.name: (each.health, each.remedy) for each in judge_probe(whole)}


def test_what_the_probe_means() -> None:
    assert {health for health, _ in judge().values()} == {Health.FINE}
    assert judge(error="bwrap failed", problems=["do this"]) == {
        "sandbox": (Health.BROKEN, "do this")
    }
    assert judge(overlay=False, problems=["do that"])["overlay"] == (Health.WEAK, "do that")
    health, remedy = judge(subordinate_ids=False)["owners"]
    assert health is Health.WEAK
    assert "--add-subuids" in remedy
    told = ["no subordinate ids: do a", "no overlay: do b"]
    both = judge(subordinate_ids=False, overlay=False, problems=told)
    assert (both["owners"][1], both["overlay"][1]) == (told[0], told[1])


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_connecting(listening: int, tmp_path: Path) -> None:
    assert try_to_connect(f"http://127.0.0.1:{listening}/x") is None
    assert try_to_connect("http://127.0.0.1:1/") == "Connection refused"
    assert try_to_connect(f"file://{tmp_path}") is None
    assert try_to_connect("file:///no/such") == "there is no such directory"
    assert try_to_connect("zlib") == "it is no URL of a server"
    assert try_to_connect("http://h:nonsense/") is not None
