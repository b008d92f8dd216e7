"""Caches that somebody damaged: noticed, told, and made good."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.build.e2e.trove import Trove, digests, give, members, read_member

INSTALL = ["mkdir -p $DESTDIR/srv; seq 3000 > $DESTDIR/srv/hello; echo x > $DESTDIR/srv/x"]


def _define(trove: Trove) -> None:
    trove.chunk("hello", install=INSTALL)
    trove.chunk("user", needs=["hello"], install=["mkdir $DESTDIR/opt; cp -r /srv $DESTDIR/opt"])


def _digests(trove: Trove) -> dict[str, str]:
    return digests(trove.artifacts)


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _flip(path: Path) -> None:
    """One bit, with time and size as they were."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(before.st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _replace(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


DAMAGES = [_truncate, _empty, _flip, _replace, Path.unlink]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_artifact_is_noticed_and_rebuilt(
    any_trove: Trove, damage: Callable[[Path], None]
) -> None:
    """Even if the system, which is there, hides it."""
    trove = any_trove
    _define(trove)
    trove.build()
    before = _digests(trove)
    victim = trove.artifact("hello-misc")
    damage(victim)
    ran = trove.build()
    assert "hello" in ran.built
    assert victim.name in ran.err
    assert "WARNING" in ran.err
    assert _digests(trove) == before
    again = trove.build()
    assert (again.built, again.err) == ([], "")


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_system_is_noticed_and_rebuilt(
    trove: Trove, damage: Callable[[Path], None]
) -> None:
    _define(trove)
    trove.build()
    before = _digests(trove)
    damage(trove.image())
    ran = trove.build()
    assert ran.built == ["sys"]
    assert "sys-rootfs" in ran.err
    assert _digests(trove) == before


@pytest.mark.parametrize("damage", [_truncate, _flip, Path.unlink], ids=lambda d: d.__name__)
def test_damaged_stratum_list_is_noticed(trove: Trove, damage: Callable[[Path], None]) -> None:
    _define(trove)
    trove.build()
    damage(trove.artifact("main-runtime", "stratum"))
    ran = trove.build()
    assert "main-runtime" in ran.built
    assert "WARNING" in ran.err


def test_deleted_manifest_means_that_it_is_built_again(trove: Trove) -> None:
    _define(trove)
    trove.build()
    before = _digests(trove)
    (trove.artifacts / f"{trove.key('hello')}.manifest").unlink()
    trove.image().unlink()
    ran = trove.build()
    assert "hello" in ran.built
    assert _digests(trove) == before


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 64, b"[1, 2]"])
def test_manifest_of_nonsense_is_no_manifest(trove: Trove, content: bytes) -> None:
    _define(trove)
    trove.build()
    manifest = trove.artifacts / f"{trove.key('hello')}.manifest"
    manifest.write_bytes(content)
    trove.image().unlink()
    ran = trove.build()
    assert "hello" in ran.built
    assert manifest.name in ran.err or trove.key("hello") in ran.err


def _layers(trove: Trove, chunk: str) -> Path:
    return trove.temp / "chunks" / f"{trove.key(chunk)}.chunk.d"


def _rebuild_user(trove: Trove) -> str:
    """Build `user` again, which copies what it sees of `hello`. Returns what was warned of."""
    trove.image().unlink()
    trove.chunk("user", needs=["hello"], install=["mkdir $DESTDIR/opt; cp -r /srv $DESTDIR/opt; :"])
    return trove.build().err


@pytest.mark.parametrize("how", ["size", "mtime", "mode", "added", "removed", "link"])
def test_altered_layer_is_unpacked_again(any_trove: Trove, how: str) -> None:
    trove = any_trove
    _define(trove)
    trove.build()
    before = read_member(trove.image(), "srv/hello")
    top = _layers(trove, "hello") / "root"
    victim = top / "srv/hello"
    match how:
        case "size":
            victim.write_text("altered")
            os.utime(victim, (683074800, 683074800))
        case "mtime":
            victim.write_bytes(before.replace(b"1", b"2"))
        case "mode":
            victim.chmod(0o600)
        case "added":
            (top / "srv/added").write_text("new")
            os.utime(top / "srv/added", (683074800, 683074800))
            os.utime(top / "srv", (683074800, 683074800))
        case "removed":
            victim.unlink()
            os.utime(top / "srv", (683074800, 683074800))
        case "link":
            victim.unlink()
            victim.symlink_to("/etc/passwd")
            os.utime(top / "srv", (683074800, 683074800))
    err = _rebuild_user(trove)
    assert "altered" in err
    assert str(_layers(trove, "hello")) in err
    assert read_member(trove.image(), "opt/srv/hello") == before
    assert members(trove.image())["opt/srv/hello"].mode == 0o644
    assert "srv/added" not in members(trove.image())


def test_deleted_work_directory_is_made_again(any_trove: Trove) -> None:
    trove = any_trove
    _define(trove)
    trove.build()
    before = _digests(trove)
    shutil.rmtree(trove.temp)
    trove.image().unlink()
    ran = trove.build()
    assert ran.built == ["sys"]
    assert _digests(trove) == before


def test_layers_unpacked_from_artifacts_are_those_of_the_build(any_trove: Trove) -> None:
    """Staged from archives, everything gives the same as staged from what was just built."""
    trove = any_trove
    script = "cd $DESTDIR; mkdir -p d/e usr/bin; echo x > d/x; ln d/x d/y; ln d/x usr/bin/z;"
    script += " chmod 4711 d/x; mkfifo d/f; ln -s /nowhere d/l; chmod 1770 d/e; chmod 700 usr"
    trove.chunk("odd", install=[script])
    listing = "cd /; find d usr/bin usr -exec stat -c '%a %h %s %F %n' {} + | sort"
    trove.chunk("user", needs=["odd"], install=[f"{listing} > $DESTDIR/seen", "cat $DESTDIR/seen"])
    trove.build()
    before = _digests(trove)
    shutil.rmtree(trove.temp)
    trove.image().unlink()
    for path in list(trove.artifacts.glob(f"{trove.key('user')}.*")):
        path.unlink()
    trove.build()
    assert _digests(trove) == before


def test_deleted_cache_is_built_again_from_nothing(trove: Trove) -> None:
    _define(trove)
    trove.build()
    before = _digests(trove)
    shutil.rmtree(trove.cache)
    ran = trove.build()
    assert len(ran.built) == 7
    assert _digests(trove) == before


def test_deleted_mirror_is_fetched_again(trove: Trove) -> None:
    _define(trove)
    trove.build()
    shutil.rmtree(trove.cache / "gits")
    trove.chunk("hello", install=[*INSTALL, "true"])
    assert "hello" in trove.build().built


def test_cache_of_somebody_else_that_can_only_be_read(trove: Trove) -> None:
    """Everything is there, so that nothing has to be written."""
    if os.getuid() != 0:
        pytest.skip("only root can make directories of somebody else")
    _define(trove)
    trove.build()
    trove.user = 65534
    give(trove.root, 65534)
    give(trove.artifacts, 0)
    ran = trove.run("build", "systems/sys.morph")
    assert ran.status == 0, ran.err
    assert ran.built == []
    trove.chunk("hello", install=[*INSTALL, "true"])
    ran = trove.run("build", "systems/sys.morph")
    assert ran.status == 1
    assert f"in {trove.artifacts}: Permission denied" in ran.err
    assert "Traceback" not in ran.err
