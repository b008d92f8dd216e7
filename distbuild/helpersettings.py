"""Every setting of `distbuild-helper`, in one table, as `morphlib.settings` has those of Morph."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from morphlib.rows import (
    Group,
    Row,
    choice_field,
    flag_field,
    list_field,
    number_field,
    path_field,
    rows_of,
    size_field,
    text_field,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class HelperSettings:
    """What the command line and the configuration files ask for."""

    parent_address: str = text_field(
        "localhost", "where the daemon is that this helps", metavar="ADDRESS"
    )
    parent_port: int = number_field(3434, "port there", metavar="PORT", minimum=1)
    distbuild_secret_file: Path | None = path_field(
        None, "file with the secret that the daemon has", metavar="FILE"
    )
    distbuild_certificate: Path | None = path_field(
        None,
        "PEM file of a certificate and its key, which may be those of the daemon: speak TLS",
        metavar="FILE",
    )
    distbuild_authorities: Path | None = path_field(
        None,
        "PEM file of the authorities that the daemon's certificate is checked with",
        metavar="FILE",
    )
    peer_timeout: int = number_field(
        60,
        "a daemon that is silent for so long counts as lost; the same as for the daemon",
        metavar="SECONDS",
        minimum=1,
    )
    debug_messages: bool = flag_field("accepted for old configurations, without effect")
    crash_condition: tuple[str, ...] = list_field(
        (), "for tests: where to crash", metavar="CONDITION", hidden=True
    )
    quiet: bool = flag_field("show nothing but errors", letter="q")
    output: str = text_field("", "accepted for old configurations, without effect", hidden=True)
    help: bool = flag_field("show this help", letter="h")

    log: str = text_field(
        "", "write a log to FILE, or to syslog; none for no log", group=Group.LOGGING
    )
    log_level: str = choice_field(
        ("debug", "info", "warning", "error", "critical", "fatal"),
        "log what is at least this important",
        group=Group.LOGGING,
    )
    log_max: int = size_field(0, "start a new log at this size (0: never)", group=Group.LOGGING)
    log_keep: int = number_field(10, "old logs to keep", group=Group.LOGGING, minimum=0)
    log_mode: str = text_field(
        "0600", "permissions of a new log, in octal", group=Group.LOGGING, metavar="MODE"
    )


@cache
def helper_table() -> tuple[Row, ...]:
    """Every setting, in the order of `HelperSettings`."""
    return rows_of(HelperSettings)
