"""The status page of a real controller in a real browser, while it has real builds."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from morphlib.process import wait_until
from tests.cacheserver.browser import Browser, browsing
from tests.commands.world import SYSTEM
from tests.distbuild.authorities import Authority
from tests.distbuild.conftest import make_world
from tests.distbuild.network import PATIENCE, Meanwhile, Network
from tests.sources.repositories import git_environment

HOSTILE = "<script>document.title='stolen'</script>"


@pytest.fixture(scope="module")
def lasting_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    root = tmp_path_factory.mktemp("status")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in git_environment(root).items():
            patch.setenv(name, value)
        network = Network(make_world(root), controller_status_address="127.0.0.1")
        yield network
        network.close()


@pytest.fixture(scope="module")
def lasting_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def browser(lasting_browser: Browser) -> Iterator[Browser]:
    lasting_browser.complaints.clear()
    yield lasting_browser
    lasting_browser.open("about:blank#over")
    assert lasting_browser.complaints == []


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    network: Network, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", network.ports["status"], timeout=30)
    try:
        connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def steps_of(network: Network, build: str) -> dict[str, dict[str, Any]]:
    """By the name of each."""
    steps = ask(network, f"/api/builds/{build}").json()["steps"]
    return {step["name"]: step for step in steps}


@contextmanager
def building(network: Network, *commands: str) -> Iterator[str]:
    """A build in which the chunk `app` runs these commands. It may fail."""
    network.change_app(*commands)
    # What failures left, which `release` must not take for what is being built.
    shutil.rmtree(network.world.temp / "staging", ignore_errors=True)
    going = Meanwhile(lambda: network.run("distbuild", SYSTEM))
    build = network.find_id()
    try:
        yield build
    except BaseException:
        network.run("distbuild-cancel", build)
        raise
    finally:
        going.result()


def until(name: str) -> str:
    """A command that goes on until the test calls `release`."""
    return f"echo waits for {name}; while ! test -e {name}; do sleep 0.1; done"


def release(network: Network, build: str, name: str) -> None:
    """Put a file where the chunk `app` is being built, once it waits for that."""
    log = f"/builds/{build}/steps/{steps_of(network, build)['app']['key']}/log"
    waiting = f"waits for {name}\n".encode()
    assert wait_until(lambda: waiting in ask(network, log).body, PATIENCE), network.logs()
    for directory in network.world.temp.glob("staging/app-*/app.build"):
        (directory / name).touch()


def row_of(name: str) -> str:
    return (
        f"[...document.querySelectorAll('#steps tr')].find(r => r.cells[0].innerText == '{name}')"
    )


def test_a_build_is_followed_without_a_reload(network: Network, browser: Browser) -> None:
    browser.open(network.url("status"))
    assert browser.text("#builds .nothing") == "Nothing is being built."
    browser.evaluate("window.isKept = true")
    with building(network, until("seen")) as build:
        link = "document.querySelector('#builds th a')?.innerText"
        browser.wait_for(f"{link} == 'systems/demo.morph'")
        browser.wait_for("document.querySelector('#workers td')?.innerText.includes('building')")
        assert browser.evaluate("window.isKept") is True
        browser.follow("#builds th a")
        assert browser.text("h1").startswith(f"{SYSTEM} {build}")
        browser.evaluate("window.isKept = true")
        browser.wait_for(f"{row_of('app')}.querySelector('.building') != null")
        bars = "[...document.querySelectorAll('.bar.building')]"
        browser.wait_for(f"{bars}.some(bar => bar.innerHTML.includes('app: building'))")
        # While it is built its bar is the one that reaches the end, so that others get narrower.
        width = "document.querySelector('.bar.built').getBoundingClientRect().width"
        before = browser.evaluate(width)
        browser.wait_for(f"{width} < {before}")
        release(network, build, "seen")
        browser.wait_for(f"{row_of('app')}.querySelector('.built') != null")
        browser.wait_for("document.querySelector('#figures .finished') != null")
        browser.wait_for("document.querySelector('#live').innerText == 'over'")
        assert browser.evaluate("window.isKept") is True
    # What was there at last is what a new page shows.
    parts = ("#figures dd", "#steps tr", "#critical li", "#lanes li", "#bars title")
    kept = [browser.texts(part) for part in parts]
    browser.open(f"{network.url('status')}builds/{build}")
    assert [browser.texts(part) for part in parts] == kept
    assert len(browser.texts("#bars > a")) == len(browser.texts("#steps tr")) == 7
    assert browser.texts("#critical li")[-1].startswith("demo system")
    assert "app" in " ".join(browser.texts("tr.critical"))
    browser.open(network.url("status"))
    assert browser.texts("#over tbody td")[1].startswith("finished")


def test_a_log_is_read_while_it_is_written(network: Network, browser: Browser) -> None:
    with building(
        network,
        f"printf '%b\\n' \"{HOSTILE}\" '\\033[31mred' 'caf\\351'",
        until("read"),
        "echo $((6 * 7)) is said",
        until("all"),
    ) as build:
        assert wait_until(
            lambda: steps_of(network, build).get("app", {}).get("state") == "building", PATIENCE
        ), network.logs()
        step = steps_of(network, build)["app"]
        browser.open(f"{network.url('status')}builds/{build}/steps/{step['key']}")
        browser.evaluate("window.isKept = true")
        browser.wait_for("document.querySelector('#log').innerText.includes('caf\\\\xe9\\n')")
        assert browser.text("#figures .building") == "building"
        assert f"{HOSTILE}\nred\n" in browser.text("#log")
        release(network, build, "read")
        browser.wait_for("document.querySelector('#log').innerText.includes('42 is said\\n')")
        release(network, build, "all")
        browser.wait_for("document.querySelector('#figures .built') != null")
        assert browser.evaluate("window.isKept") is True
        assert browser.evaluate("document.scripts.length") == 1
        assert browser.evaluate("document.title") == "app \u2013 Morph"
        browser.wait_for("document.querySelector('#live').innerText == 'over'")
        text = browser.text("#log")
    browser.open(f"{network.url('status')}builds/{build}/steps/{step['key']}")
    assert browser.text("#log").strip() == text.strip()
    assert browser.evaluate("document.scripts.length") == 0  # nothing more comes
    raw = ask(network, f"/builds/{build}/steps/{step['key']}/log")
    assert HOSTILE.encode() in raw.body
    assert raw.headers["content-type"] == "text/plain; charset=utf-8"
    assert raw.headers["content-disposition"] == 'attachment; filename="app.log"'
    told = ask(network, f"/api/builds/{build}/steps/{step['key']}").json()
    assert told["log"] == {"start": 0, "end": len(raw.body)}


def test_a_failure_is_shown_with_its_reason(network: Network, browser: Browser) -> None:
    with building(network, f'echo "{HOSTILE}" >&2', "exit 3") as build:
        pass
    browser.open(f"{network.url('status')}builds/{build}")
    assert browser.text("#figures .state") == "failed"
    assert "Building failed for app" in browser.text(".reason")
    assert browser.evaluate(f"{row_of('app')}.querySelector('.state').innerText") == "failed"
    assert browser.evaluate(f"{row_of('demo')}.querySelector('.state').innerText") == "unbuilt"
    browser.evaluate(f"{row_of('app')}.querySelector('a').id = 'app'")
    browser.follow("#app")
    assert HOSTILE in browser.text("#log")
    assert "build failed" in browser.text("#attempts")
    assert browser.evaluate("document.title") == "app \u2013 Morph"


def test_what_a_lost_worker_did_is_shown_to_be_built_again(
    network: Network, browser: Browser
) -> None:
    with building(network, until("lost")) as build:
        browser.open(f"{network.url('status')}builds/{build}")
        browser.wait_for(f"{row_of('app')}?.querySelector('.building') != null")
        browser.evaluate("window.isKept = true")
        network.kill_and_restart("worker-0")
        browser.wait_for(f"{row_of('app')}.innerText.includes('attempt\u00a02')")
        browser.wait_for("document.querySelector('.bar.lost') != null")
        assert browser.evaluate("window.isKept") is True
        browser.evaluate(f"{row_of('app')}.querySelector('a').id = 'app'")
        browser.follow("#app")
        assert browser.texts("#attempts tbody .state") == ["lost", "building"]
        browser.follow("#attempts tbody a")
        assert "was lost" in browser.text("#attempts")
        assert browser.text("#attempts a[aria-current]") == "1"
        release(network, build, "lost")
    browser.open(network.url("status"))
    assert browser.texts("#over tbody td")[1].startswith("finished")


def test_names_are_shown_and_do_nothing(network: Network, browser: Browser) -> None:
    """A build whose graph can't be computed, for names that are HTML."""
    name = f"systems/{HOSTILE.replace('/', '')}.morph"
    network.world.documents[name] = {**network.world.documents[SYSTEM], "name": "x", "strata": []}
    network.world.write()
    ran = network.run("distbuild", name)
    assert ran.status == 1
    browser.open(network.url("status"))
    assert name in browser.texts("#over th a")
    assert browser.evaluate("document.scripts.length") == 1
    assert browser.evaluate("document.title") == "Builds \u2013 Morph"
    browser.follow("#over th a")
    assert browser.text("h1").startswith(name)
    assert browser.text("#critical .nothing") == "There are no steps."


