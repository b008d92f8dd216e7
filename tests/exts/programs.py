"""Running built-in extensions as the programs that they are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

EXTS = Path(__file__).parents[2] / "morphlib" / "exts"


NOBODY = 65534
#: A home that not even root can make: libraries keep caches there.
HOME = "/proc/none"


def run_extension(
    name: str,
    *args: Path | str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    user: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `NAME.KIND` with an environment of nothing but PATH and `env`; root may say as whom."""
    return subprocess.run(
        [sys.executable, EXTS / name, *args],
        env={"PATH": os.environ["PATH"], "HOME": HOME, **(env or {})},
        cwd=cwd,
        user=user,
        group=user,
        extra_groups=None if user is None else (),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def succeed(
    name: str,
    *args: Path | str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    user: int | None = None,
) -> str:
    """Run an extension that must succeed. Returns its standard output."""
    done = run_extension(name, *args, env=env, cwd=cwd, user=user)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fail(
    name: str,
    *args: Path | str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    user: int | None = None,
) -> str:
    """Run an extension that must fail as expected. Returns its standard error."""
    done = run_extension(name, *args, env=env, cwd=cwd, user=user)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.startswith("ERROR: "), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def run_in_namespace(
    name: str, *args: Path | str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run an extension as an ordinary user does who is root in a user namespace, with one id."""
    is_root = os.geteuid() == 0
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", sys.executable, EXTS / name, *args],
        env={"PATH": os.environ["PATH"], "HOME": HOME, **(env or {})},
        cwd=cwd,
        user=NOBODY if is_root else None,
        group=NOBODY if is_root else None,
        extra_groups=[] if is_root else None,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
