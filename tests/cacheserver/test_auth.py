"""Who may write: tokens, certificates, this machine; and who is turned away."""

from __future__ import annotations

import http.client
import os
import ssl
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cacheserver.auth import Caller, Failures, NotAllowedError, check_local, host_of
from tests.cacheserver.server import KEY, CacheServer, running, wait_for_log

TOKEN = "0123456789abcdef0123456789abcdef"
NAME = f"{KEY}.chunk.a"


def token_file(home: Path, text: str = f"# who\n\nbuilder {TOKEN}\n", mode: int = 0o600) -> Path:
    path = home / "tokens"
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def guarded(home: Path) -> Iterator[CacheServer]:
    """A server that takes tokens."""
    with running(home, "--enable-writes", f"--token-file={token_file(home)}") as server:
        yield server


# ---- Tokens --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xe9"],
)
def test_writing_needs_the_token(guarded: CacheServer, header: str) -> None:
    guarded.headers = {"Authorization": header} if header else {}
    for answer in (
        guarded.put(NAME, b"x"),
        guarded.ask("DELETE", "/1.0/artifacts", {"filename": NAME}),
        guarded.ask("PUT", f"/1.0/uploads/{KEY}", body=b"x"),
        guarded.ask("GET", f"/1.0/uploads/{KEY}"),
        guarded.post(f"/1.0/sources/{KEY}", {NAME: KEY}),
        guarded.post("/1.0/fetch", {"host": "127.0.0.1:1", "cacheid": KEY, "artifacts": ["a"]}),
    ):
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    assert [path.name for path in guarded.artifacts.iterdir()] == []


def test_who_has_the_token_may_write_and_others_may_read(guarded: CacheServer) -> None:
    guarded.headers = {"Authorization": f"bearer {TOKEN}"}
    assert guarded.put(NAME, b"x").status == 201
    guarded.headers = {}
    assert guarded.artifact(NAME).status == 200
    entries = wait_for_log(guarded, 2)
    writers = {entry["method"]: entry.get("writer") for entry in entries}
    assert writers == {"PUT": "builder", "GET": None}
    assert TOKEN not in (guarded.home / "requests").read_text() + guarded.events


def test_tokens_can_be_changed_while_the_server_runs(guarded: CacheServer) -> None:
    other = TOKEN[::-1]
    guarded.headers = {"Authorization": f"Bearer {other}"}
    assert guarded.put(NAME, b"x").status == 401
    token_file(guarded.home, f"a {TOKEN}\nb {other}\n")
    assert guarded.put(NAME, b"x").status == 201
    token_file(guarded.home, "nonsense\n")
    assert guarded.put(NAME, b"x").status == 401
    assert "line 1 is not NAME TOKEN" in guarded.events
    assert "nobody may write meanwhile" in guarded.events


def test_failures_are_logged_with_their_rate(guarded: CacheServer) -> None:
    for _ in range(20):
        guarded.put(NAME, b"x")
    lines = [line for line in guarded.events.splitlines() if "turned away" in line]
    assert [line.rpartition("(")[2] for line in lines] == [
        f"{count} in the last minute)" for count in (1, 2, 4, 8, 16)
    ]
    assert all("127.0.0.1: it sent no token" in line for line in lines)
    text = guarded.get("/metrics").body.decode()
    assert 'morph_cache_turned_away_total{status="401"} 20.0' in text


def test_the_rate_is_that_of_the_last_minute() -> None:
    now = [0.0]
    failures = Failures(now=lambda: now[0])
    for now[0] in (0.0, 10.0, 65.0, 200.0):
        failures.add(Caller("1.2.3.4", {}), "why")
    assert len(failures._times) == 1


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        (f"a {TOKEN}", 0o644, "can be read by others"),
        ("a short", 0o600, "line 1 is not NAME TOKEN"),
        (f"# x\n{TOKEN}", 0o600, "line 2 is not NAME TOKEN"),
        (None, 0, "can't be read"),
    ],
)
def test_token_files_of_no_use(home: Path, text: str | None, mode: int, message: str) -> None:
    path = token_file(home, text, mode) if text is not None else home / "gone"
    assert_refused(home, message, "--enable-writes", f"--token-file={path}")


