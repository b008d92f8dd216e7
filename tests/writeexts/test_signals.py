from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys
from pathlib import Path
from morphlib import process
from morphlib.writeexts.aside import new_file
from morphlib.writeexts.extension import WriteExtension

class Slow(WriteExtension):
    def process_args(self, args):
        with new_file(Path(args[0])) as part:
            part.write_text("half")
            print("ready", flush=True)
            process.run(["sleep", "600"])

Slow().run()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_cleans_up_and_ends_by_the_signal(tmp_path: Path, number: int) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, tmp_path / "image"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    assert os.listdir(tmp_path)
    child.send_signal(number)
    errors = child.communicate(timeout=60)[1]
    assert child.returncode == -number
    assert errors == b""
    assert not os.listdir(tmp_path)


def test_a_signal_that_was_ignored_stays_so(tmp_path: Path) -> None:
    program = f"""
import os, signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from morphlib.writeexts.signals import ended_by_signals
with ended_by_signals():
    os.kill(os.getpid(), signal.SIGHUP)
    open({str(tmp_path / "x")!r}, "w")
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert (tmp_path / "x").exists()
