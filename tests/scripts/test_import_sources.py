"""Making a trove: the same commits everywhere, and nothing but what was pinned."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import yaml

from tests.scripts import aptrepo
from tests.scripts.running import SCRIPTS, Result, run_script


class Workshop:
    """A manifest, and the importer's directories, in one temporary directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.manifest = root / "definitions/sources.yaml"
        self.trove = root / "trove"
        self.etc = root / "etc"
        self.manifest.parent.mkdir()
        self.etc.mkdir()

    def write(self, *entries: dict[str, object]) -> None:
        text = yaml.safe_dump({"sources": list(entries)}, sort_keys=False)
        self.manifest.write_text("# What there is.\n\n" + text)

    def entries(self) -> dict[str, dict[str, object]]:
        document = yaml.safe_load(self.manifest.read_text())
        return {entry["name"]: entry for entry in document["sources"]}

    def run(self, *arguments: str, env: dict[str, str] | None = None) -> Result:
        options: list[str | Path] = [
            "--trove",
            self.trove,
            "--cache",
            self.root / "cache",
            "--apt-etc",
            self.etc,
        ]
        return run_script("import-sources", self.manifest, *arguments, *options, env=env)

    def update(self) -> None:
        result = self.run("--update")
        assert result.status == 0, result.err

    def git(self, name: str, *arguments: str) -> str:
        argv = ["git", "-C", str(self.trove / name), *arguments]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    def listing(self, name: str) -> list[str]:
        lines = self.git(name, "ls-tree", "-r", "main").splitlines()
        return [f"{line.split()[0]} {line.split(chr(9))[1]}" for line in lines]


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def make_directory(root: Path) -> dict[str, object]:
    (root / "sub").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "sub/b").write_bytes(b"one\r\ntwo\n")
    (root / "a").write_text("a")
    (root / "run").write_text("#!/bin/sh\n")
    (root / "run").chmod(0o755)
    (root / "link").symlink_to("sub/b")
    (root / ".gitignore").write_text("a\n")
    (root / ".gitattributes").write_text("* text eol=lf\n")
    return {"name": "dir", "kind": "directory", "version": "1", "path": root.name, "date": 1000}


def test_a_directory_gives_the_same_commit_everywhere(workshop: Workshop) -> None:
    workshop.write(make_directory(workshop.manifest.parent / "dir"))
    workshop.update()
    commit = workshop.git("dir", "rev-parse", "main").strip()
    # a golden value: if it changes, so does every commit that anyone has pinned
    assert commit == "140e5e57645ed10e03cfd137480dac1641116e31"
    assert workshop.entries()["dir"]["commit"] == commit
    assert workshop.git("dir", "rev-parse", "import/1").strip() == commit
    assert workshop.listing("dir") == [
        "100644 .gitattributes",
        "100644 .gitignore",
        "100644 a",
        "120000 link",
        "100755 run",
        "100644 sub/b",
    ]
    assert workshop.git("dir", "log", "--format=%an %ct %ci %P") == (
        "Trove import 1000 1970-01-01 00:16:40 +0000 \n"
    )


