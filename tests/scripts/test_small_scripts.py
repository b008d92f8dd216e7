"""The scripts that are a few lines each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts.running import SCRIPTS, run_script


def test_list_tree(tmp_path: Path) -> None:
    (tmp_path / "b" / "c d").mkdir(parents=True)
    (tmp_path / "b" / "file").touch()
    (tmp_path / "a").symlink_to("b")
    result = run_script("list-tree", tmp_path)
    assert result.out == "d .\nd ./b\nd ./b/c d\nf ./b/file\nl ./a\n"
    assert result.status == 0


def test_list_tree_needs_a_directory(tmp_path: Path) -> None:
    assert run_script("list-tree").status == 1
    assert run_script("list-tree", tmp_path / "none").status == 1


@pytest.mark.parametrize("name", ["plain", "with.dot", "b[r]a*c|ket$^", "back\\slash & and"])
def test_cmd_filter_hides_the_directory(tmp_path: Path, name: str) -> None:
    datadir = str(tmp_path / name)
    result = run_script(
        "cmd-filter",
        "sh",
        "-c",
        'printf "%s/x:%s\\n" "$1" "$1"; printf "%s!\\n" "$1" >&2; exit 7',
        "sh",
        datadir,
        env={"DATADIR": datadir},
    )
    assert (result.status, result.out, result.err) == (1, "TMP/x:TMP\n", "TMP!\n")


def test_cmd_filter_leaves_other_text_alone(tmp_path: Path) -> None:
    result = run_script("cmd-filter", "echo", "a/b", env={"DATADIR": "a.b"})
    assert (result.status, result.out) == (0, "a/b\n")


def test_cmd_filter_says_what_is_missing() -> None:
    assert "DATADIR" in run_script("cmd-filter", "true", env={"DATADIR": ""}).err
    assert run_script("cmd-filter", env={"DATADIR": "/x"}).status == 1


def test_run_git_in(tmp_path: Path) -> None:
    env = {"DATADIR": str(tmp_path)}
    assert run_script("run-git-in", tmp_path, "init", "-q", "repo", env=env).status == 0
    result = run_script("run-git-in", tmp_path / "repo", "rev-parse", "--absolute-git-dir", env=env)
    assert (result.status, result.out) == (0, "TMP/repo/.git\n")
    failed = run_script("run-git-in", tmp_path / "repo", "rev-parse", "--verify", "x", env=env)
    assert failed.status == 1


def test_fix_committer_info_makes_commits_equal(tmp_path: Path) -> None:
    commits = set()
    for name in ("one", "two"):
        script = (
            f". {SCRIPTS}/fix-committer-info && git init -q {name} && cd {name}"
            " && git commit -q --allow-empty -m x && git rev-parse HEAD"
        )
        done = subprocess.run(
            ["sh", "-eu", "-c", script], cwd=tmp_path, check=True, capture_output=True
        )
        commits.add(done.stdout)
    assert len(commits) == 1


YAML = """\
name: core
chunks:
- name: zlib
  ref: master
  build-depends: [a, b]
- name: 7
  ref: seven
