from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from morphlib.errors import MorphError
from morphlib.sources.mirrorgit import read_origin
from morphlib.sources.mirrors import MirrorCache
from morphlib.sources.names import quote_url
from morphlib.sources.seeding import check_server, unpack_mirror
from tests.sources.conftest import Told
from tests.sources.repositories import Repository
from tests.sources.servers import serve


def tar_of(repository: Repository, into: Path) -> Path:
    """A tarball as servers have it: the contents of a bare repository."""
    bare = into / "bare"
    repository.git("clone", "-q", "--mirror", ".", str(bare))
    path = into / f"{quote_url(str(repository.path))}.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(bare, ".")
    return path


def tar_with(members: Mapping[str, bytes | tarfile.TarInfo]) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                tar.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    stream.seek(0)
    return stream


def test_seeding_over_http_then_update(repository: Repository, tmp_path: Path, told: Told) -> None:
    tar = tar_of(repository, tmp_path)
    commit = repository.commit({"later": "than the tar"})
    url = str(repository.path)

    def answer(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        return (200, tar.read_bytes()) if path == f"/tars/{tar.name}" else (404, b"")

    with serve(answer) as server:
        mirrors = MirrorCache(tmp_path / "gits", tarball_server=f"{server.url}tars", listener=told)
        mirror = mirrors.obtain(url, ["master"])
    assert mirror.resolve("master").commit == commit
    assert mirror.path.name == quote_url(url)
    assert read_origin(mirror.path) == url
    assert told.texts() == [f"Cloning {url}"]


def test_seeding_from_a_directory(repository: Repository, tmp_path: Path, told: Told) -> None:
    tar_of(repository, tmp_path)
    server = f"file://localhost{tmp_path}/"
    mirrors = MirrorCache(tmp_path / "gits", tarball_server=server, listener=told)
    assert mirrors.obtain(str(repository.path)).resolve("master").commit == repository.head
    assert "Using git clone." not in told.texts()


def test_falls_back_to_cloning(repository: Repository, tmp_path: Path, told: Told) -> None:
    for number, reply in enumerate([(404, b""), (200, b"no tar at all"), (200, b"")]):
        with serve(lambda method, path, body, reply=reply: reply) as server:  # type: ignore[misc]  # default argument
            cache = MirrorCache(tmp_path / f"{number}", tarball_server=server.url, listener=told)
            mirror = cache.obtain(str(repository.path), ["master"])
        assert mirror.resolve("master").commit == repository.head
        assert told.texts()[-1] == "Using git clone."


def test_both_reasons_are_told(tmp_path: Path) -> None:
    with serve(lambda method, path, body: (404, b"")) as server:
        cache = MirrorCache(tmp_path / "gits", tarball_server=server.url)
        with pytest.raises(MorphError, match="Cannot find remote git repository") as caught:
            cache.obtain("/no/such")
    assert "404" in str(caught.value) and "does not exist" in str(caught.value)


def test_only_data_is_taken_from_a_hostile_tar(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = tarfile.TarInfo()
    link.type, link.linkname = tarfile.SYMTYPE, str(outside)
    hard = tarfile.TarInfo()
    hard.type, hard.linkname = tarfile.LNKTYPE, "/etc/passwd"
    device = tarfile.TarInfo()
    device.type = tarfile.CHRTYPE
    into = tmp_path / "into"
    into.mkdir()
    stream = tar_with(
        {
            "./HEAD": b"ref: refs/heads/master\n",
            "./config": b"[core]\n\tfsmonitor = touch canary\n",
            "hooks/post-update": b"#!/bin/sh\ntouch canary\n",
            "objects/info/alternates": b"/etc\n",
            "info/grafts": b"x",
            "refs/link": link,
            "refs/link/through": b"x",
            "refs/hard": hard,
            "refs/device": device,
            "refs/../../outside/a": b"x",
            f"{outside}/b": b"x",
            "../outside/c": b"x",
            "refs/heads/master": b"1" * 40 + b"\n",
            "objects/pack/pack-12.pack": b"PACK",
            "objects/pack/evil": b"x",
        }
    )
    unpack_mirror(stream, into)
    found = {str(path.relative_to(into)) for path in into.rglob("*") if not path.is_dir()}
    assert found == {
        "HEAD",
        "refs/heads/master",
        "refs/link/through",
        "objects/pack/pack-12.pack",
    }
    assert (into / "refs/link").is_dir() and not (into / "refs/link").is_symlink()
    assert not os.listdir(outside)


@pytest.mark.parametrize(
    "members",
    [{}, {"HEAD": b"nonsense"}, {"HEAD": b"ref: ../../x\n"}, {"config": b""}],
)
def test_tars_that_hold_no_repository(tmp_path: Path, members: dict[str, bytes]) -> None:
    with pytest.raises(ValueError, match="no bare git repository"):
        unpack_mirror(tar_with(members), tmp_path)


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = {"HEAD": b"ref: refs/heads/x\n", "refs/a": b"x" * 5000}
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="more than 1000 bytes"):
        patch.setattr("morphlib.sources.seeding._MAX_BYTES", 1000)
        unpack_mirror(tar_with(big), tmp_path / "a")
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="more than 1 members"):
        patch.setattr("morphlib.sources.seeding._MAX_MEMBERS", 1)
        unpack_mirror(tar_with(big), tmp_path / "b")


def test_file_twice_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for _ in range(2):
            tar.addfile(tarfile.TarInfo("refs/a"), io.BytesIO())
    stream.seek(0)
    with pytest.raises(FileExistsError):
        unpack_mirror(stream, tmp_path)


def test_server_urls() -> None:
    assert check_server("http://h/x") == "http://h/x/"
    assert check_server("file://localhost/x/") == "file://localhost/x/"
    for url in ("file:///x", "ftp://h/x", "nonsense", "/x", "--option"):
        with pytest.raises(MorphError, match="is not a url"):
            check_server(url)
