"""Show how far a distributed build is, also when it is over.

ID is what distbuild or distbuild-start printed.
"""

from __future__ import annotations

from collections.abc import Sequence

from morphlib.commands.session import Session
from morphlib.errors import MorphError, Reason


def run(session: Session, arguments: Sequence[str]) -> None:
    from distbuild.initiator import new_id
    from distbuild.messages import BuildStatus
    from morphlib.commands.distbuild import make_initiator, tell_answer

    if len(arguments) != 1:
        raise MorphError("usage: morph distbuild-status <build-request id>", reason=Reason.USAGE)
    session.status("Requesting status of recent build requests.")
    initiator = make_initiator(session)
    tell_answer(session, initiator.ask(BuildStatus(id=new_id(), build=arguments[0])))
