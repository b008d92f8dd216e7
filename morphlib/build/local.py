"""The local executor: the parent of this machine's builders.

It takes ready tasks from the schedule, hands them to builders, and tells what happens. Sources, and
artifacts that a cache server has, are fetched by threads beside the builds; what can't be fetched
is built. Of several processes that share a cache one builds a source,
the one that holds the lock of its key; the others take what it made.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue
from types import FrameType
from typing import Any, Literal

from morphlib import events, process
from morphlib.build.builders import Builder, reap, start_builders, stop_builders, wait_for
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
from morphlib.build.plan import Plan, inputs, revise_plan
from morphlib.build.push import push_source
from morphlib.build.schedule import Schedule, Task, estimate_makespan
from morphlib.build.sources import git_source
from morphlib.build.worker import work
from morphlib.cache.locks import KeyLocks, Lock
from morphlib.cache.records import BuildRecord, Records
from morphlib.cache.trust import UntrustedError
from morphlib.definitions.models import Kind
from morphlib.errors import MorphError, Reason
from morphlib.events import Listener
from morphlib.graph.model import Source
from morphlib.sources.pool import fetch_sources

#: Expected seconds of what was never built here.
UNKNOWN_COST = {Kind.CHUNK: 60.0, Kind.STRATUM: 0.05, Kind.SYSTEM: 20.0}
_FETCHERS = 4
_DOWNLOADS = 4  # sources whose artifacts are fetched at a time
_UPLOADS = 4  # sources that are sent at a time
_POLL = 0.1  # seconds between looks at what another process builds


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM and SIGHUP end a build as tidily as Ctrl-C does, and once is enough.

    What clears up then is not interrupted in its turn: it has its own bounds.
    """
    caught = [
        signum
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(signum) is not signal.SIG_IGN
    ]

    def interrupt(signum: int, frame: FrameType | None) -> None:
        for each in caught:
            signal.signal(each, signal.SIG_IGN)
        process.end_programs()
        raise KeyboardInterrupt

    before = {signum: signal.signal(signum, interrupt) for signum in caught}
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException:
        _restore(before)
        raise
    else:
        _restore(before)


def _restore(handlers: Mapping[signal.Signals, Any]) -> None:
    for signum, handler in handlers.items():
        signal.signal(signum, handler)


#: What threads do beside the builds: fetching sources or artifacts, sending artifacts.
_What = Literal["source", "artifacts", "sent"]
_DOING: Mapping[_What, tuple[str, Reason]] = {
    "source": ("fetch", Reason.SOURCE),
    "artifacts": ("fetch", Reason.CACHE),
    "sent": ("send", Reason.CACHE),
}
_FETCH = "fetch:"  # before the id of a source, the task that fetches for it


@dataclass(slots=True)
class _Fetched:
    """What a fetching thread came back with."""

    source: str
    error: MorphError | None
    what: _What
    duration: float


@dataclass(slots=True)
class _Waiting:
    """A source that another process builds."""

    source: Source
    since: float = field(default_factory=time.monotonic)


