"""What is built again and what is not, and builds of parts."""

from __future__ import annotations

import os

from tests.build.e2e.trove import Trove, commit_files, git, members


def _define(trove: Trove) -> None:
    for name in ("one", "two"):
        trove.chunk(name, repo=name, install=[f"mkdir $DESTDIR/srv; cp {name} $DESTDIR/srv"])
    trove.chunk("user", needs=["one"], install=["cp -r /srv $DESTDIR/used"])


def _sources(trove: Trove) -> None:
    for name in ("one", "two"):
        trove.source(name, {name: name})


def test_nothing_to_do_is_said_and_touches_little(trove: Trove) -> None:
    _sources(trove)
    _define(trove)
    trove.build()
    before = {path: path.stat().st_ctime_ns for path in trove.artifacts.iterdir()}
    ran = trove.build()
    assert ran.built == []
    assert f"system sys-rootfs is cached at {trove.image()}\n" in ran.out
    assert "6 of" not in ran.out or "0 to build" in ran.out
    changed = [p.name for p in trove.artifacts.iterdir() if before.get(p) != p.stat().st_ctime_ns]
    assert [name for name in changed if not name.endswith(".manifest")] == []
    assert list(trove.temp.glob("staging/*")) == []


def test_only_what_changed_and_what_needs_it_is_built(trove: Trove) -> None:
    _sources(trove)
    _define(trove)
    trove.build()
    trove.source("two", {"two": "changed"})
    _define(trove)
    assert set(trove.build().built) == {"two", "main-runtime", "sys"}
    trove.source("one", {"one": "changed"})
    _define(trove)
    assert set(trove.build().built) == {"one", "user", "main-runtime", "sys"}


def test_another_commit_with_the_same_tree_builds_nothing(trove: Trove) -> None:
    _sources(trove)
    _define(trove)
    trove.build()
    old = trove.head("one")
    git(trove.root / "gits/one", "commit", "-q", "--amend", "-m", "other words")
    _define(trove)
    assert trove.head("one") != old
    assert trove.build().built == []


def test_description_builds_nothing(trove: Trove) -> None:
    _sources(trove)
    _define(trove)
    trove.build()
    trove.system["description"] = "new words"
    assert trove.build().built == []


def test_components_build_what_they_need_and_no_more(trove: Trove) -> None:
    _sources(trove)
    _define(trove)
    ran = trove.build("user")
    assert set(ran.built) == {"host-tools", "tools", "base-runtime", "one", "user"}
    for artifact in ("user-bins", "user-misc"):
        assert f"chunk {artifact} is cached at {trove.artifact(artifact)}\n" in ran.out
    assert set(trove.build("main").built) == {"two", "main-runtime"}
    assert trove.build("user", "two", "main-runtime", "base").built == []
    assert trove.build().built == ["sys"]


def test_unknown_component_is_named(trove: Trove) -> None:
    trove.chunk("hello")
    err = trove.fail("hello", "nonsense").err
    assert "nonsense" in err
    assert "hello" not in err.replace("strata/hello", "")


def test_stratum_component_builds_all_of_its_artifacts(trove: Trove) -> None:
    trove.stratum("main", products=[{"artifact": "main-bins", "include": [".*-bins"]}])
    trove.chunk("hello")
    ran = trove.build("main")
    assert {"main-bins", "main-runtime"} <= set(ran.built)


def test_uncommitted_changes_are_built(trove: Trove) -> None:
    trove.chunk("hello", build=["echo committed"])
    trove.build()
    trove.chunk("hello", build=["echo changed"])
    state = git(trove.definitions, "status", "--porcelain")
    ran = trove.run("build", "systems/sys.morph")
    assert "hello" in ran.built
    assert git(trove.definitions, "status", "--porcelain") == state
    assert git(trove.definitions, "for-each-ref").count("\n") == 0


def test_system_is_found_from_a_subdirectory_and_in_a_clone(trove: Trove) -> None:
    trove.chunk("hello")
    trove.build()
    clone = trove.root / "clone"
    git(trove.root, "clone", "-q", os.fspath(trove.definitions), os.fspath(clone))
    git(clone, "checkout", "-q", "--detach")
    trove.definitions = clone / "systems"
    ran = trove.run("build", "sys")
    assert (ran.status, ran.built) == (0, []), ran.err


def test_repo_and_ref_are_built_without_a_checkout(trove: Trove) -> None:
    trove.chunk("hello", build=["echo at the tag"])
    trove.write()
    git(trove.definitions, "tag", "v1")
    url = trove.definitions.as_uri()
    trove.chunk("hello", build=["echo later"])
    trove.write()
    ran = trove.run("build", f"--repo={url}", "--ref=v1", "systems/sys.morph")
    assert ran.status == 0, ran.err
    assert trove.printed("hello") == [b"at the tag"]
    assert trove.meta("sys-rootfs")["original_ref"] == "v1"


def test_source_on_a_branch_follows_it(trove: Trove) -> None:
    _sources(trove)
    trove.chunk("one", repo="one", spec={"ref": "master"}, build=["cat one"])
    trove.build()
    assert trove.printed("one")[0].startswith(b"one")
    commit_files(trove.root / "gits/one", {"one": "moved\n"})
    ran = trove.build()
    assert "one" in ran.built


def test_wrong_architecture_is_refused(trove: Trove) -> None:
    trove.chunk("hello")
    trove.system["arch"] = "testarch"
    err = trove.fail().err
    assert "cross-build" in err
    assert "testarch" in err


def test_chunk_of_two_products_in_two_strata_is_built_once(trove: Trove) -> None:
    trove.chunk("hello", install=["mkdir -p $DESTDIR/usr/bin; touch $DESTDIR/usr/bin/h"])
    trove.stratum("last", build_depends=["main"])
    trove.chunk("next", "last", build=["ls /usr/bin/h"])
    ran = trove.build()
    assert sorted(ran.built) == sorted(set(ran.built))
    assert "usr/bin/h" in members(trove.image())
