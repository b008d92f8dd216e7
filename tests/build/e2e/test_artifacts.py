"""What becomes of what a chunk installs: artifacts, metadata, and the system."""

from __future__ import annotations

import json
import stat
import tarfile
from typing import Any

import pytest

from morphlib.definitions.models import STEPS
from tests.build.e2e.trove import COMMIT_TIME, Trove, git, members, read_member

MTIME = 683074800


def test_files_go_to_artifacts_by_the_split_rules(any_trove: Trove) -> None:
    script = "cd $DESTDIR; mkdir -p usr/bin usr/share; echo b > usr/bin/b; ln usr/bin/b usr/bin/c; "
    script += "ln -s b usr/bin/l; echo s > usr/share/s; chmod 750 usr/bin/b; chmod 4755 usr/share/s"
    any_trove.chunk("hello", install=[script])
    any_trove.build()
    bins, misc = (members(any_trove.artifact(f"hello-{part}")) for part in ("bins", "misc"))
    assert list(bins) == [
        "baserock",
        "baserock/hello-bins.meta",
        "usr",
        "usr/bin",
        "usr/bin/b",
        "usr/bin/c",
        "usr/bin/l",
    ]
    assert list(misc) == [
        ".",
        "baserock",
        "baserock/hello-misc.meta",
        "usr",
        "usr/bin",
        "usr/share",
        "usr/share/s",
    ]
    for info in (*bins.values(), *misc.values()):
        assert (info.mtime, info.uid, info.gid, info.uname, info.gname) == (MTIME, 0, 0, "", "")
    assert bins["usr/bin/b"].mode == 0o750
    assert bins["usr/bin/c"].islnk()
    assert bins["usr/bin/c"].linkname == "usr/bin/b"
    assert bins["usr/bin/l"].linkname == "b"
    assert misc["usr/share/s"].mode == 0o4755


def test_device_nodes_are_in_artifact_and_system(any_trove: Trove) -> None:
    device: dict[str, Any] = {"type": "c", "filename": "/dev/mine", "permissions": "0666"}
    device |= {"major": 1, "minor": 9, "uid": 3, "gid": 4}
    block = {**device, "type": "b", "filename": "/dev/disk", "permissions": "4640", "uid": 0}
    any_trove.chunk("hello", devices=[device, block], install=["mkdir $DESTDIR/dev"])
    any_trove.build()
    for tar in (any_trove.artifact("hello-misc"), any_trove.image()):
        mine, disk = members(tar)["dev/mine"], members(tar)["dev/disk"]
        assert mine.ischr()
        assert (mine.devmajor, mine.devminor, mine.mode) == (1, 9, 0o666)
        assert (mine.uid, mine.gid, mine.mtime) == (3, 4, MTIME)
        assert disk.isblk()
        assert disk.mode == 0o640
    assert "dev/mine" in any_trove.meta("hello-misc")["contents"]


def test_device_without_its_directory_is_an_error(trove: Trove) -> None:
    device = {"type": "c", "filename": "/dev/mine", "permissions": "0666"}
    trove.chunk("hello", devices=[{**device, "major": 1, "minor": 9, "uid": 0, "gid": 0}])
    err = trove.fail().err
    assert "/dev/mine" in err
    assert "directory is not installed" in err
    assert "hello" in err


@pytest.mark.parametrize("name", ["../../escaped", "/dev/../../escaped", "/"])
def test_device_that_leads_out_is_refused(trove: Trove, name: str) -> None:
    device = {"type": "c", "permissions": "0666", "major": 1, "minor": 9, "uid": 0, "gid": 0}
    trove.chunk("hello", devices=[{**device, "filename": name}], install=["mkdir $DESTDIR/dev"])
    trove.fail()
    assert not list(trove.root.glob("**/escaped"))


def test_integration_scripts_run_in_order(any_trove: Trove) -> None:
    note = "echo $0 >> /order"
    any_trove.chunk(
        "hello",
        system_integration={
            "hello-misc": {"10-b": [note, note], "00-z": [note]},
            "hello-bins": {"10-b": [note], "05-x": ["id -u; pwd; env | sort > /environment"]},
        },
    )
    any_trove.chunk("early", system_integration={"early-misc": {"00-a": [note]}})
    any_trove.build()
    image = any_trove.image()
    place = "/baserock/system-integration"
    assert read_member(image, "order").decode().splitlines() == [
        f"{place}/00-a-early-misc-0000",
        f"{place}/00-z-hello-misc-0000",
        f"{place}/10-b-hello-bins-0000",
        f"{place}/10-b-hello-misc-0000",
        f"{place}/10-b-hello-misc-0001",
    ]
    environment = dict(
        line.split("=", 1) for line in read_member(image, "environment").decode().splitlines()
    )
    assert environment.pop("PATH") == "/bin:/usr/bin:/sbin:/usr/sbin"
    assert environment == {"PWD": "/", "SHLVL": "1"}
    found = members(image)
    script = found["baserock/system-integration/00-a-early-misc-0000"]
    assert script.mode == 0o555
    assert read_member(image, script.name) == b"#!/bin/sh\nset -xeu\n" + note.encode()
    for directory in ("proc", "dev/shm", "tmp"):
        assert found[directory].isdir()
        assert not [name for name in found if name.startswith(f"{directory}/")]
    assert not [name for name in found if name.startswith("dev/") and name != "dev/shm"]


