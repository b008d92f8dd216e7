"""A run of deployments: first all checks, then the deployments, several side by side."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path

from morphlib import events
from morphlib.build.interruption import terminated_like_interrupted
from morphlib.build.removal import remove_tree
from morphlib.cache.failures import explain_failure
from morphlib.cache.locks import acquire_directory, make_locked_directory
from morphlib.deploy.model import DeployContext, Done, FromWorker, Job, Ready, Told, Unusable
from morphlib.deploy.orphans import adopt_orphans, children, end_children
from morphlib.deploy.runner import PATIENCE
from morphlib.deploy.worker import Worker, reap, start_workers, stop_workers
from morphlib.errors import MorphError, Reason, raise_all
from morphlib.events import Listener
from morphlib.text import make_printable


@contextmanager
def run_directory(tempdir: Path) -> Iterator[Path]:
    """The directory of a run, TEMPDIR/deployments/RUN, locked while it is there.

    What runs left that were killed is removed first.
    """
    parent = tempdir / "deployments"
    with explain_failure("make a directory for deployments", parent):
        parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(parent)
    directory, held = make_locked_directory(parent, "run-")
    with held:
        try:
            yield directory
        finally:
            remove_tree(directory)


def offer_library(context: DeployContext) -> None:
    """Let extensions in Python find `morphlib`, and nothing else that lies beside it."""
    with explain_failure("make a directory for deployments", context.run):
        context.python.mkdir()
        (context.python / "morphlib").symlink_to(Path(__file__).resolve().parents[1])


def remove_abandoned(parent: Path) -> None:
    """Remove the directories of runs that nobody holds; what can't be is left for `gc` to tell."""
    for path in sorted(parent.iterdir()):
        with contextlib.suppress(MorphError):
            if path.is_symlink() or not path.is_dir():
                continue
            held = acquire_directory(path, blocking=False)
            if held is not None:
                with held:
                    remove_tree(path)


def run_deployments(context: DeployContext, listener: Listener) -> None:
    """Carry out a run. Raises MorphError if something failed.

    Nothing is unpacked before all checks have passed. After a failure nothing more is started; what
    runs comes to its end.
    """
    offer_library(context)
    _Run(context, listener).run()


@dataclass(slots=True)
class _Run:
    context: DeployContext
    listener: Listener
    done: list[int] = field(default_factory=list)
    failed: dict[int, list[MorphError]] = field(default_factory=dict)
    _problems: set[str] = field(default_factory=set)
    _others: frozenset[int] = frozenset()  # children of ours that are no workers

    def run(self) -> None:
        self._others = children()
        adopt_orphans()
        with terminated_like_interrupted():
            workers: list[Worker] = []
            try:
                start_workers(self.context, workers)
                everything = range(len(self.context.deployments))
                self._work(workers, everything, checking=True)
                raise_all(self._explain("Nothing was deployed: checking {} failed"))
                self.done.clear()
                self._work(workers, everything, checking=False)
            finally:
                stop_workers(workers, self._tell_wait)
        raise_all(self._explain())

    def _work(self, workers: list[Worker], indexes: Sequence[int], *, checking: bool) -> None:
        """Have a job done for each deployment. Checks are all done, whatever one of them says."""
        waiting = list(indexes)
        while True:
            for worker in workers:
                if worker.job is None and waiting and (checking or not self.failed):
                    worker.assign(Job(waiting.pop(0), checking))
            if all(worker.job is None for worker in workers):
                return
            busy = {worker.connection: worker for worker in workers}
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]  # what was waited for
                message = worker.receive()
                if message is None:
                    workers.remove(worker)
                    self._lost(worker, workers)
                else:
                    self._handle(worker, message)

    def _handle(self, worker: Worker, message: FromWorker) -> None:
        match message:
            case Told(event):
                self._tell(event)
            case Ready(problems):
                for problem in problems:
                    self._warn_once(problem)
            case Done(index, errors):
                worker.job = None
                if errors:
                    self.failed[index] = [
                        MorphError(text, reason=Reason(reason), hint=hint)
                        for text, reason, hint in errors
                    ]
                else:
                    self.done.append(index)
            case Unusable(message=text, hint=hint):
                raise MorphError(text, reason=Reason.SANDBOX, hint=hint)

    def _tell(self, event: events.AnyEvent) -> None:
        if isinstance(event, events.DeploymentOutput) and event.stream == "stderr":
            sys.stdout.flush()
            sys.stderr.write(make_printable(event.text) + "\n")
            sys.stderr.flush()
        if isinstance(event, events.Status) and event.level == "warning":
            self._warn_once(event.text)
        else:
            self.listener(event)

    def _warn_once(self, text: str) -> None:
        if text not in self._problems:
            self._problems.add(text)
            self.listener(events.Status(text=text, level="warning"))

    def _tell_wait(self, jobs: Sequence[Job]) -> None:
        names = ", ".join(self.context.deployments[job.index].deployment.name for job in jobs)
        if names:
            self._warn_once(
                f"Waiting up to {PATIENCE:.0f} s for the extension of {names} to end. Another "
                "Ctrl-C ends it at once."
            )

    def _lost(self, worker: Worker, left: Sequence[Worker]) -> None:
        how = reap(worker)
        # Its extension was told to end; what that started would go on.
        end_children({*self._others, *(other.pid for other in left)}, patience=PATIENCE)
        if worker.job is None:
            if not left:
                raise MorphError(f"a deploying process {how}", reason=Reason.DEPLOY)
            return
        error = MorphError(f"its process {how}", reason=Reason.DEPLOY)
        self.failed[worker.job.index] = [error]
        if not left:
            raise_all(self._explain())

    def _explain(self, what: str = "Deployment {} failed") -> list[MorphError]:
        """What failed, and with the last of it what did not."""
        if not self.failed:
            return []
        names = [prepared.deployment.name for prepared in self.context.deployments]
        found = [(names[index], error) for index, errors in self.failed.items() for error in errors]
        rest = [index for index in range(len(names)) if index not in self.failed]
        done = ", ".join(names[index] for index in rest if index in self.done)
        left = ", ".join(names[index] for index in rest if index not in self.done)
        outcome = []
        if done:
            outcome.append(f"Deployed before: {done}.")
        if left:
            outcome.append(f"Not started: {left}.")
        explained = []
        for number, (name, error) in enumerate(found, 1):
            hints = [error.hint] if error.hint else []
            if number == len(found):
                hints += outcome
            explained.append(
                MorphError(
                    f"{what.format(name)}: {error.message}",
                    reason=error.reason,
                    hint="\n  ".join(hints) or None,
                )
            )
        return explained
