"""The units for systemd that the documentation shows: systemd understands all of them, and the
command lines in them are ones that the programs take."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"^    \[Unit\]\n(?:(?:    .*)?\n)+", re.MULTILINE)
_COMMAND = re.compile(r"^ExecStart=/usr/local/bin/(\S+)", re.MULTILINE)


def units() -> list[str]:
    found = []
    for name in ("distbuild.md", "cache-server.md"):
        for block in _BLOCK.findall((ROOT / "docs" / name).read_text()):
            found.append(re.sub("^    ", "", block, flags=re.MULTILINE).strip() + "\n")
    return found


def test_there_are_units() -> None:
    assert [_COMMAND.findall(unit) for unit in units()] == [
        ["morph"],
        ["distbuild-helper"],
        ["morph-cache-server"],
    ]


@pytest.mark.parametrize("unit", units(), ids=lambda unit: _COMMAND.findall(unit)[0])
def test_systemd_understands_a_unit(unit: str, tmp_path: Path) -> None:
    (program,) = _COMMAND.findall(unit)
    path = tmp_path / "tried.service"
    # Where the programs are installed is up to who does it, and so is their user.
    here = unit.replace(f"/usr/local/bin/{program}", str(ROOT / program))
    needed = {"morph-worker.service"} if "Requires=morph-worker.service" in here else set()
    for name in needed:
        (tmp_path / name).write_text("[Service]\nExecStart=/bin/true\n")
    path.write_text(here)
    tried = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{tmp_path}:/lib/systemd/system"},
    )
    assert (tried.returncode, tried.stdout, tried.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", units(), ids=lambda unit: _COMMAND.findall(unit)[0])
def test_a_program_takes_the_options_of_its_unit(unit: str, tmp_path: Path) -> None:
    (line,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    program, *words = line.split()
    configuration = tmp_path / "a.conf"
    configuration.write_text("[config]\n")
    words = [str(configuration) if word.startswith("/etc/") else word for word in words]
    ran = subprocess.run(
        [str(ROOT / Path(program).name), "--no-default-configs", *words, "--dump-config"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("[config]\n")
