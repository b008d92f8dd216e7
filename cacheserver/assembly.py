"""Putting a server together from its settings."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from cacheserver.accesslog import AccessLog
from cacheserver.application import Application, Context
from cacheserver.artifacts import Artifacts
from cacheserver.auth import Gate, TokenFile
from cacheserver.gitanswers import RepositoryAnswers
from cacheserver.hits import Hits
from cacheserver.metrics import Metrics
from cacheserver.pages import add_pages
from cacheserver.pulling import Puller
from cacheserver.reading import add_reading
from cacheserver.repositories import Repositories
from cacheserver.room import Room
from cacheserver.serving import Server
from cacheserver.settings import ServerSettings, check_settings
from cacheserver.tls import make_adapter
from cacheserver.uploads import Uploads
from cacheserver.writing import add_writing
from morphlib.errors import MorphError, Reason
from morphlib.events import AnyEvent, Status

_log = logging.getLogger("morph.cacheserver")

_ANSWERS = 4  # as large as they may be, made of files of repositories, that are held at once
_LEVELS = {"warning": logging.WARNING, "error": logging.ERROR, "chatty": logging.DEBUG}


@dataclass(frozen=True, slots=True)
class Assembled:
    """A server that does not listen yet, and what is to be closed after it."""

    server: Server
    uploads: Uploads
    hits: Hits


def assemble(settings: ServerSettings, log: AccessLog, version: str) -> Assembled:
    """Raises MorphError for settings that can't be."""
    check_settings(settings)
    artifacts = Artifacts(settings.artifact_dir, log_event, serve_unlisted=settings.serve_unlisted)
    repositories = Repositories(settings.repo_dir, direct=settings.direct_mode)
    uploads = Uploads(artifacts, settings.max_artifact_size)
    hits = Hits(artifacts.store)
    context = Context(
        artifacts,
        RepositoryAnswers(repositories, settings.max_file_size),
        settings.bundle_dir,
        Metrics(version, lambda: _free_space(artifacts)),
        hits,
        Room(_ANSWERS * settings.max_file_size),
        settings.max_request_size,
        settings.max_file_size,
    )
    application = Application(context, log.write)
    add_reading(application)
    add_pages(application)
    if settings.enable_writes:
        puller = _make_puller(settings, uploads)
        gate = _make_gate(settings)
        add_writing(application, uploads, puller, gate, get_writes=settings.get_writes)
    address = ("127.0.0.1", 0) if settings.port_file else (settings.address, settings.port)
    server = Server(
        address,
        application,
        application.finish,
        threads=settings.threads,
        timeout=settings.timeout,
        adapter=make_adapter(settings),
    )
    return Assembled(server, uploads, hits)


def _make_gate(settings: ServerSettings) -> Gate:
    tokens = TokenFile(settings.token_file) if settings.token_file is not None else None
    return Gate(tokens, needs_certificate=settings.tls_client_ca is not None)


def _make_puller(settings: ServerSettings, uploads: Uploads) -> Puller:
    try:
        return Puller(uploads, settings.fetch_from, timeout=settings.timeout)
    except ValueError as error:
        raise MorphError(
            f"--fetch-from: {error} is no HOST or HOST:PORT", reason=Reason.CONFIG
        ) from error


def log_event(event: AnyEvent) -> None:
    if isinstance(event, Status):
        _log.log(_LEVELS.get(event.level, logging.INFO), "%s", event.text)


def _free_space(artifacts: Artifacts) -> float:
    try:
        return artifacts.free_space()
    except MorphError:
        return 0.0
