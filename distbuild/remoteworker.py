"""A controller's side of a worker: connecting to it for ever, and speaking with it."""

from __future__ import annotations

import logging
from typing import Any, Protocol

from twisted.application.internet import ClientService
from twisted.internet.endpoints import HostnameEndpoint

from distbuild.addresses import Address
from distbuild.connection import Connection, reactor
from distbuild.daemon import make_factory
from distbuild.handshake import Party
from distbuild.messages import Hello, Role
from distbuild.workermessages import (
    CancelStep,
    FromWorker,
    JobBuilt,
    JobFailed,
    JobOutput,
    JobPhase,
    Offer,
    RunStep,
    Step,
)

_log = logging.getLogger("morph.distbuild")

#: Seconds between attempts to reach a worker.
_RETRY_SECONDS = 1.0


class Employer(Protocol):
    """What workers need of the controller."""

    def offered(self, worker: RemoteWorker, offer: Offer) -> None: ...

    def output(self, worker: RemoteWorker, message: JobOutput) -> None: ...

    def is_at(self, worker: RemoteWorker, message: JobPhase) -> None: ...

    def ended(self, worker: RemoteWorker, message: JobBuilt | JobFailed) -> None: ...

    def lost(self, worker: RemoteWorker, reason: str) -> None: ...


class RemoteWorker:
    """One worker. `name` is its address as the controller's settings have it."""

    union = FromWorker

    def __init__(self, employer: Employer, address: Address, party: Party) -> None:
        self._employer = employer
        self.name = str(address)
        self.connection: Connection | None = None
        self.has_offered = False
        #: of the run of it that offered last
        self.run_name: str | None = None
        endpoint: Any = HostnameEndpoint(
            reactor, address.host, address.port, timeout=party.heartbeat.connect
        )
        factory = make_factory(party, {Role.WORKER: self._speaker}, address.host)
        self._service: Any = ClientService(
            endpoint, factory, retryPolicy=lambda attempts: _RETRY_SECONDS
        )

    def start(self) -> None:
        self._service.startService()

    def give_up(self) -> None:
        """Connect to it no more."""
        self.has_offered = False
        self._service.stopService()

    def _speaker(self, hello: Hello) -> RemoteWorker:
        return self

    def greeted(self, connection: Connection) -> None:
        _log.info("worker %s is connected", self.name)
        self.connection = connection
        self.has_offered = False

    def lost(self, reason: str) -> None:
        _log.warning("worker %s is lost: %s", self.name, reason)
        self.connection = None
        if self.has_offered:
            self.has_offered = False
            self._employer.lost(self, reason)

    def heard(self, message: FromWorker) -> None:
        match message:
            case Offer():
                self.has_offered = True
                self.run_name = message.worker
                self._employer.offered(self, message)
            case JobOutput():
                self._employer.output(self, message)
            case JobPhase():
                self._employer.is_at(self, message)
            case JobBuilt() | JobFailed():
                self._employer.ended(self, message)
            case _:
                pass

    def run_step(self, job: str, step: Step) -> None:
        if self.connection is not None:
            self.connection.send(RunStep(job=job, step=step))

    def cancel(self, job: str) -> None:
        if self.connection is not None:
            self.connection.send(CancelStep(job=job))

    @property
    def host(self) -> str:
        """The IP address of the machine, as the last connection has it."""
        return "" if self.connection is None else self.connection.peer
