"""Connections with certificates: by real daemons, and by daemons that are played by tests."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from distbuild import connection as connections
from distbuild.addresses import Address, listen
from distbuild.certificates import Identity, is_for_host, read_identity
from distbuild.connection import Connection
from distbuild.conversation import ConnectionLost, Conversation
from distbuild.framing import encode
from distbuild.graphs import GraphSource
from distbuild.handshake import Party
from distbuild.messages import Ping, Role, ToInitiator
from distbuild.sharedcache import TransferError, open_shared_cache
from distbuild.workermessages import ToHelper
from morphlib.definitions.models import Kind
from morphlib.errors import MorphError
from morphlib.process import wait_until
from tests.commandline import MORPH
from tests.commands.world import World
from tests.distbuild.authorities import CLIENTS_ONLY, Authority
from tests.distbuild.network import CACHE_SERVER, PATIENCE, Network
from tests.distbuild.test_connection import Peer

HOSTS = ("localhost", "127.0.0.1")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def settings_for(authority: Authority, certificate: Path) -> dict[str, str]:
    return {
        "distbuild_certificate": str(certificate),
        "distbuild_authorities": str(authority.file),
    }


# ---- Whole networks --------------------------------------------------------------------------


def test_a_system_is_built_over_tls(
    networks: Callable[..., Network], authority: Authority, tmp_path: Path
) -> None:
    """By parties that have a secret as well; and those without a certificate are sent away."""
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef0123")
    secret.chmod(0o600)
    ours = settings_for(authority, authority.sign("ours", *HOSTS))
    network = networks(distbuild_secret_file=str(secret), **ours)
    network.build("base")
    for port in (network.ports["controller"], network.ports["worker-0"], network.ports["helpers"]):
        with socket.create_connection(("127.0.0.1", port), 60) as plain:
            plain.sendall(b'{"type":"ping"}\n')
            assert b"here TLS is spoken: set distbuild-certificate" in plain.recv(1000)
            assert plain.recv(1000) == b""
    settings = {**network.initiator_settings(), "distbuild_secret_file": str(secret)}
    bare = {k: v for k, v in settings.items() if "certificate" not in k and "author" not in k}
    without = network.world.run("distbuild-list-jobs", env=None, **bare)
    assert without.status == 1
    assert "here TLS is spoken: set distbuild-certificate" in without.err
    network.wait_for("controller", "127.0.0.1: it does not speak TLS")
    del settings["distbuild_secret_file"]
    no_secret = network.world.run("distbuild-list-jobs", env=None, **settings)
    assert (no_secret.status, "how a connection begins" in no_secret.err) == (1, True)
    assert network.run("distbuild-list-jobs").status == 0


def test_each_may_have_a_certificate_for_its_role_alone(
    networks: Callable[..., Network], authority: Authority
) -> None:
    files = {
        role: authority.sign(role, *HOSTS, f"morph:{role}")
        for role in ("controller", "worker", "initiator")
    }
    network = networks(
        distbuild_authorities=str(authority.file),
        of_controller=str(files["controller"]),
        of_worker=str(files["worker"]),
        distbuild_certificate=str(files["initiator"]),
    )
    network.build("base")
    wrong = network.run("distbuild-list-jobs", distbuild_certificate=str(files["worker"]))
    assert wrong.status == 1
    assert "is that of a worker, not of an initiator" in wrong.err


# ---- A daemon that others connect to ---------------------------------------------------------


class Daemon:
    """A worker daemon alone."""

    def __init__(self, home: Path, world_settings: dict[str, str]) -> None:
        self.log_file = home / "daemon.log"
        port_file = home / "daemon.port"
        values = {
            "worker-daemon-address": "127.0.0.1",
            "worker-daemon-port": "0",
            "worker-daemon-port-file": str(port_file),
            "cachedir": str(home / "cache"),
            "tempdir": str(home / "tmp"),
            **{name.replace("_", "-"): value for name, value in world_settings.items()},
        }
        options = [f"--{name}={value}" for name, value in values.items()]
        with self.log_file.open("wb") as log:
            self.child = subprocess.Popen(
                [str(MORPH), "--no-default-configs", *options, "worker-daemon"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        assert wait_until(
            lambda: port_file.exists() and port_file.read_text().endswith("\n"), PATIENCE
        ), self.log
        self.address = Address("127.0.0.1", int(port_file.read_text()))

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def says(self, text: str) -> bool:
        return wait_until(lambda: text in self.log, PATIENCE)

    def refuses(self, party: Party) -> str:
        """Why it does not let a party take part, as that is told."""
        with pytest.raises(MorphError) as raised:
            talk = Conversation[ToHelper](self.address, party, [Role.WORKER], ToHelper)
            talk.hear()
        assert not isinstance(raised.value, ConnectionLost), raised.value
        return str(raised.value)


@pytest.fixture
def daemon(tmp_path: Path, authority: Authority) -> Iterator[Daemon]:
    own = authority.sign("daemon", *HOSTS, "morph:worker")
    daemon = Daemon(tmp_path, settings_for(authority, own))
    yield daemon
    daemon.child.terminate()
    assert daemon.child.wait(30) == 0
    assert "Traceback" not in daemon.log


def test_certificates_that_do_not_do_are_refused_and_both_sides_say_why(
    daemon: Daemon, authority: Authority, tmp_path: Path
) -> None:
    other = tmp_path / "others"
    other.mkdir()
    stranger = Authority(other).identity("stranger", trusts=authority.file)
    told = daemon.refuses(Party(Role.HELPER, b"", stranger))
    assert "does not know the authority that signed our certificate" in told
    assert daemon.says("127.0.0.1: its certificate was signed by no authority of distbuild-auth")

    stranger = Authority(other, "stranger").identity("strange", trusts=authority.file)
    told = daemon.refuses(Party(Role.HELPER, b"", stranger))
    assert "does not know the authority that signed our certificate" in told

    old = authority.identity("old", days=-1)
    told = daemon.refuses(Party(Role.HELPER, b"", old))
    assert "says that our certificate has expired" in told
    assert daemon.says("127.0.0.1: its certificate has expired")

    early = authority.identity("early", begin=1)
    assert "does not take our certificate" in daemon.refuses(Party(Role.HELPER, b"", early))
    assert daemon.says("127.0.0.1: its certificate is not valid yet: compare the clocks")

    wrong = authority.identity("wrong", "morph:initiator", "morph:controller")
    told = daemon.refuses(Party(Role.HELPER, b"", wrong))
    why = "its certificate is that of a controller or an initiator, not of a helper"
    assert why in told
    assert daemon.says(f"127.0.0.1 refused: {why}")
    another_worker = authority.identity("another", *HOSTS, "morph:worker")
    told = daemon.refuses(Party(Role.CONTROLLER, b"", another_worker))
    assert "is that of a worker, not of a controller" in told
    # Nor may it help a worker that it is not beside of.
    assert "not of a helper" in daemon.refuses(Party(Role.HELPER, b"", another_worker))

    no_certificate = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    no_certificate.load_verify_locations(authority.file)
    with socket.create_connection(("127.0.0.1", daemon.address.port), 60) as plain:
        secured = no_certificate.wrap_socket(plain, server_hostname="localhost")
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
            secured.recv(100)
    assert daemon.says("127.0.0.1: TLS fails: peer did not return a certificate")


def test_old_tls_is_not_spoken(daemon: Daemon, authority: Authority) -> None:
    for version, good in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)):
        context = authority.identity("client").client_context()
        with pytest.warns(DeprecationWarning) if not good else contextlib.nullcontext():
            context.minimum_version = version
            context.maximum_version = version
        context.set_ciphers("ALL:@SECLEVEL=0")
        with socket.create_connection(("127.0.0.1", daemon.address.port), 60) as plain:
            if good:
                with context.wrap_socket(plain, server_hostname="localhost") as secured:
                    assert secured.version() == "TLSv1.2"
                    assert secured.recv(1000).startswith(b'{"type":"hello"')
            else:
                with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
                    context.wrap_socket(plain, server_hostname="localhost")
    context = authority.identity("newest").client_context()
    with (
        socket.create_connection(("127.0.0.1", daemon.address.port), 60) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        assert secured.version() == "TLSv1.3"


def test_a_helper_may_show_the_certificate_of_its_daemon(
    daemon: Daemon, authority: Authority, tmp_path: Path
) -> None:
    own = tmp_path / "daemon.pem"
    identity = read_identity(own, authority.file, Role.HELPER)
    party = Party(Role.HELPER, b"", identity)
    with Conversation[ToHelper](daemon.address, party, [Role.WORKER], ToHelper):
        pass


def test_a_plain_daemon_says_that_it_does_not_speak_tls(
    tmp_path: Path, authority: Authority
) -> None:
    daemon = Daemon(tmp_path, {})
    try:
        told = daemon.refuses(Party(Role.HELPER, b"", authority.identity("client")))
        assert "does not speak TLS: set distbuild-certificate and distbuild-authorities" in told
        assert daemon.says("127.0.0.1 refused: TLS is not spoken here")
    finally:
        daemon.child.terminate()
        daemon.child.wait(30)


# ---- Daemons that a controller connects to ---------------------------------------------------


class Server:
    """Shakes hands with whoever comes, and says nothing."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._listening = listen("127.0.0.1", 0)
        self._context = context
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            peer, _ = self._listening.accept()
            with peer, contextlib.suppress(OSError):
                peer.settimeout(60)
                if self._context is None:
                    peer.sendall(encode(Party(Role.WORKER).hello()))
                    peer.recv(1000)
                    continue
                with self._context.wrap_socket(peer, server_side=True) as secured:
                    secured.sendall(encode(Party(Role.WORKER).hello()))
                    while secured.recv(1000):
                        pass


