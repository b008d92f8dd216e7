"""Logs, shown commands, internal errors and interruptions, on the real program where it can be."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from morphlib.credentials import hide_credentials, hide_passwords
from morphlib.events import Status
from morphlib.reporting import CommandTeller
from tests.commandline import MORPH, run_morph


def test_commands_are_shown_with_what_changes_in_their_environment() -> None:
    told: list[Status] = []
    teller = CommandTeller(told.append)  # type: ignore[arg-type]  # it tells nothing else
    base = {"A": "1", "MY_PASSWORD": "hunter2"}
    teller(["true"], base)
    del told[:]
    teller(["git", "fetch", "a b"], {"A": "2", "MY_PASSWORD": "swordfish"})
    teller([b"ls", Path("/x")], {"A": "2"})
    assert [status.text for status in told] == [
        "# export A=2",
        "# export MY_PASSWORD='(hidden)'",
        "# git fetch 'a b'",
        "# unset MY_PASSWORD",
        "# ls /x",
    ]
    assert {status.level for status in told} == {"chatty"}


def test_passwords_are_hidden() -> None:
    assert hide_passwords({"X": "1", "xPassWordx": "2"}) == {"X": "1", "xPassWordx": "(hidden)"}
    assert hide_credentials("https://me:p@ss@host/x") == "https://me:(hidden)@host/x"
    assert hide_credentials("get https://me:secret@host/x ssh://git@host") == (
        "get https://me:(hidden)@host/x ssh://git@host"
    )


def test_debug_shows_commands(tmp_path: Path) -> None:
    ran = run_morph("doctor", "--trove-host=", "--debug", home=tmp_path)
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d # git --version$", ran.out, re.MULTILINE)
    assert "# git" not in run_morph("doctor", "--trove-host=", home=tmp_path).out


def test_the_log_begins_with_what_shaped_the_run(tmp_path: Path) -> None:
    ran = run_morph(
        "doctor",
        "--trove-host=",
        "--log=morph.log",
        "--cache-server=http://me:pa55phrase@127.0.0.1:1/",
        home=tmp_path,
        env={"DB_PASSWORD": "hunter2"},
    )
    assert ran.err == ""
    log = (tmp_path / "morph.log").read_text()
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO Morph [0-9a-f]{40}", log)
    assert "DEBUG command line: " in log
    assert "DEBUG environment: DB_PASSWORD=(hidden)" in log
    assert "DEBUG setting: log = morph.log" in log
    assert "DEBUG # git --version" in log
    assert "hunter2" not in log
    assert "pa55phrase" not in log
    assert stat.S_IMODE((tmp_path / "morph.log").stat().st_mode) == 0o600


def test_the_output_of_a_failed_build_is_logged(tmp_path: Path) -> None:
    output = tmp_path / "build-log"
    output.write_bytes(b"one\ntw\xff\n")
    code = f"""
from morphlib.events import SourceFailed, silence
from morphlib.logs import add_log
from morphlib.settings import Settings, default_values
settings = Settings(**default_values() | {{"log": "l"}})
event = SourceFailed(
    name="zlib", key="k", step="build", exit_code=1, log={str(output)!r}, tail=(), staging="",
    shell="",
)
add_log(silence, settings, ["morph"])(event)
"""
    environment = {**os.environ, "PYTHONPATH": str(MORPH.parent)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    log = (tmp_path / "l").read_text()
    assert "ERROR [zlib] Error when running build-commands (exit code 1)\n" in log
    assert "INFO BUILD OUTPUT: one\n" in log
    assert "INFO BUILD OUTPUT: tw\\xff\n" in log


def test_log_level_and_mode(tmp_path: Path) -> None:
    run_morph("doctor", "--log=l", "--log-level=info", "--log-mode=0664", home=tmp_path)
    log = (tmp_path / "l").read_text()
    assert " INFO " in log
    assert " DEBUG " not in log
    assert stat.S_IMODE((tmp_path / "l").stat().st_mode) == 0o664


def test_logs_rotate(tmp_path: Path) -> None:
    run_morph("doctor", "--log=l", "--log-max=1k", "--log-keep=2", home=tmp_path)
    assert sorted(path.name for path in tmp_path.glob("l*")) == ["l", "l.1", "l.2"]
    assert stat.S_IMODE((tmp_path / "l").stat().st_mode) == 0o600


def test_a_log_on_a_full_disk_is_told_once(tmp_path: Path) -> None:
    ran = run_morph("print-architecture", "--log=/dev/full", home=tmp_path)
    assert ran.status == 0
    assert ran.err == "WARNING: can't write log /dev/full: No space left on device\n"


@pytest.mark.parametrize("value", ["", "none"])
def test_no_log(tmp_path: Path, value: str) -> None:
    run_morph("print-architecture", f"--log={value}", home=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--log=no/such"], "can't write log no/such: No such file or directory"),
        (["--log=l", "--log-mode=rw"], "log-mode must be permissions in octal"),
    ],
)
def test_bad_logs_are_told(tmp_path: Path, options: list[str], message: str) -> None:
    ran = run_morph("print-architecture", *options, home=tmp_path)
    assert ran.status == 1
    assert f"ERROR: {message}" in ran.err


def run_broken(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program with a command that has a bug."""
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "import morphlib.commands.print_architecture as module\n"
        "def run(session, arguments): raise ZeroDivisionError('a bug')\n"
        "module.run = run\n"
        "from morphlib.__main__ import main\n"
        "sys.argv[0] = 'morph'\n"
        "main()"
    )
    command = [sys.executable, "-c", code, str(MORPH.parent), "--no-default-configs"]
    return subprocess.run(
        [*command, "print-architecture", *arguments],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_internal_error_is_short_and_keeps_its_trace(tmp_path: Path) -> None:
    done = run_broken(tmp_path)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0] == "ERROR: internal error, please report: ZeroDivisionError: a bug"
    found = re.fullmatch(r"  The traceback is in (.*)\.", lines[1])
    assert found
    assert "Traceback" in Path(found[1]).read_text()
    assert len(lines) == 2


