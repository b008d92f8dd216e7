"""Every setting of Morph, in one table.

`Settings` is the value that commands take; the metadata of its fields are the table. The command
line, configuration files, help, --dump-config, the manual page and shell completion are all made
from it, so that a setting is added in one place: a field below.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Literal

Value = bool | int | str | Path | tuple[str, ...] | None


class Kind(Enum):
    """How the text of a setting is understood; the value names what help shows for it."""

    FLAG = ""
    TEXT = "TEXT"
    NUMBER = "NUMBER"
    SIZE = "SIZE"
    CHOICE = "CHOICE"
    LIST = "LIST"
    PATH = "DIR"


class Group(Enum):
    """Headings of --help, in the order in which they are shown."""

    GENERAL = "Options"
    ORIGIN = "Definitions origin options"
    ADVANCED = "Advanced Options"
    BUILD = "Build Options"
    STORAGE = "Storage Options"
    DEPLOY = "Deploy Options"
    ANCHOR = "anchor options"
    MANIFEST = "generate-manifest-csv options"
    GET_REPO = "get-repo options"
    DISTBUILD = "Distributed Build Options"
    LOGGING = "Logging"
    PERFORMANCE = "Performance"


@dataclass(frozen=True, slots=True)
class Row:
    """One setting. `default` computes the value that stands where nobody gives another.

    `minimum` bounds numbers. `aliases` are other long names, `letter` a one-letter option.
    Hidden settings are shown by --help-all only.
    """

    name: str
    kind: Kind
    help: str
    group: Group
    default: Callable[[], Value]
    metavar: str
    aliases: tuple[str, ...] = ()
    letter: str = ""
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    hidden: bool = False

    @property
    def attribute(self) -> str:
        """Name of the field of `Settings`."""
        return self.name.replace("-", "_")

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)


def _row(kind: Kind, default: Value | Callable[[], Value], help: str, **more: Any) -> Any:
    """A field of `Settings`; `Any`, so that the field may declare its own type."""
    more.setdefault("group", Group.GENERAL)
    more.setdefault("metavar", kind.value)
    more |= {
        "kind": kind,
        "help": help,
        "default": default if callable(default) else lambda: default,
    }
    return field(metadata=more)


def _flag(help: str, *, default: bool = False, **more: Any) -> Any:
    return _row(Kind.FLAG, default, help, **more)


def _text(default: str | Callable[[], Value] | None, help: str, **more: Any) -> Any:
    return _row(Kind.TEXT, default, help, **more)


def _number(default: int | Callable[[], Value], help: str, **more: Any) -> Any:
    return _row(Kind.NUMBER, default, help, **more)


def _size(default: int, help: str, **more: Any) -> Any:
    return _row(Kind.SIZE, default, help, **more)


def _choice(choices: tuple[str, ...], help: str, **more: Any) -> Any:
    return _row(Kind.CHOICE, choices[0], help, choices=choices, **more)


def _list(default: tuple[str, ...], help: str, **more: Any) -> Any:
    return _row(Kind.LIST, default, help, **more)


def _path(default: Callable[[], Value] | None, help: str, **more: Any) -> Any:
    return _row(Kind.PATH, default, help, **more)


def count_processors() -> int:
    """How many processors this process may use, as set by affinity (taskset, containers)."""
    return max(1, len(os.sched_getaffinity(0)))


def _default_jobs() -> int:
    return min(20, count_processors())


def _default_tempdir() -> Path:
    return absolute_path(os.environ.get("TMPDIR") or "/tmp") / "morph_tmp"


def _default_cachedir() -> Path:
    return absolute_path("~/.cache/morph")


def absolute_path(text: str) -> Path:
    """The path of that name, seen from the working directory; `~` is the home directory."""
    try:
        return Path.cwd() / Path(text).expanduser()
    except RuntimeError:
        # There is no home directory. A relative path called ~ would be a surprise to clean up.
        return Path("/nonexistent") / text.lstrip("~/")


BUILT_IN_ALIASES = (
    "freedesktop=git://anongit.freedesktop.org/#ssh://git.freedesktop.org/",
    "gnome=git://git.gnome.org/%s#ssh://git.gnome.org/git/%s",
    "github=git://github.com/%s#ssh://git@github.com/%s",
    "bitbucket=https://bitbucket.org/%s#ssh://git@bitbucket.org/%s",
)

_PORT_FILE = "write the port in use to this file"


# Nothing compares settings, and a third of the time that it takes to make the class is saved.
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Settings:
    """What the command line and the configuration files ask for.

    `None` is "not set"; `derive_settings` fills in what follows from other settings, so that
    commands find None in `repo` and `ref` alone. Paths are absolute.
    """

    output: str = _text("", "write output to FILE instead of standard output", metavar="FILE")
    verbose: bool = _flag("show the progress of git and of downloads", letter="v")
    quiet: bool = _flag("show no status lines except errors", letter="q")
    json: bool = _flag("print data as JSON")
    progress: Literal["auto", "json", "plain", "live"] = _choice(
        ("auto", "json", "plain", "live"),
        "how to show progress: live view on a terminal and lines elsewhere (auto), one JSON"
        " object a line, plain lines, or always the live view",
    )
    help: bool = _flag("show this help, or help for the TOPIC that is given", letter="h")
    help_all: bool = _flag("show help with every option and command", hidden=True)
    build_ref_prefix: str | None = _text(
        None,
        "prefix of the names of temporary build refs (default: first trove-id, or baserock,"
        " followed by /builds)",
        metavar="PREFIX",
    )
    trove_host: str = _text(
        "git.baserock.org", "host behind repository aliases and default servers", metavar="HOST"
    )
    trove_id: tuple[str, ...] = _list(
        (),
        "further aliases on the trove, each NAME or NAME=PATH#PULL#PUSH with PULL and PUSH being"
        " git or ssh",
        aliases=("trove-prefix",),
        metavar="ID,...",
    )
    build_log_on_stdout: bool = _flag("show the output of builds as it comes", hidden=True)

    repo: str | None = _text(
        None,
        "take the definitions from this repository instead of the checkout (with --ref)",
        group=Group.ORIGIN,
        metavar="REPO",
    )
    ref: str | None = _text(
        None, "take the definitions at this ref (with --repo)", group=Group.ORIGIN, metavar="REF"
    )

    no_git_update: bool = _flag("never fetch into mirrors that are there", group=Group.ADVANCED)
    debug: bool = _flag(
        "show chatty messages, commands that are run, and traces of internal errors",
        group=Group.ADVANCED,
        letter="d",
    )
    repo_alias: tuple[str, ...] = _list(
        BUILT_IN_ALIASES,
        "aliases of repositories, each ALIAS=PULLPATTERN#PUSHPATTERN",
        group=Group.ADVANCED,
        metavar="ALIAS,...",
    )
    cache_server: str | None = _text(
        None,
        "server of artifacts and resolved refs (default: http://TROVE-HOST:8080/; empty: none)",
        group=Group.ADVANCED,
        metavar="URL",
    )
    artifact_cache_server: str | None = _text(
        None,
        "server of artifacts (default: as cache-server)",
        group=Group.ADVANCED,
        metavar="URL",
    )
    git_resolve_cache_server: str | None = _text(
        None,
        "server that resolves refs (default: as cache-server)",
        group=Group.ADVANCED,
        metavar="URL",
    )
    tarball_server: str | None = _text(
        None,
        "server of tarballs that seed mirrors (default: http://TROVE-HOST/tarballs/; empty: none)",
        group=Group.ADVANCED,
        metavar="URL",
    )

    max_jobs: int = _number(
        _default_jobs,
        "make jobs of one build (default: processors, at most 20)",
        group=Group.BUILD,
        minimum=1,
    )
    builders: int = _number(
        _default_jobs,
        "chunks that are built side by side (default: processors, at most 20)",
        group=Group.BUILD,
        minimum=1,
    )
    on_error: Literal["stop", "continue"] = _choice(
        ("stop", "continue"),
        "after a failure, start nothing more (stop) or go on with what does not need it (continue)",
        group=Group.BUILD,
    )
    no_ccache: bool = _flag("do without ccache", group=Group.BUILD)
    no_distcc: bool = _flag("do without distcc", default=True, group=Group.BUILD)
    push_build_branches: bool = _flag("always push temporary build branches", group=Group.BUILD)
    partial: bool = _flag("deploy only the components that the cluster names", group=Group.BUILD)
    local_changes: Literal["include", "ignore"] = _choice(
        ("include", "ignore"),
        "whether uncommitted changes of definitions count",
        group=Group.BUILD,
    )

    tempdir: Path = _path(
        _default_tempdir,
        "directory for temporary files (default: $TMPDIR/morph_tmp, or /tmp/morph_tmp)",
        group=Group.STORAGE,
    )
    cachedir: Path = _path(
        _default_cachedir,
        "directory for artifacts and mirrors (default: ~/.cache/morph)",
        group=Group.STORAGE,
    )
    compiler_cache_dir: Path | None = _path(
        None, "directory for ccache (default: CACHEDIR/ccache)", group=Group.STORAGE
    )
    tempdir_min_space: int = _size(
        4_000_000_000, "free space wanted for temporary files", group=Group.STORAGE
    )
    cachedir_min_space: int = _size(
        4_000_000_000, "free space wanted for the cache", group=Group.STORAGE
    )
    cachedir_artifact_delete_older_than: int = _number(
        604_800,
        "gc deletes all artifacts unused for this long, when space is short",
        group=Group.STORAGE,
        metavar="SECONDS",
        minimum=0,
    )
    cachedir_artifact_keep_younger_than: int = _number(
        86_400,
        "gc never deletes artifacts used within this time",
        group=Group.STORAGE,
        metavar="SECONDS",
        minimum=0,
    )
    dry_run: bool = _flag("say what gc would remove, and remove nothing", group=Group.STORAGE)

    upgrade: bool = _flag("deprecated: use the upgrade command", group=Group.DEPLOY, hidden=True)

    anchor_ref_format: str = _text(
        "refs/heads/{trove_id}/anchors/{name}/{commit_sha1}",
        "names of anchor refs, with the places {trove_id}, {name} and {commit_sha1}",
        group=Group.ANCHOR,
        metavar="FORMAT",
    )
    check_license: Literal["all-files", "single-file"] = _choice(
        ("all-files", "single-file"),
        "look for licences in all files, or in COPYING or LICENSE alone",
        group=Group.MANIFEST,
    )
    checkout_ref: str = _text(
        "", "ref to check out (default: that of the chunk)", group=Group.GET_REPO, metavar="REF"
    )

    controller_initiator_address: str = _text(
        "", "where the controller takes builds", group=Group.DISTBUILD, metavar="ADDRESS"
    )
    controller_initiator_port: int = _number(
        7878, "port there", group=Group.DISTBUILD, metavar="PORT", minimum=0
    )
    controller_initiator_port_file: str = _text(
        "", _PORT_FILE, group=Group.DISTBUILD, metavar="FILE", hidden=True
    )
    controller_helper_address: str = _text(
        "localhost",
        "where the controller takes its helper",
        group=Group.DISTBUILD,
        metavar="ADDRESS",
    )
    controller_helper_port: int = _number(
        5656, "port there", group=Group.DISTBUILD, metavar="PORT", minimum=0
    )
    controller_helper_port_file: str = _text(
        "", _PORT_FILE, group=Group.DISTBUILD, metavar="FILE", hidden=True
    )
    worker_daemon_address: str = _text(
        "", "where the worker takes its controller", group=Group.DISTBUILD, metavar="ADDRESS"
    )
    worker_daemon_port: int = _number(
        3434, "port there", group=Group.DISTBUILD, metavar="PORT", minimum=0
    )
    worker_daemon_port_file: str = _text(
        "", _PORT_FILE, group=Group.DISTBUILD, metavar="FILE", hidden=True
    )
    worker: tuple[str, ...] = _list(
        (), "workers of the controller", group=Group.DISTBUILD, metavar="HOST[:PORT],..."
    )
    worker_cache_server_port: int = _number(
        8080,
        "port of the cache server of each worker",
        group=Group.DISTBUILD,
        metavar="PORT",
        minimum=0,
    )
    writeable_cache_server: str = _text(
        "", "cache server that takes what was built", group=Group.DISTBUILD, metavar="URL"
    )
    initiator_step_output_dir: str = _text(
        "", "directory for build output that arrives", group=Group.DISTBUILD, metavar="DIR"
    )
    morph_instance: str = _text(
        "morph", "program that a worker builds with", group=Group.DISTBUILD, metavar="PROGRAM"
    )
    crash_condition: tuple[str, ...] = _list(
        (), "for tests: where to crash", group=Group.DISTBUILD, metavar="CONDITION", hidden=True
    )

    log: str = _text(
        "",
        "write a log to FILE, or to syslog; none for no log",
        group=Group.LOGGING,
        metavar="FILE",
    )
    log_level: str = _choice(
        ("debug", "info", "warning", "error", "critical", "fatal"),
        "log what is at least this important",
        group=Group.LOGGING,
    )
    log_max: int = _size(0, "start a new log at this size (0: never)", group=Group.LOGGING)
    log_keep: int = _number(10, "old logs to keep", group=Group.LOGGING, minimum=0)
    log_mode: str = _text(
        "0600", "permissions of a new log, in octal", group=Group.LOGGING, metavar="MODE"
    )

    dump_memory_profile: str = _choice(
        ("simple", "none", "meliae", "heapy"),
        "accepted for old configurations, without effect",
        group=Group.PERFORMANCE,
        hidden=True,
    )
    memory_dump_interval: int = _number(
        300,
        "accepted for old configurations, without effect",
        group=Group.PERFORMANCE,
        metavar="SECONDS",
        hidden=True,
    )


def derive_settings(settings: Settings) -> Settings:
    """The settings with everything filled in that follows from others. Servers may be ""."""
    host = settings.trove_host
    cache_server = settings.cache_server
    if cache_server is None:
        cache_server = f"http://{host}:8080/" if host else ""
    tarball_server = settings.tarball_server
    if tarball_server is None:
        tarball_server = f"http://{host}/tarballs/" if host else ""
    artifacts, refs = settings.artifact_cache_server, settings.git_resolve_cache_server
    # A trove-id may carry a path and protocols behind its name.
    trove = settings.trove_id[0].partition("=")[0] if settings.trove_id else "baserock"
    prefix = settings.build_ref_prefix
    return replace(
        settings,
        cache_server=cache_server,
        artifact_cache_server=cache_server if artifacts is None else artifacts,
        git_resolve_cache_server=cache_server if refs is None else refs,
        tarball_server=tarball_server,
        build_ref_prefix=f"{trove}/builds" if prefix is None else prefix,
        compiler_cache_dir=settings.compiler_cache_dir or settings.cachedir / "ccache",
    )


@cache
def table() -> tuple[Row, ...]:
    """Every setting, in the order of `Settings`."""
    return tuple(Row(name=f.name.replace("_", "-"), **f.metadata) for f in fields(Settings))


@cache
def rows_by_name() -> dict[str, Row]:
    """The settings by name and alias."""
    return {name: row for row in table() for name in row.names}


def default_values() -> dict[str, Value]:
    """The value of every setting where nothing is given, by attribute."""
    return {row.attribute: row.default() for row in table()}
