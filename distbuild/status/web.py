"""The pages of a controller, over HTTP. They can be read, and nothing can be done with them.

No part of an address names a file: there is a table of what there is.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from distbuild.status import pages
from distbuild.status.admission import refusal
from distbuild.status.looking import Look, Looker
from distbuild.status.overview import Watched
from distbuild.status.streams import Streams
from distbuild.status.targets import BuildTarget, OverviewTarget, StepTarget, Target

_log = logging.getLogger("morph.distbuild")

_ID, _KEY = rb"[0-9A-Za-z][0-9A-Za-z._:-]{0,99}", rb"[0-9a-f]{64}"
_STEP = rb"/builds/(?P<build>%b)/steps/(?P<key>%b)" % (_ID, _KEY)
_BUILD = rb"/builds/(?P<build>%b)" % _ID
_HEADERS = {
    "Server": "morph",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self';"
    " connect-src 'self'; img-src 'self'; form-action 'none'; frame-ancestors 'none';"
    " base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_FILES = {
    b"/style.css": ("style.css", "text/css; charset=utf-8"),
    b"/live.js": ("live.js", "text/javascript; charset=utf-8"),
    b"/icon.svg": ("icon.svg", "image/svg+xml"),
}


class StatusPages(Resource):
    """All that can be asked for. With a `token`, by those who know it; else by this machine."""

    isLeaf = True

    def __init__(self, watched: Watched, token: bytes) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as much of Twisted's web
        self._watched = watched
        self._token = token
        self._looker = Looker(watched)
        self._streams = Streams(self._looker)
        self._turned_away = 0
        self._files = {
            path: ((pages.TEMPLATES / name).read_bytes(), kind)
            for path, (name, kind) in _FILES.items()
        }
        routes: list[tuple[bytes, Callable[..., Any]]] = [
            (rb"/", self._show_overview),
            (_BUILD, self._show_build),
            (_STEP, self._show_step),
            (_STEP + rb"/log", self._get_log),
            (rb"/events", self._follow_overview),
            (_BUILD + rb"/events", self._follow_build),
            (_STEP + rb"/events", self._follow_step),
            (rb"/api/status", self._get_overview),
            (rb"/api" + _BUILD, self._get_build),
            (rb"/api" + _STEP, self._get_step),
        ]
        self._routes = [(re.compile(pattern), action) for pattern, action in routes]

    def render(self, request: Any) -> Any:
        for name, value in _HEADERS.items():
            request.setHeader(name, value)
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader("Allow", "GET, HEAD")
            return _answer(request, 405, "Nothing can be changed here.")
        headers = {
            name.decode("latin-1").lower(): values[-1].decode("latin-1")
            for name, values in request.requestHeaders.getAllRawHeaders()
        }
        peer = request.getClientAddress()
        refused = refusal(str(getattr(peer, "host", "")), headers, self._token)
        if refused is not None:
            return self._turn_away(request, *refused)
        path = request.path
        if path in self._files:
            data, kind = self._files[path]
            return _send(request, data, kind)
        for pattern, action in self._routes:
            found = pattern.fullmatch(path)
            if found is not None:
                names = {name: value.decode() for name, value in found.groupdict().items()}
                return action(request, **names)
        return _answer(request, 404, "There is no such page.")

    def _turn_away(self, request: Any, status: int, why: str) -> Any:
        self._turned_away += 1
        if self._turned_away & (self._turned_away - 1) == 0:  # a flood must not fill the log
            _log.warning(
                "status page: turned away %s: %s (%d so far)",
                request.getClientAddress().host,
                why,
                self._turned_away,
            )
        if status == 401:
            request.setHeader("WWW-Authenticate", 'Basic realm="Morph", charset="UTF-8"')
        return _answer(request, status, "This page is not for everybody.")

    # Pages

    def _show_overview(self, request: Any) -> Any:
        return self._page(request, OverviewTarget())

    def _show_build(self, request: Any, build: str) -> Any:
        return self._page(request, BuildTarget(build))

    def _show_step(self, request: Any, build: str, key: str) -> Any:
        target = StepTarget(build, key, _argument(request, b"attempt"))
        return self._page(request, target.pinned(self._watched))

    def _page(self, request: Any, target: Target) -> Any:
        def render(look: Look) -> bytes:
            return target.page(look.view, look.stamp, self._looker.now)

        return self._show(request, target, render, "text/html; charset=utf-8")

    # JSON

    def _get_overview(self, request: Any) -> Any:
        return self._json(request, OverviewTarget())

    def _get_build(self, request: Any, build: str) -> Any:
        return self._json(request, BuildTarget(build))

    def _get_step(self, request: Any, build: str, key: str) -> Any:
        return self._json(request, StepTarget(build, key, _argument(request, b"attempt")))

    def _json(self, request: Any, target: Target) -> Any:
        def render(look: Look) -> bytes:
            return target.json(look.view)

        return self._show(request, target, render, "application/json")

    def _show(
        self, request: Any, target: Target, render: Callable[[Look], bytes], kind: str
    ) -> Any:
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)

        def looked(look: Look | None) -> Any:
            return None if look is None else self._looker.in_thread(render, look)

        def rendered(data: bytes | None) -> None:
            if gone:
                return
            if data is None:
                _finish(request, 404, pages.missing_page(404, "There is no such page."))
            else:
                _finish(request, 200, data, kind)

        def failed(failure: Any) -> None:
            _log.critical("internal error\n%s", failure.getTraceback())
            if not gone:
                _finish(request, 500, b"internal error\n", "text/plain")

        self._looker.look(target).addCallback(looked).addCallback(rendered).addErrback(failed)
        return NOT_DONE_YET

    def _get_log(self, request: Any, build: str, key: str) -> Any:
        """The output of an attempt as it came."""
        facts = StepTarget(build, key, _argument(request, b"attempt")).gather(self._watched)
        if facts is None:
            return _answer(request, 404, "There is no such page.")
        assert facts.build.planned is not None
        name = re.sub(r"[^0-9A-Za-z._+-]", "_", facts.build.planned.names[key].name)
        request.setHeader("Content-Disposition", f'attachment; filename="{name}.log"')
        return _send(request, facts.excerpt.data, "text/plain; charset=utf-8")

    # Events

    def _follow_overview(self, request: Any) -> Any:
        return self._follow(request, OverviewTarget())

    def _follow_build(self, request: Any, build: str) -> Any:
        return self._follow(request, BuildTarget(build))

    def _follow_step(self, request: Any, build: str, key: str) -> Any:
        return self._follow(request, StepTarget(build, key, _argument(request, b"attempt")))

    def _follow(self, request: Any, target: Target) -> Any:
        if self._streams.is_full:
            request.setHeader("Retry-After", "30")
            return _answer(request, 503, "Too many pages are open.")
        last = request.getHeader("last-event-id") or _argument(request, b"since")
        stamp = int(last) if last.isascii() and last.isdigit() and len(last) < 16 else 0
        self._streams.add(request, target, stamp)
        return NOT_DONE_YET


def _argument(request: Any, name: bytes) -> str:
    value: bytes = request.args.get(name, [b""])[-1]
    return value[:200].decode("utf-8", "replace")


def _answer(request: Any, status: int, what: str) -> Any:
    _finish(request, status, pages.missing_page(status, what))
    return NOT_DONE_YET


def _send(request: Any, data: bytes, kind: str) -> Any:
    _finish(request, 200, data, kind)
    return NOT_DONE_YET


def _finish(request: Any, status: int, data: bytes, kind: str = "text/html; charset=utf-8") -> None:
    request.setResponseCode(status)
    request.setHeader("Content-Type", kind)
    request.setHeader("Content-Length", str(len(data)))
    request.write(data)
    request.finish()
