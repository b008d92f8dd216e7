"""The processes that deploy, each in namespaces of its own.

They are forked before anything is done, as long as there is a single thread. What one mounts goes
with it, and it goes with its parent.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from morphlib import events, process
from morphlib.build.forked import leave_once, live
from morphlib.cache.failures import storage_error
from morphlib.credentials import hide_credentials
from morphlib.deploy import model
from morphlib.deploy.descriptors import occupy
from morphlib.deploy.model import DeployContext, Done, FromWorker, Job, Ready, Told, Unusable
from morphlib.deploy.namespace import enter_deploy_namespace
from morphlib.deploy.pipeline import Pipeline
from morphlib.deploy.runner import ENDING, PATIENCE, hurry
from morphlib.errors import MorphError, MorphErrors, Reason

#: Seconds of clearing up that nobody needs to be told of.
_SILENCE = 0.5
#: Tells workers that nobody can wait for what they are ending. SIGTERM they may get several times.
_HURRY = signal.SIGUSR1


@dataclass(slots=True)
class Worker:
    """A worker process, seen from its parent. `job` is what it is at."""

    pid: int
    connection: Connection
    job: Job | None = None

    def assign(self, job: Job) -> None:
        self.job = job
        self.connection.send_bytes(model.encode(job))

    def receive(self) -> FromWorker | None:
        """The next message, None when the worker is gone."""
        try:
            message: FromWorker = model.decode_message(self.connection.recv_bytes())
        except (EOFError, OSError):
            return None
        return message


def start_workers(context: DeployContext, workers: list[Worker]) -> None:
    """Fork the workers of a run. Must be called while the process has a single thread.

    Each is in `workers` from the moment on that it is there, even if we are interrupted.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    for number in range(context.slots):
        ours, theirs = Pipe()
        # A signal must not make a worker do what its parent does then.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        try:
            pid = os.fork()
            if pid == 0:
                for other in workers:
                    other.connection.close()
                ours.close()
                _be_worker(context, number, theirs, parent)
            workers.append(Worker(pid, ours))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()


def _be_worker(context: DeployContext, number: int, connection: Connection, parent: int) -> None:
    """The life of a worker; never returns."""

    def life() -> None:
        # The terminal sends Ctrl-C to everybody; the parent decides what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, leave_once)
        signal.signal(_HURRY, hurry)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        _work(context, number, connection, parent)

    live(life)


def _work(context: DeployContext, number: int, connection: Connection, parent: int) -> None:
    def send(message: FromWorker) -> None:
        connection.send_bytes(model.encode(message))

    def tell_command(argv: Sequence[process.Arg], env: Mapping[str, str] | None) -> None:
        text = f"# {hide_credentials(process.quote(argv))}"
        send(Told(events.Status(text=text, level="chatty")))

    if process.on_start is not None:
        process.on_start = tell_command
    occupy(context.log)
    scratch = context.run / f"worker{number}"
    scratch.mkdir(mode=0o755)
    try:
        report = enter_deploy_namespace(scratch, parent)
    except MorphError as error:
        send(Unusable(error.message, error.hint))
        return
    send(Ready(report.problems))
    pipeline = Pipeline(context, lambda event: send(Told(event)))
    while True:
        try:
            job = model.decode_job(connection.recv_bytes())
        except EOFError:
            return
        send(Done(job.index, tuple(_as_plain(error) for error in _do(pipeline, job))))


def _do(pipeline: Pipeline, job: Job) -> list[MorphError]:
    prepared = pipeline.context.deployments[job.index]
    name = prepared.deployment.name
    try:
        with _as_expected(name, pipeline.context.run):
            if job.checking:
                return pipeline.check(prepared)
            pipeline.deploy(prepared)
    except MorphErrors as errors:
        return list(errors.errors)
    except MorphError as error:
        return [error]
    return []


@contextmanager
def _as_expected(name: str, run: Path) -> Iterator[None]:
    try:
        yield
    except MorphError:
        raise
    except OSError as error:
        place = error.filename if isinstance(error.filename, str) else run
        raise storage_error(error, f"deploy {name}", Path(place)) from error
    except Exception as error:
        raise MorphError(
            f"deployment {name}: internal error, please report: {error!r}",
            reason=Reason.DEPLOY,
            hint=traceback.format_exc().rstrip(),
        ) from error


def _as_plain(error: MorphError) -> tuple[str, str, str | None]:
    return error.message, error.reason.value, error.hint


def stop_workers(workers: Sequence[Worker], tell: Callable[[Sequence[Job]], None]) -> None:
    """End all workers: those at work end their extensions first, which get their time for that.

    If that takes more than a moment, `tell` is called with the jobs that are waited for. From then
    on SIGINT ends them without more ado, unless it is ignored.
    """
    for worker in workers:
        worker.connection.close()
        if worker.job is not None:
            _send(worker, signal.SIGTERM)
    left = {worker.pid: worker for worker in workers}

    def all_ended() -> bool:
        for pid in [pid for pid in left if os.waitpid(pid, os.WNOHANG)[0]]:
            del left[pid]
        return not left

    if process.wait_until(all_ended, _SILENCE):
        return
    impatient = False

    def interrupt(signum: int, frame: object) -> None:
        nonlocal impatient
        impatient = True

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        tell([worker.job for worker in left.values() if worker.job is not None])
        process.wait_until(lambda: all_ended() or impatient, PATIENCE + 5 - _SILENCE)
        if not all_ended():
            for worker in left.values():
                _send(worker, _HURRY)
            process.wait_until(all_ended, 5)
    finally:
        signal.signal(signal.SIGINT, before)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _send(worker: Worker, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(worker.pid, number)


def reap(worker: Worker) -> str:
    """Take leave of a worker that ended unasked. Returns how it ended, for people."""
    worker.connection.close()
    _, status = os.waitpid(worker.pid, 0)
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with status {os.waitstatus_to_exitcode(status)}"
