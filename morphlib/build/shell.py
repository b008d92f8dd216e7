"""Stepping into the place where a chunk is built, or into what a failed build left."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from morphlib.build.area import Area, AreaRecord, find_kept, make_area, read_record
from morphlib.build.layers import Layer, load_layer
from morphlib.build.layout import ChunkLayout
from morphlib.build.model import BuildContext, encode
from morphlib.build.namespace import enter_build_namespace
from morphlib.build.removal import remove_tree
from morphlib.build.sandbox import OpenSandbox, Sandbox, open_sandbox
from morphlib.build.sandboxroot import RootKind
from morphlib.build.scratch import scratch_directory
from morphlib.build.slots import BusySlots
from morphlib.build.sources import git_source
from morphlib.build.staging import stage, stage_writable
from morphlib.build.workbench import Workbench
from morphlib.cache.inuse import InUse
from morphlib.cache.locks import LockBusyError, acquire_directory
from morphlib.cache.names import key_of
from morphlib.errors import MorphError, Reason
from morphlib.events import Listener, Status
from morphlib.graph.model import Source
from morphlib.process import quote
from morphlib.rooted import resolve_in
from morphlib.sources.pool import fetch_sources

SHELL = "/bin/sh"
_SHOWN = 5


def enter_chunk(
    context: BuildContext,
    source: Source,
    argv: Sequence[str],
    listener: Listener,
    build: Sequence[str],
) -> int:
    """Run `argv`, or an interactive shell if it is empty, where a chunk is built.

    That is the staging area that a failed build of just this chunk left, if there is one, and else
    a new one with the sources as they are before the first step, which is removed afterwards. The
    exit status of the command is returned. `build` is the command line that builds the system.
    Raises MorphError.
    """
    _demand_dependencies(context, source, build)
    kept = find_kept(context.options.staging, source.key)
    bench = Workbench(context, 0, BusySlots(1), listener)
    if kept is not None:
        listener(Status(text=f"Entering the staging area that a failed build left: {kept}"))
        staged = context.graph.staged(source)
        return _enter_kept(kept, argv, lambda record: bench.layers_of(staged))
    fetch_sources([git_source(source)], context.mirrors, context.aliases)
    with make_area(context.options.staging, source.name, lambda path, _: remove_tree(path)) as area:

        def work() -> int:
            layout = ChunkLayout(bench, source, area)
            extracted = layout.extract()
            with layout.open(layout.layers(), extracted) as opened:
                flags = {"MAKEFLAGS": layout.make_flags("build", busy=1)}
                return _run(opened, argv, source.name, flags)

        return _in_builder(work)


def enter_area(path: Path, argv: Sequence[str]) -> int:
    """The same in a staging area that a failed build left."""
    return _enter_kept(path, argv, _load_layers)


def _enter_kept(
    path: Path, argv: Sequence[str], layers_of: Callable[[AreaRecord], Sequence[Layer]]
) -> int:
    path = path.resolve()
    record = _read_own_record(path)
    held = acquire_directory(path, blocking=False)
    if held is None:
        raise LockBusyError(path, None)
    area = Area(path, keep=True)
    keys = {key_of(directory.name) for directory in record.layer_directories}
    with held, InUse(path.parent.parent / "in-use", keys):
        # Where somebody who was in it was killed, things lie about.
        remove_tree(area.work)

        def work() -> int:
            with _open_again(area, record, layers_of(record)) as opened:
                return _run(opened, argv, record.name)

        try:
            return _in_builder(work)
        finally:
            remove_tree(area.work)


def _read_own_record(path: Path) -> AreaRecord:
    """Raises MorphError unless the area is one that whoever runs this has made.

    What an area says of itself decides which of the user's files can be seen in it.
    """
    try:
        owner = path.stat().st_uid
    except OSError as error:
        raise _no_area(path, error.strerror or str(error)) from error
    if owner != os.geteuid():
        raise MorphError(
            f"The staging area {path} belongs to another user",
            reason=Reason.SANDBOX,
            hint="Enter it as the user who built.",
        )
    record = read_record(path)
    if record is None:
        raise _no_area(path, "it does not say how to enter it")
    return record


def _no_area(path: Path, why: str) -> MorphError:
    return MorphError(
        f"{path} is no staging area that a failed build left: {why}",
        reason=Reason.NOT_FOUND,
        hint="See morph help shell.",
    )


def _demand_dependencies(context: BuildContext, source: Source, build: Sequence[str]) -> None:
    """Raise MorphError unless all that a chunk is built with is in the store."""
    graph = context.graph
    needed = [graph.source(ref) for ref in graph.staged(source)]
    present = context.store.check_many({each.key: each.filenames() for each in needed})
    missing = {each.id: each for each in needed if each.key not in present}
    if not missing:
        return
    names = [each.name for each in missing.values()]
    shown = ", ".join(names[:_SHOWN])
    if len(names) > _SHOWN:
        shown += f" and {len(names) - _SHOWN} more"
    below = {s.id for i in missing for s in graph.reachable([i]) if s.id != i}
    above = [each.name for each in missing.values() if each.id not in below]
    # Building the chunk builds what it needs, too.
    components = above if len(above) <= _SHOWN else [source.name]
    raise MorphError(
        f"{source.name} is built with {shown}, which {'is' if len(names) == 1 else 'are'} not "
        "built yet",
        reason=Reason.NOT_FOUND,
        hint=f"Run: {quote([*build, *components])}",
    )


def _load_layers(record: AreaRecord) -> list[Layer]:
    layers = []
    for directory in record.layer_directories:
        layer = load_layer(directory)
        if layer is None:
            raise MorphError(
                f"{directory}, which {record.name} was built with, was removed or altered",
                reason=Reason.NOT_FOUND,
                hint="Build again, or use: morph shell SYSTEM CHUNK",
            )
        layers.append(layer)
    return layers


@contextlib.contextmanager
def _open_again(area: Area, record: AreaRecord, layers: Sequence[Layer]) -> Iterator[OpenSandbox]:
    sandbox = record.sandbox()
    if record.kind is RootKind.WRITABLE:
        area.work.mkdir()
        staging = stage_writable(layers, area.work, changes=area.changes)
        with staging, open_sandbox(sandbox) as opened:
            yield opened
        return
    in_staging = record.kind is RootKind.READ_ONLY
    with (
        scratch_directory(area.work) as work,
        stage(layers, record.mount_points, work, ldconfig_log=2 if in_staging else None),
    ):
        sandbox.root.mkdir(exist_ok=True)  # that of the host's tools is beside what is staged
        with open_sandbox(sandbox) as opened:
            yield opened


def _run(
    opened: OpenSandbox,
    argv: Sequence[str],
    name: str,
    more_environment: Mapping[str, str] | None = None,
) -> int:
    sandbox = opened.sandbox
    argv = argv or [SHELL]
    if not _has_program(sandbox, argv[0]):
        raise MorphError(
            f"There is no {argv[0]} in the staging area of {name}",
            reason=Reason.NOT_FOUND,
            hint="Let it be built with a chunk that has one, or give a command that is there.",
        )
    environment = {**sandbox.environment, **(more_environment or {})}
    with _keeping_terminal():
        return opened.run_on_terminal(argv, environment=environment).status


def _has_program(sandbox: Sandbox, name: str) -> bool:
    directories = os.fsdecode(sandbox.environment.get("PATH", "")).split(":")
    if "/" in name:
        directories = ["" if name.startswith("/") else sandbox.cwd]
    return any(resolve_in(sandbox.root, f"{each}/{name}").exists() for each in directories)


@contextlib.contextmanager
def _keeping_terminal() -> Iterator[None]:
    """Take the terminal back, as it was, from a shell that gave it to its own jobs."""
    try:
        foreground = os.tcgetpgrp(0)
        modes = termios.tcgetattr(0)
    except (OSError, termios.error):
        yield  # there is no terminal
        return
    before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, termios.error):
            os.tcsetpgrp(0, foreground)
            termios.tcsetattr(0, termios.TCSADRAIN, modes)
        signal.signal(signal.SIGTTOU, before)


class _Report(msgspec.Struct, frozen=True):
    """What a child says in the end: an exit status, or why there is none."""

    status: int = 0
    message: str | None = None
    reason: str = ""
    hint: str | None = None


def _in_builder(work: Callable[[], int]) -> int:
    """The result of `work` in a child in the namespaces of a builder. Raises its MorphError."""
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _be_child(work, parent, writing)
    os.close(writing)
    # Ctrl-C is for what runs in the sandbox; here it means nothing.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with os.fdopen(reading, "rb") as pipe:
            said = pipe.read()
    except BaseException:
        os.kill(child, signal.SIGTERM)
        raise
    finally:
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        signal.signal(signal.SIGINT, before)
    if not said:
        raise MorphError(f"the shell's process ended ({ended})", reason=Reason.SANDBOX)
    report = msgspec.msgpack.decode(said, type=_Report)
    if report.message is not None:
        raise MorphError(report.message, reason=Reason(report.reason), hint=report.hint)
    return report.status


def _be_child(work: Callable[[], int], parent: int, writing: int) -> NoReturn:
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, _leave)
        enter_build_namespace(parent)
        report = _Report(status=work())
    except MorphError as error:
        report = _Report(message=error.message, reason=error.reason.value, hint=error.hint)
    except SystemExit:
        os._exit(1)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    sys.stdout.flush()
    os.write(writing, encode(report))
    os._exit(0)


def _leave(signum: int, frame: object) -> None:
    # Once is enough: what clears up must not be interrupted in its turn.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(1)
