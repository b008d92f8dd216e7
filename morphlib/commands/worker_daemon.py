"""Run a worker of distributed builds.

It waits for a controller, which connects to it, and builds what that asks for: one chunk for each
of --builders at a time. A distbuild-helper has to run beside it, and morph-cache-server with the
artifacts in the cache of this machine. Without --distbuild-certificate or --distbuild-secret-file
it listens to programs of this machine alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from morphlib.architecture import host_architecture, targets_of
from morphlib.commands.session import Session
from morphlib.errors import MorphError, Reason


def run(session: Session, arguments: Sequence[str]) -> None:
    if arguments:
        raise MorphError("usage: morph worker-daemon", reason=Reason.USAGE)
    from distbuild import crashing
    from distbuild.addresses import listen, write_port_file
    from distbuild.daemon import Speakers, accept_at
    from distbuild.daemon import run as run_reactor
    from distbuild.handshake import read_party
    from distbuild.messages import Role
    from distbuild.worker import Abilities, Worker, call_with
    from morphlib.commands.programs import morph_call

    settings = session.settings
    crashing.arm(settings.crash_condition)
    party = read_party(Role.WORKER, settings)
    listening = listen(settings.worker_daemon_address, settings.worker_daemon_port)
    port = listening.getsockname()[1]
    # Several workers may share a cache.
    call = morph_call(session, f"worker-{port}")
    abilities = Abilities(
        architectures=targets_of(host_architecture()),
        capacity=settings.builders,
        call=call_with(call, settings.builders, settings.max_jobs),
    )
    worker = Worker(abilities)
    session.status(f"Listening at port {port}")
    write_port_file(settings.worker_daemon_port_file, listening)
    speakers: Speakers = {Role.CONTROLLER: worker.speaker, Role.HELPER: worker.helpers.speaker}
    accept_at(listening, party, speakers)
    run_reactor()