def test_neither_times_nor_modes_nor_the_users_git_count(
    workshop: Workshop, tmp_path: Path
) -> None:
    entry = make_directory(workshop.manifest.parent / "dir")
    workshop.write(entry)
    workshop.update()
    pinned = workshop.entries()["dir"]
    shutil.rmtree(workshop.trove)
    directory = workshop.manifest.parent / "dir"
    for file in (directory / "a", directory / "sub/b"):
        file.chmod(0o640)
        os.utime(file, (5, 5))
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        "[core]\n autocrlf = true\n fileMode = false\n[user]\n name = Me\n email = me@example\n"
        "[init]\n defaultBranch = other\n templateDir = /nonexistent\n"
    )
    result = workshop.run(
        env={"HOME": str(home), "GIT_AUTHOR_NAME": "Me", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    )
    assert result.status == 0, result.err
    assert workshop.git("dir", "rev-parse", "main").strip() == pinned["commit"]


def test_what_is_there_is_not_made_again(workshop: Workshop) -> None:
    directory = workshop.manifest.parent / "dir"
    workshop.write(make_directory(directory))
    workshop.update()
    shutil.rmtree(directory)
    result = workshop.run()
    assert result.status == 0, result.err
    assert "dir 1: there already" in result.out


def test_a_changed_directory_is_noticed_and_repinned(workshop: Workshop) -> None:
    directory = workshop.manifest.parent / "dir"
    workshop.write(make_directory(directory))
    workshop.update()
    old = str(workshop.entries()["dir"]["commit"])
    stratum = workshop.manifest.parent / "strata/core.morph"
    stratum.parent.mkdir()
    stratum.write_text(f"chunks:\n- ref: {old}\n")
    (directory / "a").write_text("changed")
    shutil.rmtree(workshop.trove)

    result = workshop.run()
    assert result.status == 1
    assert old in result.err
    assert "--update" in result.err
    assert workshop.git("dir", "branch", "--list").strip() == ""

    workshop.update()
    new = str(workshop.entries()["dir"]["commit"])
    assert new != old
    assert stratum.read_text() == f"chunks:\n- ref: {new}\n"
    assert workshop.manifest.read_text().startswith("# What there is.\n")
    assert workshop.run().status == 0


def add_file(tar: tarfile.TarFile, name: str, data: bytes = b"data", **fields: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    member.mtime = 500
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(data))


def make_tarball(
    path: Path, mode: Literal["w:", "w:gz", "w:xz"], names: list[str]
) -> dict[str, object]:
    with tarfile.open(path, mode) as tar:
        for name in names:
            add_file(tar, name, name.encode(), mode=0o755 if "run" in name else 0o600, uid=77)
        add_file(tar, "pkg-1/hard", b"", type=tarfile.LNKTYPE, linkname=names[0])
        add_file(tar, "pkg-1/new", b"", type=tarfile.SYMTYPE, linkname="../../x", mtime=900)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {
        "name": "pkg",
        "kind": "tarball",
        "version": "1",
        "path": path.name,
        "files": {path.name: digest},
    }


def test_a_tarball_gives_one_commit_however_it_is_packed(workshop: Workshop) -> None:
    names = ["pkg-1/a", "pkg-1/sub/run", "pkg-1/z"]
    base = workshop.manifest.parent
    workshop.write(make_tarball(base / "pkg.tar.gz", "w:gz", names))
    workshop.update()
    commit = workshop.git("pkg", "rev-parse", "main")
    assert workshop.listing("pkg") == [
        "100644 a",
        "100644 hard",
        "120000 new",
        "100755 sub/run",
        "100644 z",
    ]
    assert workshop.git("pkg", "show", "main:hard") == "pkg-1/a"
    assert workshop.git("pkg", "log", "--format=%ct") == "900\n"

    shutil.rmtree(workshop.trove)
    workshop.write(make_tarball(base / "pkg.tar.xz", "w:xz", [names[0], names[2], names[1]]))
    workshop.update()
    assert workshop.git("pkg", "rev-parse", "main") == commit


def test_only_and_leave_out_select_paths(workshop: Workshop) -> None:
    entry = make_tarball(
        workshop.manifest.parent / "pkg.tar",
        "w:",
        ["pkg-1/src/a.c", "pkg-1/src/tests/t.c", "pkg-1/README"],
    )
    workshop.write({**entry, "only": ["src/*"], "leave_out": ["*/tests/*"]})
    workshop.update()
    assert workshop.listing("pkg") == ["100644 src/a.c"]


def test_a_tarball_other_than_the_pinned_is_refused(workshop: Workshop) -> None:
    entry = make_tarball(workshop.manifest.parent / "pkg.tar", "w:", ["pkg-1/a"])
    workshop.write({**entry, "files": {"pkg.tar": "0" * 64}})
    result = workshop.run()
    assert result.status == 1
    assert "pkg.tar: " in result.err
    assert "0" * 64 in result.err
    assert (workshop.manifest.parent / "pkg.tar").exists()
    assert not (workshop.trove / "pkg").exists()


@pytest.mark.parametrize(
    ("name", "fields", "complaint"),
    [
        ("pkg-1/../../evil", {}, "leads outside"),
        ("/etc/evil", {}, "leads outside"),
        ("pkg-1/.git/hooks/post-checkout", {}, "git takes for its own"),
        ("pkg-1/sub/.GIT/config", {}, "git takes for its own"),
        ("pkg-1/fifo", {"type": tarfile.FIFOTYPE}, "neither file, symlink nor directory"),
        ("pkg-1/disk", {"type": tarfile.BLKTYPE}, "neither file, symlink nor directory"),
        ("pkg-1/h", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}, "which it lacks"),
    ],
)
def test_hostile_members_are_refused(
    workshop: Workshop, name: str, fields: dict[str, object], complaint: str
) -> None:
    path = workshop.manifest.parent / "pkg.tar"
    with tarfile.open(path, "w") as tar:
        add_file(tar, "pkg-1/a")
        add_file(tar, name, b"", **fields)
    workshop.write({"name": "pkg", "kind": "tarball", "version": "1", "path": "pkg.tar"})
    result = workshop.run("--update")
    assert result.status == 1
    assert complaint in result.err
    assert not list(workshop.root.rglob("*evil*"))
    assert workshop.git("pkg", "for-each-ref") == ""


