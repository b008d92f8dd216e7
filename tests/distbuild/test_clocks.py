"""Clocks that are set while a daemon runs: what is due does not depend on them."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import time
wall, jump = time.time, 0.0
time.time = lambda: wall() + jump
from distbuild.connection import reactor

def set_clock():
    global jump
    jump = JUMP

def end(what):
    print(what)
    reactor.stop()

reactor.callLater(0.1, set_clock)
reactor.callLater(0.6, end, "in time")
reactor.callLater(3600, end, "much too early")
reactor.run()
"""


@pytest.mark.parametrize("jump", [7200, -7200], ids=["forward", "back"])
def test_a_clock_that_is_set_changes_nothing_that_is_due(jump: int) -> None:
    program = PROGRAM.replace("JUMP", str(jump))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("in time\n", "")
