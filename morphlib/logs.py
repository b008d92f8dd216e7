"""The log: what is told goes to a file or to syslog as well, once a log is asked for."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler, SysLogHandler
from pathlib import Path
from typing import Protocol

from morphlib.credentials import hide_assignments, hide_credentials, hide_passwords
from morphlib.errors import MorphError, Reason
from morphlib.events import AnyEvent, DeploymentOutput, Listener, SourceFailed, Status
from morphlib.process import quote
from morphlib.progress.lines import describe
from morphlib.values import format_value, named_values
from morphlib.version import describe_version

_LEVELS = {
    "normal": logging.INFO,
    "chatty": logging.DEBUG,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


class LogSettings(Protocol):
    """What the settings of a program say of its log."""

    @property
    def log(self) -> str: ...
    @property
    def log_level(self) -> str: ...
    @property
    def log_max(self) -> int: ...
    @property
    def log_keep(self) -> int: ...
    @property
    def log_mode(self) -> str: ...


def add_log(listener: Listener, settings: LogSettings, argv: Sequence[str]) -> Listener:
    """A listener that logs what it passes on. The log begins with all that shaped this run.

    Raises MorphError if the log can't be written.
    """
    logger = logging.getLogger("morph")
    logger.setLevel(settings.log_level.upper())
    # Whatever libraries log is of use too, once somebody looks at a log.
    logging.getLogger().setLevel(settings.log_level.upper())
    handler = _make_handler(settings)
    handler.tell = lambda text: listener(Status(text=text, level="warning"))
    logger.addHandler(handler)
    logger.propagate = False
    logging.getLogger().addHandler(handler)
    _log_start(logger, settings, argv)

    def tell(event: AnyEvent) -> None:
        for line in describe(event):
            prefix = f"[{line.source}] " if line.source else ""
            logger.log(_LEVELS[line.level], "%s%s", prefix, line.text)
        if isinstance(event, DeploymentOutput) and event.stream != "stdout":
            level = logging.DEBUG if event.stream == "log" else logging.WARNING
            logger.log(level, "%s: %s", event.extension, event.text)
        if isinstance(event, SourceFailed):
            what = "INTEGRATION" if event.step == "integrate" else "BUILD"
            _log_output(logger, what, Path(event.log))
        listener(event)

    return tell


def _log_start(logger: logging.Logger, settings: LogSettings, argv: Sequence[str]) -> None:
    logger.info("Morph %s started", describe_version())
    logger.debug("command line: %s", hide_credentials(quote(hide_assignments(argv))))
    for name, value in sorted(hide_passwords(os.environ).items()):
        logger.debug("environment: %s=%s", name, hide_credentials(value))
    for name, setting in named_values(settings).items():
        logger.debug("setting: %s = %s", name, hide_credentials(format_value(setting)))


def _log_output(logger: logging.Logger, what: str, path: Path) -> None:
    try:
        with path.open(encoding="utf-8", errors="backslashreplace") as lines:
            for line in lines:
                logger.info("%s OUTPUT: %s", what, line.rstrip("\n"))
    except OSError as error:
        logger.warning("can't read build log %s: %s", path, error.strerror)


def _make_handler(settings: LogSettings) -> _SysLog | _LogFile:
    try:
        if settings.log == "syslog":
            syslog = _SysLog(address="/dev/log")
            syslog.setFormatter(logging.Formatter("morph[%(process)d]: %(levelname)s %(message)s"))
            return syslog
        path = Path.cwd() / Path(settings.log).expanduser()
        file = _LogFile(path, _mode(settings.log_mode), settings.log_max, settings.log_keep)
    except OSError as error:
        raise MorphError(
            f"can't write log {settings.log}: {error.strerror}", reason=Reason.CONFIG
        ) from error
    form = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")
    file.setFormatter(form)
    return file


def _mode(text: str) -> int:
    if re.fullmatch(r"[0-7]{1,4}", text, re.ASCII):
        return int(text, 8)
    raise MorphError(
        f"log-mode must be permissions in octal, such as 0600, not '{text}'", reason=Reason.CONFIG
    )


class _Handler(logging.Handler):
    """Says once that the log can't be written, not with a traceback at each record.

    `name_of_log` is for the message, and `tell` is what takes it.
    """

    name_of_log = ""
    tell: Callable[[str], None] | None = None

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        tell, self.tell = self.tell, None
        if tell is not None:
            tell(f"can't write log {self.name_of_log}: {error.strerror}")


class _SysLog(_Handler, SysLogHandler):
    """The system's log."""

    name_of_log = "syslog"


class _LogFile(_Handler, RotatingFileHandler):
    """Each new log has the mode that was asked for, whatever the umask."""

    def __init__(self, path: Path, mode: int, max_bytes: int, keep: int) -> None:
        self._mode = mode
        self.name_of_log = str(path)
        super().__init__(path, maxBytes=max_bytes, backupCount=keep)

    def _open(self) -> TextIOWrapper:
        is_new = not Path(self.baseFilename).exists()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self.baseFilename, flags, self._mode)
        if is_new:
            os.fchmod(descriptor, self._mode)
        return os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace")