def assert_refused(home: Path, message: str, *options: str) -> None:
    with pytest.raises(AssertionError), running(home, *options):
        pass
    assert message in (home / "events").read_text()
    assert "Traceback" not in (home / "events").read_text()


# ---- This machine --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "evil.example"},
        {"Host": "evil.example:8080"},
        {"X-Forwarded-For": "10.0.0.1"},
        {"Forwarded": "for=10.0.0.1"},
    ],
)
def test_web_pages_and_proxies_are_no_local_writers(
    writable: CacheServer, headers: dict[str, str]
) -> None:
    answer = writable.ask("DELETE", "/1.0/artifacts", {"filename": NAME}, headers=headers)
    assert answer.status == 403


@pytest.mark.parametrize(
    ("address", "host", "allowed"),
    [
        ("127.0.0.1", "localhost:1", True),
        ("127.9.9.9", "127.0.0.1", True),
        ("::1", "[::1]:8080", True),
        ("::ffff:127.0.0.1", "", True),
        ("10.0.0.1", "localhost", False),
        ("::ffff:10.0.0.1", "localhost", False),
        ("127.0.0.1", "localhost.evil.example", False),
    ],
)
def test_what_is_local(address: str, host: str, allowed: bool) -> None:
    caller = Caller(address, {"host": host} if host else {})
    if allowed:
        check_local(caller)
    else:
        with pytest.raises(NotAllowedError):
            check_local(caller)


@pytest.mark.parametrize(
    ("text", "host"),
    [("a", "a"), ("a:1", "a"), ("[::1]:1", "::1"), ("[::1]", "::1"), ("::1", "::1"), ("", "")],
)
def test_hosts_in_headers(text: str, host: str) -> None:
    assert host_of(text) == host


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--address=0.0.0.0", "--enable-writes"], "anybody who reaches 0.0.0.0 could write"),
        (["--address=::", "--get-writes"], "--get-writes is not for ::"),
        (["--tls-key=x"], "--tls-key needs --tls-certificate"),
        (["--tls-client-ca=x"], "--tls-client-ca needs TLS"),
        (["--tls-clients-only"], "--tls-clients-only needs --tls-client-ca"),
        (["--tls-certificate=/gone"], "can't use TLS with /gone"),
        (["--fcgi-server"], "does not speak FastCGI"),
        (["--port=99999"], "there is no port 99999"),
        (["--fetch-from=http://x/", "--enable-writes"], "is no HOST or HOST:PORT"),
    ],
)
def test_settings_that_can_not_be(
    home: Path, options: list[str], message: str, serve: Callable[..., tuple[int, str]]
) -> None:
    status, told = serve(home, *options)
    assert status == 1
    assert f"ERROR: {message}" in told or message in told
    assert "Traceback" not in told


@pytest.fixture
def serve() -> Callable[..., tuple[int, str]]:
    """Run a server that ends at once: its exit status and what it told."""
    from tests.cacheserver.server import command

    def run(home: Path, *options: str) -> tuple[int, str]:
        done = subprocess.run(
            command(home, *options),
            env={"PATH": os.environ["PATH"], "HOME": str(home)},
            capture_output=True,
            timeout=30,
            check=False,
        )
        return done.returncode, done.stderr.decode()

    return run


# ---- TLS -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificates:
    """PEM files; `server` and `client` hold their keys too."""

    authority: Path
    server: Path
    client: Path
    stranger: Path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    here = tmp_path_factory.mktemp("certificates")

    def make(name: str, *options: str) -> Path:
        """A certificate with its key, in one file."""
        key, certificate, both = (here / f"{name}.{kind}" for kind in ("key", "crt", "pem"))
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"]
        command += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", f"/CN={name}"]
        command += ["-keyout", str(key), "-out", str(certificate), *options]
        subprocess.run(command, check=True, capture_output=True)
        both.write_bytes(certificate.read_bytes() + key.read_bytes())
        return both

    authority = make("authority")
    by_authority = ["-CA", str(here / "authority.crt"), "-CAkey", str(here / "authority.key")]
    names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    return Certificates(
        authority,
        make("server", *by_authority, *names),
        make("client", *by_authority),
        make("stranger"),
    )