class LocalBuild:
    """One build on this machine. `run` carries it out; `plan`, `built`, `fetched`, `errors`,
    `failed` and `elsewhere` say how it went."""

    def __init__(
        self, context: BuildContext, plan: Plan, records: Records, listener: Listener
    ) -> None:
        self.context = context
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
        self._fetched: SimpleQueue[_Fetched] = SimpleQueue()
        self._problems: set[str] = set()
        self._downloads: set[str] = set()
        self._sending: set[str] = set()
        self._sends = context.push is not None
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._to_send: list[Source] = []
        self._untrusted = 0  # sources that the server has, but that no trusted key signed
        self._lost_keys: set[str] = set()  # of what the server has, but could not give
        reached = self.graph.reachable(plan.targets)
        self._index = {source.id: number for number, source in enumerate(reached, 1)}
        self._estimates = self._estimate()
        self.schedule = Schedule(self._tasks())

    # Preparing

    def _estimate(self) -> dict[str, float]:
        wanted: dict[Kind, list[tuple[str, str]]] = {}
        for source_id in self.plan.build:
            source = self.graph.source(source_id)
            wanted.setdefault(source.kind, []).append((source.name, source.key))
        found: dict[str, float] = {}
        for kind, pairs in wanted.items():
            for name, seconds in self.records.estimate(pairs, kind=kind.value).items():
                found[f"{kind}:{name}"] = seconds
        return found

    def _tasks(self) -> list[Task]:
        wanted = {*self.plan.build, *self.plan.fetch}
        building = set(self.plan.build)
        tasks = []
        for source_id in sorted(wanted, key=self._index.__getitem__):
            if source_id not in building:
                tasks.append(Task(source_id, (), 0.0, "download"))
                continue
            source = self.graph.source(source_id)
            needs = [needed for needed in inputs(self.graph, source) if needed in wanted]
            if source.kind is Kind.CHUNK:
                fetch = _FETCH + source_id
                tasks.append(Task(fetch, (), 0.0, "fetch"))
                needs.append(fetch)
            cost = self._estimates.get(source_id, UNKNOWN_COST[source.kind])
            tasks.append(Task(source_id, tuple(needs), cost))
        return tasks

    def _expected_time(self, slots: int) -> float | None:
        """Seconds, where enough of the chunks were built before for this to mean something."""
        chunks = [i for i in self.plan.build if self.graph.source(i).kind is Kind.CHUNK]
        known = sum(i in self._estimates for i in chunks)
        if known * 2 < len(chunks):
            return None
        return estimate_makespan(list(self.schedule.tasks.values()), slots)

    # Running

    def run(self) -> None:
        options = self.context.options
        wanted = (*self.plan.build, *self.plan.fetch)
        chunks = sum(self.graph.source(i).kind is not Kind.STRATUM for i in wanted)
        slots = max(1, min(options.builders, chunks))
        # Made here so that all builders share it; see Temporaries.
        self.context.store.temporary()
        self.records.close()
        # Before anything is told: whoever shows it may start a thread, and forking is over then.
        builders = start_builders(self.context, slots, work)
        wakeup, self._wake = os.pipe()
        with ExitStack() as stack:
            stack.callback(self._release_all)
            stack.callback(os.close, wakeup)
            stack.callback(os.close, self._wake)
            # Each has threads of its own: a slow server must not keep sources from being fetched.
            for name, count in (
                ("source", _FETCHERS),
                ("artifacts", _DOWNLOADS),
                ("sent", _UPLOADS),
            ):
                threads = self._threads[name] = ThreadPoolExecutor(count, thread_name_prefix=name)
                stack.callback(threads.shutdown, wait=True, cancel_futures=True)
            for server in (self.context.remote, self.context.push):
                if server is not None:
                    stack.callback(server.stop)
            stack.callback(lambda: stop_builders(builders))
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
            self._loop(builders, wakeup)
            self._tell_untrusted()

    def _loop(self, builders: list[Builder], wakeup: int) -> None:
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
            for builder in wait_for(builders, wakeup, _POLL if self._waiting else None):
                message = builder.receive()
                if message is None:
                    builders.remove(builder)
                    self._lost(builder, builders)
                else:
                    self._handle(builder, message)
            self._collect_fetched(wakeup)

    def _start_fetches(self) -> None:
        while not self._stopping and (task := self.schedule.take("fetch")) is not None:
            self._in_thread("source", task.id, self._fetch)
        while not self._stopping and len(self._downloads) < _DOWNLOADS:
            task = self.schedule.take("download")
            if task is None:
                return
            source = self.graph.source(task.id)
            if self._take_on(source):
                self._downloads.add(source.id)
                for name in source.artifacts:
                    text = f"Fetching to local cache: artifact {name}"
                    self.listener(events.Status(text=text, source=source.name))
                self._in_thread("artifacts", source.id, self._download)

    def _in_thread(self, what: _What, task_id: str, work: Callable[[Source], object]) -> None:
        """Do something for the source of a task beside the builds; `_collect_fetched` hears how it
        went."""
        self._threads[what].submit(self._work, what, task_id, work)

    def _work(self, what: _What, task_id: str, work: Callable[[Source], object]) -> None:
        source = self.graph.source(task_id.removeprefix(_FETCH))
        started = time.monotonic()
        error: MorphError | None = None
        try:
            work(source)
        except MorphError as caught:
            error = caught
        except Exception as caught:
            doing, reason = _DOING[what]
            message = f"can't {doing} {source.name}: {type(caught).__name__}: {caught}"
            error = MorphError(message, reason=reason)
        self._fetched.put(_Fetched(task_id, error, what, time.monotonic() - started))
        try:
            os.write(self._wake, b".")
        except OSError:
            pass  # the build ended meanwhile and nobody waits for this any more

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

    def _collect_fetched(self, wakeup: int) -> None:
        while not self._fetched.empty():
            fetched = self._fetched.get()
            os.read(wakeup, 1)
            if fetched.what == "sent":
                self._sent(fetched)
            elif fetched.what == "artifacts":
                self._downloaded(fetched)
            elif fetched.error is None:
                self.schedule.finish(fetched.source)
            else:
                self._note_failure(fetched.source, fetched.error)

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
                self._in_thread("sent", source.id, self._push)

    def _sent(self, fetched: _Fetched) -> None:
        self._sending.discard(fetched.source)
        if fetched.error is not None and self._sends:
            self._sends = False
            assert self.context.push is not None
            self.context.push.stop()
            text = f"{fetched.error.message}; nothing more is sent there"
            self.listener(events.Status(text=text, level="warning"))

    # Downloads

    def _downloaded(self, fetched: _Fetched) -> None:
        source = self.graph.source(fetched.source)
        self._downloads.discard(source.id)
        self._release(source.id)
        if fetched.error is None:
            self.schedule.finish(source.id)
            self.fetched += 1
            self._tell_finished(source, "fetched", fetched.duration)
            return
        assert self.context.remote is not None
        if not self.context.remote.is_dead:  # which was told, for all that it has
            text = f"{fetched.error.message}; {source.kind} {source.name} will be built"
            level: Literal["warning", "chatty"] = "warning"
            if isinstance(fetched.error, UntrustedError):
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
        self._estimates = self._estimate()
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
                estimate=self._estimates.get(source.id),
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
