"""Results on their way from workers into the shared cache, each in a thread that waits for it."""

from __future__ import annotations

import logging
from typing import Any, Protocol

from distbuild.addresses import Address
from distbuild.builds import Build, Builds
from distbuild.connection import reactor
from distbuild.crashing import passing
from distbuild.graphs import GraphSource
from distbuild.policy.events import Event, JobStored, TransferFailed
from distbuild.policy.state import Job
from distbuild.sharedcache import SharedCache, TransferError
from distbuild.waiting import Waiters

_log = logging.getLogger("morph.distbuild")

#: Seconds before a transfer is tried again.
_PAUSE = 2.0
#: Results that are brought over at a time; a slow worker may hold one up for long.
_MOST_AT_ONCE = 64


class Owner(Protocol):
    """What transfers need of the controller."""

    builds: Builds

    def wanting(self, key: str) -> list[Build]: ...

    def decide(self, event: Event) -> None: ...


class Transfers:
    """`port` is that of the cache server on every worker."""

    def __init__(self, shared: SharedCache, port: int, owner: Owner) -> None:
        self._shared = shared
        self._port = port
        self._owner = owner
        self._pullers = Waiters("transfers", _MOST_AT_ONCE)

    def begin(self, job: Job, host: str) -> None:
        """Bring over what a job made, from the worker at the IP address `host`."""
        builds = self._owner.wanting(job.key)
        if not builds or not host:
            why = f"worker {job.worker} was lost" if builds else "nobody wants it"
            self._owner.decide(TransferFailed(job.id, why, hopeless=not builds))
            return
        source = builds[0].by_key[job.key]
        for build in builds:
            text = f"Transferring {source.name} to shared artifact cache"
            build.progress(text, source.name, "transfer")
        pause = _PAUSE if job.transfers > 1 else 0.0
        reactor.callLater(pause, self._pull, job, Address(host, self._port), source)

    def _pull(self, job: Job, origin: Address, source: GraphSource) -> None:
        def done(result: object) -> None:
            passing("transfers", "stored")
            for build in self._owner.builds.running():
                build.stored.add(source.key)
            self._owner.decide(JobStored(job.id))

        def failed(failure: Any) -> None:
            error = failure.value
            hopeless = isinstance(error, TransferError) and error.hopeless
            _log.warning("%s: transfer from %s failed: %s", source.name, job.worker, error)
            self._owner.decide(TransferFailed(job.id, str(error), hopeless))

        self._pullers.call(self._shared.pull, origin, source).addCallbacks(done, failed)