"""


@pytest.mark.parametrize(
    ("parameters", "printed"),
    [
        (["name"], "core\n"),
        (["chunks", "0", "ref"], "master\n"),
        (["chunks", "-1", "ref"], "seven\n"),
        (["chunks", "name=zlib", "ref"], "master\n"),
        (["chunks", "name=7", "ref"], "seven\n"),
        (["chunks", "name=zlib", "build-depends"], "- a\n- b\n"),
    ],
)
def test_yaml_extract(tmp_path: Path, parameters: list[str], printed: str) -> None:
    (tmp_path / "file").write_text(YAML)
    result = run_script("yaml-extract", tmp_path / "file", *parameters)
    assert (result.status, result.out) == (0, printed)


@pytest.mark.parametrize(
    "parameters", [["none"], ["name", "x"], ["chunks", "9"], ["chunks", "name=x"], ["chunks", "x"]]
)
def test_yaml_extract_of_what_is_not_there(tmp_path: Path, parameters: list[str]) -> None:
    (tmp_path / "file").write_text(YAML)
    result = run_script("yaml-extract", tmp_path / "file", *parameters)
    assert (result.status, result.out) == (1, "")
    assert parameters[-1] in result.err


def test_yaml_extract_of_bad_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("[")
    for path in (tmp_path / "file", tmp_path / "none"):
        result = run_script("yaml-extract", path, "x")
        assert result.status == 1
        assert str(path) in result.err
        assert "Traceback" not in result.err
    assert run_script("yaml-extract").status == 1


@pytest.fixture
def fake_morph(tmp_path: Path) -> dict[str, str]:
    """A program that says where the cache is, and the environment that names it."""
    (tmp_path / "the cache" / "artifacts").mkdir(parents=True)
    program = tmp_path / "fake-morph"
    program.write_text(f"#!/bin/sh\necho '[config]'\necho 'cachedir = {tmp_path}/the cache'\n")
    program.chmod(0o755)
    return {"MORPH": str(program)}


def add_artifacts(tmp_path: Path, *names: str) -> Path:
    """Chunk artifacts KEY.chunk.NAME, each newer than the one before."""
    artifacts = tmp_path / "the cache" / "artifacts"
    for age, name in enumerate(names):
        key = name.partition(".")[0]
        for suffix in (name, f"{key}.meta", f"{key}.manifest", f"{key}.build-log"):
            (artifacts / suffix).write_text("0123456789")
        os.utime(artifacts / name, (1000 + age, 1000 + age))
    return artifacts


def test_clean_artifact_cache_of_one_chunk(tmp_path: Path, fake_morph: dict[str, str]) -> None:
    artifacts = add_artifacts(
        tmp_path,
        "k2.chunk.zlib-libs",
        "k1.chunk.zlib-libs",
        "k3.chunk.bash-bins",
        "k4.chunk.zlib-libs",
    )
    result = run_script("clean-artifact-cache", "zlib-libs", env=fake_morph)
    assert result.status == 0
    assert {path.name.partition(".")[0] for path in artifacts.iterdir()} == {"k3", "k4"}
    assert "3 found, 2 deleted, 80 bytes" in result.out


def test_clean_artifact_cache_of_all(tmp_path: Path, fake_morph: dict[str, str]) -> None:
    artifacts = add_artifacts(
        tmp_path,
        "k1.chunk.zlib-libs",
        "k2.chunk.zlib-libs",
        "k3.chunk.bash-bins",
        "k4.chunk.bash-bins",
    )
    (artifacts / "k9.system.x-rootfs").write_text("system")
    assert run_script("clean-artifact-cache", "--all", env=fake_morph).status == 0
    assert {path.name.partition(".")[0] for path in artifacts.iterdir()} == {"k2", "k4", "k9"}


def test_clean_artifact_cache_keeps_sources_whole(
    tmp_path: Path, fake_morph: dict[str, str]
) -> None:
    artifacts = add_artifacts(
        tmp_path, "k1.chunk.zlib-libs", "k2.chunk.zlib-libs", "k1.chunk.zlib-doc"
    )
    assert run_script("clean-artifact-cache", "--all", env=fake_morph).status == 0
    assert (artifacts / "k1.chunk.zlib-libs").exists()
    assert (artifacts / "k1.meta").exists()


def test_clean_artifact_cache_without_argument() -> None:
    result = run_script("clean-artifact-cache")
    assert result.status == 1
    assert result.err.startswith("usage: clean-artifact-cache CHUNK")


def test_clean_artifact_cache_asks_the_real_morph(tmp_path: Path) -> None:
    home = tmp_path / "home"
    artifacts = home / ".cache" / "morph" / "artifacts"
    artifacts.mkdir(parents=True)
    env = {"HOME": str(home), "TMPDIR": str(tmp_path)}
    environment = {key: value for key, value in os.environ.items() if key != "MORPH"}
    done = subprocess.run(
        [sys.executable, SCRIPTS / "clean-artifact-cache", "--all"],
        env={**environment, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert str(artifacts) in done.stdout


def test_test_morph(tmp_path: Path) -> None:
    (tmp_path / "morph.conf").write_text(f"[config]\ncachedir = {tmp_path}/cache\n")
    env = {"DATADIR": str(tmp_path), "TMPDIR": str(tmp_path / "tmp")}
    result = run_script("test-morph", "--dump-config", env=env)
    assert result.status == 0
    assert "cachedir = TMP/cache\n" in result.out
    assert "cachedir-min-space = 0\n" in result.out
    assert run_script("test-morph", "no-such-command", env=env).status == 1
    assert run_script("test-morph", "x", env={"DATADIR": ""}).status == 1
