"""Chunks that install strange things, and chunks that try to get out."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.build.e2e.trove import Trove, members, read_member


def test_baserock_as_a_symlink_is_refused(any_trove: Trove) -> None:
    any_trove.chunk("hello", install=["ln -s /etc $DESTDIR/baserock"])
    err = any_trove.fail().err
    assert "installs /baserock" in err
    assert "hello" in err
    assert not list(any_trove.artifacts.glob("*.chunk.hello-*"))


def test_own_metadata_wins_over_what_is_installed_in_its_place(trove: Trove) -> None:
    forge = "mkdir $DESTDIR/baserock; echo forged > $DESTDIR/baserock/hello-misc.meta"
    trove.chunk("hello", install=[forge])
    trove.build()
    assert trove.meta("hello-misc")["source-name"] == "hello"


def test_metadata_of_others_can_not_be_replaced(trove: Trove) -> None:
    """What a chunk forges does not become the system's word about another."""
    forge = "mkdir $DESTDIR/baserock; for n in other-misc main-runtime sys-rootfs; do"
    trove.chunk("other")
    trove.chunk("hello", needs=["other"], install=[f"{forge} : > $DESTDIR/baserock/$n.meta; done"])
    ran = trove.build()
    assert trove.meta("other-misc")["source-name"] == "other"
    assert trove.meta("main-runtime")["kind"] == "stratum"
    assert trove.meta("sys-rootfs")["kind"] == "system"
    assert "baserock/other-misc.meta" in ran.err


@pytest.mark.parametrize("target", ["/", "/srv", "../../../srv/../srv"])
def test_directories_that_are_symlinks_lead_nowhere_else(any_trove: Trove, target: str) -> None:
    """What Morph adds below /etc stays in the tree, wherever a link points to."""
    trove = any_trove
    links = f"mkdir $DESTDIR/srv; ln -s {target} $DESTDIR/etc; ln -s /tmp $DESTDIR/var"
    trove.chunk("hello", install=[links])
    trove.chunk("more", needs=["hello"], install=["mkdir $DESTDIR/etc; echo x > $DESTDIR/etc/x"])
    trove.build()
    found = members(trove.image())
    assert found["etc"].issym()
    assert found["etc"].linkname == target
    place = "" if target == "/" else "srv/"
    assert found[f"{place}os-release"].isreg()
    assert found[f"{place}x"].isreg()
    for name in ("/os-release", "/srv/os-release", "/srv/x"):
        assert not Path(name).exists()


def test_directory_takes_the_place_of_a_dangling_symlink(any_trove: Trove) -> None:
    """That there is something at the link's target on the host does not matter."""
    any_trove.chunk("hello", install=["ln -s /tmp $DESTDIR/etc"])
    any_trove.chunk("more", needs=["hello"], install=["mkdir $DESTDIR/etc; : > $DESTDIR/etc/x"])
    any_trove.build()
    found = members(any_trove.image())
    assert found["etc"].isdir()
    assert {"etc/x", "etc/os-release"} <= set(found)
    assert not Path("/tmp/os-release").exists()
    assert not Path("/tmp/x").exists()


def test_integration_can_not_lead_out(any_trove: Trove) -> None:
    """A script that turns directories into symlinks harms nothing but its own system."""
    script = "rm -rf /baserock /tmp /proc 2>/dev/null; ln -s /etc /baserock || :"
    any_trove.chunk("hello", system_integration={"hello-misc": {"00": [script]}})
    any_trove.write()
    ran = any_trove.run("build", "systems/sys.morph")
    assert "Traceback" not in ran.err
    assert "internal error" not in ran.err
    assert not Path("/etc/hello-misc.meta").exists()
    if ran.status == 0:
        found = members(any_trove.image())
        assert found["baserock"].isdir()


def test_setuid_and_odd_modes_are_kept(any_trove: Trove) -> None:
    script = "cd $DESTDIR; echo s > suid; chmod 6755 suid; mkdir sticky; chmod 1777 sticky;"
    script += (
        " echo n > none; chmod 0 none; mkdir -p dark/er; echo d > dark/er/x; chmod 0 dark/er dark"
    )
    any_trove.chunk("hello", install=[script])
    any_trove.chunk("next", needs=["hello"], build=["stat -c '%a %n' /suid /sticky /none /dark"])
    any_trove.build()
    for tar in (any_trove.artifact("hello-misc"), any_trove.image()):
        found = members(tar)
        assert found["suid"].mode == 0o6755
        assert found["sticky"].mode == 0o1777
        assert found["none"].mode == found["dark"].mode == found["dark/er"].mode == 0
        assert read_member(tar, "none") == b"n\n"
        assert read_member(tar, "dark/er/x") == b"d\n"
    assert any_trove.printed("next") == [b"6755 /suid", b"1777 /sticky", b"0 /none", b"0 /dark"]
    for program in any_trove.temp.glob("chunks/*/root/suid"):
        for parent in list(program.parents)[:-1]:
            if not parent.stat().st_mode & stat.S_IXOTH:
                break
        else:
            raise AssertionError(f"{program} of root could be run by anybody on this machine")


def test_names_of_any_bytes(any_trove: Trove) -> None:
    script = 'cd $DESTDIR; mkdir d; echo 1 > "d/new\nline"; echo 2 > "$(printf \'d/caf\\351\')";'
    script += " echo 3 > 'd/ -rf $(x) `y` \"'; echo 4 > 'd/\\'; echo 5 > d/ü"
    any_trove.chunk("hello", install=[script])
    any_trove.chunk("next", needs=["hello"], build=["set +x; cat /d/* | sort > l; cat l"])
    any_trove.build()
    names = {"d/new\nline", "d/caf\udce9", 'd/ -rf $(x) `y` "', "d/\\", "d/ü"}
    for tar in (any_trove.artifact("hello-misc"), any_trove.image()):
        assert names <= set(members(tar))
    assert any_trove.printed("next") == [b"1", b"2", b"3", b"4", b"5"]
    assert "d/caf\\xe9" in any_trove.meta("hello-misc")["contents"]


