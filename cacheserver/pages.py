"""Pages for people: what is stored, what it is made of, how it was built. They run no scripts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import bottle
import jinja2

from cacheserver.answers import answer, parameters, refuse
from cacheserver.application import Application, Environ
from cacheserver.artifacts import BadNameError
from cacheserver.catalogue import KINDS, Catalogue, StoredSource, members_of, search
from cacheserver.tallies import DAYS, Label, Rate
from morphlib.cache.names import LOG_SUFFIX
from morphlib.errors import MorphError, Reason

_TEMPLATES = Path(__file__).parent / "templates"
_PER_PAGE = 100
_LOG_SHOWN = 1 << 20  # bytes of the end of a log
_SECURITY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self';"
    " frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def add_pages(application: Application) -> None:
    """The routes of the pages."""
    pages = _Pages(application)
    application.add("GET", "/", pages.show_index)
    application.add("GET", "/hits", pages.show_hits)
    application.add("GET", "/style.css", pages.get_style)
    application.add("GET", "/sources/<key>", pages.show_source)
    application.add("GET", "/sources/<key>/log", pages.show_log)


class _Pages:
    def __init__(self, application: Application) -> None:
        self._artifacts = application.context.artifacts
        self._hits = application.context.hits
        self._catalogue = Catalogue(self._artifacts.directory)
        self._style = (_TEMPLATES / "style.css").read_bytes()
        self._began = time.time()
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_TEMPLATES),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        self._templates.filters |= {
            "size": format_size,
            "age": format_age,
            "span": format_span,
            "part": format_part,
        }

    def get_style(self, environ: Environ) -> bottle.HTTPResponse:
        return answer(self._style, headers={"Content-Type": "text/css; charset=utf-8"})

    def show_index(self, environ: Environ) -> bottle.HTTPResponse:
        given = parameters(environ)
        kind = given.get("kind", KINDS[0])
        if kind not in KINDS:
            raise refuse(404)
        text = given.get("q", "")[:200]
        sources = self._read().values()
        counts = dict.fromkeys(KINDS, 0)
        for source in sources:
            if source.kind in counts:
                counts[source.kind] += 1
        downloads, rates = self._hits.downloads(), self._rates(sources)
        columns: dict[str, Callable[[StoredSource], Any]] = {
            "name": lambda source: source.name,
            "size": lambda source: -source.size,
            "stored": lambda source: -source.stored,
            "used": lambda source: -source.used,
            "downloads": lambda source: -downloads[source.key],
            "rate": lambda source: _order(rates.get(Label(source.kind, source.name))),
        }
        sort = _chosen(given, columns, "used")
        found = sorted(search(sources, kind, text), key=columns[sort])
        page = _page_number(given.get("page", "1"), len(found))
        return self._render(
            "index.html",
            sort=sort,
            rates=rates,
            kind=kind,
            text=text,
            counts=counts,
            total=sum(source.size for source in sources),
            free=self._artifacts.free_space(),
            rate=self._hits.rate,
            began=self._began,
            found=len(found),
            shown=found[(page - 1) * _PER_PAGE : page * _PER_PAGE],
            page=page,
            pages=_count_pages(len(found)),
            downloads=downloads,
        )

    def show_hits(self, environ: Environ) -> bottle.HTTPResponse:
        """What was asked for by name, also what nobody ever stored."""
        given = parameters(environ)
        kind = given.get("kind", KINDS[0])
        if kind not in KINDS:
            raise refuse(404)
        text = given.get("q", "")[:200]
        every = [rate for rate in self._rates(self._read().values()).values() if rate.kind == kind]
        columns: dict[str, Callable[[Rate], Any]] = {
            "name": lambda rate: rate.name,
            "asked": lambda rate: -rate.asked,
            "misses": lambda rate: -rate.misses,
            "rate": lambda rate: rate.part,
            "last": lambda rate: -rate.day,
        }
        sort = _chosen(given, columns, "misses")
        wanted = text.strip().lower()
        found = sorted(
            sorted((rate for rate in every if wanted in rate.name.lower()), key=columns["name"]),
            key=columns[sort],
        )
        page = _page_number(given.get("page", "1"), len(found))
        return self._render(
            "hits.html",
            kind=kind,
            kinds=KINDS,
            text=text,
            sort=sort,
            asked=sum(rate.asked for rate in every),
            hits=sum(rate.hits for rate in every),
            found=len(found),
            shown=found[(page - 1) * _PER_PAGE : page * _PER_PAGE],
            page=page,
            pages=_count_pages(len(found)),
        )

    def _rates(self, sources: Iterable[StoredSource]) -> dict[Label, Rate]:
        return self._hits.rates({Label(each.kind, each.name) for each in sources})

    def show_source(self, environ: Environ, key: str) -> bottle.HTTPResponse:
        sources = self._read()
        source = sources.get(key)
        if source is None:
            raise refuse(404)
        members = members_of(source, sources)
        stored = [m.source for m in members if m.source is not None and m.source.complete]
        return self._render(
            "source.html",
            source=source,
            members=members,
            stored=len(stored),
            whole=source.size + sum(each.size for each in stored),
            downloads=self._hits.downloads(),
            rates=self._rates(sources.values()),
        )

    def show_log(self, environ: Environ, key: str) -> bottle.HTTPResponse:
        """The end of a build log; bytes that are no UTF-8 as escapes."""
        try:
            found = self._artifacts.open(key + LOG_SUFFIX)
        except BadNameError:
            found = None
        if found is None:
            raise refuse(404)
        try:
            start = max(0, found.size - _LOG_SHOWN)
            data = os.pread(found.descriptor, _LOG_SHOWN, start)
        finally:
            found.close()
        if start:
            data = data.partition(b"\n")[2]
        source = self._read().get(key)
        return self._render(
            "log.html",
            key=key,
            name=source.name if source else "",
            file=key + LOG_SUFFIX,
            text=data.decode("utf-8", "backslashreplace"),
            size=found.size,
            cut=found.size - len(data),
        )

    def _read(self) -> Any:
        try:
            return self._catalogue.sources()
        except OSError as error:
            raise MorphError(f"can't list artifacts: {error}", reason=Reason.CACHE) from error

    def _render(self, template: str, **values: Any) -> bottle.HTTPResponse:
        text = self._templates.get_template(template).render(now=time.time(), days=DAYS, **values)
        kind = {"Content-Type": "text/html; charset=utf-8"}
        return answer(text.encode("utf-8", "backslashreplace"), headers={**kind, **_SECURITY})


def _chosen(given: Mapping[str, str], columns: Mapping[str, object], default: str) -> str:
    """The column to sort by, which the page's address names."""
    sort = given.get("sort", default)
    return sort if sort in columns else default


