"""The pages for people, in a real browser."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from cacheserver.catalogue import Catalogue
from cacheserver.pages import format_age, format_size, format_span
from morphlib.cache.store import ArtifactStore
from tests.cacheserver.browser import Browser, browsing
from tests.cacheserver.server import KEY, CacheServer, running, sha256

HOSTILE = "<script>document.title='stolen'</script>"


def key_of(name: str) -> str:
    return sha256(name.encode())


def store_source(
    store: ArtifactStore,
    kind: str,
    name: str,
    files: Mapping[str, int],
    kids: Sequence[str] = (),
    **more: str,
) -> None:
    """A source as builds leave it: artifacts of these sizes, KEY.meta, a log."""
    key = key_of(name)
    paths = {f"{key}.{kind}.{artifact}": store.temporary() for artifact in files}
    for path, size in zip(paths.values(), files.values(), strict=True):
        path.write_bytes(b"x" * size)
    identity = {
        "name": name,
        "kind": kind,
        "kids": [{"artifact": kid, "cache-key": key_of(kid)} for kid in kids],
        **more,
    }
    times = {"overall-build": {"start": "", "stop": "", "delta": "83.5"}}
    meta = json.dumps({"cache-id": identity, "build-times": times}).encode()
    store.publish(key, paths, {f"{key}.meta": meta})
    store.write_log(key, f"+ make {name}\n".encode() + b"caf\xe9 <b>bold</b>\n")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CacheServer]:
    home = tmp_path_factory.mktemp("pages")
    with running(home) as server:
        with ArtifactStore(server.artifacts) as store:
            store_source(store, "chunk", "zlib", {"zlib-libs": 150_000, "zlib-doc": 3000})
            store_source(store, "chunk", "busybox", {"busybox-bins": 2_500_000})
            store_source(store, "chunk", HOSTILE.replace("/", ""), {"x": 1})
            store_source(store, "stratum", "core", {"core": 10}, ["zlib", "busybox", "gone"])
            files = {"base-rootfs": 9_000_000}
            store_source(store, "system", "base", files, ["core"], arch="x86_64")
            for number in range(120):
                store_source(store, "chunk", f"many-{number:03}", {"many": 10})
        failed = key_of("failed")
        (server.artifacts / f"{failed}.build-log").write_bytes(b"cc: error\n")
        yield server


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture(autouse=True)
def no_complaints(browser: Browser) -> Iterator[None]:
    browser.complaints.clear()
    yield
    # Every page asks for an icon, and there is none.
    assert [each for each in browser.complaints if "favicon" not in each] == []


def test_from_a_system_to_the_log_of_a_chunk(server: CacheServer, browser: Browser) -> None:
    browser.open(server.url)
    assert browser.text("h1, nav a[aria-current]") == "Systems 1"
    assert browser.texts("tbody td")[:2] == ["base", "x86_64"]
    assert "9 MB" in browser.texts("tbody td")
    browser.follow("tbody a")
    assert browser.text("h1") == "base system for x86_64"
    # zlib, busybox, core and this: 153 kB, 2.5 MB, 10 B and 9 MB, with metadata and logs.
    assert browser.text("#members") == "3 of 4 sources are stored; with this one they take 11.7 MB."
    assert browser.texts("tr.absent td")[0] == "gone"
    browser.follow(f"a[href='/sources/{key_of('zlib')}']")
    assert browser.text("h1") == "zlib chunk"
    assert browser.texts(".figures dd")[-1] == "84 s"
    assert any("chunk.zlib-libs" in each for each in browser.texts("tbody td"))
    browser.follow("a[href$='/log']")
    assert browser.text("#log") == "+ make zlib\ncaf\\xe9 <b>bold</b>\n"


def test_chunks_are_searched_by_name_and_key(server: CacheServer, browser: Browser) -> None:
    browser.open(server.url + "?kind=chunk")
    assert browser.text("nav a[aria-current]") == "Chunks 123"
    for text, names in (
        ("ZLI", ["zlib"]),
        (key_of("busybox")[:10], ["busybox"]),
        ("<script>", [HOSTILE.replace("/", "")]),
        ("nothing like it", []),
    ):
        browser.evaluate(f"document.querySelector('input[name=q]').value = {json.dumps(text)}")
        browser.follow("nav form button")
        assert browser.texts("tbody td:first-child") == names
        assert browser.evaluate("document.querySelector('input[name=q]').value") == text
    assert browser.text(".nothing") == "Nothing of that name or key."
    browser.follow("nav a")
    assert browser.text(".nothing") == "Nothing of that name or key."


def test_long_lists_have_pages(server: CacheServer, browser: Browser) -> None:
    browser.open(server.url + "?kind=chunk&q=many")
    first = browser.texts("tbody a")
    browser.follow("a[rel=next]")
    second = browser.texts("tbody td:first-child")
    assert browser.text(".pages").endswith("Page 2 of 2, 120 in all")
    assert len(second) == 20
    assert not set(first) & set(second)
    browser.open(server.url + "?kind=chunk&q=many&page=99999")
    assert browser.texts("tbody td:first-child") == second


def test_nothing_stored_runs_in_the_browser(server: CacheServer, browser: Browser) -> None:
    key = key_of(HOSTILE.replace("/", ""))
    for path in ("?kind=chunk&q=%3Cscript", f"sources/{key}", f"sources/{key}/log"):
        browser.open(server.url + path)
        assert browser.evaluate("document.scripts.length") == 0
        assert browser.evaluate("document.title") != "stolen"
    answer = server.get("/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_looks_like_something(server: CacheServer, browser: Browser, home: Path) -> None:
    """The style is loaded: the table reaches over the page, numbers are on the right."""
    browser.open(server.url)
    assert browser.evaluate("document.querySelector('table').offsetWidth > 800")
    style = "getComputedStyle(document.querySelector('td.number')).textAlign"
    assert browser.evaluate(style) == "right"
    browser.screenshot(home / "page.png")
    assert (home / "page.png").read_bytes().startswith(b"\x89PNG")


def test_hits_are_counted(home: Path, browser: Browser) -> None:
    with running(home) as server:
        browser.open(server.url)
        assert browser.text("#hit-rate") == "\u2013"
        assert browser.text(".nothing") == "There is nothing yet."
        with ArtifactStore(server.artifacts) as store:
            store_source(store, "chunk", "zlib", {"zlib-libs": 1})
        name = f"{key_of('zlib')}.chunk.zlib-libs"
        for asked in (name, name, name, "other"):
            server.artifact(asked)
        browser.wait_for("true")
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            browser.open(server.url + "?kind=chunk")
            if browser.texts("tbody td"):
                break
        assert browser.text("#hit-rate") == "75 %"
        assert browser.texts("td.number")[1] == "3"


def test_hit_rates_are_told_by_system_and_by_chunk(home: Path, browser: Browser) -> None:
    def names(source: str, kind: str, *artifacts: str) -> list[str]:
        return [f"{key_of(source)}.{kind}.{artifact}" for artifact in artifacts]

    with running(home) as server:
        with ArtifactStore(server.artifacts) as store:
            store_source(store, "chunk", "zlib", {"zlib-libs": 1, "zlib-doc": 1})
            store_source(store, "chunk", "bash", {"bash-bins": 50_000})
            store_source(store, "system", "base", {"base-rootfs": 1}, ["zlib"])
        zlib, bash = (
            names("zlib", "chunk", "zlib-libs", "zlib-doc"),
            names("bash", "chunk", "bash-bins"),
        )
        system = names("base", "system", "base-rootfs")
        server.post("/1.0/artifacts", [*zlib, *bash, *system])
        # Other versions, and what nobody ever stored.
        for number in range(2):
            other = names(f"new {number}", "chunk", "zlib-libs", "zlib-doc")
            server.post("/1.0/artifacts", other)
        server.post("/1.0/artifacts", names("gcc", "chunk", "gcc-bins", "gcc-libs"))
        browser.open(server.url)
        assert browser.texts("tbody td")[0] == "base"
        assert "100 %" in browser.texts("tbody td")
        browser.follow("a[href^='/hits']")
        assert browser.texts("tbody td:first-child") == ["base"]
        browser.follow("a[href*='kind=chunk']")
        assert browser.text("#hit-rate") == "40 %"
        rows = [browser.texts(f"tbody tr:nth-child({n}) td") for n in (1, 2, 3)]
        assert rows == [
            ["zlib", "3", "2", "33 %", "today"],
            ["gcc", "1", "1", "0 %", "today"],
            ["bash", "1", "0", "100 %", "today"],
        ]
        browser.follow("th a[href*='sort=name']")
        assert browser.texts("tbody td:first-child") == ["bash", "gcc", "zlib"]
        assert browser.text("th[aria-sort]") == "Name"
        browser.follow("th a[href*='sort=rate']")
        assert browser.texts("tbody td:first-child") == ["gcc", "zlib", "bash"]
        browser.evaluate("document.querySelector('input[name=q]').value = 'ZLI'")
        browser.follow("nav form button")
        assert browser.texts("tbody td:first-child") == ["zlib"]
        assert browser.text("th[aria-sort]") == "Hit rate"
        browser.follow("tbody a")
        assert browser.texts("tbody td:first-child") == ["zlib"]
        assert browser.texts("tbody td")[6] == "33 %"
        browser.follow("tbody a")
        assert browser.text("#hit-rate") == "33 %"


def test_tables_are_sorted_by_what_is_clicked(server: CacheServer, browser: Browser) -> None:
    browser.open(server.url + "?kind=chunk")
    browser.follow("th a[href*='sort=size']")
    assert browser.texts("tbody td:first-child")[:2] == ["busybox", "zlib"]
    browser.follow("th a[href*='sort=name']")
    shown = browser.texts("tbody td:first-child")
    assert shown == sorted(shown)
    browser.follow("a[rel=next]")
    assert browser.texts("tbody td:first-child")[0] > shown[-1]
    browser.open(server.url + "?kind=chunk&sort=nothing")
    assert browser.text("th[aria-sort]") == "Last used"


def test_logs_of_failed_builds_can_be_read(server: CacheServer, browser: Browser) -> None:
    browser.open(server.url + f"sources/{key_of('failed')}")
    assert "not whole" in browser.text(".warning")
    browser.follow("a[href$='/log']")
    assert browser.text("#log") == "cc: error\n"


def test_of_a_long_log_the_end_is_shown(server: CacheServer) -> None:
    key = key_of("long")
    lines = b"".join(b"line %d\n" % number for number in range(300_000))
    (server.artifacts / f"{key}.build-log").write_bytes(lines)
    page = server.get(f"/sources/{key}/log").body
    assert len(page) < 1_100_000
    assert b"line 299999\n" in page and b"line 1\n" not in page
    assert b"are left out" in page


@pytest.mark.parametrize("path", ["/sources/x", "/sources/..", "/sources/x/log", "/?kind=x"])
def test_pages_that_there_are_not(server: CacheServer, path: str) -> None:
    assert server.ask("GET", path).status == 404


def test_what_is_told_follows_what_is_stored(home: Path) -> None:
    now = [0.0]
    catalogue = Catalogue(home, now=lambda: now[0])
    assert catalogue.sources() == {}
    key = key_of("x")
    with ArtifactStore(home) as store:
        paths = {f"{key}.chunk.{name}": store.temporary() for name in ("zlib-libs", "zlib-doc")}
        for path in paths.values():
            path.write_bytes(b"12345")
        store.publish(key, paths)
        assert catalogue.sources() == {}
        now[0] = 6.0
        (source,) = catalogue.sources().values()
        assert (source.kind, source.name, source.size) == ("chunk", "zlib", 10)
        os.utime(home / f"{key}.manifest", (5, 5))
        now[0] = 100.0
        assert catalogue.sources()[key].used == 5
        store.remove(key)
        now[0] = 110.0
        assert catalogue.sources() == {}


@pytest.mark.parametrize("start", [b'{"x":', b'{"cache-id":{"kids":', b'{"cache-id":{"x":'])
def test_pages_bear_what_is_no_description_of_a_build(home: Path, start: bytes) -> None:
    with running(home, "--enable-writes") as server:
        assert server.put(f"{KEY}.chunk.zlib-bins", b"data").status == 201
        assert server.put(f"{KEY}.meta", start + b"[" * 100_000).status == 200
        for path in ("/?kind=chunk", f"/sources/{KEY}", "/hits"):
            assert server.ask("GET", path).status == 200
    assert "Traceback" not in server.events


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_600, "1 MB"), (5e15, "5000 TB")],
)
def test_sizes(size: float, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (1.23, "1.2 s"), (59, "59 s"), (150, "2 min"), (7200, "2 h"), (9e5, "10 days")],
)
def test_spans(seconds: float, text: str) -> None:
    assert format_span(seconds) == text


def test_ages() -> None:
    assert format_age(100, 103) == "3.0 s ago"
    assert format_age(100, 50) == "just now"
