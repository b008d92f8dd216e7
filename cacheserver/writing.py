"""What changes what is stored: uploads, fetching from other servers, removal; and the list of all.

None of it is there unless the settings enable writing, and nothing of it happens for a GET unless
they ask for that too.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import bottle
import msgspec

from cacheserver.answers import (
    content_length,
    headers,
    json_answer,
    parameters,
    read_json,
    refuse,
)
from cacheserver.application import Application, Environ
from cacheserver.artifacts import BadNameError
from cacheserver.auth import Caller, Failures, Gate, NotAllowedError
from cacheserver.pulling import Puller, PullError
from cacheserver.uploads import UploadError, Uploads, check_names
from morphlib.cache.digests import is_sha256, parse_digest
from morphlib.cache.names import key_of
from morphlib.cache.temporaries import remove_files
from morphlib.errors import MorphError, Reason

_log = logging.getLogger("morph.cacheserver")


class FetchRequest(msgspec.Struct, frozen=True):
    """Fetch `cacheid.ARTIFACT`, for each of the artifacts, from the cache server at `host`."""

    host: str
    cacheid: str
    artifacts: list[str]


def add_writing(
    application: Application, uploads: Uploads, puller: Puller, gate: Gate, *, get_writes: bool
) -> None:
    """The routes that write; `get_writes` adds those of old clients."""
    routes = _Writing(application, uploads, puller, gate)
    application.add("GET", "/1.0/list", routes.list_all)
    application.add("PUT", "/1.0/artifacts", routes.put_artifact)
    application.add("DELETE", "/1.0/artifacts", routes.delete_artifact)
    application.add("GET", "/1.0/uploads/<sha256>", routes.get_upload)
    application.add("PUT", "/1.0/uploads/<sha256>", routes.put_upload)
    application.add("POST", "/1.0/sources/<key>", routes.publish)
    application.add("POST", "/1.0/fetch", routes.fetch)
    if get_writes:
        application.add("GET", "/1.0/fetch", routes.fetch_by_get)
        application.add("GET", "/1.0/delete", routes.delete_by_get)


class _Writing:
    def __init__(
        self, application: Application, uploads: Uploads, puller: Puller, gate: Gate
    ) -> None:
        self._context = application.context
        self._artifacts = application.context.artifacts
        self._metrics = application.context.metrics
        self._uploads = uploads
        self._puller = puller
        self._gate = gate
        self._failures = Failures()

    # Listing

    def list_all(self, environ: Environ) -> bottle.HTTPResponse:
        files = {
            name: {"atime": each.atime, "size": each.size, "used": each.used}
            for name, each in self._artifacts.listing().items()
        }
        return json_answer({"freespace": self._artifacts.free_space(), "files": files})

    # Uploading

    def put_artifact(self, environ: Environ) -> bottle.HTTPResponse:
        """A single file, under its name at once."""
        with self._admitted(environ):
            name = parameters(environ).get("filename", "")
            digest = parse_digest(headers(environ).get("repr-digest", ""))
            if digest is None:
                raise UploadError(400, "a header Repr-Digest with a sha-256 is needed")
            check_names(key_of(name), {name: digest})
            path = self._receive(environ, digest)
            try:
                is_new = self._uploads.publish(key_of(name), {name: path}, {name: digest})
            finally:
                remove_files([path])
            return json_answer({"new": is_new}, status=201 if is_new else 200)

    def _receive(self, environ: Environ, digest: str) -> Path:
        length = content_length(environ)
        path = self._uploads.receive(environ["wsgi.input"], length, digest)
        self._metrics.received.inc(length)
        return path

    def get_upload(self, environ: Environ, sha256: str) -> bottle.HTTPResponse:
        """Is a file staged?"""
        with self._admitted(environ):
            if not self._uploads.is_staged(sha256):
                raise refuse(404)
            return json_answer({"sha256": sha256})

    def put_upload(self, environ: Environ, sha256: str) -> bottle.HTTPResponse:
        """Stage a file until it is published."""
        with self._admitted(environ):
            if not is_sha256(sha256):
                raise UploadError(400, "that is no SHA-256 in lower case")
            length = content_length(environ)
            self._uploads.stage(environ["wsgi.input"], length, sha256)
            self._metrics.received.inc(length)
            return json_answer({"sha256": sha256}, status=201)

    def publish(self, environ: Environ, key: str) -> bottle.HTTPResponse:
        """Give staged files their names, all at once."""
        with self._admitted(environ):
            wanted = read_json(environ, dict[str, str], self._context.max_request)
            if not wanted or not all(map(is_sha256, wanted.values())):
                raise UploadError(400, "the body has to be {NAME: SHA-256}")
            is_new = self._uploads.publish_staged(key, wanted)
            return json_answer({"new": is_new}, status=201 if is_new else 200)

    # Fetching and removing

    def fetch(self, environ: Environ) -> bottle.HTTPResponse:
        with self._admitted(environ):
            wanted = read_json(environ, FetchRequest, self._context.max_request)
            return self._fetch(wanted)

    def fetch_by_get(self, environ: Environ) -> bottle.HTTPResponse:
        _refuse_head(environ)
        with self._admitted(environ):
            given = parameters(environ)
            wanted = FetchRequest(
                given.get("host", ""),
                given.get("cacheid", ""),
                given.get("artifacts", "").split(","),
            )
            return self._fetch(wanted)

    def _fetch(self, wanted: FetchRequest) -> bottle.HTTPResponse:
        names = self._puller.pull(wanted.host, wanted.cacheid, wanted.artifacts)
        sizes = {}
        for name in names:
            status = (self._artifacts.directory / name).stat()
            sizes[name] = {"size": status.st_size, "used": status.st_blocks * 512}
            self._metrics.received.inc(status.st_size)
        return json_answer(sizes)

    def delete_artifact(self, environ: Environ) -> bottle.HTTPResponse:
        with self._admitted(environ):
            answer = self._delete(parameters(environ).get("filename", ""))
            return json_answer(answer, status=200 if answer["status"] == 0 else 404)

    def delete_by_get(self, environ: Environ) -> bottle.HTTPResponse:
        _refuse_head(environ)
        with self._admitted(environ):
            try:
                return json_answer(self._delete(parameters(environ).get("artifact", "")))
            except BadNameError:
                return json_answer(_status(errno.EINVAL))
            except MorphError as error:
                _log.error("%s", error)
                return json_answer(_status(errno.EIO))

    def _delete(self, name: str) -> Mapping[str, str | int]:
        try:
            self._artifacts.delete(name)
        except MorphError as error:
            if error.reason is not Reason.NOT_FOUND:
                raise
            return _status(errno.ENOENT)
        return {"status": 0, "reason": "success"}

    # Who may

    @contextmanager
    def _admitted(self, environ: Environ) -> Iterator[None]:
        """Do the block if the caller may write; tell it what is wrong with what it sent."""
        caller = caller_of(environ)
        try:
            environ["morph.writer"] = self._gate.admit(caller)
            yield
        except NotAllowedError as error:
            self._failures.add(caller, str(error))
            self._metrics.turned_away.labels(str(error.status)).inc()
            environ["morph.why"] = str(error)
            more = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
            raise refuse(error.status, "not allowed", **more) from error
        except (UploadError, PullError) as error:
            environ["morph.why"] = str(error)
            raise refuse(error.status, str(error)) from error
        except BadNameError as error:
            raise refuse(403, "that can't be the name of an artifact") from error


def _refuse_head(environ: Environ) -> None:
    """Who asks for the headers alone does not ask for anything to be done."""
    if environ["REQUEST_METHOD"] == "HEAD":
        raise refuse(405, Allow="GET")


def _status(code: int) -> Mapping[str, str | int]:
    return {"status": code, "reason": os.strerror(code)}


def caller_of(environ: Environ) -> Caller:
    verified = environ.get("SSL_CLIENT_VERIFY") == "SUCCESS"
    subject = str(environ.get("SSL_CLIENT_S_DN", "")) or "certificate"
    return Caller(environ["REMOTE_ADDR"], headers(environ), subject if verified else None)
