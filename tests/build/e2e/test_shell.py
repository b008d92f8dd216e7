"""morph shell: stepping into the places where chunks are built."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from morphlib.cache.locks import acquire_directory
from tests.build.e2e.conftest import MakeTrove
from tests.build.e2e.trove import MARKER, Ran, Trove, finish, mounts_below, relatives
from tests.commandline import MORPH

SYSTEM = "systems/sys.morph"


def kept_areas(trove: Trove) -> list[Path]:
    return [path for path in (trove.temp / "staging").iterdir() if path.is_dir()]


def in_shell(trove: Trove, chunk: str, script: str) -> Ran:
    return trove.run("shell", "--quiet", SYSTEM, chunk, "--", "sh", "-c", script)


def as_user(trove: Trove, *program: str) -> list[str]:
    if os.getuid() == 0 and trove.user != 0:
        who = str(trove.user)
        return ["setpriv", f"--reuid={who}", f"--regid={who}", "--clear-groups", *program]
    return list(program)


def environment(trove: Trove) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(trove.root / "home"), MARKER: str(trove.root)}


def run_program(trove: Trove, *program: str, cwd: Path = Path("/")) -> Ran:
    """Run what somebody pastes into a shell."""
    process = subprocess.Popen(
        as_user(trove, *program),
        cwd=cwd,
        env=environment(trove),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    return finish(process)


def make_failing(trove: Trove) -> None:
    copy = 'mkdir -p "$DESTDIR/usr/share" && echo of-lib > "$DESTDIR/usr/share/lib"'
    trove.chunk("lib", install=[copy])
    trove.chunk("bad", needs=["lib"], build=["echo made > made; exit 7"])


def test_a_chunk_is_laid_out_afresh(any_trove: Trove) -> None:
    any_trove.chunk("lib", install=['mkdir -p "$DESTDIR/a" && echo of-lib > "$DESTDIR/a/lib"'])
    any_trove.chunk("hello", needs=["lib"], build=["touch never-seen"])
    any_trove.build()
    script = "pwd; ls; cat /a/lib; id -u; env; touch here; touch /there || exit 5"
    ran = in_shell(any_trove, "hello", script)
    assert ran.status == 5
    lines = ran.out.splitlines()
    assert lines[:5] == ["/hello.build", "d", "hello.c", "of-lib", "0"]
    assert {"DESTDIR=/hello.inst", "MAKEFLAGS=-j4", "MORPH_ARCH=x86_64", "HOME=/tmp"} <= set(lines)
    assert not any(line.startswith(("MORPH_TEST", "GIT_")) for line in lines)
    assert "Read-only file system" in ran.err
    assert kept_areas(any_trove) == []
    assert mounts_below(any_trove.root) == []


def test_a_bootstrap_chunk_has_the_tools_of_the_host(trove: Trove) -> None:
    trove.build()
    ran = in_shell(trove, "host-tools", "pwd; git --version")
    assert ran.status == 0, ran.err
    assert ran.out.startswith("/staging/host-tools.build\ngit version")


def test_what_a_failed_build_left(any_trove: Trove) -> None:
    make_failing(any_trove)
    any_trove.fail()
    ran = in_shell(any_trove, "bad", "cat made /usr/share/lib; echo more > more; echo $MAKEFLAGS")
    assert (ran.status, ran.out.splitlines()) == (0, ["made", "of-lib", "-j4"])
    (area,) = kept_areas(any_trove)
    assert sorted(path.name for path in area.iterdir()) == [
        "bad.build",
        "bad.inst",
        "sandbox",
        "tmp",
    ]
    again = any_trove.run("shell", str(area), "--", "cat", "more")
    assert (again.status, again.out) == (0, "more\n"), again.err


def test_what_was_unpacked_for_a_failed_build_is_unpacked_again(trove: Trove) -> None:
    make_failing(trove)
    trove.fail()
    for layer in (trove.temp / "chunks").iterdir():
        layer.rename(trove.root / layer.name)
    (area,) = kept_areas(trove)
    ran = trove.run("shell", str(area), "--", "true")
    assert ran.status == 1
    assert "was removed or altered" in ran.err
    assert in_shell(trove, "bad", "cat made /usr/share/lib").out == "made\nof-lib\n"


def test_the_printed_command_and_the_script_work_anywhere(any_trove: Trove) -> None:
    make_failing(any_trove)
    failed = any_trove.fail()
    (area,) = kept_areas(any_trove)
    (command,) = set(re.findall(r"(/\S+/morph --.* shell \S+)$", failed.out, re.MULTILINE))
    script = Path(f"{area}.sh")
    assert f"exec {command} " in script.read_text()
    by_script = run_program(any_trove, str(script), "sh", "-c", "cat made; exit 9")
    assert (by_script.status, by_script.out) == (9, "made\n"), by_script.err
    by_command = run_program(any_trove, *command.split(), "cat", "made")
    assert (by_command.status, by_command.out) == (0, "made\n"), by_command.err


def test_a_failed_system_as_its_scripts_left_it(any_trove: Trove) -> None:
    scripts = {"lib-misc": {"00-first": ["echo changed > /left"], "01-then": ["exit 6"]}}
    any_trove.chunk("lib", install=['touch "$DESTDIR/a"'], system_integration=scripts)
    failed = any_trove.fail()
    assert "system integration commands failed (exit_code=6)" in failed.err
    (area,) = kept_areas(any_trove)
    for _ in range(2):
        script = "cat /left; ls /a; echo again >> /left"
        ran = any_trove.run("shell", str(area), "--", "/bin/sh", "-c", script)
        assert (ran.status, ran.err) == (0, "")
    assert ran.out == "changed\nagain\n/a\n"
    assert mounts_below(any_trove.root) == []


def test_dependencies_have_to_be_built(trove: Trove) -> None:
    trove.chunk("lib", install=['touch "$DESTDIR/a"'])
    trove.chunk("hello", needs=["lib"])
    trove.write()
    ran = in_shell(trove, "hello", "true")
    assert ran.status == 1
    assert "hello is built with tools, lib, which are not built yet" in ran.err
    (command,) = re.findall(r"Run: (.*)", ran.err)
    assert command.endswith(f" build {SYSTEM} lib")  # which needs tools
    built = run_program(trove, *command.split(), cwd=trove.definitions)
    assert built.status == 0, built.err
    assert "hello" not in built.built
    assert in_shell(trove, "hello", "ls /a").status == 0


def test_mistakes_are_told(trove: Trove) -> None:
    trove.chunk("hello")
    trove.build()
    for arguments, message in (
        ([SYSTEM, "helo"], "no chunk helo in systems/sys.morph\n  Did you mean hello?"),
        ([SYSTEM, "main"], "main is a stratum and no chunk"),
        ([str(trove.definitions)], "is no staging area that a failed build left"),
        ([SYSTEM, "hello", "nosuch"], "There is no nosuch in the staging area of hello"),
        ([SYSTEM, "host-tools", "./x"], "There is no ./x in the staging area of host-tools"),
    ):
        ran = trove.run("shell", *arguments)
        assert (ran.status, message in ran.err) == (1, True), ran.err
    for arguments in ([], [SYSTEM], ["/gone/area"]):
        assert trove.run("shell", *arguments).status == 2


def test_a_chunk_without_a_shell(trove: Trove) -> None:
    trove.strata["bare"] = {"name": "bare", "kind": "stratum", "chunks": [], "build-depends": []}
    trove.chunk("alone", "bare")
    trove.build("tools")
    ran = trove.run("shell", SYSTEM, "alone")
    assert ran.status == 1
    assert "There is no /bin/sh in the staging area of alone" in ran.err


def test_an_area_that_somebody_is_in(trove: Trove) -> None:
    make_failing(trove)
    trove.fail()
    (area,) = kept_areas(trove)
    with acquire_directory(area) or pytest.fail("nobody should be in it"):
        ran = trove.run("shell", str(area), "--", "true")
    assert ran.status == 1
    assert f"{area} is locked" in ran.err
    # Nor does gc take it from who is in it.
    process = trove.start("shell", str(area), "--", "sh", "-c", "echo in; sleep 60")
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"in\n"
        assert trove.run("gc").status == 0
        assert area.exists()
    finally:
        process.terminate()
    assert finish(process).status == 255
    wait_until_gone(trove)
    assert trove.run("gc").status == 0
    assert not area.exists()


def test_an_area_of_somebody_else(make_trove: MakeTrove) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a staging area to somebody else")
    trove = make_trove()
    make_failing(trove)
    trove.fail()
    (area,) = kept_areas(trove)
    os.chown(area, 12345, 12345)
    ran = trove.run("shell", str(area), "--", "true")
    assert ran.status == 1
    assert "belongs to another user" in ran.err


def wait_until_gone(trove: Trove) -> None:
    deadline = time.monotonic() + 10
    while relatives(trove):
        assert time.monotonic() < deadline, relatives(trove)
        time.sleep(0.02)


class Terminal:
    """A person at a terminal who runs morph shell."""

    def __init__(self, trove: Trove, *arguments: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                options = ["--no-default-configs", f"--config={trove.root}/morph.conf"]
                command = as_user(trove, str(MORPH), *options, *arguments)
                os.chdir(trove.definitions)
                os.execvpe(command[0], command, environment(trove))
            finally:
                os._exit(99)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def expect(self, pattern: str, timeout: float = 20) -> re.Match[str]:
        """Wait until something is printed; what precedes is forgotten."""
        deadline = time.monotonic() + timeout
        while not (found := re.search(pattern, self.seen)):
            left = deadline - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.seen!r}"
            if select.select([self.fd], [], [], left)[0]:
                try:
                    self.seen += os.read(self.fd, 4096).decode("utf-8", "replace")
                except OSError:
                    raise AssertionError(f"ended without {pattern!r}: {self.seen!r}") from None
        self.seen = self.seen[found.end() :]
        return found

    def wait(self, timeout: float = 10) -> int:
        deadline = time.monotonic() + timeout
        while (ended := os.waitpid(self.pid, os.WNOHANG))[0] == 0:
            assert time.monotonic() < deadline, f"it does not end: {self.seen!r}"
            if select.select([self.fd], [], [], 0.02)[0]:
                with contextlib.suppress(OSError):
                    self.seen += os.read(self.fd, 4096).decode("utf-8", "replace")
        return os.waitstatus_to_exitcode(ended[1])

    def close(self) -> None:
        os.close(self.fd)


@pytest.fixture
def person(any_trove: Trove) -> Iterator[Terminal]:
    any_trove.chunk("hello")
    any_trove.build()
    terminal = Terminal(any_trove, "shell", "--quiet", SYSTEM, "hello")
    try:
        yield terminal
    finally:
        terminal.close()
    wait_until_gone(any_trove)
    assert kept_areas(any_trove) == []


def test_an_interactive_shell(person: Terminal) -> None:
    person.expect("# ")
    person.type("pwd; tty >/dev/null; echo $((20 + 1))\n")
    person.expect("/hello.build\r\n21\r\n")
    person.type("exit 4\n")
    assert person.wait() == 4


def test_ctrl_c_and_job_control(person: Terminal) -> None:
    person.expect("# ")
    person.type("sleep 100; echo status=$?\n")
    time.sleep(0.5)
    person.type("\x03")
    person.expect("# ")
    person.type("sleep 100\n")
    time.sleep(0.5)
    person.type("\x1a")
    person.expect("Stopped")
    person.type("kill %1; fg; echo all $((1 + 1)) well\n")
    person.expect("all 2 well\r\n")
    person.type("exit\n")
    assert person.wait() == 0


def test_hanging_up(person: Terminal) -> None:
    person.expect("# ")
    os.kill(person.pid, signal.SIGHUP)
    assert person.wait() == 255