def test_integration_can_change_the_system_and_nothing_else(any_trove: Trove) -> None:
    any_trove.chunk(
        "hello",
        install=["mkdir $DESTDIR/etc; echo old > $DESTDIR/etc/conf; echo old > $DESTDIR/etc/gone"],
        system_integration={
            "hello-misc": {
                "00": ["echo new > /etc/conf; rm /etc/gone; mkdir -p /tmp/x /dev/shm/y; ls /proc/1"]
            }
        },
    )
    any_trove.build()
    found = members(any_trove.image())
    assert read_member(any_trove.image(), "etc/conf") == b"new\n"
    assert "etc/gone" not in found
    assert "tmp/x" not in found
    assert read_member(any_trove.artifact("hello-misc"), "etc/conf") == b"old\n"
    assert {info.mtime for info in found.values()} == {MTIME}
    # The layer that is staged for others was not changed either.
    any_trove.chunk("later", needs=["hello"], build=["cat /etc/conf /etc/gone"])
    any_trove.build()
    assert any_trove.printed("later") == [b"old", b"old"]


def test_failing_integration_stops_the_system(any_trove: Trove) -> None:
    any_trove.chunk(
        "hello",
        system_integration={
            "hello-misc": {"00": ["echo ran >&2"], "01": ["exit 3"], "02": ["echo never-seen"]}
        },
    )
    ran = any_trove.fail()
    assert "system integration commands failed (exit_code=3)" in ran.err
    assert "01-hello-misc-0000" in ran.err
    assert "\nran\n" in ran.out
    assert "never-seen" not in ran.out.replace("echo never-seen", "")
    assert not list(any_trove.artifacts.glob("*.system.*"))
    (log,) = any_trove.temp.glob("staging/sys-*.log")
    assert b"+ exit 3" in log.read_bytes()
    any_trove.chunk("hello", system_integration={"hello-misc": {"01": ["exit 0"]}})
    any_trove.build()


def test_integration_of_an_unknown_artifact_warns(trove: Trove) -> None:
    trove.chunk("hello", system_integration={"hello-typo": {"00": ["exit 1"]}})
    err = trove.build().err
    assert "WARNING" in err
    assert "non-existent artifact" in err
    assert "hello-typo" in err


def test_integration_prefix_that_leads_out_is_refused(trove: Trove) -> None:
    trove.chunk("hello", system_integration={"hello-misc": {"../../../x": ["exit 1"]}})
    trove.fail()
    assert not list(trove.root.glob("**/x-hello-misc-0000"))


def test_ldconfig_runs_where_there_is_a_configuration(any_trove: Trove) -> None:
    any_trove.chunk("hello", install=["mkdir $DESTDIR/etc; echo /lib > $DESTDIR/etc/ld.so.conf"])
    any_trove.chunk("next", needs=["hello"], build=["ls /etc; : > /etc/ld.so.cache"])
    assert "build failed" in any_trove.fail().err
    any_trove.chunk("next", needs=["hello"], build=["ls /etc"])
    any_trove.build()
    assert any_trove.printed("next") == [b"ld.so.cache", b"ld.so.conf"]
    assert "etc/ld.so.cache" in members(any_trove.image())
    assert "etc/ld.so.cache" not in members(any_trove.artifact("hello-misc"))


def test_ldconfig_does_not_run_without_a_configuration(trove: Trove) -> None:
    trove.chunk("hello", install=["mkdir $DESTDIR/etc"])
    trove.chunk("next", needs=["hello"], build=["ls -A /etc"])
    trove.build()
    assert trove.printed("next") == []
    assert "etc/ld.so.cache" not in members(trove.image())


def test_os_release_is_written(trove: Trove) -> None:
    trove.chunk(
        "hello", install=["mkdir $DESTDIR/etc; ln -s ../../../../tmp/x $DESTDIR/etc/os-release"]
    )
    trove.build()
    assert members(trove.image())["etc/os-release"].mode == 0o644
    assert members(trove.image())["etc/os-release"].isreg()
    assert read_member(trove.image(), "etc/os-release").decode().splitlines() == [
        'NAME="Baserock"',
        "ID=baserock",
        'HOME_URL="http://wiki.baserock.org"',
        'SUPPORT_URL="http://wiki.baserock.org/mailinglist"',
        'BUG_REPORT_URL="http://wiki.baserock.org/mailinglist"',
    ]


