"""Run the controller of distributed builds.

It takes builds from initiators (morph distbuild), and has the workers of the setting `worker` build
their chunks, strata and system. What is built goes into the shared cache, which is served twice: at
`artifact-cache-server` for reading, and at `writeable-cache-server`. A distbuild-helper has to run
beside the controller. What is being built is remembered in CACHEDIR/distbuild, and taken up again
when the controller is restarted. With --controller-status-address, a page there shows what goes on.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from morphlib.commands.session import Session
from morphlib.errors import MorphError, Reason

if TYPE_CHECKING:
    import socket

    from distbuild.controller import Controller
    from distbuild.status.secure import Certificate
    from morphlib.settings import Settings


def run(session: Session, arguments: Sequence[str]) -> None:
    if arguments:
        raise MorphError("usage: morph controller-daemon", reason=Reason.USAGE)
    from distbuild import crashing
    from distbuild.addresses import listen, parse_address, write_port_file
    from distbuild.controller import Controller, Means
    from distbuild.daemon import accept_at
    from distbuild.daemon import run as run_reactor
    from distbuild.handshake import read_party
    from distbuild.journal import Journal
    from distbuild.messages import Role
    from distbuild.remoteworker import RemoteWorker
    from distbuild.sharedcache import open_shared_cache
    from morphlib.cache.records import Records
    from morphlib.commands.programs import morph_call

    settings = session.settings
    crashing.arm(settings.crash_condition)
    if not settings.worker:
        raise MorphError(
            "Distbuild controller has no workers configured. Refusing to start.",
            reason=Reason.CONFIG,
            hint="Name them in the setting worker, each as HOST or HOST:PORT.",
        )
    addresses = dict.fromkeys(parse_address(text, 3434) for text in settings.worker)
    shared = open_shared_cache(
        settings.artifact_cache_server or "",
        settings.writeable_cache_server,
        settings.writeable_cache_server_token_file,
        settings.trusted_keys,
        certificate=settings.server_certificate,
        authorities=settings.server_authorities,
    )
    party = read_party(Role.CONTROLLER, settings)
    # First of what is written: another controller may be using all of it.
    journal = Journal(settings.cachedir / "distbuild" / "journal", session.status)
    call = morph_call(session, "controller")
    # Where calculate-build-graph looks for them.
    records = Records(settings.cachedir / "records.sqlite", session.listener)
    means = Means(
        shared,
        call,
        settings.worker_cache_server_port,
        records,
        session.status,
        grace=party.heartbeat.grace,
    )
    controller = Controller(means, journal, secrets.token_hex(4))

    status = open_status(settings)
    helpers = listen(settings.controller_helper_address, settings.controller_helper_port)
    write_port_file(settings.controller_helper_port_file, helpers)
    initiators = listen(settings.controller_initiator_address, settings.controller_initiator_port)
    session.status(
        f"Listening at port {initiators.getsockname()[1]}, for helpers at port"
        f" {helpers.getsockname()[1]}"
    )
    write_port_file(settings.controller_initiator_port_file, initiators)
    accept_at(helpers, party, {Role.HELPER: controller.helpers.speaker})
    accept_at(initiators, party, {Role.INITIATOR: controller.initiator_speaker})
    if status is not None:
        status.serve(session, controller)
    controller.restore()
    for address in addresses:
        controller.add_worker(RemoteWorker(controller, address, party))
    run_reactor()
    journal.close()
    records.close()


@dataclass(frozen=True, slots=True)
class StatusPage:
    """Where the status page is shown, by whose certificate, and to whom."""

    listening: socket.socket
    token: bytes
    certificate: Certificate | None

    def serve(self, session: Session, controller: Controller) -> None:
        from distbuild.addresses import write_port_file
        from distbuild.status.serving import serve_status

        session.status(f"Showing the status page at port {self.listening.getsockname()[1]}")
        write_port_file(session.settings.controller_status_port_file, self.listening)
        serve_status(self.listening, controller.watched, self.token, self.certificate)


def open_status(settings: Settings) -> StatusPage | None:
    """The status page, if there is to be one. Raises MorphError."""
    from distbuild.addresses import listen
    from distbuild.handshake import is_loopback, read_secret
    from distbuild.status.secure import Certificate

    if not settings.controller_status_address:
        return None
    token = read_secret(settings.controller_status_token_file)
    path = settings.controller_status_certificate
    certificate = None if path is None else Certificate(path)
    listening = listen(settings.controller_status_address, settings.controller_status_port)
    if not token and not is_loopback(listening.getsockname()[0]):
        listening.close()
        raise MorphError(
            "other machines could read the status page, and what builds print, at"
            f" {settings.controller_status_address}",
            reason=Reason.CONFIG,
            hint="Set controller-status-token-file, or controller-status-address to localhost.",
        )
    return StatusPage(listening, token, certificate)
