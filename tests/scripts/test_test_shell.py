"""The tiny shell of test systems: what it accepts, line by line."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.scripts.running import SCRIPTS


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler (package gcc) and libc's headers (libc6-dev)")
    program = tmp_path_factory.mktemp("shell") / "sh"
    flags = ["-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-static"]
    subprocess.run([compiler, *flags, "-o", program, SCRIPTS / "test-shell.c"], check=True)
    return program


def run(
    shell: Path, text: bytes | str, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [shell, "-x", "-e", "-c", text],
        cwd=cwd,
        env=env or {},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-c", "echo x"],
        ["-e", "-x", "-c", "echo x"],
        ["-x", "-e", "-c"],
        ["-x", "-e", "-c", "echo x", "more"],
        ["one", "two"],
    ],
)
def test_other_invocations_print_usage(shell: Path, tmp_path: Path, arguments: list[str]) -> None:
    done = subprocess.run([shell, *arguments], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(b"usage: ")
    assert done.stdout == b""


def test_echo_prints_bytes_unchanged(shell: Path, tmp_path: Path) -> None:
    text = bytes(set(range(1, 256)) - {ord("\n")})
    done = run(shell, b"echo " + text + b"\necho \necho  two", tmp_path)
    assert (done.returncode, done.stdout) == (0, text + b"\n\n two\n")


def test_a_script_is_run_with_zero_bytes_in_it(shell: Path, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_bytes(b"#!/bin/sh\nset -xeu\necho a\0b\ncreate file made\nc\0d")
    done = subprocess.run([shell, script], cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"a\0b\n")
    assert (tmp_path / "made").read_bytes() == b"c\0d"


def test_a_script_that_is_not_there_fails(shell: Path, tmp_path: Path) -> None:
    done = subprocess.run([shell, "nothing"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 1
    assert b"nothing" in done.stderr


@pytest.mark.parametrize("text", ["", "# comment", "#", "set -xeu", "echo x\n"])
def test_success_at_the_end_of_input(shell: Path, tmp_path: Path, text: str) -> None:
    assert run(shell, text, tmp_path).returncode == 0


@pytest.mark.parametrize("line", ["", " ", "true", "falsey", "setx", "echo", "copy files ", "ls"])
def test_other_lines_are_not_commands(shell: Path, tmp_path: Path, line: str) -> None:
    done = run(shell, f"echo before\n{line}\necho after", tmp_path)
    assert done.returncode == 127
    assert done.stdout == b"before\n"
    assert done.stderr == f"Unrecognized command: {line}\n".encode()


@pytest.mark.parametrize("line", ["false", "false because"])
def test_false_stops(shell: Path, tmp_path: Path, line: str) -> None:
    done = run(shell, f"{line}\necho after", tmp_path)
    assert (done.returncode, done.stdout) == (1, b"")


def test_printvar(shell: Path, tmp_path: Path) -> None:
    done = run(shell, "printvar HERE\nprintvar GONE", tmp_path, {"HERE": "a b"})
    assert (done.returncode, done.stdout) == (0, b"a b\n(null)\n")


def test_create_file_takes_the_rest(shell: Path, tmp_path: Path) -> None:
    (tmp_path / "new").write_text("something much longer than before")
    assert run(shell, "create file new\necho x\n\nfalse\n", tmp_path).returncode == 0
    assert (tmp_path / "new").read_text() == "echo x\n\nfalse\n"
    assert run(shell, "create file empty", tmp_path).returncode == 0
    assert (tmp_path / "empty").read_text() == ""


def test_create_file_where_there_is_no_directory(shell: Path, tmp_path: Path) -> None:
    done = run(shell, "create file none/new\nx", tmp_path)
    assert done.returncode == 1
    assert b"none/new" in done.stderr


def test_file_exists_ends_at_once(shell: Path, tmp_path: Path) -> None:
    (tmp_path / "here").touch()
    found = run(shell, "file exists here\nfalse", tmp_path)
    missing = run(shell, "file exists gone\necho x", tmp_path)
    assert (found.returncode, missing.returncode) == (0, 1)
    assert b"here" in found.stderr
    assert b"gone" in missing.stderr
    assert missing.stdout == b""


def test_printing_to_a_full_device_fails(shell: Path, tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device, not a file
        done = subprocess.run(
            [shell, "-x", "-e", "-c", "echo x\necho y"],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 1


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "sub" / "deeper").mkdir(parents=True)
    (tree / "sub" / ".git").mkdir()
    (tree / "sub" / ".gitkeep").touch()
    (tree / ".git").mkdir()
    (tree / ".git" / "HEAD").touch()
    (tree / ".gitignore").touch()
    (tree / "big").write_bytes(os.urandom(1_000_003))
    (tree / "program").write_text("x")
    (tree / "program").chmod(0o4751)
    (tree / "secret").write_text("y")
    (tree / "secret").chmod(0o400)
    (tree / "link").symlink_to("nowhere")
    (tree / "dirlink").symlink_to("sub")
    (tree / "sub" / "long").symlink_to("a/" * 300)
    (tree / "sub" / "deeper").chmod(0o1777)
    (tree / "sealed").mkdir()
    (tree / "sealed" / "file").touch()
    (tree / "sealed").chmod(0o555)
    return tree


def describe(top: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in top.rglob("*"):
        mode = path.lstat().st_mode
        if path.is_symlink():
            what: object = path.readlink()
        else:
            what = path.read_bytes() if path.is_file() else "directory"
        found[str(path.relative_to(top))] = (stat.filemode(mode), what)
    return found


def test_copy_files(shell: Path, tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    done = run(shell, "copy files\necho done", tree, {"DESTDIR": str(target)})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"done\n", b"")
    wanted = {
        name: what
        for name, what in describe(tree).items()
        if not name.startswith((".git", ".gitignore"))
    }
    assert describe(target) == wanted
    assert "sub/.git" in wanted


def test_copy_files_replaces_files(shell: Path, tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (target / "big").symlink_to(precious)
    (target / "link").write_text("old")
    assert run(shell, "copy files", tree, {"DESTDIR": str(target)}).returncode == 0
    assert precious.read_text() == "precious"
    assert not (target / "big").is_symlink()
    assert (target / "link").is_symlink()


def test_copy_files_does_not_copy_the_target_into_itself(shell: Path, tree: Path) -> None:
    target = tree / "sub" / "target"
    assert run(shell, "copy files", tree, {"DESTDIR": str(target)}).returncode == 0
    assert (target / "sub" / "deeper").is_dir()
    assert not (target / "sub" / "target").exists()


def test_copy_files_without_destdir(shell: Path, tree: Path) -> None:
    done = run(shell, "copy files", tree)
    assert done.returncode == 1
    assert b"DESTDIR" in done.stderr


def test_copy_files_refuses_what_it_can_not_copy(shell: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    os.mkfifo(tree / "pipe")
    done = run(shell, "copy files", tree, {"DESTDIR": str(tmp_path / "target")})
    assert done.returncode == 1
    assert b"pipe" in done.stderr


def test_copy_files_of_a_deep_tree(shell: Path, tmp_path: Path) -> None:
    depth = 200
    tree, target = tmp_path / "tree", tmp_path / "target"
    (tree / "/".join(["d"] * depth)).mkdir(parents=True)
    assert run(shell, "copy files", tree, {"DESTDIR": str(target)}).returncode == 0
    assert (target / "/".join(["d"] * depth)).is_dir()