def test_a_page_goes_on_when_the_controller_is_back(network: Network, browser: Browser) -> None:
    browser.open(network.url("status"))
    browser.wait_for("document.querySelector('#live').innerText == 'live'")
    browser.evaluate("window.isKept = true")
    network.processes["controller"].kill()
    browser.wait_for("document.querySelector('#live').innerText == 'waiting'")
    network.processes["controller-helper"].child.wait(30)
    network.start_controller()
    browser.wait_for("window.isKept !== true && document.readyState === 'complete'")
    browser.wait_for("document.querySelector('#live').innerText == 'live'")
    browser.complaints.clear()  # that it was away


# ---- What can be asked for -----------------------------------------------------------------------

KEY = "0" * 64


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/builds/",
        "/builds/build-none",
        "/builds/..%2f..%2fetc",
        f"/builds/build-none/steps/{KEY}",
        f"/builds/build-none/steps/{KEY}/log",
        "/api/builds/build-none",
        f"/api/builds/build-none/steps/{KEY}",
        "/style.css/",
        "//style.css",
        "/templates/base.html",
        "/../pages.py",
        "/builds/%3Cscript%3E",
    ],
)
def test_pages_that_there_are_not(network: Network, path: str) -> None:
    answer = ask(network, path)
    assert answer.status == 404
    assert b"There is no such page." in answer.body


