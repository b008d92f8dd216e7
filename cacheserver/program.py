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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from cacheserver.settings import (
    ServerSettings,
    server_defaults,
    server_rows_by_name,
    server_table,
)
from morphlib.commandline import Invocation, parse_command_line
from morphlib.configfiles import default_files, format_config, read_entries, values_of
from morphlib.errors import MorphError, MorphErrors, Reason
from morphlib.helptext import help_text, option_names_text
from morphlib.rows import Group
from morphlib.text import make_printable

_USAGE = "Usage: morph-cache-server [options]; see morph-cache-server --help"
_ACTIONS = {
    "--version": "show the version and exit",
    "--config=FILE": "also read this configuration file",
    "--no-default-configs": "read no configuration files but those of --config",
    "--dump-config": "show the whole configuration and exit",
}
_ENDING = (signal.SIGTERM, signal.SIGINT)
_END_SECONDS = 8.0  # for answers that are being sent when the program has to end


def run_program(argv: Sequence[str]) -> int:
    """Do what the command line `argv` (program first) says. The exit status is returned."""
    try:
        return _run(Path(argv[0]).name, argv, parse_server_command_line(argv[1:]))
    except MorphError as error:
        for each in error.errors if isinstance(error, MorphErrors) else (error,):
            sys.stderr.write(f"ERROR: {make_printable(str(each))}\n")
        return 2 if error.reason is Reason.USAGE else 1


def parse_server_command_line(arguments: Sequence[str]) -> Invocation:
    return parse_command_line(arguments, _warn, server_table(), _USAGE)


def _warn(text: str) -> None:
    sys.stderr.write(f"WARNING: {make_printable(text)}\n")


def _run(program: str, argv: Sequence[str], invocation: Invocation) -> int:
    from morphlib.version import describe_version

    if "version" in invocation.actions:
        print(describe_version())
        return 0
    files = [] if "no-default-configs" in invocation.actions else default_files(program)
    files += invocation.configs
    if _inform(files, invocation):
        return 0
    entries = read_entries(files)
    read = values_of(entries, _warn, server_rows_by_name(), program)
    values: dict[str, Any] = {**server_defaults(), **read, **invocation.values}
    settings = ServerSettings(**values)
    if settings.help:
        print(format_help(program), end="")
    elif "dump-config" in invocation.actions:
        print(format_config(settings, entries), end="")
    elif settings.gc:
        return _collect(settings)
    else:
        _serve(settings, argv, describe_version())
    return 0


def _inform(files: Sequence[Path], invocation: Invocation) -> bool:
    """Print what needs no configuration. False if nothing of it was asked for."""
    if "list-config-files" in invocation.actions:
        print("\n".join(map(str, files)))
    elif "dump-setting-names" in invocation.actions:
        print("\n".join(row.name for row in server_table()))
    elif invocation.template is not None:
        print(fill_server_template(Path(invocation.template)), end="")
    else:
        return False
    return True


def fill_server_template(template: Path) -> str:
    """The manual page with everything that follows from the settings made anew."""
    from morphlib.manpage import fill_template

    return fill_template(template, server_table(), [".B morph\\-cache\\-server", ".RI [ options ]"])


def format_help(program: str) -> str:
    """What --help shows."""
    formatter = click.HelpFormatter(width=100)
    formatter.write_usage(program, "[options]")
    for group in Group:
        rows = [row for row in server_table() if row.group is group and not row.hidden]
        if rows:
            named = [(option_names_text(row, everything=False), help_text(row)) for row in rows]
            named += _ACTIONS.items() if group is Group.GENERAL else ()
            with formatter.section(group.value):
                formatter.write_dl(named)
    return formatter.getvalue()


def _collect(settings: ServerSettings) -> int:
    """Remove what may go and say so. The exit status says whether all is within its limits."""
    from cacheserver.collecting import collect_once, describe
    from morphlib.events import silence

    report = collect_once(settings, silence, dry_run=settings.dry_run)
    sys.stdout.write(make_printable(describe(report)))
    return 0 if report.sufficient and not report.failed else 1


def _serve(settings: ServerSettings, argv: Sequence[str], version: str) -> None:
    """Serve until a signal ends it. Raises MorphError if that can't begin."""
    from cacheserver.accesslog import AccessLog
    from cacheserver.assembly import assemble, log_event
    from cacheserver.collecting import start_collecting
    from cacheserver.repositories import allow_many_files

    _begin_log(settings, argv)
    allow_many_files()
    path = Path(settings.output).absolute() if settings.output else None
    stdout = None if settings.quiet or path or sys.stdout is None else sys.stdout.buffer
    log = AccessLog(path, stdout)
    assembled = assemble(settings, log, version)
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
    assembled.hits.keep_saving()
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
    ender = threading.Thread(target=server.stop, daemon=True)
    ender.start()
    ender.join(_END_SECONDS)
    assembled.hits.try_to_save()
    assembled.uploads.close()
    logging.shutdown()
    # Threads that still wait for their clients must not keep the program.
    os._exit(0)


def write_port(path: Path, port: int) -> None:
    """Write the port into a file in place: it may be a pipe, of which somebody waits to read."""
    try:
        with path.open("w") as file:
            file.write(f"{port}\n")
    except OSError as error:
        sys.stderr.write(f"ERROR: can't write the port to {path}: {error.strerror}\n")
        os._exit(1)


def _begin_log(settings: ServerSettings, argv: Sequence[str]) -> None:
    """Events go to the log that is asked for, or to standard error."""
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
