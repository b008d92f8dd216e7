"""Completion scripts, in the shells that they are for."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from morphlib.commands import COMMANDS
from morphlib.completion import completion_script
from tests.commandline import run_morph

needs_fish = pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
needs_zsh = pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")


def complete_in_bash(cwd: Path, *words: str) -> list[str]:
    """What bash offers for the last word, split as bash splits it."""
    quoted = " ".join(f"'{word}'" for word in ("morph", *words))
    script = (
        f"{completion_script('bash')}\n"
        f"COMP_WORDS=({quoted}) COMP_CWORD={len(words)}\n_morph\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands(tmp_path: Path) -> None:
    assert complete_in_bash(tmp_path, "print-a") == ["print-architecture"]
    assert set(complete_in_bash(tmp_path, "")) == {
        c.name for c in COMMANDS.values() if not c.hidden
    }
    assert complete_in_bash(tmp_path, "--max-jobs", "3", "--quiet", "print") == [
        "print-architecture"
    ]
    assert complete_in_bash(tmp_path, "--max-jobs", "=", "3", "print") == ["print-architecture"]


def test_bash_completes_options_anywhere(tmp_path: Path) -> None:
    assert complete_in_bash(tmp_path, "--on") == ["--on-error"]
    assert complete_in_bash(tmp_path, "build", "x", "--no-no-d") == ["--no-no-distcc"]


def test_bash_completes_choices(tmp_path: Path) -> None:
    assert complete_in_bash(tmp_path, "--on-error", "") == ["stop", "continue"]
    assert complete_in_bash(tmp_path, "--on-error", "=") == ["stop", "continue"]
    assert complete_in_bash(tmp_path, "--on-error", "=", "c") == ["continue"]


def test_bash_completes_files_and_directories(tmp_path: Path) -> None:
    (tmp_path / "systems").mkdir()
    (tmp_path / "system.morph").touch()
    assert sorted(complete_in_bash(tmp_path, "build", "sys")) == ["system.morph", "systems"]
    assert complete_in_bash(tmp_path, "--cachedir", "=", "sys") == ["systems"]
    assert complete_in_bash(tmp_path, "--max-jobs", "s") == []


def test_bash_completes_topics_and_shells(tmp_path: Path) -> None:
    assert complete_in_bash(tmp_path, "help", "print") == ["print-architecture"]
    assert complete_in_bash(tmp_path, "completion", "f") == ["fish"]


@needs_fish
def test_fish_completes(tmp_path: Path) -> None:
    script = tmp_path / "morph.fish"
    script.write_text(completion_script("fish"))

    def complete(line: str) -> list[str]:
        done = subprocess.run(
            ["fish", "--no-config", "-c", f"source {script}; complete -C '{line}'"],
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return [line.partition("\t")[0] for line in done.stdout.splitlines()]

    assert complete("morph print-a") == ["print-architecture"]
    assert complete("morph --on-e") == ["--on-error"]
    assert sorted(complete("morph --on-error ")) == ["continue", "stop"]
    assert complete("morph help print-a") == ["print-architecture"]


@needs_zsh
def test_zsh_takes_the_script(tmp_path: Path) -> None:
    (tmp_path / "_morph").write_text(completion_script("zsh"))
    script = (
        "fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -D; print -r -- $_comps[morph]"
    )
    done = subprocess.run(
        ["zsh", "-f", "-c", script + "; autoload +X _morph"],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "TERM": "dumb"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "_morph\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_printed(tmp_path: Path, shell: str) -> None:
    ran = run_morph("completion", shell, home=tmp_path)
    assert (ran.status, ran.out, ran.err) == (0, completion_script(shell), "")


@pytest.mark.parametrize("arguments", [[], ["csh"], ["bash", "zsh"]])
def test_other_shells_are_refused(tmp_path: Path, arguments: list[str]) -> None:
    ran = run_morph("completion", *arguments, home=tmp_path)
    assert (ran.status, ran.out) == (2, "")
    assert "usage: morph completion bash|zsh|fish" in ran.err
