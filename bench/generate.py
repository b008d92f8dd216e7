#!/usr/bin/env python3
"""Write the graph of a system as builds of trivial chunks, for Morph and for BuildStream."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parent.parent


def main(arguments: list[str]) -> int:
    from bench.graph import read_graph, synthetic_graph
    from bench.projects import write_projects
    from morphlib.errors import MorphError

    parser = _make_parser()
    chosen = parser.parse_args(arguments)
    try:
        if chosen.synthetic is not None:
            if len(chosen.paths) != 1:
                parser.error("with --synthetic give OUTDIR alone")
            graph = synthetic_graph(chosen.synthetic, seed=chosen.seed)
            defaults = None
        else:
            if len(chosen.paths) != 3:
                parser.error("give DEFINITIONS, SYSTEM and OUTDIR, or --synthetic and OUTDIR")
            definitions = Path(chosen.paths[0])
            graph = read_graph(definitions, chosen.paths[1])
            file = definitions / "DEFAULTS"
            defaults = file.read_bytes() if file.is_file() else None
        layout = write_projects(
            graph, Path(chosen.paths[-1]), files=chosen.files, defaults=defaults
        )
    except MorphError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    print(f"{graph.name}: {len(graph.strata)} strata, {graph.chunk_count} chunks")
    print(f"Morph:       cd {layout.definitions} && morph --no-default-configs", end=" ")
    print(f"--config={layout.morph_settings} build {layout.system}")
    print(f"BuildStream: cd {layout.elements} && bst -c {layout.buildstream_settings}", end=" ")
    print("build bench.bst")
    return 0


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="generate.py",
        description=__doc__,
        usage="generate.py [options] DEFINITIONS SYSTEM OUTDIR\n"
        "       generate.py [options] --synthetic CHUNKS OUTDIR",
    )
    parser.add_argument("paths", nargs="+", metavar="PATH")
    parser.add_argument(
        "--files",
        type=_positive,
        default=20,
        metavar="N",
        help="files in each source tree (default 20)",
    )
    parser.add_argument(
        "--synthetic", type=_positive, metavar="CHUNKS", help="make up a graph of this many chunks"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="equal seeds make up equal graphs (default 1)"
    )
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
