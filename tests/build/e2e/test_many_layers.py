"""Builds on so many chunks that what is below a chunk gets folded."""

from __future__ import annotations

import json

from tests.build.e2e.trove import Trove, members, read_member

_CHUNKS = 70


def test_everything_below_is_seen_in_order(trove: Trove) -> None:
    """Each chunk adds a file of its own and writes over one that all have: the last one wins."""
    trove.stratum("many", build_depends=("base",))
    for number in range(_CHUNKS):
        name = f"c{number:02}"
        trove.chunk(
            name,
            "many",
            needs=[f"c{number - 1:02}"] if number else [],
            install=[
                f"mkdir -p $DESTDIR/srv; echo {name} > $DESTDIR/srv/{name}; "
                f"echo {name} > $DESTDIR/srv/last"
            ],
        )
    trove.stratum("top", build_depends=("many",))
    trove.chunk(
        "top",
        "top",
        install=[
            "mkdir -p $DESTDIR/seen; ls /srv > $DESTDIR/seen/files; cp /srv/last $DESTDIR/seen"
        ],
    )
    trove.build("--builders=2")
    image = trove.image()
    names = [f"c{number:02}" for number in range(_CHUNKS)]
    assert read_member(image, "seen/files").decode().split() == [*names, "last"]
    assert read_member(image, "seen/last") == read_member(image, "srv/last") == b"c69\n"
    assert {f"srv/{name}" for name in names} <= members(image).keys()
    metadata = json.loads(read_member(image, "baserock/c42-misc.meta"))
    assert metadata["source-name"] == "c42"
    assert list((trove.temp / "chunks").glob("*.folded-*"))