def _order(rate: Rate | None) -> float:
    """The worst rate comes first, and what nobody asked for last."""
    return rate.part if rate is not None else 2.0


def _count_pages(found: int) -> int:
    return max(1, -(-found // _PER_PAGE))


def _page_number(text: str, found: int) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 1
    return min(max(1, number), _count_pages(found))


def format_part(part: float) -> str:
    """A part of a whole in per cent, and all or nothing only where it is."""
    return f"{min(max(part * 100, 1), 99):.0f} %" if 0 < part < 1 else f"{part * 100:.0f} %"


def format_size(size: float) -> str:
    """Bytes with three digits: 5 B, 1.25 MB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":
            digits = ".0f" if unit == "B" or size >= 1000 else ".3g"
            return f"{size:{digits}} {unit}"
        size /= 1000
    raise AssertionError("the last unit takes all")


def format_span(seconds: float) -> str:
    """A span of time in its largest unit: 5 s, 3 min, 2 days."""
    units = (("days", 86400), ("h", 3600), ("min", 60))
    for unit, length in units:
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{max(0, seconds):.0f} s"


def format_age(then: float, now: float) -> str:
    """How long ago it was; a clock that went back makes that no less than nothing."""
    return "just now" if now - then < 2 else f"{format_span(now - then)} ago"