class TlsServer(CacheServer):
    """`context` is what the client brings to the connection."""

    context: ssl.SSLContext

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPSConnection(self.host, self.port, timeout=30, context=self.context)


def over_tls(server: CacheServer, certificates: Certificates, own: Path | None = None) -> TlsServer:
    """The server as a client sees it that trusts the authority and shows `own`."""
    context = ssl.create_default_context(cafile=str(certificates.authority))
    if own is not None:
        context.load_cert_chain(own)
    client = TlsServer(server.home, server.port, server.process)
    client.context = context
    return client


def test_artifacts_come_over_tls(home: Path, certificates: Certificates) -> None:
    data = os.urandom(3_000_000)
    with running(home, "--serve-unlisted", f"--tls-certificate={certificates.server}") as plain:
        server = over_tls(plain, certificates)
        (server.artifacts / NAME).write_bytes(data)
        assert server.artifact(NAME).body == data
        assert server.artifact(NAME, Range="bytes=1000000-").body == data[1_000_000:]
        connection = server.connect()
        for _ in range(3):
            connection.request("GET", "/healthz")
            assert connection.getresponse().read()
        connection.close()
        with pytest.raises((http.client.HTTPException, OSError)):
            plain.get("/healthz")
        assert server.get("/healthz").status == 200
        assert "Traceback" not in server.events


def test_a_client_that_never_shakes_hands_holds_up_nobody(
    home: Path, certificates: Certificates
) -> None:
    import socket

    with running(home, f"--tls-certificate={certificates.server}", "--threads=2") as plain:
        idle = [socket.create_connection((plain.host, plain.port)) for _ in range(20)]
        assert over_tls(plain, certificates).get("/healthz").status == 200
        for each in idle:
            each.close()


def test_writers_show_a_certificate(home: Path, certificates: Certificates) -> None:
    options = [f"--tls-certificate={certificates.server}"]
    options += [f"--tls-client-ca={certificates.authority}", "--enable-writes"]
    with running(home, *options) as plain:
        nobody = over_tls(plain, certificates)
        assert nobody.put(NAME, b"x").status == 403
        assert nobody.get("/healthz").status == 200
        client = over_tls(plain, certificates, certificates.client)
        assert client.put(NAME, b"x").status == 201
        # A browser shows the certificate for any page.
        headers = {"Origin": "https://evil.example"}
        query = {"filename": NAME}
        assert client.ask("DELETE", "/1.0/artifacts", query, headers=headers).status == 403
        with pytest.raises((http.client.HTTPException, OSError)):
            over_tls(plain, certificates, certificates.stranger).get("/healthz")
        assert nobody.artifact(NAME).status == 200
        writers = [entry.get("writer") for entry in wait_for_log(plain, 5)]
        assert writers.count("CN=client") == 1


def test_certificate_and_token_are_both_needed(home: Path, certificates: Certificates) -> None:
    options = [f"--tls-certificate={certificates.server}", f"--token-file={token_file(home)}"]
    options += [f"--tls-client-ca={certificates.authority}", "--enable-writes"]
    with running(home, *options) as plain:
        for own, token, status in (
            (None, TOKEN, 403),
            (certificates.client, None, 401),
            (certificates.client, TOKEN, 201),
        ):
            client = over_tls(plain, certificates, own)
            client.headers = {"Authorization": f"Bearer {token}"} if token else {}
            assert client.put(NAME, b"x").status == status


def test_readers_may_have_to_show_one_too(home: Path, certificates: Certificates) -> None:
    options = [f"--tls-certificate={certificates.server}", "--tls-clients-only"]
    with running(home, *options, f"--tls-client-ca={certificates.authority}") as plain:
        with pytest.raises((http.client.HTTPException, OSError)):
            over_tls(plain, certificates).get("/healthz")
        assert over_tls(plain, certificates, certificates.client).get("/healthz").status == 200
