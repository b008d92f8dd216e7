"""Builds on a disk that is too small, then makes it larger and builds again.

A program of its own, since mounting takes a mount namespace of its own:
unshare ... python -m tests.build.e2e.small_disk DIRECTORY NAME COMMAND...
where DIRECTORY/NAME is to be the small disk.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.build.e2e.trove import digests


def _mount(*options: str) -> None:
    subprocess.run(["mount", *options], check=True)


def _run(command: list[str]) -> tuple[int, str, str]:
    done = subprocess.run(command, capture_output=True, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def main() -> None:
    root, name, command = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    disk = root / name
    disk.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "-o", "size=24M,mode=1777", "none", str(disk))
    status, out, err = _run(command)
    assert status == 1, out + err
    assert "No space left on device" in out + err, out + err
    assert "Traceback" not in err, err
    assert "internal error" not in err, err
    assert "large" in err, err
    artifacts = root / "cache/artifacts"
    kept = digests(artifacts)
    assert any(".chunk.small-" in each for each in kept), kept
    assert not any(".chunk.large-" in each for each in kept), kept
    assert not [each for each in artifacts.glob("tmp*") if each.suffix != ".lock"]
    _mount("-o", "remount,size=500M", str(disk))
    status, out, err = _run(command)
    assert status == 0, out + err
    assert "[small] Building" not in out, out
    assert digests(artifacts).items() >= kept.items()
    print("all is well")


if __name__ == "__main__":
    main()
