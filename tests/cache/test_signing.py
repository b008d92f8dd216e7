"""Keys, signatures, and files of them, as OpenSSL writes keys too."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphlib.cache.manifest import FileStamp
from morphlib.cache.signatures import (
    MOST,
    Content,
    Signature,
    Signatures,
    decode_signatures,
    encode_signatures,
    merge_signatures,
    record_of,
)
from morphlib.cache.signing import (
    SigningKey,
    TrustedKeys,
    generate_signing_key,
    load_signing_key,
    load_trusted_keys,
    parse_trusted_keys,
)
from morphlib.cache.store import ArtifactStore
from morphlib.errors import MorphError, Reason
from tests.cache.conftest import key_for
from tests.commandline import MORPH

NAME = f"{key_for('a')}.chunk.a"
CONTENT = Content("ab" * 32, 7)

digests = st.text("0123456789abcdef", min_size=64, max_size=64)
contents = st.builds(Content, digests, st.integers(0, 2**62))
# Names come from file systems, where bytes that are no UTF-8 become lone surrogates.
names = st.text(st.characters(codec=None), min_size=1, max_size=40)
signatures = st.builds(Signature, st.text(), digests, st.integers(0, 2**62), st.text())


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return generate_signing_key(tmp_path / "key")


def trusted(*keys: SigningKey) -> TrustedKeys:
    return TrustedKeys(Path("keys"), {key.public(): f"key {n}" for n, key in enumerate(keys)})


def openssl(*arguments: str | Path) -> str:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- Keys ----------------------------------------------------------------------------------------


def test_a_key_of_openssl_is_taken_and_has_the_same_public_key(tmp_path: Path) -> None:
    path = tmp_path / "key"
    openssl("genpkey", "-algorithm", "ed25519", "-out", path)
    path.chmod(0o600)
    shown = openssl("pkey", "-in", path, "-pubout").splitlines()
    assert load_signing_key(path).public() == shown[1]


def test_openssl_reads_the_keys_that_are_made(key: SigningKey) -> None:
    assert openssl("pkey", "-in", key.path, "-pubout").splitlines()[1] == key.public()
    assert key.path.stat().st_mode & 0o777 == 0o600


def test_openssl_verifies_signatures(key: SigningKey, tmp_path: Path) -> None:
    import base64

    (signature,) = key.sign({NAME: CONTENT})[NAME]
    (tmp_path / "signature").write_bytes(base64.b64decode(signature.signature))
    (tmp_path / "record").write_bytes(record_of(NAME, CONTENT))
    (tmp_path / "public").write_text(openssl("pkey", "-in", key.path, "-pubout"))
    given = ("-pubin", "-inkey", tmp_path / "public", "-sigfile", tmp_path / "signature")
    said = openssl("pkeyutl", "-verify", "-rawin", "-in", tmp_path / "record", *given)
    assert "Verified Successfully" in said


def test_a_key_is_never_written_over(key: SigningKey) -> None:
    before = key.path.read_bytes()
    with pytest.raises(MorphError, match="can't write") as caught:
        generate_signing_key(key.path)
    assert caught.value.reason is Reason.CONFIG
    assert key.path.read_bytes() == before


def test_the_secret_is_in_no_text(key: SigningKey) -> None:
    loaded = load_signing_key(key.path)
    assert loaded == key
    assert repr(loaded) == f"SigningKey(path={key.path!r})"


def test_a_key_that_others_can_read_is_refused(key: SigningKey) -> None:
    key.path.chmod(0o640)
    with pytest.raises(MorphError, match="others can read the signing key") as caught:
        load_signing_key(key.path)
    assert caught.value.hint == f"chmod 600 {key.path}"


@pytest.mark.parametrize("algorithm", ["x25519", "ed448", "RSA"])
def test_other_kinds_of_keys_are_refused(tmp_path: Path, algorithm: str) -> None:
    path = tmp_path / "key"
    openssl("genpkey", "-algorithm", algorithm, "-out", path)
    path.chmod(0o600)
    with pytest.raises(MorphError, match="holds no Ed25519 key"):
        load_signing_key(path)


@pytest.mark.parametrize("text", ["", "\n", "key", "-----BEGIN PRIVATE KEY-----\n", "\0", "é\n"])
def test_what_is_no_key_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(MorphError, match="holds no Ed25519 key") as caught:
        load_signing_key(path)
    assert str(path) in caught.value.message
    with pytest.raises(MorphError, match="can't read the signing key"):
        load_signing_key(tmp_path / "none")


def test_trusted_keys_have_names_and_comments(key: SigningKey, tmp_path: Path) -> None:
    path = tmp_path / "trusted"
    path.write_text(f"# who builds\n\n  builder   {key.public()}\n")
    assert load_trusted_keys(path).names == {key.public(): "builder"}


@pytest.mark.parametrize(
    "line",
    ["one", "a b c", "name MCowBQYDK2VwAyEA", "name é", "name " + "A" * 60, "name \x00", "n =="],
)
def test_a_bad_line_is_told_with_its_number(line: str, key: SigningKey) -> None:
    text = f"# comment\nbuilder {key.public()}\n{line}\n"
    with pytest.raises(MorphError, match=r"^keys:3: ") as caught:
        parse_trusted_keys(Path("keys"), text)
    assert caught.value.reason is Reason.CONFIG


def test_a_list_without_keys_is_a_mistake() -> None:
    with pytest.raises(MorphError, match="there is no key in keys"):
        parse_trusted_keys(Path("keys"), "# nobody\n")


def test_a_list_that_is_too_long_to_be_read_is_a_mistake(key: SigningKey, tmp_path: Path) -> None:
    """What comes after its first part is not just left out."""
    path = tmp_path / "keys"
    path.write_text(f"builder {key.public()}\n" + f"# {'x' * 97}\n" * 12_000)
    with pytest.raises(MorphError, match="larger than"):
        load_trusted_keys(path)


def test_a_mark_of_the_byte_order_is_no_text(key: SigningKey, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"\ufeff# Those who build.\r\nbuilder {key.public()}\r\n")
    assert load_trusted_keys(path).names == {key.public(): "builder"}


def test_a_key_with_two_names_is_a_mistake(key: SigningKey) -> None:
    text = f"a {key.public()}\nb {key.public()}\n"
    with pytest.raises(MorphError, match=r"^keys:2: the key of a has another name here"):
        parse_trusted_keys(Path("keys"), text)


@given(st.text())
def test_any_text_is_trusted_keys_or_a_mistake(text: str) -> None:
    try:
        found = parse_trusted_keys(Path("keys"), text)
    except MorphError as error:
        assert error.reason is Reason.CONFIG
    else:
        assert found.names


def test_the_command_makes_a_key_and_shows_its_line(tmp_path: Path) -> None:
    path = tmp_path / "key"
    command = [str(MORPH), "--no-default-configs", "generate-signing-key", str(path), "builder"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"builder {load_signing_key(path).public()}\n"
    again = subprocess.run(command, capture_output=True, text=True)
    assert (again.returncode, again.stdout) == (1, "")
    assert f"can't write {path}" in again.stderr
    bad = subprocess.run([*command[:-1], "two words"], capture_output=True, text=True)
    assert bad.returncode == 2


# ---- Signatures ----------------------------------------------------------------------------------


def test_what_is_signed_is_trusted(key: SigningKey) -> None:
    signed = key.sign({NAME: CONTENT})
    assert trusted(key).contents(NAME, signed) == {CONTENT}


def test_other_keys_are_not_trusted(key: SigningKey, tmp_path: Path) -> None:
    other = generate_signing_key(tmp_path / "other")
    assert trusted(other).contents(NAME, key.sign({NAME: CONTENT})) == frozenset()


def test_a_signature_is_for_one_name_digest_size_and_key(key: SigningKey, tmp_path: Path) -> None:
    (signature,) = key.sign({NAME: CONTENT})[NAME]
    other = generate_signing_key(tmp_path / "other")
    trust = trusted(key, other)

    def is_taken(name: str, **changed: object) -> bool:
        forged = msgspec.structs.replace(signature, **changed)
        return bool(trust.contents(name, {name: (forged,)}))

    assert is_taken(NAME)
    assert not is_taken(NAME + "b")
    assert not is_taken(NAME, sha256="cd" * 32)
    assert not is_taken(NAME, size=8)
    assert not is_taken(NAME, key=other.public())
    for signature_text in ("", "AAAA", "é", signature.signature[:-4], "A" * 88):
        assert not is_taken(NAME, signature=signature_text)


@given(names, contents, names, contents)
def test_no_two_files_have_the_same_record(n: str, a: Content, m: str, b: Content) -> None:
    assert (record_of(n, a) == record_of(m, b)) == ((n, a) == (m, b))


@given(names, contents)
def test_any_file_can_be_signed(name: str, content: Content) -> None:
    key = SigningKey(Path("key"), b"s" * 32)
    assert trusted(key).contents(name, key.sign({name: content})) == {content}


@given(st.dictionaries(st.text(), st.lists(signatures, max_size=3).map(tuple), max_size=3))
def test_signatures_survive_the_trip(signed: Signatures) -> None:
    assert decode_signatures(encode_signatures(signed)) == signed


@given(st.binary())
def test_bytes_are_no_signatures(data: bytes) -> None:
    assert decode_signatures(b"x" + data) is None


@given(st.dictionaries(st.text(), st.lists(signatures, max_size=3).map(tuple), max_size=3))
def test_nobody_can_make_a_signature_up(signed: Signatures) -> None:
    key = SigningKey(Path("key"), b"s" * 32)
    taken = {n: tuple(Signature(key.public(), s.sha256, s.size, s.signature) for s in found)
             for n, found in signed.items()}  # fmt: skip
    assert all(not trusted(key).contents(name, taken) for name in taken)


def stamp(content: Content) -> FileStamp:
    return FileStamp(content.sha256, content.size, 0, 0, 0)


def test_a_flood_of_signatures_takes_no_time(key: SigningKey) -> None:
    """Servers keep a few; who sends thousands wants somebody to be busy verifying them."""
    (valid,) = key.sign({NAME: CONTENT})[NAME]
    flood = tuple(msgspec.structs.replace(valid, size=size) for size in range(10_000))
    trust = trusted(key)
    assert trust.contents(NAME, {NAME: (valid, *flood)}) == {CONTENT}
    began = time.process_time()
    for _ in range(20):
        trust.contents(NAME, {NAME: (valid, *flood)})
    assert time.process_time() - began < 2


def test_merging_keeps_what_is_stored_and_one_of_each_key() -> None:
    old, new = (Signature("k", *CONTENT, text) for text in ("old", "new"))
    other = Signature("l", *CONTENT, "other")
    stale = Signature("m", "cd" * 32, 7, "stale")
    merged = merge_signatures(
        ({NAME: (old, stale)}, {NAME: (new, other), "gone": (other,)}), {NAME: stamp(CONTENT)}
    )
    assert merged == {NAME: (new, other)}


def test_a_flood_of_signatures_does_not_displace_the_first() -> None:
    first = Signature("first", *CONTENT, "good")
    flood = tuple(Signature(f"k{n}", *CONTENT, "bad") for n in range(100))
    merged = merge_signatures(({NAME: (first,)}, {NAME: flood}), {NAME: stamp(CONTENT)})
    assert len(merged[NAME]) == MOST
    assert merged[NAME][0] == first


# ---- In the store --------------------------------------------------------------------------------


def publish(store: ArtifactStore, data: bytes, key: SigningKey | None) -> Content:
    path = store.temporary()
    path.write_bytes(data)
    store.publish(key_for("a"), {NAME: path}, sign=None if key is None else key.sign)
    return Content(store.digest(NAME), len(data))


def test_what_is_stored_is_signed_as_it_is(store: ArtifactStore, key: SigningKey) -> None:
    content = publish(store, b"data", key)
    assert trusted(key).contents(NAME, store.signatures(key_for("a"))) == {content}


def test_a_new_build_drops_signatures_of_the_old_one(store: ArtifactStore, key: SigningKey) -> None:
    publish(store, b"data", key)
    content = publish(store, b"other", key)
    assert trusted(key).contents(NAME, store.signatures(key_for("a"))) == {content}
    assert len(store.signatures(key_for("a"))[NAME]) == 1


def test_a_new_build_that_is_not_signed_is_not_trusted(
    store: ArtifactStore, key: SigningKey
) -> None:
    publish(store, b"data", key)
    content = publish(store, b"other", None)
    assert content not in trusted(key).contents(NAME, store.signatures(key_for("a")))


def test_signatures_go_with_their_source(store: ArtifactStore, key: SigningKey) -> None:
    publish(store, b"data", key)
    names = store.names()
    assert f"{key_for('a')}.signatures" in names
    store.remove(key_for("a"), names)
    assert store.names() == []


def test_signatures_that_were_taken_for_an_artifact_may_change(
    store: ArtifactStore, key: SigningKey, tmp_path: Path
) -> None:
    """Cache servers that did not know them have them in manifests."""
    content = publish(store, b"data", None)
    name = f"{key_for('a')}.signatures"
    path = store.temporary()
    path.write_bytes(encode_signatures(key.sign({NAME: content})))
    store.publish(key_for("a"), {name: path})
    other = generate_signing_key(tmp_path / "other")
    store.add_signatures(key_for("a"), other.sign({NAME: content}))
    assert store.check(key_for("a"), [NAME])
    assert len(store.signatures(key_for("a"))[NAME]) == 2
    with pytest.raises(MorphError):
        store.digest(name)
