"""Disks that are full: a clear error, nothing lost, and it works when there is room."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.build.e2e.trove import Trove

CHECKOUT = Path(__file__).parents[3]


@pytest.mark.parametrize("where", ["cache", "temp"])
def test_full_disk(any_trove: Trove, where: str) -> None:
    trove = any_trove
    trove.chunk("small", install=["mkdir $DESTDIR/srv; echo s > $DESTDIR/srv/s"])
    fill = "dd if=/dev/zero of=$DESTDIR/large bs=1048576 count=30"
    trove.chunk("large", needs=["small"], install=[fill])
    trove.write()
    namespaces = ["--mount"] if os.getuid() == 0 else ["--user", "--map-root-user", "--mount"]
    environment = ["env", f"PYTHONPATH={CHECKOUT}"]
    program = [sys.executable, "-m", "tests.build.e2e.small_disk", str(trove.root), where]
    wrap = ["unshare", *namespaces, *environment, *program]
    ran = trove.run("build", "systems/sys.morph", wrap=wrap)
    assert ran.status == 0, ran.err
    assert ran.out == "all is well\n"
