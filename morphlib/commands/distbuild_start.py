"""Let other machines build a system, or components of it, and leave once that has begun.

As distbuild, but the build goes on when the command has ended, which it does when the controller
has computed what to build. The ID that it prints is for distbuild-status, distbuild-attach and
distbuild-cancel. A temporary branch with local changes stays, since workers read it later.
--priority says how urgent the build is, as for distbuild.
"""

from __future__ import annotations

from collections.abc import Sequence

from morphlib.commands.session import Session
from morphlib.errors import MorphError, Reason


def run(session: Session, arguments: Sequence[str]) -> None:
    from morphlib.commands.distbuild import describe_request, make_initiator, make_request

    if not arguments:
        raise MorphError("usage: morph distbuild-start SYSTEM [COMPONENT...]", reason=Reason.USAGE)
    session.status("Starting distributed build")
    with make_request(session, arguments, detach=True) as request:
        make_initiator(session, describe_request(request)).build(request, None)
