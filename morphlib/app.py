"""The program: command line, settings, log, progress, and the exit status.

The only place that knows all of them, that prints errors, and that decides how the program ends:
0 success, 1 failure, 2 a command line that can't be understood, 255 interrupted.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from morphlib.commandline import Invocation, parse_command_line
from morphlib.commands import Needs, find_command
from morphlib.configfiles import default_files, format_config, read_entries, values_of
from morphlib.credentials import hide_credentials
from morphlib.errors import MorphError, MorphErrors, Reason
from morphlib.settings import Settings, default_values, derive_settings, table
from morphlib.text import make_printable
from morphlib.values import plain_values

EXIT_SUCCESS, EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 255

#: No build or fetch makes sense on a machine whose clock was never set.
_OLDEST_TIME = 1_325_376_000  # 2012-01-01

#: What the machine lacks, rather than what Morph does wrong.
_MACHINE_ERRORS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE}
    | {errno.EACCES, errno.EPERM, errno.ENOMEM, errno.EAGAIN}
)


def run_program(argv: Sequence[str]) -> int:
    """Do what the command line `argv` (program first) says. The exit status is returned."""
    _make_streams_safe()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup wants it
            signal.signal(number, _interrupt)
    invocation = None
    try:
        invocation = parse_command_line(argv[1:], warn)
        with _profile(os.environ.get("MORPH_PROFILE")):
            status = _run(Path(argv[0]).name, argv, invocation)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return _tell_error(MorphError("interrupted", reason=Reason.INTERRUPTED))
    except BrokenPipeError:
        _abandon(sys.stdout)  # who read the output has seen enough
        return EXIT_FAILURE
    except Exception as error:
        expected = _as_expected(error)
        if expected is not None:
            return _tell_error(expected)
        if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("morphlib"):
            raise  # a library that is not installed
        return _tell_internal_error(invocation)


def _as_expected(error: Exception) -> MorphError | None:
    """The error, if it is the user's or the machine's; None if it is a bug of ours."""
    if isinstance(error, MorphError):
        return error
    if not isinstance(error, OSError):
        return None
    if error.errno == errno.ENOENT and error.filename is None:
        # The one thing that is asked for without naming it.
        gone = "the working directory is no longer there"
        return MorphError(gone, reason=Reason.NOT_FOUND)
    if error.errno in _MACHINE_ERRORS:
        place = f"{error.filename}: " if isinstance(error.filename, str) else ""
        reason = Reason.SPACE if error.errno in (errno.ENOSPC, errno.EDQUOT) else Reason.CONFIG
        return MorphError(f"{place}{error.strerror}", reason=reason)
    return None


@contextmanager
def _profile(path: str | None) -> Iterator[None]:
    """Write how much time each function takes to the file, if one is given."""
    if not path:
        yield
        return
    from cProfile import Profile

    with Profile() as profile:
        yield
    profile.dump_stats(path)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Being told to end is as good as Ctrl-C: the same cleaning up happens."""
    process = sys.modules.get("morphlib.process")
    if process is not None:
        process.end_programs()
    raise KeyboardInterrupt


