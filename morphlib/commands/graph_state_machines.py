"""Write Graphviz files of what controllers make of jobs, workers and requests.

They are called job.gv, worker.gv and request.gv, and go into the working directory. Nothing is
looked up for that: small networks are played through the policy of controllers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from morphlib.commands.session import Session
from morphlib.errors import MorphError, Reason


def run(session: Session, arguments: Sequence[str]) -> None:
    if arguments:
        raise MorphError("usage: morph graph-state-machines", reason=Reason.USAGE)
    from distbuild.drawing import draw_all

    for name, document in draw_all().items():
        path = Path(f"{name}.gv")
        try:
            path.write_text(document)
        except OSError as error:
            raise MorphError(
                f"can't write {path}: {error.strerror}", reason=Reason.NOT_FOUND
            ) from error
        session.status(f"Wrote {path}: dot -Tsvg {path} draws it")
