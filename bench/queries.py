"""Times the commands that only read definitions, as whole processes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from bench.measure import time_program
from bench.projects import Layout
from bench.repositories import commit_all
from bench.results import Query
from bench.tools import Morph
from bench.trove import serve
from morphlib.process import Completed, ProcessError, run

_RUNS = 7

#: FILE:LINE, as errors in definitions begin.
_PLACE = re.compile(rb"^(ERROR: )?[^:\n]+:\d+:", re.MULTILINE)


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
        subject = f"{_count(layout.definitions)} files"
        return (
            Query("validate", subject, _times(morph, layout, check, _expect_verdict)),
            Query("list-artifacts", system, _times(morph, layout, resolve, _expect_success)),
        )


def _count(definitions: Path) -> int:
    return sum(1 for _ in definitions.rglob("*.morph"))


def _expect_success(done: Completed) -> bool:
    return done.status == 0


def _expect_verdict(done: Completed) -> bool:
    """Whether `validate` did its work. Definitions may be unsound, which its exit status tells;
    then it names the places."""
    return done.status == 0 or (done.status == 1 and _PLACE.search(done.stderr) is not None)


def _times(
    morph: Morph, layout: Layout, argv: list[str], is_good: Callable[[Completed], bool]
) -> tuple[float, ...]:
    """Wall seconds of several runs, after one that is only judged. Raises MorphError if that one
    is not good, or if another ends with another status."""
    environment = morph.environment()
    first = run(argv, cwd=layout.definitions, env=environment, check=False)
    if not is_good(first):
        raise ProcessError(argv, first.status, first.stderr or first.stdout)
    log = layout.root / "queries.log"
    return tuple(
        time_program(
            argv,
            cwd=layout.definitions,
            environment=environment,
            log=log,
            accepted=(first.status,),
        ).wall
        for _ in range(_RUNS)
    )
