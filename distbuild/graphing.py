"""From a request to work: a helper computes the graph, a thread asks what of it is there."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from distbuild.builds import Build
from distbuild.connection import reactor
from distbuild.graphs import MAX_GRAPH, decode_graph, find_targets, plan_work
from distbuild.helpers import Helpers, Program
from distbuild.messages import BuildStarted, GraphingFinished, GraphingStarted
from distbuild.progressing import describe_work
from distbuild.sharedcache import SharedCache
from distbuild.waiting import Waiters
from morphlib.errors import MorphError

#: Graphs that are computed at a time: that takes memory, and many would all be slow.
_MOST_AT_ONCE = 8
#: Seconds that are waited for a helper, which may be starting.
_HELPER_SECONDS = 10.0
#: So much of the end of standard error is given as the reason of a failure, in bytes.
_REASON_BYTES = 20_000


class Scheduler(Protocol):
    """What becomes of it."""

    def schedule(self, build: Build) -> None: ...

    def slots(self, architecture: str) -> int: ...

    def fail(self, build: Build, reason: str) -> None: ...


class Graphing:
    def __init__(
        self, helpers: Helpers, shared: SharedCache, call: Sequence[str], scheduler: Scheduler
    ) -> None:
        self._helpers = helpers
        self._shared = shared
        self._call = tuple(call)
        self._scheduler = scheduler
        self._programs: dict[str, Program] = {}
        self._waiting: deque[tuple[Build, bool]] = deque()
        self._askers = Waiters("cache-queries", _MOST_AT_ONCE)

    def start(self, build: Build, *, patient: bool) -> None:
        """Compute a build's graph. Without `patient` a helper has to be there, or come soon."""
        build.tell(GraphingStarted(build=build.id))
        self._waiting.append((build, patient))
        self._begin_some()

    def _begin_some(self) -> None:
        while self._waiting and len(self._programs) < _MOST_AT_ONCE:
            build, patient = self._waiting.popleft()
            if not build.is_over:
                self._begin(build, patient=patient)

    def _begin(self, build: Build, *, patient: bool) -> None:
        request = build.request
        names = [request.repo, request.ref, request.morphology]
        names += [request.original_ref] if request.original_ref else []
        argv = [*self._call, "calculate-build-graph", "--quiet", "--", *names]
        output, errors = bytearray(), bytearray()

        def keep(out: bytes, err: bytes) -> None:
            output.extend(out[: max(0, MAX_GRAPH + 1 - len(output))])
            errors.extend(err)
            del errors[:-_REASON_BYTES]

        def ended(status: int) -> None:
            if self._programs.pop(build.id, None) is not None and not build.is_over:
                self._computed(build, status, bytes(output), bytes(errors))
            self._begin_some()

        program = self._helpers.run(argv, b"", keep, ended)
        self._programs[build.id] = program
        if not patient and not self._helpers.are_there:
            reactor.callLater(_HELPER_SECONDS, self._fail_without_helper, build)

    def _fail_without_helper(self, build: Build) -> None:
        program = self._programs.get(build.id)
        if program is not None and program.helper is None:
            self.cancel(build)
            self._scheduler.fail(build, "No distbuild-helper process running on controller!")

    def cancel(self, build: Build) -> None:
        program = self._programs.pop(build.id, None)
        if program is not None:
            self._helpers.cancel(program)
            self._begin_some()

    def _computed(self, build: Build, status: int, output: bytes, errors: bytes) -> None:
        if status != 0:
            said = errors.decode("utf-8", "backslashreplace").strip()
            self._scheduler.fail(build, said or f"calculate-build-graph ended with status {status}")
            return
        try:
            build.graph = decode_graph(output)
            build.by_key = {source.key: source for source in build.graph.sources}
            build.targets = find_targets(build.graph, build.request.components)
        except MorphError as error:
            build.graph = None
            self._scheduler.fail(build, str(error))
            return
        build.tell(GraphingFinished(build=build.id))
        build.tell(BuildStarted(build=build.id))
        build.stored.clear()
        self._askers.call(self._shared.present, build.graph.sources).addCallbacks(
            lambda present: self._known(build, present),
            lambda failure: (
                None if build.is_over else self._scheduler.fail(build, str(failure.value))
            ),
        )

    def _known(self, build: Build, present: frozenset[str]) -> None:
        if build.is_over:
            return
        assert build.graph is not None
        # What others stored while the cache was being asked is there too.
        work = plan_work(build.graph, build.targets, present | build.stored)
        build.work = work
        build.tell(describe_work(build, self._scheduler.slots(build.graph.arch)))
        self._scheduler.schedule(build)
