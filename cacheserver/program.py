"""The program: command line, settings, logs, signals, and the exit status.

0 after SIGTERM, SIGINT or what only asked for information; 1 where it can't serve; 2 for a command
line that can't be understood. SIGHUP opens the file of --output anew.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cacheserver.settings import ServerSettings, server_table
from morphlib.errors import MorphError, Reason
from morphlib.sideprogram import SideProgram
from morphlib.text import make_printable

if TYPE_CHECKING:
    from cacheserver.hits import Hits
    from cacheserver.uploads import Uploads

_TIDY_SECONDS = 60.0
_ENDING = (signal.SIGTERM, signal.SIGINT)
_END_SECONDS = 8.0  # for answers that are being sent when the program has to end
_SAVE_SECONDS = 2.0  # for counts


def run_program(argv: Sequence[str]) -> int:
    """Do what the command line `argv` (program first) says. The exit status is returned."""
    return SideProgram(
        "morph-cache-server", server_table(), ServerSettings, _work, fill_server_template
    ).run(argv)


def _work(settings: ServerSettings, argv: Sequence[str]) -> int:
    if settings.gc:
        return _collect(settings)
    _serve(settings, argv)
    return 0


def fill_server_template(template: Path) -> str:
    """The manual page with everything that follows from the settings made anew."""
    from morphlib.manpage import fill_template

    return fill_template(template, server_table(), [".B morph\\-cache\\-server", ".RI [ options ]"])


def _collect(settings: ServerSettings) -> int:
    """Remove what may go and say so. The exit status says whether all is within its limits."""
    from cacheserver.collecting import collect_once, describe
    from morphlib.events import silence

    report = collect_once(settings, silence, dry_run=settings.dry_run)
    sys.stdout.write(make_printable(describe(report)))
    return 0 if report.sufficient and not report.failed else 1


def _serve(settings: ServerSettings, argv: Sequence[str]) -> None:
    """Serve until a signal ends it. Raises MorphError if that can't begin."""
    from cacheserver.accesslog import AccessLog
    from cacheserver.assembly import assemble, log_event
    from cacheserver.collecting import start_collecting
    from cacheserver.repositories import allow_many_files
    from morphlib.version import describe_version

    _begin_log(settings, argv)
    allow_many_files()
    path = Path(settings.output).absolute() if settings.output else None
    stdout = None if settings.quiet or path or sys.stdout is None else sys.stdout.buffer
    log = AccessLog(path, stdout)
    assembled = assemble(settings, log, describe_version())
    server = assembled.server
    # cheroot would take an inherited socket for its own, wherever that listens.
    os.environ.pop("LISTEN_PID", None)
    # Threads inherit what is blocked, so that signals come to this one.
    signal.pthread_sigmask(signal.SIG_BLOCK, (*_ENDING, signal.SIGHUP))
    try:
        server.prepare()
    except OSError as error:
        raise MorphError(
            f"can't listen at {settings.address} port {settings.port}: {error}",
            reason=Reason.CONFIG,
            hint="Is another server there? Choose another with --port or --address.",
        ) from error
    threading.Thread(target=server.serve, daemon=True).start()
    start_collecting(settings, log_event)
    keep_tidy(assembled.hits, assembled.uploads)
    logging.getLogger("morph.cacheserver").info("listening at %s port %d", *server.bind_addr[:2])
    if settings.port_file is not None:
        threading.Thread(
            target=write_port, args=(settings.port_file, server.port), daemon=True
        ).start()
    while signal.sigwait((*_ENDING, signal.SIGHUP)) == signal.SIGHUP:
        try:
            log.reopen()
        except MorphError as error:
            logging.getLogger("morph.cacheserver").error("%s", error)
    _give_time(server.stop, _END_SECONDS)
    # Whoever holds the directory may hold it for ever.
    _give_time(assembled.hits.try_to_save, _SAVE_SECONDS)
    assembled.uploads.close()
    logging.shutdown()
    # Threads that still wait for their clients must not keep the program.
    os._exit(0)


def _give_time(action: Callable[[], object], seconds: float) -> None:
    """Do something, and go on without it if it takes longer."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(seconds)


def keep_tidy(hits: Hits, uploads: Uploads) -> threading.Event:
    """Keep counts, and drop what was uploaded for nothing, now and then in a thread.

    The event ends it.
    """
    stop = threading.Event()

    def tidy() -> None:
        while not stop.wait(_TIDY_SECONDS):
            hits.try_to_save()
            uploads.expire()

    threading.Thread(target=tidy, daemon=True).start()
    return stop


def write_port(path: Path, port: int) -> None:
    """Write the port into a file in place: it may be a pipe, of which somebody waits to read."""
    try:
        with path.open("w") as file:
            file.write(f"{port}\n")
    except OSError as error:
        sys.stderr.write(f"ERROR: can't write the port to {path}: {error.strerror}\n")
        os._exit(1)


class _OneLine(logging.Filter):
    """Keeps names that clients made up from writing lines of their own."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage().replace("\n", "\\n").replace("\t", "\\t")
        record.msg, record.args = make_printable(text), ()
        return True


def _begin_log(settings: ServerSettings, argv: Sequence[str]) -> None:
    """Events go to the log that is asked for, or to standard error."""
    logging.getLogger("morph.cacheserver").addFilter(_OneLine())
    if settings.log == "none":
        logging.getLogger("morph").addHandler(logging.NullHandler())
        logging.getLogger("morph").propagate = False
    elif settings.log:
        from morphlib.events import silence
        from morphlib.logs import add_log

        add_log(silence, settings, argv)
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")
        )
        logging.getLogger("morph").addHandler(handler)
        logging.getLogger("morph").setLevel(settings.log_level.upper())
