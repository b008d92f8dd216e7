"""Names that are no text, where something is told of them."""

from __future__ import annotations

import os

from tests.build.e2e.trove import Trove

_NAME = "$(printf 'caf\\351')"


def test_files_of_several_chunks_may_have_names_that_are_no_text(trove: Trove) -> None:
    for chunk in ("one", "two"):
        trove.chunk(chunk, install=[f'echo {chunk} > "$DESTDIR/{_NAME}"'])
    ran = trove.build()
    assert "is installed by several chunks: one, two" in ran.out + ran.err


def test_directories_whose_names_are_no_text(trove: Trove) -> None:
    trove.chunk("hello", install=["echo 1 > $DESTDIR/hello"])
    trove.chunk("broken", needs=["hello"], install=["false"])
    trove.write()
    options = [
        b"--%s=%s/caf\xe9/%s" % (what, os.fsencode(trove.root), what)
        for what in (b"cachedir", b"tempdir")
    ]
    process = trove.start(*options, "build", "systems/sys.morph", "hello")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, (out + err).decode()
    process = trove.start(*options, "build", "systems/sys.morph")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "install failed (exit_code=1) while building broken" in err.decode()
    assert b"internal error" not in err
