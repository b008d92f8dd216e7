"""What only reads: artifacts, answers about repositories, and how the server is doing."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import bottle
import msgspec

from cacheserver.answers import (
    answer,
    file_answer,
    headers,
    json_answer,
    parameters,
    read_json,
    refuse,
)
from cacheserver.application import Application, Context, Environ
from cacheserver.artifacts import BadNameError, OpenArtifact
from cacheserver.gitanswers import GitQueryError
from cacheserver.metrics import Metrics
from cacheserver.openapi import describe_requests
from cacheserver.room import BusyError, Held, HeldBody
from morphlib.cache.names import key_of
from morphlib.errors import MorphError
from morphlib.sources.names import quote_url

_log = logging.getLogger("morph.cacheserver")

_OCTETS = {"Content-Type": "application/octet-stream", "Cache-Control": "no-cache"}
_JSON = {"Content-Type": "application/json", "Cache-Control": "no-cache"}


class RefQuery(msgspec.Struct, frozen=True):
    repo: str
    ref: str


class FileQuery(msgspec.Struct, frozen=True):
    repo: str
    ref: str
    filename: str


def add_reading(application: Application) -> None:
    """The routes that only read."""
    routes = _Reading(application.context)
    application.add("GET", "/1.0/artifacts", routes.get_artifact)
    application.add("POST", "/1.0/artifacts", routes.find_artifacts)
    application.add("GET", "/1.0/sha1s", routes.get_sha1)
    application.add("POST", "/1.0/sha1s", routes.get_sha1s)
    application.add("GET", "/1.0/files", routes.get_file)
    application.add("POST", "/1.0/files", routes.get_files)
    application.add("GET", "/1.0/trees", routes.get_tree)
    application.add("GET", "/1.0/bundles", routes.get_bundle)
    application.add("GET", "/healthz", routes.get_health)
    application.add("GET", "/metrics", routes.get_metrics)
    application.add("GET", "/openapi.json", routes.get_description)


class _Reading:
    def __init__(self, context: Context) -> None:
        self._context = context

    # Artifacts

    def get_artifact(self, environ: Environ) -> bottle.HTTPResponse:
        name = parameters(environ).get("filename", "")
        try:
            found = self._context.artifacts.open(name)
        except BadNameError:
            raise refuse(403) from None
        if found is None:
            self._count(name, is_there=False)
            raise refuse(404)
        self._count(name, is_there=True)
        if environ["REQUEST_METHOD"] == "GET":
            self._context.artifacts.note_use(name)
            self._context.hits.add_download(key_of(name))
        asked = headers(environ)
        if environ["REQUEST_METHOD"] == "HEAD":
            asked.pop("range", None)
        return file_answer(found, asked, quoted_name=_quote_name(name))

    def find_artifacts(self, environ: Environ) -> bottle.HTTPResponse:
        names = read_json(environ, list[str], self._context.max_request)
        found = self._context.artifacts.has(names)
        hits = sum(found.values())
        self._context.metrics.count_lookups(hits, len(found) - hits)
        self._context.hits.add_question(found)
        return json_answer(found)

    def _count(self, name: str, *, is_there: bool) -> None:
        self._context.metrics.count_lookups(is_there, not is_there)
        self._context.hits.add_file(name, is_there=is_there)

    # Git

    def get_sha1(self, environ: Environ) -> bottle.HTTPResponse:
        given = parameters(environ)
        with _Unanswered(self._context.metrics, environ):
            found = self._context.answers.resolve(given.get("repo", ""), given.get("ref", ""))
            return json_answer(found)

    def get_sha1s(self, environ: Environ) -> bottle.HTTPResponse:
        wanted = read_json(environ, list[RefQuery], self._context.max_request)
        found = self._context.answers.resolve_all([(each.repo, each.ref) for each in wanted])
        self._context.metrics.git_errors.inc(sum("error" in each for each in found))
        return json_answer(found)

    def get_file(self, environ: Environ) -> bottle.HTTPResponse:
        given = parameters(environ)
        with self._holding(environ) as held:
            data = self._context.answers.read_file(
                given.get("repo", ""), given.get("ref", ""), given.get("filename", ""), held
            )
            return answer(HeldBody(data, held), headers=_OCTETS)

    def get_files(self, environ: Environ) -> bottle.HTTPResponse:
        wanted = read_json(environ, list[FileQuery], self._context.max_request)
        results: list[dict[str, str]] = []
        left = self._context.max_file
        read = self._context.answers.read_file
        with self._holding(environ) as held:
            for each in wanted:
                entry = {"repo": each.repo, "ref": each.ref, "filename": each.filename}
                try:
                    data = read(each.repo, each.ref, each.filename, held, left)
                    left -= len(data)
                    entry["data"] = base64.b64encode(data).decode("ascii")
                except GitQueryError as error:
                    self._context.metrics.git_errors.inc()
                    entry["error"] = str(error)
                results.append(entry)
            return answer(HeldBody(msgspec.json.encode(results), held), headers=_JSON)

    def get_tree(self, environ: Environ) -> bottle.HTTPResponse:
        given = parameters(environ)
        repo, ref = given.get("repo", ""), given.get("ref", "")
        with self._holding(environ) as held:
            tree = self._context.answers.read_tree(repo, ref, given.get("path", ""), held)
            body = msgspec.json.encode({"repo": repo, "ref": ref, "tree": tree})
            return answer(HeldBody(body, held), headers=_JSON)

    @contextmanager
    def _holding(self, environ: Environ) -> Iterator[Held]:
        """Room for an answer, which is given back with the answer, or at once if there is none.

        Where there is too little, clients are asked to come again.
        """
        held = self._context.room.hold()
        try:
            with _Unanswered(self._context.metrics, environ):
                yield held
        except BusyError:
            held.close()
            environ["morph.why"] = "too many files are being sent"
            raise refuse(503, **{"Retry-After": "1"}) from None
        except BaseException:
            held.close()
            raise

    def get_bundle(self, environ: Environ) -> bottle.HTTPResponse:
        name = quote_url(parameters(environ).get("repo", "")) + ".bndl"
        found = _open_bundle(self._context.bundles, name)
        if found is None:
            raise refuse(404)
        response = file_answer(found, headers(environ), quoted_name=name)
        del response.headers["Repr-Digest"]
        return response

    # The server itself

    def get_health(self, environ: Environ) -> bottle.HTTPResponse:
        """200 as long as the artifacts can be reached."""
        try:
            free = self._context.artifacts.free_space()
        except MorphError as error:
            _log.error("%s", error)
            return json_answer({"status": "no artifacts"}, status=503)
        return json_answer({"status": "ok", "free-space": free})

    def get_metrics(self, environ: Environ) -> bottle.HTTPResponse:
        kind = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return answer(self._context.metrics.render(), headers=kind)

    def get_description(self, environ: Environ) -> bottle.HTTPResponse:
        return json_answer(describe_requests())


class _Unanswered:
    """Turns a question without an answer into 404; why goes to the access log."""

    def __init__(self, metrics: Metrics, environ: Environ) -> None:
        self._metrics = metrics
        self._environ = environ

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, GitQueryError):
            self._metrics.git_errors.inc()
            self._environ["morph.why"] = str(error)
            raise refuse(404)


def _open_bundle(directory: Path, name: str) -> OpenArtifact | None:
    """A bundle; its tag is made of its stamp, for digesting it takes too long."""
    if len(name) > 255:
        return None
    try:
        descriptor = os.open(directory / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        return None
    stamp = f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    tag = hashlib.sha256(stamp.encode()).hexdigest()
    return OpenArtifact(name, descriptor, status.st_size, status.st_mtime, tag)


def _quote_name(name: str) -> str:
    """A name as it may stand between quotes in a header."""
    return quote(name, safe="!#$&+-.^_`|~@,=() ")
