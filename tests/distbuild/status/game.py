"""A controller's policy with its history, played by hand: real decisions, a clock that is set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from distbuild.builds import Build, Builds
from distbuild.graphs import Graph, GraphSource, plan_work
from distbuild.messages import BuildCancelled, BuildFailed, BuildFinished, BuildRequest
from distbuild.policy import events as e
from distbuild.policy.decide import decide
from distbuild.policy.state import State
from distbuild.status.buildview import BuildView, gather, view_build
from distbuild.status.history import Attempt, History
from distbuild.status.overview import Overview, Watched, view_overview
from morphlib.definitions.models import Kind

ARCH = "x86_64"


def key_of(name: str) -> str:
    return name.encode().hex().rjust(64, "0")


def source(name: str, *needs: str, cost: float = 10.0, kind: Kind = Kind.CHUNK) -> GraphSource:
    key = key_of(name)
    kids = tuple(map(key_of, needs))
    return GraphSource(key, name, name, kind, kids, (f"{key}.{kind}.{name}",), (), cost)


class Game:
    """`jobs`: by the name of a step, the job that was started for it last."""

    def __init__(self, workers: Sequence[str] = ("w0", "w1")) -> None:
        self.clock = 1000.0
        self.state = State("job")
        self.builds = Builds()
        self.history = History(lambda: self.clock)
        self.watched = Watched(self.state, self.builds, self.history, tuple(workers))
        self.jobs: dict[str, str] = {}
        self.commands: list[e.Command] = []

    def tell(self, event: e.Event) -> None:
        self.commands = decide(self.state, event)
        self.history.note(event, self.commands)
        for command in self.commands:
            if isinstance(command, e.Start):
                self.jobs[bytes.fromhex(command.key).lstrip(b"\0").decode()] = command.job
            elif isinstance(command, e.EndRequest):
                self._end(command)

    def _end(self, command: e.EndRequest) -> None:
        build = self.builds.get(command.request)
        assert build is not None
        match command.outcome:
            case e.Outcome.FINISHED:
                build.last = BuildFinished(build=build.id, urls=())
            case e.Outcome.FAILED:
                build.last = BuildFailed(build=build.id, reason=command.reason)
            case e.Outcome.CANCELLED:
                build.last = BuildCancelled(build=build.id)
        build.ended = self.clock

    def ask(
        self, *sources: GraphSource, name: str = "build-1", priority: int = 0, present: str = ""
    ) -> Build:
        """A build of all that these sources are; what is `present` needs not be built."""
        request = BuildRequest(id="1", repo="r", ref="f" * 40, morphology="systems/demo.morph")
        build = self.builds.new(request, "127.0.0.1:1", name)
        build.began = self.clock
        build.graph = Graph(5, ARCH, sources[-1].key, sources)
        build.by_key = {each.key: each for each in sources}
        needed = {need for each in sources for need in each.needs}
        targets = [each for each in sources if each.key not in needed]
        build.work = plan_work(build.graph, targets, [key_of(present)] if present else [])
        self.history.plan(build)
        self.tell(e.RequestAdded(build.id, build.work.tasks, priority))
        return build

    def join(self, worker: str, capacity: int = 1, **running: str) -> None:
        pairs = tuple((job, key_of(name)) for name, job in running.items())
        self.tell(e.WorkerJoined(worker, frozenset({ARCH}), capacity, pairs))

    def build(self, name: str, seconds: float = 10.0) -> None:
        """What was started is built after a while, and stored at once."""
        self.clock += seconds
        self.tell(e.JobBuilt(self.jobs[name]))
        self.tell(e.JobStored(self.jobs[name]))

    def attempts(self, name: str) -> list[Attempt]:
        return [self.history.attempts[job] for job in self.history.by_key[key_of(name)]]

    def overview(self) -> Overview:
        return view_overview(self.watched)

    def view(self, name: str = "build-1") -> BuildView:
        facts = gather(self.watched, name)
        assert facts is not None
        return view_build(facts)

    def states(self, name: str = "build-1") -> Mapping[str, str]:
        return {step.name: step.state for step in self.view(name).steps}
