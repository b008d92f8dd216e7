"""Follow a distributed build that was begun before, as distbuild does.

ID is what distbuild or distbuild-start printed. If the build is over, its result is told.
"""

from __future__ import annotations

from collections.abc import Sequence

from morphlib.commands.session import Session
from morphlib.errors import MorphError, Reason


def run(session: Session, arguments: Sequence[str]) -> None:
    from distbuild.steplogs import StepLogs
    from morphlib.commands.distbuild import make_initiator

    if len(arguments) != 1:
        raise MorphError("usage: morph distbuild-attach <build-request id>", reason=Reason.USAGE)
    logs = StepLogs(session.settings.initiator_step_output_dir)
    make_initiator(session).attach(arguments[0], logs)
