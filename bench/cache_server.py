#!/usr/bin/env python3
"""Measure the cache server: downloads beside nginx, its memory, and many refs in one request."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.serving import Download

_CHECKOUT = Path(__file__).resolve().parent.parent
_PROGRAM = _CHECKOUT / "morph-cache-server"

_RATE_GOAL = 0.5  # times that of nginx
_MEMORY_GOAL = 64 << 20  # bytes that 64 clients may add
_REFS_GOAL = 0.5  # seconds
_CLIENTS = 64
_REPOSITORIES, _REFS = 431, 1000


def main(arguments: list[str]) -> int:
    from bench.tools import default_directory
    from morphlib.errors import MorphError

    chosen = _make_parser().parse_args(arguments)
    work = (chosen.work or default_directory() / "cache-server").resolve()
    try:
        met = [*_measure_downloads(work, chosen.size << 20, chosen.rounds)]
        met.append(_measure_refs(work, chosen.rounds))
    except MorphError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    return 1 if chosen.check and not all(met) else 0


def _measure_downloads(work: Path, size: int, rounds: int) -> list[bool]:
    """Both servers in turn, so that whatever else the machine does hits both."""
    from bench.serving import download, make_artifact, run_cache_server, run_nginx

    name = make_artifact(work / "artifacts", size)
    found: dict[tuple[str, int], list[Download]] = {}
    with ExitStack() as stack:
        servers = [stack.enter_context(run_cache_server(_PROGRAM, work, name))]
        if shutil.which("nginx"):
            servers.append(stack.enter_context(run_nginx(work, name)))
        else:
            print("nginx is not installed: the cache server is measured alone")
        for server in servers:
            download(server, 1, size)  # so that the file is in memory
        for _ in range(rounds):
            for clients, part in ((1, size), (_CLIENTS, size // 16)):
                for server in servers:
                    figures = download(server, clients, part)
                    found.setdefault((server.name, clients), []).append(figures)
    met = [_show_rates(found, clients) for clients in (1, _CLIENTS)]
    return [
        *met,
        _show_memory([f for (name, _), fs in found.items() if name == "morph" for f in fs]),
    ]


def _show_rates(found: Mapping[tuple[str, int], list[Download]], clients: int) -> bool:
    rates = {
        server: statistics.median(each.rate for each in figures) / 1e6
        for (server, number), figures in found.items()
        if number == clients
    }
    shown = ", ".join(f"{server} {rate:.0f} MB/s" for server, rate in rates.items())
    print(f"download by {clients} client(s): {shown}", end="")
    if "nginx" not in rates:
        print()
        return True
    ratio = rates["morph"] / rates["nginx"]
    print(f": {ratio:.2f} of nginx {_verdict(ratio >= _RATE_GOAL, f'at least {_RATE_GOAL}')}")
    return ratio >= _RATE_GOAL


def _show_memory(figures: list[Download]) -> bool:
    idle = min(each.memory_before for each in figures)
    added = max(each.memory_peak for each in figures) - idle
    print(
        f"memory: {idle / 1e6:.0f} MB idle, {added / 1e6:.0f} MB more at the peak of all downloads",
        _verdict(added <= _MEMORY_GOAL, f"at most {_MEMORY_GOAL / 1e6:.0f} MB more"),
    )
    return added <= _MEMORY_GOAL


def _measure_refs(work: Path, rounds: int) -> bool:
    from bench.refbatch import ask, make_repositories
    from bench.serving import run_cache_server

    wanted = make_repositories(work / "gits", _REPOSITORIES, _REFS)
    with run_cache_server(_PROGRAM, work, "none") as server:
        first, *others = ask(server.url, wanted, 1 + max(3, rounds))
    warm = statistics.median(others)
    print(
        f"{len(wanted)} refs of {_REPOSITORIES} repositories: {first:.3f} s at first,"
        f" {warm:.3f} s warm",
        _verdict(warm < _REFS_GOAL, f"below {_REFS_GOAL} s"),
    )
    return warm < _REFS_GOAL


def _verdict(met: bool, goal: str) -> str:
    return f"(goal: {goal}) {'met' if met else 'MISSED'}"


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cache_server.py", description=__doc__)
    add = parser.add_argument
    add("--size", type=int, default=2048, metavar="MiB", help="of the artifact (default 2048)")
    add("--rounds", type=int, default=3, metavar="N", help="rounds (default 3)")
    add("--work", type=Path, metavar="DIR", help="directory for everything that is made")
    add("--check", action="store_true", help="exit with status 1 if a goal is missed")
    return parser


if __name__ == "__main__":
    python = _CHECKOUT / ".venv" / "bin" / "python"
    if python.exists() and Path(sys.prefix) != python.parent.parent:
        os.execv(python, [str(python), *sys.argv])
    sys.path.insert(0, str(_CHECKOUT))
    sys.exit(main(sys.argv[1:]))
