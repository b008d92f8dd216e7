"""What is told of builds that fail."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from morphlib.events import SourceFailed
from tests.build.e2e.trove import Trove

LOG = b"### BUILD-COMMANDS ###\n+ echo 'caf\xe9'\ncaf\xe9\n+ exit 7\n"
SHOWN = LOG.decode("utf-8", "backslashreplace")
SCRIPTS = {"lib-misc": {"00-a": ["echo fine"], "01-b": ["echo not fine", "exit 6"]}}


def make_failing(trove: Trove) -> None:
    trove.chunk("bad", build=[b"echo caf\xe9; exit 7"])


def kept_area(trove: Trove, name: str) -> Path:
    (area,) = [path for path in trove.temp.glob(f"staging/{name}-*") if path.is_dir()]
    return area


def kept_key(trove: Trove) -> str:
    """The key of the one source that has a log and no artifacts."""
    keys = {path.name.partition(".")[0] for path in trove.artifacts.glob("*.build-log")}
    (key,) = keys - {path.name.partition(".")[0] for path in trove.artifacts.glob("*.chunk.*")}
    return key


def test_a_command_that_fails(trove: Trove) -> None:
    make_failing(trove)
    ran = trove.fail(f"--log={trove.root}/log")
    area = kept_area(trove, "bad")
    assert re.search(r"\[bad\] Error when running build-commands \(exit code 7\)\n", ran.out)
    assert f"\n{SHOWN}\n" in ran.out
    assert f"ERROR: In staging area {area}: build failed (exit_code=7)" in ran.err
    log = Path(f"{area}.log")
    assert log.read_bytes() == LOG
    stored = trove.artifacts / f"{kept_key(trove)}.build-log"
    assert stored.read_bytes() == LOG
    for text in (f"Build log: {log}\n", f"Staging area kept: {area}\n", f" shell {area}\n"):
        assert text in ran.out
    assert f"The log is {stored}. To look around in the sandbox: " in ran.err
    assert f" shell {area}\n" in ran.err
    lines = (trove.root / "log").read_text().splitlines()
    assert [line for line in lines if line.endswith(" INFO BUILD OUTPUT: caf\\xe9")]


def test_as_events(trove: Trove) -> None:
    make_failing(trove)
    (failed,) = [e for e in trove.fail("--progress=json").events if isinstance(e, SourceFailed)]
    area = kept_area(trove, "bad")
    assert (failed.name, failed.step, failed.exit_code) == ("bad", "build", 7)
    assert (failed.staging, failed.log) == (str(area), f"{area}.log")
    assert failed.tail == tuple(SHOWN.splitlines())
    assert failed.shell.endswith(f" shell {area}")


@pytest.mark.parametrize("live", [False, True])
def test_the_log_is_shown_once(trove: Trove, live: bool) -> None:
    make_failing(trove)
    ran = trove.fail(*(["--build-log-on-stdout"] if live else []))
    assert ran.out.count("### BUILD-COMMANDS ###\n") == 1
    assert ran.out.count("\ncaf\\xe9\n") == 1


@pytest.mark.parametrize("live", [False, True])
def test_system_integration_that_fails(trove: Trove, live: bool) -> None:
    trove.chunk("lib", install=['touch "$DESTDIR/a"'], system_integration=SCRIPTS)
    options = [f"--log={trove.root}/log", *(["--build-log-on-stdout"] if live else [])]
    ran = trove.fail(*options)
    area = kept_area(trove, "sys")
    message = f"ERROR: In staging area {area}: system integration commands failed (exit_code="
    assert message in ran.err
    assert "Error when running system integration commands" in ran.out
    assert ran.out.count("\nnot fine\n") == 1
    assert f" shell {area}\n" in ran.out
    assert Path(f"{area}.log").read_text().endswith("+ echo not fine\nnot fine\n+ exit 6\n")
    lines = (trove.root / "log").read_text().splitlines()
    assert [line for line in lines if line.endswith(" INFO INTEGRATION OUTPUT: not fine")]
    assert not list(trove.artifacts.glob("*.system.*"))


def test_a_chunk_without_a_shell(trove: Trove) -> None:
    """What a chunk's dependencies lack is the chunk's failure: all else goes on."""
    trove.stratum("bare", build_depends=())
    trove.chunk("lonely", build=["true"], stratum="bare")
    trove.chunk("other", install=["mkdir -p $DESTDIR/usr"])
    ran = trove.fail("--on-error=continue")
    assert "build failed (exit_code=127)" in ran.err
    assert "morph: can't start sh: No such file or directory" in ran.out
    assert list(trove.artifacts.glob("*.chunk.other-*"))
    assert not list(trove.artifacts.glob("*.chunk.lonely-*"))
