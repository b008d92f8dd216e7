#!/usr/bin/env python3
"""Measure Morph, beside BuildStream where that is installed, on graphs of trivial chunks."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parent.parent
_SMALL = "systems/base-system-x86_64-generic.morph"
_LARGE = "systems/openstack-system-x86_64.morph"


def main(arguments: list[str]) -> int:
    import msgspec

    from bench.compare import Plan, run_plan
    from bench.graph import read_graph, synthetic_graph
    from bench.report import format_report
    from bench.tools import Morph, default_directory, default_prefix, find_buildstream
    from morphlib.errors import MorphError

    chosen = _make_parser().parse_args(arguments)
    definitions: Path | None = chosen.definitions
    try:
        if definitions is None:
            graphs = tuple(synthetic_graph(count) for count in sorted(chosen.synthetic))
        else:
            graphs = tuple(
                read_graph(definitions, system) for system in (chosen.small, chosen.large)
            )
        defaults = definitions / "DEFAULTS" if definitions is not None else None
        plan = Plan(
            graphs=graphs,
            defaults=defaults.read_bytes() if defaults is not None and defaults.is_file() else None,
            definitions=definitions,
            system=chosen.large,
            work=(chosen.work or default_directory() / "work").resolve(),
            rounds=chosen.rounds,
            builders=chosen.builders,
            files=chosen.files,
            morph=Morph(chosen.morph.resolve()),
            buildstream=find_buildstream(chosen.bst or default_prefix()),
        )
        report = run_plan(plan, lambda text: print(text, file=sys.stderr, flush=True))
    except MorphError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    print(format_report(report))
    if chosen.json is not None:
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    return 1 if chosen.check and not all(goal.met for goal in report.goals) else 0


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run.py", description=__doc__)
    parser.add_argument(
        "definitions",
        type=Path,
        nargs="?",
        metavar="DEFINITIONS",
        help="a definitions repository; without one, graphs are made up",
    )
    add = parser.add_argument
    add("--small", default=_SMALL, metavar="SYSTEM", help=f"the small system (default {_SMALL})")
    add("--large", default=_LARGE, metavar="SYSTEM", help=f"the large system (default {_LARGE})")
    add(
        "--synthetic",
        type=int,
        nargs="+",
        default=[117, 431],
        metavar="CHUNKS",
        help="sizes of made-up graphs (default 117 431)",
    )
    add("--rounds", type=_positive, default=3, metavar="N", help="rounds (default 3)")
    add("--builders", type=_positive, default=2, metavar="N", help="builders (default 2)")
    add("--files", type=_positive, default=20, metavar="N", help="files per chunk (default 20)")
    add(
        "--work",
        type=Path,
        metavar="DIR",
        help="directory for everything that is made (default ~/.cache/morph-bench/work)",
    )
    add("--json", type=Path, metavar="FILE", help="also write all figures to FILE")
    add("--check", action="store_true", help="exit with status 1 if a goal is missed")
    add(
        "--morph",
        type=Path,
        default=_CHECKOUT / "morph",
        metavar="PROGRAM",
        help="the program to measure (default: that of this checkout)",
    )
    add("--bst", type=Path, metavar="DIR", help="the virtual environment of BuildStream")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


if __name__ == "__main__":
    python = _CHECKOUT / ".venv" / "bin" / "python"
    if python.exists() and Path(sys.prefix) != python.parent.parent:
        os.execv(python, [str(python), *sys.argv])
    sys.path.insert(0, str(_CHECKOUT))
    sys.exit(main(sys.argv[1:]))
