"""Building steps of distributed builds, one after another, with all that they have in common."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from morphlib.build.crew import Crew
from morphlib.build.run import run_build
from morphlib.cache.inuse import InUse
from morphlib.cache.records import Records
from morphlib.cache.space import check_space
from morphlib.cache.store import ArtifactStore
from morphlib.commands.build import build_context
from morphlib.commands.calculate_build_graph import resolve_commit
from morphlib.commands.resolving import Workshop
from morphlib.commands.session import Session
from morphlib.credentials import hide_credentials
from morphlib.errors import MorphError, MorphErrors, Reason
from morphlib.events import AnyEvent, Listener, SourceFailed, StepStarted
from morphlib.graph.model import BuildGraph, Source
from morphlib.text import make_printable

if TYPE_CHECKING:
    from distbuild.bench import Ended
    from distbuild.workermessages import Step

#: So many graphs are kept: a worker seldom has steps of more systems at a time.
_GRAPHS = 4


class StepBuilder:
    """Builds steps. What the last ones used is kept until `rest` or `close`: graphs by commit and
    system, builder processes, and claims on what these have built on."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._workshop = Workshop.of(session)
        settings = session.settings
        self._store = ArtifactStore(settings.cachedir / "artifacts", session.listener)
        self._records = Records(settings.cachedir / "records.sqlite", session.listener)
        self._graphs: OrderedDict[tuple[str, str, str], BuildGraph] = OrderedDict()
        self._crew = Crew()
        self._claims: list[InUse] = []
        self._claimed: set[str] = set()
        self._release = ExitStack()
        self._graph: BuildGraph | None = None  # that of the crew and of the claims

    @property
    def is_well(self) -> bool:
        """Whether none of its processes was stopped."""
        return not self._crew.are_stopped()

    def build(self, step: Step, tell: Callable[[str], None] = lambda phase: None) -> Ended:
        """Build a step, and tell what is done for it. Failures are told on standard error; the
        exit status says whose they are (`distbuild.faults`), 0 for none."""
        from distbuild.bench import Ended
        from distbuild.faults import status_of

        failed: list[SourceFailed] = []

        def listen(event: AnyEvent) -> None:
            match event:
                case StepStarted(step=phase):
                    tell(phase)
                case SourceFailed():
                    failed.append(event)
            self._session.listener(event)

        try:
            self._build(step, listen)
        except MorphError as error:
            for each in error.errors if isinstance(error, MorphErrors) else (error,):
                sys.stderr.write(f"ERROR: {make_printable(hide_credentials(str(each)))}\n")
            phase, code = (
                (failed[-1].step or None, failed[-1].exit_code) if failed else (None, None)
            )
            return Ended(status=status_of(error), phase=phase, exit_code=code)
        except Exception:
            from morphlib.reporting import keep_traceback

            sys.stderr.write(f"ERROR: {keep_traceback(show=False)}\n")
            return Ended(status=1)
        return Ended(status=0)

    def rest(self) -> None:
        """Nothing is to be built for a while: hold on to nothing that others may want gone."""
        self._crew.dismiss()
        self._records.close()
        self._release.close()
        self._claims, self._claimed, self._graph = [], set(), None

    def close(self) -> None:
        self.rest()
        self._store.close()

    def _build(self, step: Step, listener: Listener) -> None:
        """Raises MorphError."""
        self._make_room()
        graph, source = self._find(step)
        if graph is not self._graph:
            self.rest()
            self._graph = graph
        self._claim(graph, source)
        context = replace(build_context(self._workshop, graph), store=self._store)
        run_build(context, [source.id], self._records, listener, self._crew)

    def _find(self, step: Step) -> tuple[BuildGraph, Source]:
        """What a step is about. A graph that was kept counts if the key is in it: its refs may
        have come to mean something else."""
        place = (step.repo, step.ref, step.morphology)
        graph = self._graphs.get(place)
        source = None if graph is None else _source_of(graph, step.key)
        if graph is None or source is None:
            graph = resolve_commit(self._session, *place)
            self._graphs[place] = graph
            while len(self._graphs) > _GRAPHS:
                self._graphs.popitem(last=False)
            source = _source_of(graph, step.key)
        self._graphs.move_to_end(place)
        if source is None:
            raise MorphError(
                f"no source of {step.morphology} at {step.ref} has the key {step.key} here",
                reason=Reason.CONFIG,
                hint="Give controller and workers the same version of Morph and the same settings.",
            )
        return graph, source

    def _claim(self, graph: BuildGraph, source: Source) -> None:
        """Keep what is built, and what it is built on, from being collected."""
        settings = self._session.settings
        if not self._claims:
            places = (settings.cachedir / "in-use", settings.tempdir / "in-use")
            self._claims = [self._release.enter_context(InUse(place)) for place in places]
        new = {each.key for each in graph.reachable([source.id])} - self._claimed
        if new:
            for claim in self._claims:
                claim.add(new)
            self._claimed |= new

    def _make_room(self) -> None:
        """Remove what was not used for long, if there is too little space. Raises MorphError
        (SPACE) where that is not enough."""
        from morphlib.commands import gc

        settings = self._session.settings
        wanted = (
            (settings.tempdir, settings.tempdir_min_space),
            (settings.cachedir, settings.cachedir_min_space),
        )
        try:
            check_space(*wanted)
        except MorphError as error:
            if error.reason is not Reason.SPACE:
                raise
            self.rest()
            gc.run(self._session, [])
            check_space(*wanted)


def _source_of(graph: BuildGraph, key: str) -> Source | None:
    return next((source for source in graph.sources if source.key == key), None)