def context_of(identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate)
    context.load_verify_locations(identity.authorities)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def bad_servers(authority: Authority, home: Path) -> dict[str, Server]:
    """By what is said of them."""
    (home / "others").mkdir()
    stranger = Authority(home / "others").identity("s", *HOSTS, trusts=authority.file)
    return {
        "was signed by no authority of distbuild-authorities here": Server(context_of(stranger)),
        "has expired": Server(context_of(authority.identity("old", *HOSTS, days=-1))),
        "does not name": Server(context_of(authority.identity("n", "big", "192.0.2.1"))),
        "is not for this purpose": Server(
            context_of(authority.identity("c", *HOSTS, usage=CLIENTS_ONLY))  # type: ignore[arg-type]
        ),
        "does not speak TLS: set distbuild-certificate": Server(None),
        "is that of an initiator, not of a worker": Server(
            context_of(authority.identity("i", *HOSTS, "morph:initiator"))
        ),
    }


def test_a_controller_does_not_take_others_for_its_workers(
    world: World, authority: Authority, tmp_path: Path
) -> None:
    servers = bad_servers(authority, tmp_path)
    log_file = tmp_path / "controller.log"
    ours = settings_for(authority, authority.sign("controller", *HOSTS, "morph:controller"))
    values = {
        **world.settings,
        **ours,
        "cachedir": str(tmp_path / "controller"),
        "worker": ",".join(f"127.0.0.1:{server.port}" for server in servers.values()),
        "artifact-cache-server": "http://127.0.0.1:1/",
        "writeable-cache-server": "http://127.0.0.1:1/",
        "controller-helper-port": "0",
        "controller-initiator-address": "127.0.0.1",
        "controller-initiator-port": "0",
    }
    options = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    with log_file.open("wb") as log:
        command = [str(MORPH), "--no-default-configs", *options, "controller-daemon"]
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        for why in servers:
            assert wait_until(lambda why=why: why in log_file.read_text(), PATIENCE), (  # type: ignore[misc]
                why,
                log_file.read_text(),
            )
    finally:
        child.terminate()
        assert child.wait(30) == 0
    text = log_file.read_text()
    assert "Traceback" not in text
    # Each is tried again every second, and told of once.
    assert text.count("has expired") == 1