def test_system_is_a_plain_tar(any_trove: Trove) -> None:
    any_trove.chunk("hello", install=["mkdir $DESTDIR/srv; chown 0:0 $DESTDIR/srv"])
    any_trove.build()
    with tarfile.open(any_trove.image(), "r:") as archive:
        names = archive.getnames()
    assert names[0] == "."
    assert names == sorted(names, key=lambda name: "" if name == "." else "/" + name)
    assert not [name for name in names if name.startswith("./")]
    assert "bin/busybox" in names
    for info in members(any_trove.image()).values():
        assert (info.uid, info.gid, info.mtime) == (0, 0, MTIME)


def test_metadata_of_everything_is_in_the_system(trove: Trove) -> None:
    trove.chunk("hello", description="Says hello", install=["mkdir -p $DESTDIR/usr/bin"])
    trove.system["description"] = "All of it"
    trove.build()
    names = [name for name in members(trove.image()) if name.startswith("baserock/")]
    assert names == [
        f"baserock/{name}.meta"
        for name in (
            "base-runtime",
            "hello-bins",
            "hello-misc",
            "main-runtime",
            "sys-rootfs",
            "tools-bins",
            "tools-misc",
        )
    ]
    chunk = trove.meta("hello-misc")
    definitions = git(trove.definitions, "rev-parse", "HEAD")
    assert chunk["artifact-name"] == "hello-misc"
    assert chunk["source-name"] == "hello"
    assert chunk["kind"] == "chunk"
    assert chunk["description"] == "Says hello"
    assert chunk["repo-alias"] == "test:src"
    assert chunk["original_ref"] == chunk["sha1"] == trove.head("src")
    assert chunk["morphology"] == "chunks/hello.morph"
    assert chunk["cache-key"] == trove.key("hello")
    assert chunk["cache-id"]["source"]["tree"] == git(
        trove.root / "gits/src", "rev-parse", "HEAD^{tree}"
    )
    assert chunk["morph-version"]["version"]
    assert chunk["contents"] == [
        ".",
        "baserock",
        "baserock/hello-misc.meta",
        "usr",
        "usr/bin",
    ]
    stratum = trove.meta("main-runtime")
    assert stratum["kind"] == "stratum"
    assert stratum["contents"] == ["hello-bins", "hello-misc"]
    assert stratum["sha1"] == definitions
    system = trove.meta("sys-rootfs")
    assert system["contents"] == []
    assert system["description"] == "All of it"
    assert system["kind"] == "system"
    for name in names:
        assert members(trove.image())[name].mode == 0o644
        text = read_member(trove.image(), name).decode()
        document = json.loads(text)
        assert text.rstrip("\n") == json.dumps(document, indent=4, sort_keys=True)


def test_chunk_artifacts_say_nothing_of_their_origin(trove: Trove) -> None:
    """Equal keys have to give equal bytes."""
    trove.chunk("hello", description="Says hello")
    trove.build()
    document = json.loads(read_member(trove.artifact("hello-misc"), "baserock/hello-misc.meta"))
    assert document["cache-key"] == trove.key("hello")
    assert not {"sha1", "repo", "repo-alias", "original_ref", "morph-version"} & set(document)


def test_stratum_artifact_lists_its_chunks_without_bootstrap_ones(trove: Trove) -> None:
    trove.chunk("other")
    trove.chunk("hello", needs=["other"])
    trove.build()
    hello, other = trove.key("hello"), trove.key("other")
    assert json.loads(trove.artifact("main-runtime", "stratum").read_bytes()) == [
        f"{other}.chunk.other-bins",
        f"{other}.chunk.other-misc",
        f"{hello}.chunk.hello-bins",
        f"{hello}.chunk.hello-misc",
    ]
    listing = json.loads(trove.artifact("base-runtime", "stratum").read_bytes())
    assert [name.partition(".chunk.")[2] for name in listing] == ["tools-bins", "tools-misc"]
    beside = json.loads((trove.artifact("main-runtime.meta", "stratum")).read_bytes())
    assert beside["contents"] == ["other-bins", "other-misc", "hello-bins", "hello-misc"]