def _make_streams_safe() -> None:
    """All output is valid UTF-8, whatever the locale and whatever a build prints."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
        elif stream is None:
            # Whoever started us closed it. Its number must not become that of another file.
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - open until the end


def warn(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"WARNING: {make_printable(text)}\n")
    sys.stderr.flush()


def _run(program: str, argv: Sequence[str], invocation: Invocation) -> int:
    if "version" in invocation.actions:
        from morphlib.version import describe_version

        _print_data(invocation, {"version": describe_version()}, describe_version())
        return EXIT_SUCCESS
    files = [] if "no-default-configs" in invocation.actions else default_files(program)
    files += invocation.configs
    if _inform(files, invocation):
        return EXIT_SUCCESS
    entries = read_entries(files)
    values: dict[str, Any] = {**default_values(), **values_of(entries, warn), **invocation.values}
    settings = Settings(**values)
    if "dump-config" in invocation.actions:
        text = format_config(settings, entries).rstrip("\n")
        _print_data(invocation, plain_values(settings), text)
        return EXIT_SUCCESS
    if "MORPH_DUMP_PROCESSED_CONFIG" in os.environ:
        from morphlib.commands.common import process_settings

        print(format_config(process_settings(settings), entries), end="")
        return EXIT_SUCCESS
    return _run_command(program, argv, derive_settings(settings), invocation)


def _print_data(invocation: Invocation, value: object, text: str) -> None:
    """Print `value` as JSON if that is asked for, else the text, if there is any."""
    if invocation.values.get("json"):
        from morphlib.commands.session import format_json

        print(format_json(value))
    elif text:
        print(text)


def _inform(files: Sequence[Path], invocation: Invocation) -> bool:
    """Print what needs no configuration. False if nothing of it was asked for."""
    if "list-config-files" in invocation.actions:
        names = [str(path) for path in files]
        _print_data(invocation, names, "\n".join(names))
    elif "dump-setting-names" in invocation.actions:
        names = [row.name for row in table()]
        _print_data(invocation, names, "\n".join(names))
    elif invocation.template is not None:
        from morphlib.manpage import fill_template

        print(fill_template(Path(invocation.template)), end="")
    else:
        return False
    return True


def _run_command(
    program: str, argv: Sequence[str], settings: Settings, invocation: Invocation
) -> int:
    words = invocation.words
    if settings.help or settings.help_all:
        words = ("help-all" if settings.help_all else "help", *words)
    now = time.time()
    if now < _OLDEST_TIME:
        raise MorphError(
            f"the system time says {time.gmtime(now).tm_year}, which can't be right",
            reason=Reason.CONFIG,
            hint="Set the system's clock.",
        )
    if not words:
        raise MorphError(
            "must give subcommand",
            reason=Reason.NOT_FOUND,
            hint=f"See {program} --help for those that there are.",
        )
    command = find_command(words[0])
    from morphlib.commands.session import load_run
    from morphlib.reporting import open_session

    with ExitStack() as stack:
        if command.needs is Needs.DIRECTORIES:
            from morphlib.directories import make_directories

            make_directories(settings)
        call = calling_words(argv[0], settings, invocation)
        session = stack.enter_context(open_session(program, argv, settings, warn, call=call))
        return load_run(command)(session, words[1:]) or EXIT_SUCCESS


def calling_words(name: str, settings: Settings, invocation: Invocation) -> list[str]:
    """What a command line begins with that is to use the same directories, from anywhere."""
    if "/" in name:
        path = os.path.abspath(name)  # noqa: PTH100 - Path.resolve would follow the symlink
        words = [path]
    else:
        words = [name]
    if "no-default-configs" in invocation.actions:
        words.append("--no-default-configs")
    words += [f"--config={Path.cwd() / path}" for path in invocation.configs]
    return [*words, f"--cachedir={settings.cachedir}", f"--tempdir={settings.tempdir}"]


def _abandon(stream: TextIO) -> None:
    """Let nothing more be flushed to where the stream led: at exit that would be an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _tell_error(error: MorphError) -> int:
    try:
        sys.stdout.flush()
    except OSError:
        _abandon(sys.stdout)  # the error at hand is the one to tell
    try:
        for each in error.errors if isinstance(error, MorphErrors) else (error,):
            sys.stderr.write(f"ERROR: {make_printable(hide_credentials(str(each)))}\n")
        sys.stderr.flush()
    except OSError:
        _abandon(sys.stderr)  # the exit status is all that can be told
    match error.reason:
        case Reason.USAGE:
            return EXIT_USAGE
        case Reason.INTERRUPTED:
            return EXIT_INTERRUPTED
        case _:
            return EXIT_FAILURE


def _tell_internal_error(invocation: Invocation | None) -> int:
    """Called while an exception is handled that nobody expected."""
    from morphlib.reporting import keep_traceback

    debug = invocation is not None and bool(invocation.values.get("debug"))
    sys.stderr.write(f"ERROR: {keep_traceback(show=debug)}\n")
    return EXIT_FAILURE
