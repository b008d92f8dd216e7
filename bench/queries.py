"""Times the commands that only read definitions, as whole processes."""

from __future__ import annotations

import shutil
from pathlib import Path

from bench.measure import time_program
from bench.projects import Layout
from bench.repositories import commit_all
from bench.results import Query
from bench.tools import Morph
from bench.trove import serve

_RUNS = 7


def time_queries(morph: Morph, definitions: Path, system: str, work: Path) -> tuple[Query, ...]:
    """`morph validate` on a copy of `definitions`, `morph list-artifacts` of one of its systems.

    A first `list-artifacts`, which is not timed, has a made-up trove resolve every ref; the timed
    ones find them in the cache.
    """
    shutil.rmtree(work, ignore_errors=not work.exists())
    layout = Layout(work)
    ignore = shutil.ignore_patterns(".git")
    shutil.copytree(definitions, layout.definitions, symlinks=True, ignore=ignore)
    commit_all(layout.definitions)
    with serve() as url:
        layout.morph_settings.write_text(
            f"""[config]
trove-host = localhost
trove-id = bench
cachedir = {layout.morph_cache}
tempdir = {layout.morph_tmp}
cache-server = {url}
artifact-cache-server =
tarball-server =
"""
        )
        check = morph.command(layout, "validate")
        resolve = morph.command(layout, "--quiet", "list-artifacts", system)
        return (
            Query(
                "validate",
                f"{_count(layout.definitions)} files",
                _times(morph, layout, check, may_fail=True),
            ),
            Query("list-artifacts", system, _times(morph, layout, resolve)),
        )


def _count(definitions: Path) -> int:
    return sum(1 for _ in definitions.rglob("*.morph"))


def _times(
    morph: Morph, layout: Layout, argv: list[str], *, may_fail: bool = False
) -> tuple[float, ...]:
    """Definitions may be unsound, which `validate` tells by its exit status: that is no failure
    of the benchmark."""
    walls = [
        time_program(
            argv,
            cwd=layout.definitions,
            environment=morph.environment(),
            log=layout.root / f"{argv[-1].rpartition('/')[2]}.log",
            accepted=(0, 1) if may_fail else (0,),
        ).wall
        for _ in range(_RUNS + 1)
    ]
    return tuple(walls[1:])