def test_every_source_has_its_times(trove: Trove) -> None:
    trove.chunk("hello", build=["sleep 0.2"])
    trove.build()
    times = json.loads((trove.artifacts / f"{trove.key('hello')}.meta").read_bytes())["build-times"]
    assert {"overall-build", "determine-splits", "create-chunks", *STEPS} <= set(times)
    for each in times.values():
        assert {"start", "stop", "delta"} <= set(each)
    assert 0.2 <= float(times["build"]["delta"]) < 2
    assert float(times["configure"]["delta"]) == 0
    assert float(times["overall-build"]["delta"]) >= float(times["build"]["delta"])
    assert len(times["build"]["delta"].partition(".")[2]) == 4
    stratum = trove.artifact("main-runtime", "stratum").name.partition(".")[0]
    times = json.loads((trove.artifacts / f"{stratum}.meta").read_bytes())["build-times"]
    assert {"overall-build", "check-chunks", "create-chunk-list"} <= set(times)
    image = trove.image().name.partition(".")[0]
    times = json.loads((trove.artifacts / f"{image}.meta").read_bytes())["build-times"]
    assert {"overall-build", "unpack-strata"} <= set(times)


def test_files_in_the_cache_are_readable_and_nothing_is_half_done(any_trove: Trove) -> None:
    any_trove.chunk("hello", install=["mkdir -p $DESTDIR/usr/bin"])
    any_trove.build()
    for path in any_trove.artifacts.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o644, path
        assert not path.name.startswith("tmp")
    for artifact in any_trove.artifacts.glob("*.chunk.*"):
        assert (any_trove.artifacts / f"{artifact.name.partition('.')[0]}.build-log").exists()
    assert list((any_trove.temp / "staging").iterdir()) == []
    assert not list(any_trove.temp.glob("chunks/*.tmp-*"))


def test_leftovers_in_destdir_are_an_error(trove: Trove) -> None:
    trove.defaults = "split-rules:\n  chunk:\n  - {artifact: -bins, include: ['usr/bin/.*', bin]}\n"
    trove.chunk("hello", install=["mkdir -p $DESTDIR/usr/bin $DESTDIR/srv; echo > $DESTDIR/srv/x"])
    err = trove.fail().err
    assert "DESTDIR" in err
    assert "is not empty" in err
    assert "srv/x" in err


def test_products_decide_before_default_rules(trove: Trove) -> None:
    rule = {"artifact": "hello-bins", "include": ["srv/.*"]}
    trove.chunk("hello", products=[rule], install=["cd $DESTDIR; mkdir srv etc; touch srv/x etc/y"])
    trove.build()
    assert "srv/x" in members(trove.artifact("hello-bins"))
    assert "etc/y" in members(trove.artifact("hello-misc"))


def test_products_that_miss_files_leave_them_to_default_rules(trove: Trove) -> None:
    rules = [{"artifact": "hello-none", "include": ["nothing/.*"]}]
    trove.chunk("hello", products=rules, install=["cd $DESTDIR; mkdir srv; touch srv/x"])
    trove.build()
    assert "srv/x" in members(trove.artifact("hello-misc"))
    assert list(members(trove.artifact("hello-none"))) == ["baserock", "baserock/hello-none.meta"]


def test_only_chosen_stratum_artifacts_go_into_the_system(trove: Trove) -> None:
    trove.stratum("main", products=[{"artifact": "main-bins", "include": [".*-bins"]}])
    trove.chunk("hello", install=["cd $DESTDIR; mkdir -p usr/bin srv; touch usr/bin/x srv/y"])
    trove.system["strata"] = [
        {"name": "base", "morph": "strata/base.morph"},
        {"name": "main", "morph": "strata/main.morph", "artifacts": ["main-bins"]},
    ]
    trove.build()
    found = members(trove.image())
    assert "usr/bin/x" in found
    assert "srv/y" not in found
    assert "baserock/main-bins.meta" in found
    assert "baserock/main-runtime.meta" not in found
    assert "baserock/hello-misc.meta" not in found


def test_equal_stratum_artifacts_are_told_apart(trove: Trove) -> None:
    """Both are empty, and nevertheless each has its own files."""
    trove.stratum(
        "main",
        products=[
            {"artifact": "main-one", "include": ["no-such-one"]},
            {"artifact": "main-two", "include": ["no-such-two"]},
        ],
    )
    trove.chunk("hello")
    trove.build()
    for name in ("main-one", "main-two"):
        assert trove.artifact(name, "stratum").read_bytes() == b"[]"
        assert trove.meta(name)["artifact-name"] == name
    assert trove.build().built == []


def test_files_of_several_chunks_at_one_place_warn(trove: Trove) -> None:
    for name in ("one", "two"):
        trove.chunk(
            name,
            needs=["one"] if name == "two" else [],
            install=[f"mkdir -p $DESTDIR/srv; echo {name} > $DESTDIR/srv/file"],
        )
    err = trove.build().err
    assert "WARNING: /srv/file is installed by several chunks: one, two" in err
    assert read_member(trove.image(), "srv/file") == b"two\n"


def test_commit_time_is_that_of_the_source(trove: Trove) -> None:
    trove.chunk("hello", build=["echo $SOURCE_DATE_EPOCH; stat -c %Y hello.c"])
    trove.build()
    assert trove.printed("hello") == [str(COMMIT_TIME).encode()] * 2
