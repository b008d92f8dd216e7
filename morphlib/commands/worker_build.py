"""Build one step of a distributed build: what workers run for a controller, for one step alone.

The step is read from standard input, as one line of JSON. NAME is there to be seen in lists of
processes. The exit status is 75 where this machine has no room, 76 where something else is wrong
with it, and 1 where the step itself fails.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing

from morphlib.commands.session import Session
from morphlib.errors import MorphError, Reason


def run(session: Session, arguments: Sequence[str]) -> int | None:
    if len(arguments) > 1:
        raise MorphError("usage: morph worker-build [NAME]", reason=Reason.USAGE)
    from distbuild.framing import MAX_LINE, BadLine, LineDecoder
    from distbuild.workermessages import Step
    from morphlib.commands.stepbuilding import StepBuilder

    try:
        step = LineDecoder[Step](Step).decode(sys.stdin.buffer.readline(MAX_LINE + 1).rstrip())
    except BadLine as error:
        raise MorphError(f"standard input has no step: {error}", reason=Reason.USAGE) from error
    with closing(StepBuilder(session)) as builder:
        return builder.build(step).status