def test_an_initiator_does_not_take_others_for_its_controller(
    authority: Authority, tmp_path: Path
) -> None:
    party = Party(Role.INITIATOR, b"", authority.identity("client"))
    for why, server in bad_servers(authority, tmp_path).items():
        address = Address("127.0.0.1", server.port)
        roles = [Role.CONTROLLER, Role.WORKER]
        with pytest.raises(MorphError, match=why) as raised:
            Conversation[ToInitiator](address, party, roles, ToInitiator)
        assert not isinstance(raised.value, ConnectionLost)
        assert str(raised.value).startswith(f"127.0.0.1:{server.port}: ")


# ---- Time ------------------------------------------------------------------------------------


def test_who_does_not_begin_in_time_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    make: Any = Clock
    clock = make()
    monkeypatch.setattr(connections, "reactor", clock)
    peer = Peer(Connection(Party(Role.WORKER), {}))
    for _ in range(29):
        clock.advance(1)
        peer.say(Ping())
    assert not peer.transport.disconnected
    clock.advance(1)
    assert peer.transport.disconnected


# ---- Files -----------------------------------------------------------------------------------


def refused(certificate: Path | None, authorities: Path | None, role: Role = Role.WORKER) -> str:
    with pytest.raises(MorphError) as raised:
        read_identity(certificate, authorities, role)
    return str(raised.value)


def test_files_of_no_use_are_told(authority: Authority, tmp_path: Path) -> None:
    good = authority.sign("good", "big")
    assert read_identity(None, None, Role.WORKER) is None
    assert "but distbuild-authorities is not" in refused(good, None)
    assert "but distbuild-certificate is not" in refused(None, authority.file)
    assert "No such file" in refused(tmp_path / "nowhere", authority.file)
    assert "can't use TLS with" in refused(authority.file, authority.file)  # there is no key
    junk = tmp_path / "junk"
    junk.write_text("x")
    junk.chmod(0o600)
    assert "can't use TLS with" in refused(junk, authority.file)
    assert "can't use TLS with" in refused(good, junk)
    good.chmod(0o640)
    assert "others may read the key in" in refused(good, authority.file)
    assert "has expired on 20" in refused(authority.sign("old", days=-1), authority.file)
    only = authority.sign("only", "morph:initiator")
    assert "is that of an initiator, not of a worker" in refused(only, authority.file)
    assert "not of a helper" in refused(only, authority.file, Role.HELPER)
    for role in Role:
        assert read_identity(authority.sign("all", "big"), authority.file, role)


