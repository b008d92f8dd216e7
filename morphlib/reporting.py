"""Putting a run's output together: where it goes, what shows events, what is logged."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TextIO

from morphlib import process
from morphlib.commands.session import Session
from morphlib.credentials import hide_credentials, hide_passwords
from morphlib.errors import MorphError, Reason
from morphlib.events import AnyEvent, Listener, Status
from morphlib.settings import Settings


class Reporter(Protocol):
    """A listener that has to be told when everything is over."""

    def __call__(self, event: AnyEvent) -> None: ...

    def close(self) -> None: ...


@contextmanager
def open_session(
    program: str,
    argv: Sequence[str],
    settings: Settings,
    warn: Callable[[str], None],
    *,
    call: Sequence[str] = ("morph",),
) -> Iterator[Session]:
    """The session of a command; on leaving, everything is written and the terminal is as before."""
    output = _open_output(settings)
    reporter = _make_reporter(settings, output, warn)
    listener: Listener = reporter
    try:
        if settings.log not in ("", "none"):
            from morphlib.logs import add_log

            listener = add_log(reporter, settings, argv)
        if settings.debug or listener is not reporter:
            process.on_start = CommandTeller(listener)
        yield Session(
            program, settings, output, sys.stdout, listener, _warner(listener), tuple(call)
        )
    finally:
        process.on_start = None
        reporter.close()
        if output is not sys.stdout:
            output.close()


def _warner(listener: Listener) -> Callable[[str], None]:
    """Warnings are events too, so that every listener has them."""
    return lambda text: listener(Status(text=text, level="warning"))


def _open_output(settings: Settings) -> TextIO:
    if not settings.output:
        return sys.stdout
    path = Path(settings.output)
    try:
        return path.open("w", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise MorphError(
            f"can't write output file {path}: {error.strerror}", reason=Reason.CONFIG
        ) from error


def _make_reporter(settings: Settings, output: TextIO, warn: Callable[[str], None]) -> Reporter:
    """Lines and the live view yield to a JSON document on standard output and go to stderr."""
    lines_to = sys.stderr if settings.json and output is sys.stdout else output
    if settings.progress == "json":
        from morphlib.progress.json import JsonReporter

        return JsonReporter(output)
    wants_live = settings.progress == "live" or (
        settings.progress == "auto" and not settings.quiet and _is_lively(lines_to)
    )
    if wants_live and not settings.debug and not settings.build_log_on_stdout:
        from morphlib.progress.live import LiveReporter

        return LiveReporter(lines_to, warn, quiet=settings.quiet)
    from morphlib.progress.plain import PlainReporter

    return PlainReporter(
        lines_to,
        warn,
        quiet=settings.quiet,
        debug=settings.debug,
        logs_shown=settings.build_log_on_stdout,
    )


def _is_lively(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")


class CommandTeller:
    """Shows each program that is started, and how its environment differs from the last one's."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._environment: Mapping[str, str] = dict(os.environ)
        self._lock = threading.Lock()

    def __call__(self, argv: Sequence[process.Arg], env: Mapping[str, str] | None) -> None:
        environment = dict(os.environ if env is None else env)
        with self._lock:
            before, self._environment = self._environment, environment
        for line in (*_differences(before, environment), hide_credentials(process.quote(argv))):
            self._listener(Status(text=f"# {line}", level="chatty"))


def _differences(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    shown = hide_passwords(after)
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            yield f"unset {name}"
        elif before.get(name) != after[name]:
            yield hide_credentials(f"export {name}={process.quote([shown[name]])}")


def keep_traceback(*, show: bool) -> str:
    """Write the trace of the exception at hand to the log, or else to a file of its own.

    The message to show is returned.
    """
    import traceback

    trace = traceback.format_exc()
    if show:
        sys.stderr.write(trace)
    last = trace.rstrip().rpartition("\n")[2]
    where = _write_traceback(trace)
    return f"internal error, please report: {last}\n  The traceback is in {where}."


def _write_traceback(trace: str) -> str:
    logging = sys.modules.get("logging")
    if logging is not None and (handlers := logging.getLogger("morph").handlers):
        logging.getLogger("morph").critical("internal error\n%s", trace)
        return str(getattr(handlers[0], "baseFilename", "the system log"))
    import tempfile

    with tempfile.NamedTemporaryFile(
        "w", prefix="morph-traceback-", suffix=".txt", delete=False, errors="backslashreplace"
    ) as file:
        file.write(trace)
    return file.name
