"""Build steps of distributed builds, one after another: what workers keep running.

Steps are read from standard input, as lines of JSON, and what is printed and comes of them is
written to standard output in the same way. It ends where its input does.
"""

from __future__ import annotations

from collections.abc import Sequence

from morphlib.commands.session import Session
from morphlib.errors import MorphError, Reason


def run(session: Session, arguments: Sequence[str]) -> None:
    if arguments:
        raise MorphError("usage: morph worker-builder", reason=Reason.USAGE)
    # All that a build needs is loaded here, once, and not in each of the processes that build.
    import morphlib.build.area
    import morphlib.build.local  # noqa: F401
    from distbuild.builder import serve
    from morphlib.commands.stepbuilding import StepBuilder

    serve(lambda: StepBuilder(session))
