"""Cancel a distributed build, whoever asked for it.

ID is what distbuild or distbuild-start printed, and distbuild-list-jobs shows.
"""

from __future__ import annotations

from collections.abc import Sequence

from morphlib.commands.session import Session
from morphlib.errors import MorphError, Reason


def run(session: Session, arguments: Sequence[str]) -> None:
    from distbuild.initiator import new_id
    from distbuild.messages import BuildCancel
    from morphlib.commands.distbuild import make_initiator, tell_answer

    if len(arguments) != 1:
        raise MorphError("usage: morph distbuild-cancel <build-request id>", reason=Reason.USAGE)
    session.status("Sending cancel request for distbuild job.")
    initiator = make_initiator(session)
    tell_answer(session, initiator.ask(BuildCancel(id=new_id(), build=arguments[0])))
