"""The local executor: the parent of this machine's builders.

It takes ready tasks from the schedule, hands them to builders, and tells what happens. Sources, and
artifacts that a cache server has, are fetched by threads beside the builds; what can't be fetched
is built. Of several processes that share a cache one builds a source, the one that holds the lock
of its key; the others take what it made.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Literal

from morphlib import events
from morphlib.build.beside import MOST, Beside, Outcome
from morphlib.build.builders import Builder, reap, start_builders, stop_builders, wait_for
from morphlib.build.crew import Crew
from morphlib.build.download import download_source
from morphlib.build.model import (
    BuildContext,
    Built,
    Failed,
    FromBuilder,
    Job,
    OnError,
    Ready,
    Told,
    Unusable,
)
from morphlib.build.plan import Plan, revise_plan
from morphlib.build.push import push_source
from morphlib.build.schedule import Schedule, Task
from morphlib.build.sources import git_source
from morphlib.build.tasks import (
    estimate_costs,
    expected_time,
    fetch_task,
    fetched_by,
    tasks_of,
)
from morphlib.build.worker import work
from morphlib.cache.locks import KeyLocks, Lock
from morphlib.cache.records import BuildRecord, Records
from morphlib.cache.trust import UntrustedError
from morphlib.definitions.models import Kind
from morphlib.errors import MorphError, Reason
from morphlib.events import Listener
from morphlib.graph.model import Source
from morphlib.sources.pool import fetch_sources

_POLL = 0.1  # seconds between looks at what another process builds


@dataclass(slots=True)
class _Waiting:
    """A source that another process builds."""

    source: Source
    since: float = field(default_factory=time.monotonic)


class LocalBuild:
    """One build on this machine. `run` carries it out; `plan`, `built`, `fetched`, `errors`,
    `failed` and `elsewhere` say how it went. Without a `crew` it has builders of its own."""

    def __init__(
        self,
        context: BuildContext,
        plan: Plan,
        records: Records,
        listener: Listener,
        crew: Crew | None = None,
    ) -> None:
        self.context = context
        self._crew = crew
        self.graph = context.graph
        self.plan = plan
        self.records = records
        self.listener = listener
        self.built: list[str] = []
        self.failed = 0
        self.elsewhere = 0
        self.fetched = 0
        self.errors: list[MorphError] = []
        self._stopping = False
        self._locks = KeyLocks(context.options.locks)
        self._held: dict[str, Lock] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._beside = Beside()
        self._problems: set[str] = set()
        self._downloads: set[str] = set()
        self._sending: set[str] = set()
        self._sends = context.push is not None
        self._to_send: list[Source] = []
        self._untrusted = 0  # sources that the server has, but that no trusted key signed
        self._lost_keys: set[str] = set()  # of what the server has, but could not give
        reached = self.graph.reachable(plan.targets)
        self._index = {source.id: number for number, source in enumerate(reached, 1)}
        self._costs = estimate_costs(self.graph, plan, records)
        self.schedule = Schedule(self._tasks())

    def _tasks(self) -> list[Task]:
        return tasks_of(self.graph, self.plan, self._index, self._costs)

    # Running

    def run(self) -> None:
        options = self.context.options
        wanted = (*self.plan.build, *self.plan.fetch)
        chunks = sum(self.graph.source(i).kind is not Kind.STRATUM for i in wanted)
        slots = max(1, min(options.builders, chunks))
        # Made here so that all builders share it; see Temporaries.
        self.context.store.temporary()
        if self._crew is None or not self._crew.fits(self.context, slots):
            self.records.close()  # a fork must not take it along
        # Before anything is told: whoever shows it may start a thread, and forking is over then.
        builders = (
            start_builders(self.context, slots, work)
            if self._crew is None
            else self._crew.take(self.context, slots)
        )
        with ExitStack() as stack:
            stack.callback(self._release_all)
            stack.enter_context(self._beside)
            for server in (self.context.remote, self.context.push):
                if server is not None:
                    stack.callback(server.stop)
            if self._crew is None:
                stack.callback(lambda: stop_builders(builders))
            else:
                stack.callback(self._crew.give_back)
            self.listener(
                events.BuildStarted(
                    target=self.graph.system.name,
                    total=self.plan.total,
                    cached=self.plan.untouched,
                    fetch=len(self.plan.fetch),
                    slots=slots,
                    estimate=self._expected_time(slots),
                )
            )
            self._loop(builders)
            self._tell_untrusted()

    def _expected_time(self, slots: int) -> float | None:
        tasks = list(self.schedule.tasks.values())
        return expected_time(self.graph, self.plan, tasks, self._costs, slots)

    def _loop(self, builders: list[Builder]) -> None:
        while True:
            self._look_at_waiting()
            self._start_fetches()
            self._dispatch(builders)
            self._send()
            if not self.schedule.running and not self._sending:
                return
            elsewhere = self._waiting.keys() | self._downloads
            assert builders or not any(
                task in self._index and task not in elsewhere for task in self.schedule.running
            )
            patience = _POLL if self._waiting else None
            for builder in wait_for(builders, self._beside.wakeup, patience):
                message = builder.receive()
                if message is None:
                    builders.remove(builder)
                    self._lost(builder, builders)
                else:
                    self._handle(builder, message)
            self._collect()

    def _start_fetches(self) -> None:
        while not self._stopping and (task := self.schedule.take("fetch")) is not None:
            source = self.graph.source(fetched_by(task.id))
            self._beside.start("source", source, self._fetch)
        while not self._stopping and len(self._downloads) < MOST["artifacts"]:
            task = self.schedule.take("download")
            if task is None:
                return
            source = self.graph.source(task.id)
            if self._take_on(source):
                self._downloads.add(source.id)
                for name in source.artifacts:
                    text = f"Fetching to local cache: artifact {name}"
                    self.listener(events.Status(text=text, source=source.name))
                self._beside.start("artifacts", source, self._download)

    def _fetch(self, source: Source) -> None:
        """Bring a chunk's sources into the mirrors."""
        fetch_sources([git_source(source)], self.context.mirrors, self.context.aliases)

    def _download(self, source: Source) -> None:
        """Bring a source's artifacts from the cache server into the store."""
        assert self.context.remote is not None
        download_source(self.context.store, self.context.remote, source)

    def _push(self, source: Source) -> None:
        """Send a source's artifacts to the cache server that gets them."""
        assert self.context.push is not None
        push_source(self.context.store, self.context.push, source)

    def _collect(self) -> None:
        for outcome in self._beside.collect():
            if outcome.what == "sent":
                self._sent(outcome)
            elif outcome.what == "artifacts":
                self._downloaded(outcome)
            elif outcome.error is None:
                self.schedule.finish(fetch_task(outcome.source))
            else:
                self._note_failure(fetch_task(outcome.source), outcome.error)

    def _dispatch(self, builders: Sequence[Builder]) -> None:
        for builder in builders:
            while builder.job is None and not self._stopping:
                task = self.schedule.take()
                if task is None:
                    return
                source = self.graph.source(task.id)
                if self._take_on(source):
                    self._assign(builder, source)

    def _take_on(self, source: Source) -> bool:
        """Lock a source's key. False if another process is at it, or has been."""
        held = self._locks.try_acquire(source.key)
        if held is None:
            self._wait_for_other(source)
            return False
        self._held[source.id] = held
        if self.context.store.check(source.key, source.filenames()):
            self._finished_elsewhere(source, 0.0)
            return False
        return True

    # Uploads

    def _send(self) -> None:
        """Let a cache server have what was built since, where that is wanted."""
        while self._to_send:
            source = self._to_send.pop()
            if self._sends:
                self._sending.add(source.id)
                self._beside.start("sent", source, self._push)

    def _sent(self, outcome: Outcome) -> None:
        self._sending.discard(outcome.source)
        if outcome.error is not None and self._sends:
            self._sends = False
            assert self.context.push is not None
            self.context.push.stop()
            text = f"{outcome.error.message}; nothing more is sent there"
            self.listener(events.Status(text=text, level="warning"))

    # Downloads

    def _downloaded(self, outcome: Outcome) -> None:
        source = self.graph.source(outcome.source)
        self._downloads.discard(source.id)
        self._release(source.id)
        if outcome.error is None:
            self.schedule.finish(source.id)
            self.fetched += 1
            self._tell_finished(source, "fetched", outcome.duration)
            return
        assert self.context.remote is not None
        if not self.context.remote.is_dead:  # which was told, for all that it has
            text = f"{outcome.error.message}; {source.kind} {source.name} will be built"
            level: Literal["warning", "chatty"] = "warning"
            if isinstance(outcome.error, UntrustedError):
                self._untrusted += 1
                level = "warning" if self._untrusted == 1 else "chatty"  # at the end, their number
            self.listener(events.Status(text=text, level=level))
        self._build_instead(source)

    def _tell_untrusted(self) -> None:
        remote = self.context.remote
        if self._untrusted > 1 and remote is not None and remote.trusted is not None:
            text = f"{self._untrusted} sources on {remote.url} are not signed by any key in "
            text += f"{remote.trusted.path}: they were built instead"
            self.listener(events.Status(text=text, level="warning"))

    def _build_instead(self, source: Source) -> None:
        """What could not be fetched is built, with all that it needs which is not here either."""
        assert self.context.remote is not None
        self._lost_keys.add(source.key)
        remote: frozenset[str] = frozenset()
        if not self.context.remote.is_dead:
            remote = self.plan.remote - self._lost_keys
        done = self.schedule.done & set(self._index)
        self.plan = revise_plan(self.graph, self.plan, done, remote)
        self._costs = estimate_costs(self.graph, self.plan, self.records)
        self.schedule.put_back(source.id)
        self.schedule.revise(self._tasks())
        self.listener(events.PlanRevised(total=self.plan.total, cached=self.plan.untouched))

    def _assign(self, builder: Builder, source: Source) -> None:
        index, total = self._index[source.id], self.plan.total
        self.listener(
            events.SourceStarted(
                name=source.name,
                kind=source.kind.value,
                key=source.key,
                index=index,
                total=total,
                slot=builder.slot,
                estimate=self._costs.get(source.id),
            )
        )
        builder.assign(Job(source.id, builder.slot, index, total))

    # Sources that another process builds

    def _wait_for_other(self, source: Source) -> None:
        self._waiting[source.id] = _Waiting(source)
        holder = self._locks.holder(source.key)
        by = f" (process {holder})" if holder else ""
        text = f"Waiting for {source.kind} {source.name}, which another morph builds{by}"
        self.listener(events.Status(text=text))

    def _look_at_waiting(self) -> None:
        for source_id, waiting in list(self._waiting.items()):
            held = self._locks.try_acquire(waiting.source.key)
            if held is None:
                continue
            del self._waiting[source_id]
            self._held[source_id] = held
            source = waiting.source
            if self.context.store.check(source.key, source.filenames()):
                self._finished_elsewhere(source, time.monotonic() - waiting.since)
            else:  # whoever built it failed or was killed
                self._release(source_id)
                self.schedule.put_back(source_id)

    def _finished_elsewhere(self, source: Source, duration: float) -> None:
        self._release(source.id)
        self.schedule.finish(source.id)
        self.elsewhere += 1
        self._tell_finished(source, "waited", duration)

    # What builders say

    def _handle(self, builder: Builder, message: FromBuilder) -> None:
        match message:
            case Told(event):
                self.listener(event)
            case Ready(problems):
                for problem in problems:
                    if problem not in self._problems:
                        self._problems.add(problem)
                        self.listener(events.Status(text=problem, level="warning"))
            case Built():
                builder.job = None
                self._built(message, builder.slot)
            case Failed():
                builder.job = None
                self._failed(message, builder.slot)
            case Unusable(message=text, hint=hint):
                raise MorphError(text, reason=Reason.SANDBOX, hint=hint)

    def _built(self, message: Built, slot: int) -> None:
        source = self.graph.source(message.source)
        self._release(source.id)
        self.schedule.finish(source.id)
        self.built.append(source.id)
        self._to_send.append(source)
        self.records.add(
            BuildRecord(
                key=source.key,
                name=source.name,
                kind=source.kind.value,
                duration=message.duration,
                cpu=message.cpu,
                peak_memory=message.peak_memory,
                steps=message.steps,
            )
        )
        self.listener(
            events.SourceFinished(
                name=source.name,
                kind=source.kind.value,
                key=source.key,
                index=self._index[source.id],
                total=self.plan.total,
                outcome="built",
                duration=message.duration,
                cpu=message.cpu,
                peak_memory=message.peak_memory,
                slot=slot,
            )
        )

    def _failed(self, message: Failed, slot: int) -> None:
        source = self.graph.source(message.source)
        self._tell_finished(source, "failed", message.duration, slot)
        error = MorphError(message.message, reason=Reason(message.reason), hint=message.hint)
        self._note_failure(source.id, error, fatal=message.fatal)

    def _lost(self, builder: Builder, left: Sequence[Builder]) -> None:
        """A builder ended without being asked to."""
        how = reap(builder)
        if builder.job is None:
            error = MorphError(f"a builder process {how}", reason=Reason.SANDBOX)
            if not left:
                raise error
            self.listener(events.Status(text=error.message, level="warning"))
            return
        source = self.graph.source(builder.job.source)
        self._tell_finished(source, "failed", 0.0, builder.slot)
        error = MorphError(
            f"{source.kind} {source.name}: its builder process {how}",
            reason=Reason.BUILD,
            hint="If the machine ran out of memory, build with fewer --builders or --max-jobs.",
        )
        self._note_failure(source.id, error, fatal=not left)

    def _note_failure(self, task_id: str, error: MorphError, *, fatal: bool = False) -> None:
        self._release(task_id)
        self.failed += 1
        self.errors.append(error)
        self.schedule.fail(task_id)
        if fatal or self.context.options.on_error is OnError.STOP:
            self._stopping = True
            for source_id in list(self._waiting):
                del self._waiting[source_id]
                self.schedule.put_back(source_id)

    def _tell_finished(
        self, source: Source, outcome: str, duration: float, slot: int | None = None
    ) -> None:
        self.listener(
            events.SourceFinished(
                name=source.name,
                kind=source.kind.value,
                key=source.key,
                index=self._index[source.id],
                total=self.plan.total,
                outcome=outcome,  # type: ignore[arg-type]  # one of the four, by the callers
                duration=duration,
                slot=slot,
            )
        )

    def _release(self, source_id: str) -> None:
        held = self._held.pop(source_id, None)
        if held is not None:
            held.release()

    def _release_all(self) -> None:
        for source_id in list(self._held):
            self._release(source_id)
