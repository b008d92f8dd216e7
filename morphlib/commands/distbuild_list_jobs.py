"""List the distributed builds that a controller has at work, with their IDs."""

from __future__ import annotations

from collections.abc import Sequence

from morphlib.commands.session import Session
from morphlib.errors import MorphError, Reason


def run(session: Session, arguments: Sequence[str]) -> None:
    from distbuild.initiator import new_id
    from distbuild.messages import ListRequests
    from morphlib.commands.distbuild import make_initiator, tell_answer

    if arguments:
        raise MorphError("distbuild-list-jobs takes zero arguments", reason=Reason.USAGE)
    session.status("Requesting currently running distbuilds.")
    initiator = make_initiator(session)
    tell_answer(session, initiator.ask(ListRequests(id=new_id())))
