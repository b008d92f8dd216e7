"""With trusted keys, what a cache server has is used only as whoever built it signed it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from morphlib.cache.names import key_of
from morphlib.cache.signatures import Content, decode_signatures, encode_signatures
from morphlib.cache.signing import SigningKey, TrustedKeys, generate_signing_key
from morphlib.cache.store import ArtifactStore
from tests.build.e2e.conftest import MakeTrove
from tests.build.e2e.test_fetching import by_outcome, finished, hand_over, warnings
from tests.build.e2e.test_pushing import files, forget, push
from tests.build.e2e.trove import Trove
from tests.build.isolation import NOBODY
from tests.cacheserver.server import CacheServer, running


@pytest.fixture
def server(tmp_path: Path) -> Iterator[CacheServer]:
    with running(tmp_path, "--enable-writes") as server:
        yield server


def use_key(trove: Trove) -> SigningKey:
    key = generate_signing_key(trove.root / "key")
    trove.settings["signing-key"] = str(key.path)
    return key


def trust(trove: Trove, *keys: SigningKey) -> None:
    path = trove.root / "trusted"
    path.write_text("".join(f"key-{n} {key.public()}\n" for n, key in enumerate(keys)))
    trove.settings["trusted-keys"] = str(path)
    trove.settings.pop("signing-key", None)


@pytest.fixture
def key(trove: Trove) -> SigningKey:
    return use_key(trove)


@pytest.fixture
def built(trove: Trove, key: SigningKey) -> Trove:
    """A trove in which a system of two chunks was built and signed."""
    trove.chunk("lib", install=['mkdir -p "$DESTDIR/lib"; echo lib > "$DESTDIR/lib/lib"'])
    app = 'mkdir -p "$DESTDIR/bin"; cp /lib/lib "$DESTDIR/bin/app"'
    trove.chunk("app", needs=["lib"], install=[app])
    trove.build()
    return trove


def test_all_that_is_built_is_signed(built: Trove, key: SigningKey) -> None:
    trusted = TrustedKeys(Path("keys"), {key.public(): "k"})
    store = ArtifactStore(built.artifacts)
    names = [name for name in store.names() if name.count(".") >= 2]
    assert {name.split(".")[1] for name in names} == {"chunk", "stratum", "system"}
    for name in names:
        content = Content(store.digest(name), store.path(name).stat().st_size)
        assert trusted.contents(name, store.signatures(key_of(name))) == {content}


def test_an_ordinary_user_signs_as_well(make_trove: MakeTrove) -> None:
    trove = make_trove(NOBODY if os.getuid() == 0 else os.getuid())
    use_key(trove)
    trove.build()
    assert ArtifactStore(trove.artifacts).signatures(key_of(trove.image().name))


def test_what_a_trusted_key_signed_is_fetched(
    built: Trove, key: SigningKey, server: CacheServer
) -> None:
    image = hand_over(built, server)
    trust(built, key)
    ran = built.build("--progress=json")
    assert by_outcome(ran, "fetched") == {"sys"}
    assert by_outcome(ran, "built") == set()
    assert built.image().read_bytes() == image
    assert warnings(ran) == []
    # The signatures came along, for others to have them from here.
    assert ArtifactStore(built.artifacts).signatures(key_of(built.image().name))


def replace_system(server: CacheServer, how: str, attacker: SigningKey) -> bytes:
    """Let the server have another system, with a digest that is right. Returns its bytes."""
    store = ArtifactStore(server.artifacts)
    name = next(name for name in store.names() if ".system." in name)
    chunk = next(name for name in store.names() if ".chunk.lib-misc" in name)
    key = key_of(name)
    signed = dict(store.signatures(key))
    evil = store.path(chunk).read_bytes()
    if how == "more bytes":
        evil += bytes(10 << 20)
    path = store.temporary()
    path.write_bytes(evil)
    store.discard(name)
    store.publish(key, {name: path})
    sidecar = store.path(f"{key}.signatures")
    match how:
        case "other bytes" | "more bytes":
            sidecar.write_bytes(encode_signatures(signed))
        case "another's signature":
            signed |= attacker.sign({name: Content(store.digest(name), len(evil))})
            sidecar.write_bytes(encode_signatures(signed))
        case "a signature of another artifact":
            signed[name] = store.signatures(key_of(chunk))[chunk]
            sidecar.write_bytes(encode_signatures(signed))
        case "a key that is not its own":
            mine = attacker.sign({name: Content(store.digest(name), len(evil))})[name][0]
            (true,) = signed[name]
            signed[name] = (msgspec.structs.replace(mine, key=true.key),)
            sidecar.write_bytes(encode_signatures(signed))
        case "junk":
            sidecar.write_bytes(b"junk")
    store.close()
    return evil


@pytest.mark.parametrize(
    "how",
    [
        "other bytes",
        "more bytes",
        "another's signature",
        "a signature of another artifact",
        "a key that is not its own",
        "junk",
    ],
)
def test_a_server_that_lies_with_valid_digests(
    built: Trove, key: SigningKey, server: CacheServer, how: str, tmp_path: Path
) -> None:
    """It gets its system to nobody who has a list of keys, and to others as before."""
    image = hand_over(built, server)
    evil = replace_system(server, how, generate_signing_key(tmp_path / "attacker"))
    trust(built, key)
    ran = built.build("--progress=json")
    assert by_outcome(ran, "built") == {"sys"}
    assert {"app", "lib", "tools"} <= by_outcome(ran, "fetched")
    assert built.image().read_bytes() == image
    (warning,) = [text for text in warnings(ran) if "not signed" in text]
    assert f"from {server.url.rstrip('/')} is not signed by any key in" in warning
    assert "system sys will be built" in warning
    forget(built)
    del built.settings["trusted-keys"]
    assert by_outcome(built.build("--progress=json"), "fetched") == {"sys"}
    assert built.image().read_bytes() == evil


def test_a_key_that_is_no_longer_in_the_list_counts_for_nothing(
    built: Trove, key: SigningKey, server: CacheServer, tmp_path: Path
) -> None:
    image = hand_over(built, server)
    trust(built, generate_signing_key(tmp_path / "new"))
    ran = built.build("--progress=json")
    assert by_outcome(ran, "fetched") == set()
    assert {"app", "lib", "sys"} <= by_outcome(ran, "built")
    assert built.image().read_bytes() == image
    first, last = (text for text in warnings(ran) if "not signed" in text)
    assert "system sys will be built" in first
    count = int(last.split()[0])
    assert count > 1
    assert f"on {server.url.rstrip('/')} are not signed by any key in" in last
    assert finished(ran).succeeded


def test_what_nobody_signed_is_not_even_asked_for(
    built: Trove, key: SigningKey, server: CacheServer
) -> None:
    image = hand_over(built, server)
    for path in server.artifacts.glob("*.signatures"):
        path.unlink()
    trust(built, key)
    ran = built.build("--progress=json")
    assert by_outcome(ran, "fetched") == set()
    assert built.image().read_bytes() == image
    (warning,) = [text for text in warnings(ran) if "signed" in text]
    assert "sources on" in warning
    assert [entry["method"] for entry in server.requests()] == ["POST"]


def test_pushes_carry_signatures(built: Trove, key: SigningKey, server: CacheServer) -> None:
    assert push(built, f"--share-server={server.url}").status == 0
    image = built.image().read_bytes()
    forget(built)
    trust(built, key)
    built.settings["artifact-cache-server"] = server.url
    assert by_outcome(built.build("--progress=json"), "fetched") == {"sys"}
    assert built.image().read_bytes() == image


def test_pushes_add_signatures_to_what_is_there(
    built: Trove, key: SigningKey, server: CacheServer
) -> None:
    assert push(built, f"--share-server={server.url}").status == 0
    signed = {name for name in files(server) if name.endswith(".signatures")}
    kept = {name: (server.artifacts / name).read_bytes() for name in signed}
    for name in signed:
        (server.artifacts / name).unlink()
    ran = push(built, f"--share-server={server.url}")
    assert (ran.status, ran.err) == (0, "")
    assert "Sent 0 to" in ran.out
    for name, raw in kept.items():
        assert (server.artifacts / name).read_bytes() == raw
        assert decode_signatures(raw)


def test_a_deployment_takes_nothing_that_is_not_signed(
    built: Trove, key: SigningKey, server: CacheServer, tmp_path: Path
) -> None:
    hand_over(built, server)
    replace_system(server, "other bytes", generate_signing_key(tmp_path / "attacker"))
    trust(built, key)
    target = tmp_path / "sys.tar"
    deploy = {"d": {"type": "tar", "location": str(target)}}
    system = {"morph": "systems/sys.morph", "deploy": deploy}
    built.write_yaml("clusters/c.morph", {"name": "c", "kind": "cluster", "systems": [system]})
    built.write()
    ran = built.run("deploy", "clusters/c.morph")
    assert ran.status == 1
    assert "is not signed by any key in" in ran.err
    assert not target.exists()


@pytest.mark.parametrize("setting", ["signing-key", "trusted-keys"])
def test_mistakes_in_key_files_are_told_before_anything_is_built(
    trove: Trove, setting: str
) -> None:
    path = trove.root / "bad"
    path.write_text("what is no key\n")
    path.chmod(0o600)
    trove.settings[setting] = str(path)
    trove.settings["artifact-cache-server"] = "http://127.0.0.1:9/"
    ran = trove.fail()
    assert str(path) in ran.err
    assert ran.built == []
    shutil.rmtree(trove.cache, ignore_errors=True)
