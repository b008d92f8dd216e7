"""The WSGI application: finds who answers a request, answers what goes wrong, and counts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bottle

from cacheserver.artifacts import Artifacts
from cacheserver.gitanswers import RepositoryAnswers
from cacheserver.hits import Hits
from cacheserver.metrics import Metrics
from cacheserver.room import Room
from cacheserver.serving import Finished
from morphlib.errors import MorphError, Reason

_log = logging.getLogger("morph.cacheserver")

Environ = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Context:
    """What routes work with."""

    artifacts: Artifacts
    answers: RepositoryAnswers
    bundles: Path
    metrics: Metrics
    hits: Hits
    room: Room
    max_request: int
    max_file: int


class Application:
    """A WSGI application made of routes, that answers whatever goes wrong."""

    def __init__(self, context: Context, report: Callable[[Finished], None]) -> None:
        self.context = context
        self._report = report
        self.router = bottle.Bottle(catchall=False, autojson=False)
        self.router.default_error_handler = _show_error

    def add(self, method: str, path: str, handler: Callable[..., Any]) -> None:
        """Let `handler` answer; it takes the WSGI environ, and what the path holds by name."""

        def call(**values: str) -> Any:
            environ: Environ = bottle.request.environ
            environ["morph.endpoint"] = path
            return handler(environ, **values)

        self.router.route(path, method=method, callback=call)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.context.metrics.in_progress.inc()
        environ["morph.counted"] = True
        try:
            body: Iterable[bytes] = self.router.wsgi(environ, start_response)
        except (ConnectionError, TimeoutError):
            raise  # the client is gone
        except MorphError as error:
            _log.error("%s", error)
            status = "507 Insufficient Storage" if error.reason is Reason.SPACE else _BROKEN
            return _fail(start_response, status)
        except Exception:
            _log.exception("%s %s", environ["REQUEST_METHOD"], environ["PATH_INFO"])
            return _fail(start_response, _BROKEN)
        return body

    def finish(self, finished: Finished) -> None:
        """Count and log a request that is over."""
        environ, metrics = finished.environ, self.context.metrics
        endpoint = environ.get("morph.endpoint", "other")
        method = environ["REQUEST_METHOD"]
        if environ.get("morph.counted"):
            metrics.in_progress.dec()
        known = method if method in ("GET", "HEAD", "POST", "PUT", "DELETE") else "other"
        metrics.requests.labels(endpoint, known, str(finished.status)).inc()
        metrics.seconds.labels(endpoint).observe(finished.seconds)
        metrics.sent.labels(endpoint).inc(finished.sent)
        if not finished.complete:
            metrics.aborted.labels(endpoint).inc()
        self._report(finished)


_BROKEN = "500 Internal Server Error"


def _fail(start_response: Callable[..., Any], status: str) -> Iterable[bytes]:
    start_response(status, [("Content-Length", "0")])
    return []


def _show_error(error: bottle.HTTPError) -> bytes:
    """Answers to requests that no route takes have no body."""
    bottle.response.content_type = "application/octet-stream"
    return b""
