"""What a build can see and what it can change."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.build.e2e.trove import Trove, members, mounts_below, relatives


def _program(name: str) -> list[str]:
    return [f"mkdir -p $DESTDIR/usr/bin; echo {name} > $DESTDIR/usr/bin/{name}"]


def test_only_declared_dependencies_are_visible(any_trove: Trove) -> None:
    trove = any_trove
    trove.stratum("other")
    trove.chunk("foreign", "other", install=_program("foreign"))
    trove.chunk("declared", needs=["indirect"], install=_program("declared"))
    trove.chunk("indirect", install=_program("indirect"))
    trove.chunk("undeclared", install=_program("undeclared"))
    trove.chunk("hello", needs=["declared"], build=["ls /usr/bin; ls /baserock"])
    trove.build()
    assert [line.decode() for line in trove.printed("hello")] == [
        "declared",
        "indirect",
        "declared-bins.meta",
        "declared-misc.meta",
        "indirect-bins.meta",
        "indirect-misc.meta",
        "tools-bins.meta",
        "tools-misc.meta",
    ]


def test_undeclared_dependency_fails_even_when_it_was_built_before(trove: Trove) -> None:
    trove.chunk("used", install=_program("used"))
    trove.chunk("hello", needs=["used"], build=["cat /usr/bin/used"])
    trove.build()
    trove.chunk("hello", build=["cat /usr/bin/used"])
    assert "build failed (exit_code=1)" in trove.fail().err


def test_nothing_but_the_staging_area_is_there(any_trove: Trove) -> None:
    any_trove.chunk(
        "hello", build=["ls -A /", "ls -A /tmp /dev /dev/shm; mount || cat /proc/mounts"]
    )
    any_trove.build()
    log = any_trove.log("hello").decode()
    top = log.split("+ ls -A /\n")[1].split("\n+ ")[0].split()
    assert sorted(top) == ["baserock", "bin", "dev", "hello.build", "hello.inst", "proc", "tmp"]
    assert str(any_trove.root) not in log.split("/proc/mounts")[0]


def test_bootstrap_chunks_are_seen_by_their_stratum_alone(any_trove: Trove) -> None:
    trove = any_trove
    trove.chunk("early", "base", mode="bootstrap", install=_program("early"))
    trove.chunk("inner", "base", needs=["early", "tools"], build=["cat /usr/bin/early"])
    trove.chunk("hello", build=["! test -e /usr/bin/early; ls /baserock"])
    trove.build()
    assert trove.printed("inner") == [b"early"]
    assert not [line for line in trove.printed("hello") if b"early" in line or b"host" in line]
    found = members(trove.image())
    assert "usr/bin/early" not in found
    assert not [name for name in found if "early" in name or "host-tools" in name]


@pytest.mark.parametrize("mode", ["bootstrap", "test"])
def test_host_tools_are_read_only_in_other_modes(any_trove: Trove, mode: str) -> None:
    trove = any_trove
    touch = "touch /usr/bin/x || touch /etc/x || touch /x || touch /staging/x || touch /bin/x"
    trove.chunk("dep", "base", needs=["host-tools"], install=_program("dep"))
    trove.chunk(
        "early",
        "base",
        mode=mode,
        needs=["dep"],
        build=[
            f"! ({touch} || touch /staging/usr/bin/dep)",
            "test -x /usr/bin/env; cat /staging/usr/bin/dep; id -u",
            "touch /tmp/x /staging/early.build/x /staging/early.inst/x; pwd",
            f"ls -A /home /root {trove.root} || :",
        ],
        install=[": > $DESTDIR/installed"],
    )
    trove.build()
    log = trove.log("early").decode()
    assert log.count("Read-only file system") == 6
    assert "\ndep\n" in log
    assert "\n/staging/early.build\n" in log
    assert "/home:\n\n/root:\n" in log
    assert f"cannot access '{trove.root}'" in log
    assert not Path("/tmp/x").exists()
    assert ("installed" in members(trove.image())) == (mode == "test")


def test_only_build_install_and_tmp_can_be_written(any_trove: Trove) -> None:
    any_trove.chunk("other", install=_program("other"))
    any_trove.chunk(
        "hello",
        needs=["other"],
        build=[
            "for p in / /usr /usr/bin /bin /baserock /dev /proc; do"
            " ! touch $p/x || echo wrote $p; done",
            "! echo changed > /usr/bin/other; ! rm /usr/bin/other; ! chmod 777 /usr/bin/other",
            "! mount -t tmpfs none /usr; ! mknod /tmp/node b 8 0; ! chown 1 /usr/bin/other",
            "! touch .git/mirror-objects/x; for p in /tmp /hello.build /hello.inst /dev/shm; do"
            " touch $p/x && echo could write $p; done; rm $DESTDIR/x",
            "cat /usr/bin/other",
        ],
    )
    any_trove.build()
    printed = [line.decode() for line in any_trove.printed("hello")]
    assert not [line for line in printed if line.startswith("wrote")]
    could = [line.removeprefix("could write ") for line in printed if line.startswith("could")]
    assert could == ["/tmp", "/hello.build", "/hello.inst", "/dev/shm"]
    assert printed[-1] == "other"


def test_nobody_answers_on_the_network(any_trove: Trove) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        port = server.getsockname()[1]
        any_trove.chunk(
            "hello",
            build=[
                f"! echo x | nc -w 2 127.0.0.1 {port}",
                "! nc -w 2 192.0.2.1 80 < /dev/null; cat /proc/net/dev /proc/net/route",
            ],
        )
        any_trove.chunk("early", "base", mode="bootstrap", build=["cat /proc/net/dev"])
        any_trove.build()
        with pytest.raises(TimeoutError):
            server.accept()
    for chunk in ("hello", "early"):
        devices = [line for line in any_trove.printed(chunk) if b":" in line and b"|" not in line]
        names = {line.split(b":")[0].strip() for line in devices}
        assert names <= {b"lo", b"nc"}, names
        assert b"lo" in names


def test_host_processes_and_users_are_invisible(any_trove: Trove) -> None:
    any_trove.chunk(
        "hello",
        build=[
            "set +x; ls /proc | grep -c '^[0-9]' || :; ! kill -0 2; ! kill -9 " + str(os.getpid())
        ],
    )
    any_trove.build()
    assert int(any_trove.printed("hello")[0]) <= 5


def test_one_chunk_leaves_nothing_for_the_next(trove: Trove) -> None:
    trove.chunk("first", build=["touch /tmp/left /dev/shm/left; (sleep 600 &)"])
    trove.chunk("hello", needs=["first"], build=["ls -A /tmp /dev/shm"])
    trove.build("--builders=1", "--no-ccache")
    assert [line for line in trove.printed("hello") if line] == [b"/dev/shm:", b"/tmp:"]
    assert relatives(trove) == {}
    assert mounts_below(trove.root) == []
