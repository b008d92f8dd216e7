"""What is kept of the output of jobs."""

from __future__ import annotations

from distbuild.outputs import KeptOutput


def test_the_newest_is_kept_and_known_by_its_place() -> None:
    output = KeptOutput(most=10)
    for piece in (b"aaaa", b"bbbb"):
        output.add(piece, b"")
    assert [(piece.offset, piece.out) for piece in output.since(0)] == [(0, b"aaaa"), (4, b"bbbb")]
    output.add(b"c", b"dd")
    assert [(piece.offset, piece.out, piece.err) for piece in output.since(0)] == [
        (4, b"bbbb", b""),
        (8, b"c", b"dd"),
    ]
    assert [piece.offset for piece in output.since(8)] == [8]
    assert list(output.since(output.end)) == []
    assert output.end == 11
    # One piece is kept, however long it is.
    output.add(b"e" * 100, b"")
    assert [piece.offset for piece in output.since(0)] == [11]
