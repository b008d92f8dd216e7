"""One definitions commit gives the same bytes, whoever builds it, where, and how."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.build.e2e.conftest import MakeTrove
from tests.build.e2e.trove import Trove, git
from tests.build.isolation import NOBODY


def _define(trove: Trove) -> None:
    """A bit of everything that might vary."""
    trove.chunk(
        "early",
        "base",
        mode="bootstrap",
        needs=["host-tools"],
        build=["test ! -e /lib64/ld-linux-x86-64.so.2 || cp /lib/*/libc.so.6 /lib/*/libm.so.6 ."],
        install=[
            "mkdir $DESTDIR/usr; env > $DESTDIR/usr/env; pwd > $DESTDIR/usr/pwd",
            "cp *.so* $DESTDIR/usr",
        ],
    )
    trove.chunk(
        "tools2",
        "base",
        needs=["tools", "early"],
        install=[
            "cd $DESTDIR; mkdir -p usr lib etc var/cache/ldconfig",
            "cp /usr/env /usr/pwd $DESTDIR/usr; cp /usr/*.so* $DESTDIR/lib",
            "echo /lib > $DESTDIR/etc/ld.so.conf",
        ],
    )
    trove.chunk(
        "hello",
        build=[
            "stat -c '%u %g %a %Y %s %n' hello.c d/f .git/HEAD .git/index .git/config > stats",
            "stat -c '%u %g %a %Y %n' / /bin /bin/* /baserock /etc/* /lib/* > dirs",
            "stat -c '%u %g %a %Y %n' d .git .git/objects >> dirs",
            "id > id; umask > mask; cat /proc/sys/kernel/hostname > host",
        ],
        install=[
            "mkdir -p $DESTDIR/usr/share $DESTDIR/etc $DESTDIR/dev $DESTDIR/bin",
            "env > env; cp env stats dirs id mask host $DESTDIR/usr/share",
            "cp .git/HEAD .git/index .git/config $DESTDIR/usr/share",
            "cd $DESTDIR; umask 077; mkdir priv; echo x > priv/x; ln priv/x priv/a",
            "cd $DESTDIR; ln priv/x bin/q",
            "cd $DESTDIR; for i in z y x b a; do echo $i > usr/share/$i; done",
            "cd $DESTDIR; chmod 6755 bin/q; mkfifo priv/f",
            "cd $DESTDIR; ln -s /nowhere/at/all etc/link; uname -n > etc/uname",
        ],
        devices=[
            {
                "type": "c",
                "filename": "/dev/mine",
                "permissions": "0622",
                "major": 1,
                "minor": 3,
                "uid": 5,
                "gid": 6,
            }
        ],
        products=[{"artifact": "hello-share", "include": ["usr/share/.*"]}],
        system_integration={
            "hello-misc": {
                "00": [
                    "mkdir -p /var/new; echo made > /var/new/made; env > /var/env; id > /var/id",
                    "umask > /var/umask; rm /etc/link",
                    "stat -c '%u %g %a %n' /[a-oq-z]* /etc/* > /var/listing",
                ]
            }
        },
    )
    trove.chunk(
        "over", needs=["hello"], install=["mkdir $DESTDIR/etc; echo o > $DESTDIR/etc/uname"]
    )
    trove.chunk(
        "more",
        needs=["over"],
        # But for /proc, which is nobody's where an ordinary user builds: the kernel has it so.
        install=["mkdir $DESTDIR/opt; stat -c '%u %g %a %n' /[a-oq-z]* > $DESTDIR/opt/ls"],
    )
    for number in range(4):
        trove.chunk(f"c{number}", install=[f"mkdir $DESTDIR/srv; echo > $DESTDIR/srv/{number}"])


def _copy(trove: Trove, other: Trove) -> None:
    """The same sources and definitions, commit for commit, at another place."""
    for name in ("gits", "definitions"):
        shutil.rmtree(other.root / name)
        shutil.copytree(trove.root / name, other.root / name, symlinks=True)
    other.strata, other.system, other.defaults = trove.strata, trove.system, trove.defaults


def _contents(trove: Trove) -> dict[str, bytes]:
    paths = [*trove.artifacts.glob("*.chunk.*"), *trove.artifacts.glob("*.system.*")]
    paths += trove.artifacts.glob("*.stratum.*")
    return {path.name: path.read_bytes() for path in paths}


def _assert_same(one: Trove, two: Trove) -> None:
    first, second = _contents(one), _contents(two)
    assert sorted(first) == sorted(second)
    differing = [name for name in first if first[name] != second[name]]
    assert differing == []
    assert any(".system." in name for name in first)


@pytest.fixture
def built(trove: Trove) -> Trove:
    _define(trove)
    trove.build()
    return trove


def _other(make_trove: MakeTrove, built: Trove, user: int | None = None) -> Trove:
    other = make_trove(user)
    _copy(built, other)
    return other


def test_built_twice(built: Trove, make_trove: MakeTrove) -> None:
    other = _other(make_trove, built)
    other.build()
    _assert_same(built, other)


def test_built_by_an_ordinary_user(built: Trove, make_trove: MakeTrove) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can build as two users")
    other = _other(make_trove, built, NOBODY)
    other.build()
    _assert_same(built, other)


@pytest.mark.parametrize("builders", ["1", "5"])
def test_built_by_fewer_or_more_builders(
    built: Trove, make_trove: MakeTrove, builders: str
) -> None:
    other = _other(make_trove, built)
    other.build(f"--builders={builders}", "--max-jobs=1")
    _assert_same(built, other)


def _with_mask(trove: Trove) -> None:
    trove.write()
    shell = ["sh", "-c", 'umask 077; exec "$@"', "sh"]
    ran = trove.run("build", "systems/sys.morph", wrap=shell, env={"TZ": "Asia/Tokyo"})
    assert ran.status == 0, ran.err


def _with_environment(trove: Trove) -> None:
    trove.build(
        env={"LANG": "de_DE.UTF-8", "CFLAGS": "-O3", "PATH": f"/nowhere:{os.environ['PATH']}"}
    )


def _from_below(trove: Trove) -> None:
    """From a clone at a deeper place, on a branch of another name, to a deeper cache."""
    trove.write()
    deeper = trove.root / "some/where/deeper/defs"
    deeper.parent.mkdir(parents=True)
    git(trove.root, "clone", "-q", os.fspath(trove.definitions), os.fspath(deeper))
    trove.definitions = deeper
    trove.cache, trove.temp = trove.root / "x/y/z/cache", trove.root / "a b/temp"
    trove.cache.parent.mkdir(parents=True)
    trove.build()


def _in_two_goes(trove: Trove) -> None:
    """A component first, unpacked from archives for the rest."""
    trove.build("over")
    shutil.rmtree(trove.temp)
    trove.build("c1", "tools2")
    shutil.rmtree(trove.temp)
    trove.build()


@pytest.mark.parametrize("how", [_with_mask, _with_environment, _from_below, _in_two_goes])
def test_built_in_another_way(
    built: Trove, make_trove: MakeTrove, how: Callable[[Trove], None]
) -> None:
    other = _other(make_trove, built)
    how(other)
    _assert_same(built, other)


def test_built_at_another_time(built: Trove, make_trove: MakeTrove) -> None:
    """What the clock says is in no artifact."""
    for name, content in _contents(built).items():
        year = Path(built.artifacts / name).stat().st_mtime
        assert str(int(year))[:7].encode() not in content, name


def test_another_alias_for_the_same_repository_gives_the_same_chunks(
    built: Trove, make_trove: MakeTrove
) -> None:
    other = _other(make_trove, built)
    gits = (other.root / "gits").as_uri()
    other.settings["repo-alias"] = f"test={gits}/%s#{gits}/%s, xx={gits}/%s#{gits}/%s"
    for stratum in other.strata.values():
        for chunk in stratum["chunks"]:
            chunk["repo"] = chunk["repo"].replace("test:", "xx:")
    other.build()
    one, two = _contents(built), _contents(other)
    chunks = [name for name in one if ".chunk." in name]
    assert len(chunks) > 10
    assert [name for name in chunks if one[name] != two[name]] == []