def test_an_internal_error_goes_to_the_log(tmp_path: Path) -> None:
    done = run_broken(tmp_path, "--log=l")
    assert f"The traceback is in {tmp_path / 'l'}." in done.stderr
    assert "ZeroDivisionError: a bug" in (tmp_path / "l").read_text()


def test_debug_shows_the_trace(tmp_path: Path) -> None:
    assert "Traceback (most recent call last)" in run_broken(tmp_path, "--debug").stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interruption_exits_255(tmp_path: Path, number: signal.Signals) -> None:
    program = tmp_path / "git"
    # This git interrupts who runs it.
    program.write_text("#!/bin/sh\nkill -$1 $PPID\n".replace("$1", str(number.value)) + "sleep 5\n")
    program.chmod(0o755)
    ran = run_morph("doctor", home=tmp_path, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert ran.status == 255
    assert ran.err == "ERROR: interrupted\n"


def test_json_data_and_lines_for_people_are_kept_apart(tmp_path: Path) -> None:
    import json

    cache = ["--cachedir=c", "--tempdir=t"]
    ran = run_morph("gc", "--json", *cache, home=tmp_path)
    assert json.loads(ran.out)["sufficient"] in (True, False)
    assert re.search(r"^\d{4}-\d\d-\d\d ", ran.err)


def test_progress_as_json(tmp_path: Path) -> None:
    import json

    ran = run_morph("gc", "--progress=json", "--cachedir=c", "--tempdir=t", home=tmp_path)
    events = [json.loads(line) for line in ran.out.splitlines()]
    assert {event["event"] for event in events} == {"status"}
    assert all(event["time"] > 1e9 for event in events)


def test_directories_are_made(tmp_path: Path) -> None:
    ran = run_morph("gc", "--quiet", "--cachedir=c", "--tempdir=t/u", home=tmp_path)
    assert ran.status == 0
    assert (tmp_path / "c").is_dir()
    for name in ("chunks", "staging", "deployments"):
        assert (tmp_path / "t" / "u" / name).is_dir()


def test_tempdir_counts_even_when_tmpdir_is_unusable(tmp_path: Path) -> None:
    env = {"TMPDIR": "/proc/nowhere"}
    ran = run_morph("gc", "--cachedir=c", "--tempdir=t", home=tmp_path, env=env)
    assert (ran.status, ran.err) == (0, "")
    ran = run_morph("gc", "--cachedir=c", home=tmp_path, env=env)
    assert ran.status == 1
    assert "ERROR: can't make directory /proc/nowhere/morph_tmp" in ran.err
    assert "--tempdir=DIR" in ran.err


def test_a_work_directory_that_others_made_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    target = tmp_path / "elsewhere"
    target.mkdir()
    (tmp_path / "t").symlink_to(target)
    ran = run_morph("gc", "--cachedir=c", "--tempdir=t", home=tmp_path)
    assert ran.status == 1
    assert "belongs to somebody else" in ran.err


def test_profiles(tmp_path: Path) -> None:
    ran = run_morph("print-architecture", home=tmp_path, env={"MORPH_PROFILE": "profile"})
    assert ran.status == 0
    assert b"print_architecture" in (tmp_path / "profile").read_bytes()


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams_do_no_harm(tmp_path: Path, closed: str) -> None:
    command = f"{MORPH} --no-default-configs gc --cachedir=c --tempdir=t --log=l {closed}"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0
    assert "ERROR" not in (tmp_path / "l").read_text()


def test_what_costs_time_is_not_loaded_in_vain(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "from morphlib.app import run_program\n"
        "assert run_program(['morph', '--no-default-configs', 'print-architecture']) == 0\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(MORPH.parent)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "morphlib.commandline" in loaded
    heavy = {"yaml", "rich", "pygit2", "logging", "configparser", "http", "tempfile", "sqlite3"}
    assert not heavy & loaded


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "x.write").touch()
    (tmp_path / "x.write.help").write_text("help: x")
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); sys.modules['yaml'] = None\n"
        "from morphlib.__main__ import main\n"
        "main()"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            code,
            str(MORPH.parent),
            "--no-default-configs",
            "help",
            "x.write",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("ERROR: Morph needs the Python library yaml\n")


def test_a_clock_that_was_never_set_is_told(tmp_path: Path) -> None:
    code = (
        "import sys, time; sys.path.insert(0, sys.argv.pop(1)); time.time = lambda: 86400.0\n"
        "from morphlib.app import run_program\n"
        "sys.exit(run_program(['morph', '--no-default-configs', 'print-architecture']))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(MORPH.parent)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("ERROR: the system time says 1970, which can't be right\n")