def test_names_that_a_stream_could_trip_over_are_kept(workshop: Workshop) -> None:
    path = workshop.manifest.parent / "pkg.tar"
    names = ["pkg-1/new\nline", 'pkg-1/"quoted"', "pkg-1/back\\slash", "pkg-1/ blank "]
    with tarfile.open(path, "w") as tar:
        for name in names:
            add_file(tar, name)
    workshop.write({"name": "pkg", "kind": "tarball", "version": "1", "path": "pkg.tar"})
    workshop.update()
    found = workshop.git("pkg", "ls-tree", "-r", "-z", "--name-only", "main").split("\0")
    assert sorted(found[:-1]) == sorted(name.removeprefix("pkg-1/") for name in names)


def test_a_damaged_tarball_is_named(workshop: Workshop) -> None:
    make_tarball(workshop.manifest.parent / "pkg.tar.gz", "w:gz", ["pkg-1/a"])
    path = workshop.manifest.parent / "pkg.tar.gz"
    path.write_bytes(path.read_bytes()[:-30])
    workshop.write({"name": "pkg", "kind": "tarball", "version": "1", "path": path.name})
    result = workshop.run("--update")
    assert result.status == 1
    assert "pkg.tar.gz is not a readable tar file" in result.err


def test_every_mistake_in_a_manifest_is_told_at_once(workshop: Workshop) -> None:
    workshop.write(
        {"name": "../up", "kind": "tarball", "version": "1", "path": "x"},
        {"name": "dir", "kind": "directory", "version": "-rf", "path": "x"},
        {"name": "deb", "kind": "debian-source", "version": "1", "package": "--option"},
        {"name": "deb", "kind": "tarball", "version": "1", "path": "x", "commit": "main"},
    )
    result = workshop.run()
    assert result.status == 1
    for complaint in ("'../up'", "'-rf' is no version", "`date`", "'--option'", "two of this name"):
        assert complaint in result.err
    assert "'main' is not a commit" in result.err


def test_every_source_that_fails_is_told(workshop: Workshop) -> None:
    missing = {"kind": "tarball", "version": "1"}
    workshop.write(
        {"name": "one", "path": "one.tar", **missing}, {"name": "two", "path": "two.tar", **missing}
    )
    result = workshop.run()
    assert result.status == 1
    assert "one.tar" in result.err
    assert "two.tar" in result.err


