"""The work of one builder process: take a job, build the source, say how it went."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock

from morphlib import events
from morphlib.build import model
from morphlib.build.chunk import build_chunk
from morphlib.build.heldsandbox import start_launcher, stop_launcher
from morphlib.build.model import BuildContext, Built, Failed, Job, Ready, Told, Unusable
from morphlib.build.namespace import enter_build_namespace
from morphlib.build.recorder import Recorder
from morphlib.build.slots import BusySlots
from morphlib.build.stratum import build_stratum
from morphlib.build.system import build_system
from morphlib.build.workbench import Workbench
from morphlib.cache.failures import storage_error
from morphlib.definitions.models import Kind
from morphlib.errors import MorphError, Reason
from morphlib.graph.model import Source

#: Failures that would befall any other source as well.
_FATAL = frozenset({Reason.SPACE, Reason.SANDBOX})


def work(context: BuildContext, slot: int, busy: BusySlots, connection: Connection) -> None:
    """Build what the parent asks for until it hangs up."""

    sending = Lock()  # what a command prints is told by a thread

    def send(message: model.FromBuilder) -> None:
        with sending:
            connection.send_bytes(model.encode(message))

    try:
        report = enter_build_namespace()
        start_launcher()
    except MorphError as error:
        send(Unusable(error.message, error.hint))
        return
    send(Ready(report.problems))
    bench = Workbench(context, slot, busy, lambda event: send(Told(event)))
    try:
        _serve(bench, connection, send)
    finally:
        while bench.leavings.remove_one():
            pass
        stop_launcher()


def _serve(
    bench: Workbench, connection: Connection, send: Callable[[model.FromBuilder], None]
) -> None:
    slot, busy = bench.slot, bench.busy
    while True:
        while not connection.poll() and bench.leavings.remove_one():
            pass
        try:
            job = model.decode_job(connection.recv_bytes())
        except EOFError:
            return
        busy.set(slot, busy=True)
        try:
            send(_build(bench, job))
        finally:
            busy.set(slot, busy=False)


def _build(bench: Workbench, job: Job) -> Built | Failed:
    source = bench.graph.source(job.source)

    def tell_step(step: str) -> None:
        bench.tell(events.StepStarted(name=source.name, key=source.key, step=step, slot=job.slot))

    recorder = Recorder(source.kind, tell_step)
    try:
        with _as_expected(bench, source):
            _build_kind(bench, source, recorder)
    except MorphError as error:
        message = error.message
        if source.name not in message:
            message = f"{source.kind} {source.name}: {message}"
        return Failed(
            source=source.id,
            message=message,
            reason=error.reason.value,
            hint=error.hint,
            duration=recorder.duration,
            fatal=error.reason in _FATAL,
        )
    return Built(
        source=source.id,
        duration=recorder.duration,
        cpu=recorder.cpu,
        peak_memory=recorder.peak_memory,
        steps=recorder.steps(),
    )


@contextmanager
def _as_expected(bench: Workbench, source: Source) -> Iterator[None]:
    """One source can't be built for whatever reason: that is no reason for its builder to end."""
    try:
        yield
    except MorphError:
        raise
    except OSError as error:
        place = error.filename if isinstance(error.filename, str) else bench.options.tempdir
        raise storage_error(error, f"build {source.name}", Path(place)) from error
    except Exception as error:
        trace = traceback.format_exc().rstrip()
        raise MorphError(
            f"{source.kind} {source.name}: internal error, please report: {error!r}",
            reason=Reason.BUILD,
            hint=trace,
        ) from error


def _build_kind(bench: Workbench, source: Source, recorder: Recorder) -> None:
    match source.kind:
        case Kind.CHUNK:
            build_chunk(bench, source, recorder)
        case Kind.STRATUM:
            build_stratum(bench.context, source, recorder)
        case Kind.SYSTEM:
            build_system(bench, source, recorder)
        case Kind.CLUSTER:
            raise AssertionError("a cluster is not built")