def test_steps_that_a_build_does_not_have(network: Network) -> None:
    network.build()
    build = network.find_id()
    assert ask(network, f"/builds/{build}/steps/{KEY}").status == 404
    key = next(iter(steps_of(network, build).values()), {}).get("key", KEY)
    assert ask(network, f"/builds/{build}/steps/{key}?attempt=none").status == 404
    assert ask(network, f"/builds/{build}/steps/{key}/log?attempt=%00").status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "X"])
def test_nothing_can_be_changed(network: Network, method: str) -> None:
    for path in ("/", "/api/status", "/events", "/nothing"):
        answer = ask(network, path, method, b"x" * 200_000)
        assert answer.status == 405
        assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/", "/api/status", "/style.css", "/live.js", "/icon.svg"])
def test_heads_are_those_of_the_pages(network: Network, path: str) -> None:
    head, page = ask(network, path, "HEAD"), ask(network, path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-type"] == page.headers["content-type"]
    assert abs(int(head.headers["content-length"]) - len(page.body)) < 20  # times differ
    assert page.headers["server"] == "morph"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["cache-control"] == "no-store"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_the_head_of_events_ends(network: Network) -> None:
    head = ask(network, "/events?since=1", "HEAD")
    assert head.headers["content-type"] == "text/event-stream; charset=utf-8"


def test_a_page_that_nobody_remembers_is_asked_for_again(network: Network) -> None:
    for since in ("", "?since=999999", "?since=x", "?since=-1"):
        assert ask(network, f"/events{since}").body == b"event: reload\ndata: \n\n"


def test_other_hosts_names_lead_nowhere(network: Network) -> None:
    for host in ("evil.example", "evil.example:80"):
        for path in ("/", "/api/status", "/events", "/live.js"):
            assert ask(network, path, Host=host).status == 403


def test_listeners_are_counted(network: Network) -> None:
    """More than there may be get no answer that lasts, and the others go on."""
    stamp = ask(network, "/").body.partition(b'data-stamp="')[2].partition(b'"')[0].decode()
    sockets = []
    try:
        for _ in range(64):
            open_socket = socket.create_connection(("127.0.0.1", network.ports["status"]), 30)
            open_socket.sendall(
                f"GET /events?since={stamp} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            )
            assert open_socket.recv(4096).startswith(b"HTTP/1.1 200")
            sockets.append(open_socket)
        refused = ask(network, f"/events?since={stamp}")
        assert refused.status == 503
        assert refused.headers["retry-after"] == "30"
        assert ask(network, "/").status == 200
    finally:
        for each in sockets:
            each.close()

    def is_let_in() -> bool:
        return ask(network, "/events").status == 200

    assert wait_until(is_let_in, PATIENCE)


def test_the_state_as_json(network: Network) -> None:
    network.build()
    state = ask(network, "/api/status")
    assert state.headers["content-type"] == "application/json"
    told = state.json()
    (worker,) = told["workers"]
    assert (worker["state"], worker["capacity"], worker["jobs"]) == ("idle", 1, [])
    build = told["over"][0]
    assert (build["id"], build["state"]) == (network.find_id(), "finished")
    assert build["morphology"] == SYSTEM


# ---- Other machines ------------------------------------------------------------------------------


def test_other_machines_are_not_shown_anything_without_a_token(network: Network) -> None:
    ran = network.run(
        "controller-daemon",
        worker="127.0.0.1:1",
        artifact_cache_server=network.url("shared-read"),
        writeable_cache_server=network.url("shared-write"),
        controller_status_address="0.0.0.0",
        controller_status_port="0",
    )
    assert ran.status == 1
    assert "other machines could read the status page" in ran.err
    assert "controller-status-token-file" in ran.err


@contextmanager
def restarted(network: Network, **settings: str) -> Iterator[None]:
    """The controller with other settings, and then again as it was."""

    def restart(**settings: str) -> None:
        network.processes["controller"].kill()
        network.processes["controller-helper"].child.wait(30)
        network.start_controller(**settings)

    restart(**settings)
    try:
        yield
    finally:
        restart()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("f00f00f00f00f00f00\n")
    path.chmod(0o600)
    return path


ALLOWED = "Bearer f00f00f00f00f00f00"


def test_with_a_token_who_knows_it_is_let_in(
    network: Network, browser: Browser, token: Path
) -> None:
    with restarted(
        network, controller_status_address="0.0.0.0", controller_status_token_file=str(token)
    ):
        for path in ("/", "/events", "/api/status", "/style.css", "/nothing"):
            answer = ask(network, path)
            assert answer.status == 401
            assert answer.headers["www-authenticate"].startswith("Basic ")
            assert b"systems/" not in answer.body
        assert ask(network, "/", Authorization="Bearer f00f00f00f00f00f0x").status == 401
        assert ask(network, "/api/status", Authorization=ALLOWED).status == 200
        # From another address of this machine, by another name.
        assert ask(network, "/", Authorization=ALLOWED, Host="big.example").status == 200
        url = network.url("status").replace("http://", "http://me:f00f00f00f00f00f00@")
        browser.open(url)
        browser.wait_for("document.querySelector('#live').innerText == 'live'")
        log = network.log("controller")
        assert "status page: turned away 127.0.0.1: it sent no token (1 so far)" in log
        assert "f00f00" not in log
        browser.open("about:blank#over")


def test_a_page_can_be_read_by_https(network: Network, token: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with restarted(
        network,
        controller_status_address="0.0.0.0",
        controller_status_token_file=str(token),
        controller_status_certificate=str(authority.sign("controller", "127.0.0.1")),
    ):
        with pytest.raises((http.client.HTTPException, OSError)):
            ask(network, "/", Authorization=ALLOWED)
        connection = http.client.HTTPSConnection(
            "127.0.0.1",
            network.ports["status"],
            timeout=30,
            context=ssl.create_default_context(cafile=authority.file),
        )
        for headers, status in (({}, 401), ({"Authorization": ALLOWED}, 200)):
            connection.request("GET", "/", headers=headers)
            answer = connection.getresponse()
            page = answer.read()
            assert answer.status == status
        stamp = page.partition(b'data-stamp="')[2].partition(b'"')[0].decode()
        connection.request("GET", f"/events?since={stamp}", headers={"Authorization": ALLOWED})
        assert connection.getresponse().readline() == b"retry: 2000\n"
        connection.close()


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        ("", 0o600, "it holds no certificate with its key"),
        (None, 0o644, "others may read the key"),
    ],
)
def test_certificates_of_no_use(
    network: Network, tmp_path: Path, content: str | None, mode: int, message: str
) -> None:
    path = Authority(tmp_path).sign("controller", "127.0.0.1")
    if content is not None:
        path.write_text(content)
    path.chmod(mode)
    ran = network.run(
        "controller-daemon",
        worker="127.0.0.1:1",
        artifact_cache_server=network.url("shared-read"),
        writeable_cache_server=network.url("shared-write"),
        controller_status_address="localhost",
        controller_status_port="0",
        controller_status_certificate=str(path),
    )
    assert ran.status == 1
    assert message in ran.err
    assert "Traceback" not in ran.err