def test_a_key_with_a_passphrase_is_not_asked_for(authority: Authority, tmp_path: Path) -> None:
    path = authority.sign("locked", "big")
    command = ["openssl", "ec", "-aes256", "-passout", "pass:secret", "-in", str(path)]
    key = subprocess.run(command, capture_output=True, check=True).stdout
    certificate = path.read_bytes().partition(b"-----BEGIN PRIVATE")[0]
    path.write_bytes(certificate + key)
    assert "can't use TLS with" in refused(path, authority.file)


def test_names_of_hosts(authority: Authority) -> None:
    identity = authority.identity("x", "big", "*.farm.example", "192.0.2.7", "2001:db8::7")
    for good in ("big", "BIG", "a.farm.example", "192.0.2.7", "2001:db8::7"):
        assert is_for_host(identity.own, good), good
    for bad in ("x", "small", "farm.example", "192.0.2.8", "2001:db8::8", "", "a b", "b\xfcg"):
        assert not is_for_host(identity.own, bad), bad


# ---- What the documentation says --------------------------------------------------------------


def test_certificates_are_made_as_documented(tmp_path: Path) -> None:
    text = (MORPH.parent / "docs" / "distbuild.md").read_text()
    lines = text[text.index("    umask 077\n") :].partition("\n\n")[0].splitlines()
    script = "\n".join(line.removeprefix("    ") for line in lines)
    subprocess.run(["sh", "-e", "-c", script], cwd=tmp_path, check=True, capture_output=True)
    authority = tmp_path / "authority.pem"
    good = {"controller": Role.CONTROLLER, "big": Role.WORKER, "alice": Role.INITIATOR}
    found = {
        name: read_identity(tmp_path / f"{name}.pem", authority, role)
        for name, role in good.items()
    }
    assert "not of an initiator" in refused(tmp_path / "big.pem", authority, Role.INITIATOR)
    big, alice, controller = found["big"], found["alice"], found["controller"]
    assert big is not None
    assert alice is not None
    assert controller is not None
    # Handshakes as strict as those of later Pythons.
    for client, server, host in (
        (alice, controller, "controller"),
        (controller, big, "192.0.2.7"),
        (big, big, "localhost"),
    ):
        ours = client.client_context()
        ours.verify_flags |= ssl.VERIFY_X509_STRICT
        assert shake_hands(ours, context_of(server), host) == server.own
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(alice.client_context(), context_of(controller), "big")


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, host: str) -> bytes | None:
    """Gives the certificate of the server."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(back, there, server_hostname=host)
    theirs = server.wrap_bio(there, back, server_side=True)
    for side in (ours, theirs) * 3:
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return ours.getpeercert(binary_form=True)


def test_a_controller_uses_a_shared_cache_that_wants_certificates(
    authority: Authority, tmp_path: Path
) -> None:
    port_file = tmp_path / "cache.port"
    (tmp_path / "artifacts").mkdir()
    command = [str(CACHE_SERVER), "--no-default-configs", "--no-fcgi", "--enable-writes"]
    command += [f"--port-file={port_file}", f"--artifact-dir={tmp_path / 'artifacts'}"]
    command += [f"--repo-dir={tmp_path}", f"--bundle-dir={tmp_path}", "--tls-clients-only"]
    command += [f"--tls-certificate={authority.sign('cache', *HOSTS)}"]
    command += [f"--tls-client-ca={authority.file}"]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    source = GraphSource(
        key="0f" * 32,
        name="lib",
        component="lib",
        kind=Kind.CHUNK,
        needs=(),
        files=("0f" * 32 + ".chunk.lib",),
        logs=(),
        cost=1.0,
    )
    try:
        assert wait_until(
            lambda: port_file.exists() and port_file.read_text().endswith("\n"), PATIENCE
        )
        url = f"https://127.0.0.1:{int(port_file.read_text())}/"
        ours = authority.sign("controller", *HOSTS)
        shared = open_shared_cache(url, url, None, certificate=ours, authorities=authority.file)
        assert shared.present([source]) == frozenset()
        with pytest.raises(TransferError, match=f"{url} answers "):  # there is no such worker
            shared.pull(Address("127.0.0.1", 1), source)
        stranger = open_shared_cache(url, url, None, authorities=authority.file)
        with pytest.raises(MorphError, match="Failed to annotate build graph"):
            stranger.present([source])
        with pytest.raises(TransferError) as raised:
            stranger.pull(Address("127.0.0.1", 1), source)
        assert "answers" not in str(raised.value)
    finally:
        child.terminate()
        child.wait(30)
