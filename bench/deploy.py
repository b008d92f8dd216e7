#!/usr/bin/env python3
"""Measure what `morph deploy` costs beside the programs that do only the last step of it."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str]) -> int:
    import msgspec

    from bench.deploying import DeployBench, format_deployed
    from bench.owndisk import own_disk
    from bench.tools import Morph, default_directory
    from morphlib.errors import MorphError, Reason

    parser = argparse.ArgumentParser(prog="deploy.py", description=__doc__)
    add = parser.add_argument
    add("--chunks", type=int, default=20, metavar="N", help="chunks of the system (default 20)")
    add("--files", type=int, default=5000, metavar="N", help="files per chunk (default 5000)")
    add("--rounds", type=int, default=5, metavar="N", help="rounds (default 5)")
    add("--size", type=int, default=2048, metavar="MIB", help="of disk images (default 2048)")
    add("--work", type=Path, metavar="DIR", help="default ~/.cache/morph-bench/deploy")
    add(
        "--own-disk",
        type=int,
        metavar="GIB",
        help="work on a new ext4 of that size, mounted on DIR, to count all that is written (root)",
    )
    add("--json", type=Path, metavar="FILE", help="also write all figures to FILE")
    add("--check", action="store_true", help="exit with status 1 if a goal is missed")
    add("--morph", type=Path, default=_CHECKOUT / "morph", metavar="PROGRAM")
    chosen = parser.parse_args(arguments)
    work = (chosen.work or default_directory() / "deploy").resolve()
    try:
        numbers = [chosen.chunks, chosen.files, chosen.rounds, chosen.size, chosen.own_disk]
        if any(number is not None and number < 1 for number in numbers):
            raise MorphError("all numbers have to be above 0", reason=Reason.USAGE)
        work.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            disk = None
            if chosen.own_disk is not None:
                disk = stack.enter_context(own_disk(work, chosen.own_disk << 30))
            deployed = DeployBench(
                work=work,
                chunks=chosen.chunks,
                files=chosen.files,
                rounds=chosen.rounds,
                size=chosen.size,
                morph=Morph(chosen.morph.resolve()),
                say=lambda text: print(text, file=sys.stderr, flush=True),
                disk=disk,
            ).run()
    except MorphError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    print(format_deployed(deployed))
    if chosen.json is not None:
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(deployed)) + b"\n")
    return 1 if chosen.check and not all(each.met for each in deployed.figures) else 0


if __name__ == "__main__":
    python = _CHECKOUT / ".venv" / "bin" / "python"
    if python.exists() and Path(sys.prefix) != python.parent.parent:
        os.execv(python, [str(python), *sys.argv])
    sys.path.insert(0, str(_CHECKOUT))
    sys.exit(main(sys.argv[1:]))