def test_socket_is_refused_and_fifo_kept(any_trove: Trove) -> None:
    any_trove.chunk("hello", install=["mkfifo -m 640 $DESTDIR/fifo"])
    any_trove.build()
    assert members(any_trove.image())["fifo"].isfifo()
    assert members(any_trove.image())["fifo"].mode == 0o640
    listen = "python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])'"
    listen += " $DESTDIR/sock"
    any_trove.chunk("early", "base", mode="test", install=[listen])
    err = any_trove.fail().err
    assert "Unsupported type" in err
    assert "sock" in err
    assert "early" in err


def test_hard_links_to_anything(any_trove: Trove) -> None:
    """Within an artifact they stay links; across artifacts each gets a file of its own."""
    script = "cd $DESTDIR; mkdir -p usr/bin srv; echo x > usr/bin/a; ln usr/bin/a usr/bin/b;"
    script += " ln usr/bin/a srv/c; ln usr/bin/a srv/d; ln -s no l; ln l m"
    any_trove.chunk("hello", install=[script])
    change = {"hello-misc": {"00": ["echo changed > /srv/c; cat /srv/d /usr/bin/a > /seen"]}}
    any_trove.chunk("more", system_integration=change)
    any_trove.stratum("base2", build_depends=["base"])
    any_trove.build()
    bins, misc = (members(any_trove.artifact(f"hello-{part}")) for part in ("bins", "misc"))
    assert bins["usr/bin/b"].islnk()
    assert misc["srv/c"].isreg()
    assert misc["srv/d"].islnk()
    assert misc["srv/d"].linkname == "srv/c"
    assert misc["l"].linkname == misc["m"].linkname == "no" or misc["m"].islnk()
    assert read_member(any_trove.image(), "srv/d") == b"x\n"


def test_ten_thousand_files_and_deep_paths(any_trove: Trove) -> None:
    deep = "/".join(["directory-of-some-length"] * 30)
    script = "cd $DESTDIR; mkdir many; cd many; seq 10000 | xargs touch; cd ..; "
    script += f"mkdir -p {deep}; echo deep > {deep}/file; ln -s {deep}/file link"
    any_trove.chunk("hello", install=[script])
    any_trove.chunk("next", needs=["hello"], build=["ls /many | wc -l; cat /link"])
    any_trove.build()
    found = members(any_trove.image())
    assert sum(name.startswith("many/") for name in found) == 10000
    assert found["link"].linkname == f"{deep}/file"
    assert read_member(any_trove.image(), f"{deep}/file") == b"deep\n"
    assert any_trove.printed("next") == [b"10000", b"deep"]


def test_deeper_than_a_path_can_be(trove: Trove) -> None:
    """More than the 4096 bytes that system calls take at once: built or refused, not a crash."""
    script = "cd $DESTDIR; i=0; while [ $i -lt 60 ]; do n=$(printf %0100d $i); mkdir $n; cd $n;"
    trove.chunk("hello", install=[f"{script} i=$((i+1)); done; echo x > bottom"])
    trove.write()
    ran = trove.run("build", "systems/sys.morph")
    assert "Traceback" not in ran.err
    assert ran.status in (0, 1)
    if ran.status == 1:
        assert "hello" in ran.err
        assert "out of memory" not in ran.err


@pytest.mark.parametrize("mode", ["711", "000"])
def test_mode_of_the_installation_directory(trove: Trove, mode: str) -> None:
    """A chunk may change what its installation directory is, as far as it can."""
    trove.chunk("hello", install=[f"mkdir $DESTDIR/d; chmod {mode} $DESTDIR"])
    trove.stratum("last", build_depends=["main"])
    trove.chunk("next", "last", build=["ls -d /d"])
    trove.build()
    assert members(trove.artifact("hello-misc"))["."].mode == int(mode, 8)
    assert trove.printed("next") == [b"/d"]


def test_installation_directory_can_not_be_taken_away(trove: Trove) -> None:
    trove.chunk("hello", install=["rmdir $DESTDIR || mv $DESTDIR /tmp/x || false"])
    assert "install failed" in trove.fail().err


def test_mount_points_in_the_way(any_trove: Trove) -> None:
    """A dependency may have anything at the places where a build has its own directories."""
    trove = any_trove
    script = "cd $DESTDIR; ln -s /etc tmp; echo > proc; ln -s nowhere next.build; echo > next.inst"
    trove.chunk("hello", install=[script])
    trove.chunk("next", needs=["hello"], build=["pwd; touch x $DESTDIR/y /tmp/z; ls /proc/self/fd"])
    trove.build()
    assert "y" in members(trove.image())
    assert not os.path.lexists("/etc/z")


def test_huge_log_and_no_newline(trove: Trove) -> None:
    script = "i=0; while [ $i -lt 200 ]; do printf %04096d 7; i=$((i+1)); done"
    trove.chunk("hello", build=["set +x; " + script, "(exit 9)"])
    ran = trove.fail()
    assert "exit_code=9" in ran.err
    assert len(ran.err) < 100_000
    failed = trove.fail("--progress=json")
    assert all(len(line) < 1_000_000 for line in failed.out.splitlines())
