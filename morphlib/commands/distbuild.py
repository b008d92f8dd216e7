"""Let other machines build a system, or components of it, and follow that.

SYSTEM and COMPONENTs are as for build. The controller at --controller-initiator-address computes
what has to be built, and lets its workers do that. Uncommitted changes are pushed to a temporary
branch of the remote `origin`, which exists until the command ends. What each step prints goes into
a file build-step-NAME.log in --initiator-step-output-dir, or else in a new directory build-NN. The
result stays in the shared cache, from which deploy fetches it. Where workers are too few for all
that was asked for, steps of builds with a higher --priority go first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from morphlib.commands.session import Session
from morphlib.errors import MorphError, Reason

if TYPE_CHECKING:
    from distbuild.initiator import Initiator
    from distbuild.messages import BuildRequest


def run(session: Session, arguments: Sequence[str]) -> None:
    from distbuild.steplogs import StepLogs

    if not arguments:
        raise MorphError("usage: morph distbuild SYSTEM [COMPONENT...]", reason=Reason.USAGE)
    session.status("Starting distributed build")
    with make_request(session, arguments, detach=False) as request:
        initiator = make_initiator(session, describe_request(request))
        initiator.build(request, StepLogs(session.settings.initiator_step_output_dir))


@contextmanager
def make_request(
    session: Session, arguments: Sequence[str], *, detach: bool
) -> Iterator[BuildRequest]:
    """What to ask a controller for; valid inside the `with`, and beyond it if `detach`."""
    from distbuild.initiator import new_id
    from distbuild.messages import BuildRequest
    from morphlib.commands.resolving import Workshop
    from morphlib.sources.buildbranch import pushed_branch

    settings = session.settings
    check_controller(session)
    workshop = Workshop.of(session)
    source, paths = workshop.open_definitions(arguments[:1])
    components = tuple(arguments[1:])

    def request(repo: str, commit: str, name: str) -> BuildRequest:
        return BuildRequest(
            id=new_id(),
            repo=repo,
            ref=commit,
            morphology=paths[0],
            original_ref=name,
            components=components,
            allow_detach=detach,
            priority=settings.priority,
        )

    if source.root is None or settings.local_changes == "ignore":
        yield request(source.repo, source.commit, source.ref)
        return
    session.status("Pushing temporary branch")
    with pushed_branch(Path(source.root), settings.build_ref_prefix or "", keep=detach) as branch:
        if detach:
            session.status(
                f"The temporary branch {branch.ref} stays, for the workers to read. When the build"
                f" is over: git push origin :{branch.ref}"
            )
        yield request(branch.origin, branch.commit, branch.original)


def describe_request(request: BuildRequest) -> str:
    return f"{request.repo} {request.ref} {request.morphology}"


def check_controller(session: Session) -> None:
    if not session.settings.controller_initiator_address:
        raise MorphError(
            "Need address of controller to run a distbuild",
            reason=Reason.CONFIG,
            hint="Set controller-initiator-address.",
        )


def make_initiator(session: Session, what: str = "") -> Initiator:
    """Raises MorphError if no controller is configured."""
    from distbuild.addresses import Address
    from distbuild.handshake import read_party
    from distbuild.initiator import Initiator
    from distbuild.messages import Role

    settings = session.settings
    check_controller(session)
    address = Address(settings.controller_initiator_address, settings.controller_initiator_port)
    party = read_party(Role.INITIATOR, settings)
    return Initiator(address, party, session.listener, what)


def tell_answer(session: Session, answer: object) -> None:
    """Show what a controller answers. Raises MorphError (NOT_FOUND) if it knows no such build."""
    from distbuild.messages import RequestOutput

    assert isinstance(answer, RequestOutput)
    if not answer.found:
        raise MorphError(answer.message, reason=Reason.NOT_FOUND)
    session.status(answer.message)
