"""Every setting of Morph, in one table.

`Settings` is the value that commands take; the metadata of its fields are the table. The command
line, configuration files, help, --dump-config, the manual page and shell completion are all made
from it, so that a setting is added in one place: a field below.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from morphlib.rows import (
    Group,
    Row,
    Value,
    choice_field,
    defaults_of,
    flag_field,
    list_field,
    number_field,
    path_field,
    rows_of,
    size_field,
    text_field,
)


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
        path = Path(text).expanduser()
        # Where the working directory was removed, only a relative path is lost.
        return path if path.is_absolute() else Path.cwd() / path
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

    output: str = text_field("", "write output to FILE instead of standard output", metavar="FILE")
    verbose: bool = flag_field("show the progress of git and of downloads", letter="v")
    quiet: bool = flag_field("show no status lines except errors", letter="q")
    json: bool = flag_field("print data as JSON")
    progress: Literal["auto", "json", "plain", "live"] = choice_field(
        ("auto", "json", "plain", "live"),
        "how to show progress: live view on a terminal and lines elsewhere (auto), one JSON"
        " object a line, plain lines, or always the live view",
    )
    help: bool = flag_field("show this help, or help for the TOPIC that is given", letter="h")
    help_all: bool = flag_field("show help with every option and command", hidden=True)
    build_ref_prefix: str | None = text_field(
        None,
        "prefix of the names of temporary build refs (default: first trove-id, or baserock,"
        " followed by /builds)",
        metavar="PREFIX",
    )
    trove_host: str = text_field(
        "git.baserock.org", "host behind repository aliases and default servers", metavar="HOST"
    )
    trove_id: tuple[str, ...] = list_field(
        (),
        "further aliases on the trove, each NAME or NAME=PATH#PULL#PUSH with PULL and PUSH being"
        " git or ssh",
        aliases=("trove-prefix",),
        metavar="ID,...",
    )
    build_log_on_stdout: bool = flag_field("show the output of builds as it comes", hidden=True)

    repo: str | None = text_field(
        None,
        "take the definitions from this repository instead of the checkout (with --ref)",
        group=Group.ORIGIN,
        metavar="REPO",
    )
    ref: str | None = text_field(
        None, "take the definitions at this ref (with --repo)", group=Group.ORIGIN, metavar="REF"
    )

    no_git_update: bool = flag_field(
        "never fetch into mirrors that are there", group=Group.ADVANCED
    )
    debug: bool = flag_field(
        "show chatty messages, commands that are run, and traces of internal errors",
        group=Group.ADVANCED,
        letter="d",
    )
    repo_alias: tuple[str, ...] = list_field(
        BUILT_IN_ALIASES,
        "aliases of repositories, each ALIAS=PULLPATTERN#PUSHPATTERN",
        group=Group.ADVANCED,
        metavar="ALIAS,...",
    )
    cache_server: str | None = text_field(
        None,
        "server of artifacts and resolved refs (default: http://TROVE-HOST:8080/; empty: none)",
        group=Group.ADVANCED,
        metavar="URL",
    )
    artifact_cache_server: str | None = text_field(
        None,
        "server of artifacts (default: as cache-server)",
        group=Group.ADVANCED,
        metavar="URL",
    )
    share_server: str = text_field(
        "",
        "server that gets all that is built (default: none)",
        group=Group.ADVANCED,
        metavar="URL",
    )
    server_token_file: Path | None = path_field(
        None, "file with the token that lets you write to cache servers", group=Group.ADVANCED
    )
    server_certificate: Path | None = path_field(
        None, "PEM file of a certificate and its key, for cache servers", group=Group.ADVANCED
    )
    server_authorities: Path | None = path_field(
        None,
        "PEM file of the authorities that certificates of cache servers are checked with"
        " (default: those of this machine)",
        group=Group.ADVANCED,
    )
    signing_key: Path | None = path_field(
        None,
        "file with the private key that signs what is built here",
        group=Group.ADVANCED,
        metavar="FILE",
    )
    trusted_keys: Path | None = path_field(
        None,
        "file of the public keys, one of which has to have signed what cache servers have"
        " (default: signatures do not matter)",
        group=Group.ADVANCED,
        metavar="FILE",
    )
    git_resolve_cache_server: str | None = text_field(
        None,
        "server that resolves refs (default: as cache-server)",
        group=Group.ADVANCED,
        metavar="URL",
    )
    tarball_server: str | None = text_field(
        None,
        "server of tarballs that seed mirrors (default: http://TROVE-HOST/tarballs/; empty: none)",
        group=Group.ADVANCED,
        metavar="URL",
    )

    max_jobs: int = number_field(
        _default_jobs,
        "make jobs of one build (default: processors, at most 20)",
        group=Group.BUILD,
        minimum=1,
    )
    builders: int = number_field(
        _default_jobs,
        "chunks that are built side by side (default: processors, at most 20)",
        group=Group.BUILD,
        minimum=1,
    )
    on_error: Literal["stop", "continue"] = choice_field(
        ("stop", "continue"),
        "after a failure, start nothing more (stop) or go on with what does not need it (continue)",
        group=Group.BUILD,
    )
    no_ccache: bool = flag_field("do without ccache", group=Group.BUILD)
    no_distcc: bool = flag_field("do without distcc", default=True, group=Group.BUILD)
    push_build_branches: bool = flag_field(
        "always push temporary build branches", group=Group.BUILD
    )
    partial: bool = flag_field(
        "deploy only the components that the cluster names", group=Group.BUILD
    )
    local_changes: Literal["include", "ignore"] = choice_field(
        ("include", "ignore"),
        "whether uncommitted changes of definitions count",
        group=Group.BUILD,
    )

    tempdir: Path = path_field(
        _default_tempdir,
        "directory for temporary files (default: $TMPDIR/morph_tmp, or /tmp/morph_tmp)",
        group=Group.STORAGE,
    )
    cachedir: Path = path_field(
        _default_cachedir,
        "directory for artifacts and mirrors (default: ~/.cache/morph)",
        group=Group.STORAGE,
    )
    compiler_cache_dir: Path | None = path_field(
        None, "directory for ccache (default: CACHEDIR/ccache)", group=Group.STORAGE
    )
    tempdir_min_space: int = size_field(
        4_000_000_000, "free space wanted for temporary files", group=Group.STORAGE
    )
    cachedir_min_space: int = size_field(
        4_000_000_000, "free space wanted for the cache", group=Group.STORAGE
    )
    gc_max_size: int = size_field(
        0,
        "gc lets all artifacts together take no more than this (0: any size)",
        group=Group.STORAGE,
    )
    gc_expire_after: int = number_field(
        0,
        "gc deletes artifacts unused for this long even if there is room (0: never)",
        group=Group.STORAGE,
        metavar="SECONDS",
        minimum=0,
    )
    cachedir_artifact_delete_older_than: int = number_field(
        604_800,
        "gc deletes all artifacts unused for this long, when space is short",
        group=Group.STORAGE,
        metavar="SECONDS",
        minimum=0,
    )
    cachedir_artifact_keep_younger_than: int = number_field(
        86_400,
        "gc never deletes artifacts used within this time",
        group=Group.STORAGE,
        metavar="SECONDS",
        minimum=0,
    )
    dry_run: bool = flag_field("say what gc would remove, and remove nothing", group=Group.STORAGE)

    upgrade: bool = flag_field(
        "deprecated: use the upgrade command", group=Group.DEPLOY, hidden=True
    )

    plan: bool = flag_field(
        "show what deploy or upgrade would do, and do nothing", group=Group.DEPLOY
    )

    anchor_ref_format: str = text_field(
        "refs/heads/{trove_id}/anchors/{name}/{commit_sha1}",
        "names of anchor refs, with the places {trove_id}, {name} and {commit_sha1}",
        group=Group.ANCHOR,
        metavar="FORMAT",
    )
    check_license: Literal["all-files", "single-file"] = choice_field(
        ("all-files", "single-file"),
        "look for licences in all files, or in COPYING or LICENSE alone",
        group=Group.MANIFEST,
    )
    checkout_ref: str = text_field(
        "", "ref to check out (default: that of the chunk)", group=Group.GET_REPO, metavar="REF"
    )

    controller_initiator_address: str = text_field(
        "", "where the controller takes builds", group=Group.DISTBUILD, metavar="ADDRESS"
    )
    controller_initiator_port: int = number_field(
        7878, "port there", group=Group.DISTBUILD, metavar="PORT", minimum=0
    )
    controller_initiator_port_file: str = text_field(
        "", _PORT_FILE, group=Group.DISTBUILD, metavar="FILE", hidden=True
    )
    controller_helper_address: str = text_field(
        "localhost",
        "where the controller takes its helper",
        group=Group.DISTBUILD,
        metavar="ADDRESS",
    )
    controller_helper_port: int = number_field(
        5656, "port there", group=Group.DISTBUILD, metavar="PORT", minimum=0
    )
    controller_helper_port_file: str = text_field(
        "", _PORT_FILE, group=Group.DISTBUILD, metavar="FILE", hidden=True
    )
    controller_status_address: str = text_field(
        "",
        "where the controller shows its status page (default: nowhere)",
        group=Group.DISTBUILD,
        metavar="ADDRESS",
    )
    controller_status_port: int = number_field(
        7879, "port there", group=Group.DISTBUILD, metavar="PORT", minimum=0
    )
    controller_status_port_file: str = text_field(
        "", _PORT_FILE, group=Group.DISTBUILD, metavar="FILE", hidden=True
    )
    controller_status_token_file: Path | None = path_field(
        None,
        "file with the token that readers of the status page have to know; without one only readers"
        " on the controller's machine are let in",
        group=Group.DISTBUILD,
        metavar="FILE",
    )
    controller_status_certificate: Path | None = path_field(
        None,
        "PEM file of a certificate and its key: the status page is read by HTTPS",
        group=Group.DISTBUILD,
        metavar="FILE",
    )
    worker_daemon_address: str = text_field(
        "", "where the worker takes its controller", group=Group.DISTBUILD, metavar="ADDRESS"
    )
    worker_daemon_port: int = number_field(
        3434, "port there", group=Group.DISTBUILD, metavar="PORT", minimum=0
    )
    worker_daemon_port_file: str = text_field(
        "", _PORT_FILE, group=Group.DISTBUILD, metavar="FILE", hidden=True
    )
    worker: tuple[str, ...] = list_field(
        (), "workers of the controller", group=Group.DISTBUILD, metavar="HOST[:PORT],..."
    )
    worker_cache_server_port: int = number_field(
        8080,
        "port of the cache server of each worker",
        group=Group.DISTBUILD,
        metavar="PORT",
        minimum=0,
    )
    writeable_cache_server: str = text_field(
        "", "cache server that takes what was built", group=Group.DISTBUILD, metavar="URL"
    )
    initiator_step_output_dir: str = text_field(
        "", "directory for build output that arrives", group=Group.DISTBUILD, metavar="DIR"
    )
    priority: int = number_field(
        0,
        "how urgent a build is, from -100 to 100: of several, the more urgent go first",
        group=Group.DISTBUILD,
        minimum=-100,
        maximum=100,
    )
    morph_instance: str = text_field(
        "morph", "program that a worker builds with", group=Group.DISTBUILD, metavar="PROGRAM"
    )
    writeable_cache_server_token_file: Path | None = path_field(
        None,
        "file with the token that the writeable cache server wants",
        group=Group.DISTBUILD,
        metavar="FILE",
    )
    distbuild_secret_file: Path | None = path_field(
        None,
        "file with a secret that all machines of a distributed build share; without one, and"
        " without certificates, they take connections of their own machine alone",
        group=Group.DISTBUILD,
        metavar="FILE",
    )
    distbuild_certificate: Path | None = path_field(
        None,
        "PEM file of this machine's certificate and its key: connections of distributed builds are"
        " TLS",
        group=Group.DISTBUILD,
        metavar="FILE",
    )
    distbuild_authorities: Path | None = path_field(
        None,
        "PEM file of the authorities that certificates of the others are checked with",
        group=Group.DISTBUILD,
        metavar="FILE",
    )
    peer_timeout: int = number_field(
        60,
        "a machine that is silent for so long counts as lost; the same on all machines",
        group=Group.DISTBUILD,
        metavar="SECONDS",
        minimum=1,
    )
    crash_condition: tuple[str, ...] = list_field(
        (), "for tests: where to crash", group=Group.DISTBUILD, metavar="CONDITION", hidden=True
    )

    log: str = text_field(
        "",
        "write a log to FILE, or to syslog; none for no log",
        group=Group.LOGGING,
        metavar="FILE",
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

    dump_memory_profile: str = choice_field(
        ("simple", "none", "meliae", "heapy"),
        "accepted for old configurations, without effect",
        group=Group.PERFORMANCE,
        hidden=True,
    )
    memory_dump_interval: int = number_field(
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
    return rows_of(Settings)


@cache
def rows_by_name() -> dict[str, Row]:
    """The settings by name and alias."""
    return {name: row for row in table() for name in row.names}


def default_values() -> dict[str, Value]:
    """The value of every setting where nothing is given, by attribute."""
    return defaults_of(table())
