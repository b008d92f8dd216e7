"""A controller: takes builds from initiators, and has workers build their steps.

What is built where and when, its policy decides (`distbuild.policy`); this carries that out. All
that waits is done by helpers or by threads.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distbuild.announcing import announce, announce_waiting
from distbuild.builds import Build, Builds
from distbuild.connection import reactor
from distbuild.crashing import passing
from distbuild.durations import Durations
from distbuild.graphing import Graphing
from distbuild.graphs import GraphSource
from distbuild.heartbeat import USUAL
from distbuild.helpers import Helpers
from distbuild.initiators import Initiator
from distbuild.journal import Begun, Journal, Over
from distbuild.messages import BuildCancelled, BuildFailed, BuildRequest, Hello, Message, StepOutput
from distbuild.policy import events as e
from distbuild.policy.decide import decide
from distbuild.policy.state import State
from distbuild.remoteworker import RemoteWorker
from distbuild.replaying import Replays
from distbuild.sharedcache import SharedCache
from distbuild.status.history import History
from distbuild.status.overview import Watched
from distbuild.transfers import Transfers
from distbuild.workermessages import JobBuilt, JobFailed, JobOutput, JobPhase, Offer, Step
from morphlib.cache.records import Records
from morphlib.errors import MorphError

_log = logging.getLogger("morph.distbuild")

#: Seconds that a worker without room is left alone.
_REST_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Means:
    """What a controller works with. `call` begins the command line of calculate-build-graph.

    `grace`: seconds that initiators have to come back, after a restart or when they fell silent.
    """

    shared: SharedCache
    call: tuple[str, ...]
    worker_cache_port: int
    records: Records
    tell: Callable[[str], None]
    grace: float = USUAL.grace


class Controller:
    """`prefix` begins the names of jobs, and differs from that of every earlier run."""

    def __init__(self, means: Means, journal: Journal, prefix: str) -> None:
        self.means = means
        self.builds = Builds()
        self.helpers = Helpers()
        self.history = History()
        self._journal = journal
        self._state = State(prefix, settled=not journal.unfinished)
        self._workers: dict[str, RemoteWorker] = {}
        self._events: deque[e.Event] = deque()
        self._deciding = False
        self._restored: set[str] = set()
        self._phases: dict[str, str] = {}  # by job
        self.failures: dict[str, JobFailed] = {}  # by key, while what follows is done
        self._expectations: dict[str, Any] = {}  # by build, what ends that it is_expected
        self._graphing = Graphing(self.helpers, means.shared, means.call, self)
        self._durations = Durations(means.records)
        self._transfers = Transfers(means.shared, means.worker_cache_port, self)
        self._replays = Replays(self._state, self.history.logs)
        self.watched = Watched(self._state, self.builds, self.history, self._workers)

    @property
    def shared(self) -> SharedCache:
        return self.means.shared

    def add_worker(self, worker: RemoteWorker) -> None:
        self._workers[worker.name] = worker
        worker.start()

    def initiator_speaker(self, hello: Hello) -> Initiator:
        return Initiator(self)

    def restore(self) -> None:
        """Take up the builds that were going on when a controller ended last."""
        self._restored = {entry.build for entry in self._journal.unfinished}
        for entry in self._journal.unfinished:
            build = self.builds.new(entry.request, entry.initiator, entry.build)
            build.began = entry.at or build.began
            self.means.tell(f"Taking up build {build.id} of {build.request.morphology} again")
            self._graphing.start(build, patient=True)
            self._expect(build)

    def _expect_no_longer(self, build: Build) -> None:
        del self._expectations[build.id]
        build.is_expected = False
        if not build.is_over:
            self._less_followed(build)

    # What initiators ask for

    def begin(self, request: BuildRequest, initiator: Initiator) -> None:
        build = self.builds.new(request, initiator.name)
        try:
            self._journal.add(Begun(build.id, request, build.initiator, build.began))
        except MorphError:
            self.builds.forget(build)
            raise
        self.history.touch()
        self.means.tell(f"Build {build.id}: {request.repo} {request.ref} {request.morphology}")
        passing("controller", "begin")
        build.followers.append(initiator)
        self._graphing.start(build, patient=False)

    def follow(self, build: Build, initiator: Initiator) -> None:
        build.followers.append(initiator)
        if build.is_scheduled:
            self.decide(e.FollowerJoined(build.id))
            self._replays.tell(build, initiator)

    def catch_up(self, build: Build, initiator: Initiator) -> None:
        """Tell an initiator what it missed of a build that is over."""
        self._replays.tell_over(build, initiator)

    def unfollow(self, build: Build, initiator: Initiator, *, may_return: bool) -> None:
        """An initiator is gone: it left, or else it can't be heard and `may_return`."""
        build.followers.remove(initiator)
        if may_return:
            self.means.tell(f"Build {build.id}: its initiator is silent; waiting for its return")
            was_expected = build.is_expected
            self._expect(build)
            if not was_expected:
                return  # who is expected counts as a follower
        self._less_followed(build)

    def _expect(self, build: Build) -> None:
        """Let a build go on for a while from now on as if somebody followed it."""
        build.is_expected = True
        before = self._expectations.get(build.id)
        if before is not None:
            before.reset(self.means.grace)
        else:
            wait = reactor.callLater(self.means.grace, self._expect_no_longer, build)
            self._expectations[build.id] = wait

    def _less_followed(self, build: Build) -> None:
        if build.is_scheduled:
            self.decide(e.FollowerLeft(build.id))
        elif build.is_forgotten:
            self.cancel(build)

    def cancel(self, build: Build) -> None:
        if build.is_scheduled:
            self.decide(e.RequestCancelled(build.id))
        else:
            self._graphing.cancel(build)
            self.end(build, BuildCancelled(build=build.id), "Cancelled")
            self._settle(build)

    # What comes of graphing

    def schedule(self, build: Build) -> None:
        """The graph of a build is there, and what it lacks is known."""
        assert build.work is not None
        passing("controller", "schedule")
        unbuilt, total = len(build.work.tasks), build.work.total
        build.is_scheduled = True
        build.status = "Waiting for a worker to become available"
        request = build.request
        self.history.plan(build)
        self.decide(
            e.RequestAdded(
                build.id,
                build.work.tasks,
                request.priority,
                request.allow_detach,
                len(build.followers) + build.is_expected,
            )
        )
        announce_waiting(build, self._state)
        for follower in build.followers:
            self._replays.tell(build, follower)
        self.means.tell(f"Build {build.id}: {unbuilt} of {total} steps are to be built")
        self._settle(build)

    def fail(self, build: Build, reason: str) -> None:
        self.end(build, BuildFailed(build=build.id, reason=reason[:60_000]), "Failed")
        self._settle(build)

    def end(self, build: Build, last: Message, status: str) -> None:
        build.tell(last)
        build.last, build.status = last, status
        build.ended = time.time()
        self.history.touch()
        build.followers.clear()
        self._replays.note_over(build)
        build.graph = build.work = None
        build.by_key = {}
        self.means.tell(f"Build {build.id}: {status}")
        try:
            self._journal.add(Over(build.id))
        except MorphError as error:
            _log.error("%s", error)

    def _settle(self, build: Build) -> None:
        self._restored.discard(build.id)
        if not self._restored and not self._state.settled:
            self.decide(e.Settled())

    # What workers say

    def wanting(self, key: str) -> list[Build]:
        """The builds that want a key."""
        wanted = self._state.wanted.get(key)
        found = (self.builds.get(each) for each in wanted.requests) if wanted else ()
        return [build for build in found if build is not None]

    def elapsed(self, key: str) -> float:
        job = self._state.live_job(key)
        return 0.0 if job is None else self._durations.elapsed(job.id)

    def slots(self, architecture: str) -> int:
        return self._state.slots(architecture)

    def offered(self, worker: RemoteWorker, offer: Offer) -> None:
        same = [each for each in self._workers.values() if each.run_name == offer.worker]
        other = next((each for each in same if each is not worker), None)
        if offer.worker is not None and other is not None:
            self._leave_out(worker, other)
            return
        running = tuple((run.job, run.step.key) for run in offer.running)
        architectures = frozenset(offer.architectures)
        self.decide(e.WorkerJoined(worker.name, architectures, offer.capacity, running))

    def _leave_out(self, worker: RemoteWorker, other: RemoteWorker) -> None:
        """A worker is there under another name: it talks to one of the two only, and would be lost
        again and again."""
        self.means.tell(f"Worker {worker.name} is {other.name}, and used under that name alone")
        del self._workers[worker.name]
        worker.give_up()

    def lost(self, worker: RemoteWorker, reason: str) -> None:
        self._phases = {
            job: phase
            for job, phase in self._phases.items()
            if job in self._state.jobs and self._state.jobs[job].worker != worker.name
        }
        self.decide(e.WorkerLost(worker.name))

    def output(self, worker: RemoteWorker, message: JobOutput) -> None:
        job = self._state.jobs.get(message.job)
        if job is None or job.worker != worker.name:
            return
        if not self.history.logs.add(job.id, message.stdout + message.stderr, message.offset):
            return  # it was told before its worker was away
        wanting = self.wanting(job.key)
        if not any(build.followers for build in wanting):
            self._replays.note_missed(job.id, job.key)
        for build in wanting:
            build.tell(
                StepOutput(
                    build=build.id,
                    step_name=build.by_key[job.key].name,
                    job=job.id,
                    offset=message.offset,
                    stdout=message.stdout,
                    stderr=message.stderr,
                )
            )

    def is_at(self, worker: RemoteWorker, message: JobPhase) -> None:
        job = self._state.jobs.get(message.job)
        if job is None or job.worker != worker.name:
            return
        self._phases[job.id] = message.phase
        for build in self.wanting(job.key):
            build.tell_phase(job.key, message.phase)

    def phase(self, key: str) -> str:
        """What is done now for a key that is being built; "" if that is not known."""
        job = self._state.live_job(key)
        return "" if job is None else self._phases.get(job.id, "")

    def ended(self, worker: RemoteWorker, message: JobBuilt | JobFailed) -> None:
        job = self._state.jobs.get(message.job)
        if job is None or job.worker != worker.name:
            return  # it has nothing to say about what others do
        self._durations.end(job.id, is_built=isinstance(message, JobBuilt))
        if isinstance(message, JobBuilt):
            passing("controller", "built")
            self.decide(e.JobBuilt(job.id))
        else:
            self.failures[job.key] = message
            self.decide(e.JobFailed(job.id, message.fault, message.reason))
            del self.failures[job.key]
        self._phases.pop(job.id, None)

    # Deciding

    def decide(self, event: e.Event) -> None:
        """Tell the policy what happened, and do what it says. What that leads to comes after it."""
        self._events.append(event)
        if self._deciding:
            return
        self._deciding = True
        try:
            while self._events:
                event = self._events.popleft()
                commands = decide(self._state, event)
                self.history.note(event, commands)
                for command in commands:
                    self._do(command)
        finally:
            self._deciding = False

    def _do(self, command: e.Command) -> None:
        match command:
            case e.Start(job, worker, key):
                passing("controller", "start")
                step, source = self._step_of(job, key)
                self._durations.begin(job, source)
                self._workers[worker].run_step(job, step)
            case e.Stop(job, worker):
                self._workers[worker].cancel(job)
            case e.Transfer(job, worker, key):
                self._transfers.begin(self._state.jobs[job], self._workers[worker].host)
            case e.Rest(worker, reason):
                _log.warning("worker %s rests: %s", worker, reason)
                reactor.callLater(_REST_SECONDS, self.decide, e.WorkerRested(worker))
            case _:
                announce(self, command)

    def _step_of(self, job: str, key: str) -> tuple[Step, GraphSource]:
        build = self.builds.get(self._state.jobs[job].request)
        assert build is not None
        source = build.by_key[key]
        step = Step(
            repo=build.request.repo,
            ref=build.request.ref,
            morphology=build.request.morphology,
            original_ref=build.request.original_ref,
            key=key,
            name=source.name,
        )
        return step, source