def snapshot(directory: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def one_line(archive: Path, etc: Path) -> None:
    (etc / "sources.list").write_text(f"# ours\ndeb [trusted=yes] copy:{archive} ./\n")


def deb822(archive: Path, etc: Path) -> None:
    (etc / "sources.list.d").mkdir()
    (etc / "sources.list.d/ours.sources").write_text(
        f"# ours\nTypes: deb\n# about the next\nURIs: copy:{archive}\nSuites: ./\nTrusted: yes\n"
        "\nTypes: deb\nEnabled: no\nURIs: copy:/nonexistent\nSuites: ./\nTrusted: yes\n"
    )


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    archive = tmp_path / "archive"
    archive.mkdir()
    aptrepo.add_source_package(archive, "1.0-1")
    aptrepo.add_source_package(archive, "1.1-1")
    aptrepo.add_binary_package(archive, "1:2-3")
    aptrepo.index(archive)
    return archive


HELLO: dict[str, object] = {
    "name": "hello",
    "kind": "debian-source",
    "version": "1.0-1",
    "package": "hello",
}


@pytest.mark.parametrize("configure", [one_line, deb822])
def test_a_source_package_comes_in_its_version_with_its_patches(
    workshop: Workshop, archive: Path, configure: Callable[[Path, Path], None]
) -> None:
    configure(archive, workshop.etc)
    before = snapshot(workshop.etc)
    workshop.write(HELLO)
    workshop.update()
    assert workshop.git("hello", "show", "main:hello.c").endswith("return 0; } // 1.0-1\n")
    assert "100755 configure" in workshop.listing("hello")
    assert not [line for line in workshop.listing("hello") if ".pc" in line]
    assert workshop.git("hello", "log", "--format=%ct") == f"{aptrepo.DATE_SECONDS}\n"
    files = workshop.entries()["hello"]["files"]
    assert isinstance(files, dict)
    assert sorted(files) == [
        "hello_1.0-1.debian.tar.xz",
        "hello_1.0-1.dsc",
        "hello_1.0.orig.tar.gz",
    ]
    assert snapshot(workshop.etc) == before


def test_a_second_trove_comes_from_what_was_downloaded(workshop: Workshop, archive: Path) -> None:
    one_line(archive, workshop.etc)
    workshop.write(HELLO)
    workshop.update()
    shutil.rmtree(workshop.trove)
    shutil.rmtree(archive)
    result = workshop.run()
    assert result.status == 0, result.err
    assert workshop.git("hello", "rev-parse", "main").strip() in workshop.manifest.read_text()


def test_a_download_that_was_altered_is_refused_and_fetched_anew(
    workshop: Workshop, archive: Path
) -> None:
    one_line(archive, workshop.etc)
    workshop.write(HELLO)
    workshop.update()
    shutil.rmtree(workshop.trove)
    (download,) = (workshop.root / "cache/downloads").rglob("*.orig.tar.gz")
    download.write_bytes(b"something else")
    result = workshop.run()
    assert result.status == 1
    assert "hello_1.0.orig.tar.gz" in result.err
    assert workshop.run().status == 0


def test_a_version_that_is_not_offered_is_named_with_those_that_are(
    workshop: Workshop, archive: Path
) -> None:
    one_line(archive, workshop.etc)
    workshop.write({**HELLO, "version": "0.9-7"})
    result = workshop.run()
    assert result.status == 1
    assert "hello 0.9-7" in result.err
    assert "1.0-1" in result.err
    assert "1.1-1" in result.err


def test_a_binary_package_is_taken_as_it_is(workshop: Workshop, archive: Path) -> None:
    one_line(archive, workshop.etc)
    workshop.write(
        {
            "name": "bin",
            "kind": "debian-binary",
            "version": "1:2-3",
            "package": "hello-bin",
            "leave_out": ["usr/share/doc/*"],
        }
    )
    workshop.update()
    assert workshop.listing("bin") == ["100755 usr/bin/hello", "120000 usr/bin/hi"]
    assert workshop.git("bin", "log", "--format=%ct %D") == (
        f"{aptrepo.DATE_SECONDS} HEAD -> main, import/1_2-3\n"
    )


def test_a_machine_without_package_sources_is_told_so(workshop: Workshop) -> None:
    workshop.write(HELLO)
    result = workshop.run()
    assert result.status == 1
    assert "names no package sources" in result.err


def test_the_examples_strata_pin_the_manifests_commits() -> None:
    examples = SCRIPTS.parent / "examples"
    manifest = yaml.safe_load((examples / "sources.yaml").read_text())
    commits = {entry["name"]: entry["commit"] for entry in manifest["sources"]}
    pinned = {
        chunk["repo"].removeprefix("example:"): chunk["ref"]
        for stratum in (examples / "strata").glob("*.morph")
        for chunk in yaml.safe_load(stratum.read_text())["chunks"]
    }
    assert pinned == commits


def test_the_examples_own_files_give_the_pinned_commits(workshop: Workshop) -> None:
    examples = SCRIPTS.parent / "examples"
    manifest = yaml.safe_load((examples / "sources.yaml").read_text())
    shutil.copytree(examples / "files", workshop.manifest.parent / "files")
    workshop.write(*(e for e in manifest["sources"] if e["kind"] == "directory"))
    result = workshop.run()
    assert result.status == 0, result.err


def test_an_archive_that_cannot_be_reached_hinders_no_other(
    workshop: Workshop, archive: Path
) -> None:
    one_line(archive, workshop.etc)
    (workshop.etc / "sources.list.d").mkdir()
    (workshop.etc / "sources.list.d/gone.list").write_text(
        "deb [trusted=yes] copy:/nonexistent ./\ndeb cdrom:[Debian]/ stable main\n"
    )
    workshop.write(HELLO)
    workshop.update()
    shutil.rmtree(workshop.trove)
    shutil.rmtree(workshop.root / "cache")
    shutil.rmtree(archive)
    result = workshop.run()
    assert result.status == 1
    assert "nor the lists of packages" in result.err
    assert str(archive) in result.err
