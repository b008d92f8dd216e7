"""install-files.configure and install-essential-files.configure."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphlib.errors import MorphError
from morphlib.writeexts.manifest import parse_manifest
from tests.exts.programs import EXTS, NOBODY, fail, run_in_namespace, succeed

NAME = "install-files.configure"
ME = f"{os.geteuid()} {os.getegid()}"
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")

Manifest = Callable[..., dict[str, str]]


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """Writes the lines of a manifest, in which `ME` is the own user. Gives the environment."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "files/etc").mkdir(parents=True)

    def write(*lines: str, name: str = "manifest", **files: str) -> dict[str, str]:
        text = "".join(line.replace("ME", ME) + "\n" for line in lines)
        (tmp_path / "files" / name).write_text(text)
        for file, content in files.items():
            (tmp_path / "files/etc" / file).write_text(content)
        return {"INSTALL_FILES": f"files/{name}"}

    return write


def mode_of(path: Path) -> int:
    return path.lstat().st_mode & 0o7777


@NEEDS_ROOT
def test_types_modes_and_owners(tree: Path, manifest: Manifest) -> None:
    env = manifest(
        "# what the system gets",
        "",
        "0040755 0 0 /etc",
        "0041770 5 6 /etc/dir",
        "  0104755 7 8 /etc/dir/tool  and more text",
        "0120000 9 10 /etc/link",
    )
    (tree.parent / "files/etc/dir").mkdir()
    (tree.parent / "files/etc/dir/tool").write_bytes(b"\0binary")
    (tree.parent / "files/etc/link").symlink_to("/usr/lib/../somewhere/")
    succeed(NAME, tree, env=env)

    def facts(path: str) -> tuple[int, int, int]:
        found = (tree / path).lstat()
        return found.st_mode, found.st_uid, found.st_gid

    assert facts("etc/dir") == (0o041770, 5, 6)
    assert facts("etc/dir/tool") == (0o104755, 7, 8)
    assert facts("etc/link") == (0o120777, 9, 10)
    assert (tree / "etc/dir/tool").read_bytes() == b"\0binary"
    assert os.readlink(tree / "etc/link") == "/usr/lib/../somewhere/"  # noqa: PTH115


def test_everything_that_is_wrong_is_told_with_its_line(tree: Path, manifest: Manifest) -> None:
    env = manifest(
        "0100644 ME /etc/good",
        "0100644 ME",
        "rw-r--r-- root root /etc/x",
        "0100644 ME /etc/../../x",
        "0060644 ME /etc/disk",
        "0644 ME /etc/plain",
        "0100644 4294967295 0 /etc/x",
        "template 0120000 ME /etc/x",
        "0040755 ME /",
        good="x",
    )
    assert fail(NAME, tree, env=env).splitlines() == [
        "ERROR: files/manifest:2: Invalid manifest entry, format: "
        "[template ][overwrite ]OCTALMODE UID GID PATH",
        "files/manifest:3: Invalid manifest entry, format: "
        "[template ][overwrite ]OCTALMODE UID GID PATH",
        "files/manifest:4: /etc/../../x must not have '..' in it",
        "files/manifest:5: /etc/disk is not a file, symlink or directory: "
        "0060644 has no type such as 0100644, 0120000 or 0040755",
        "files/manifest:6: /etc/plain is not a file, symlink or directory: "
        "0644 has no type such as 0100644, 0120000 or 0040755",
        "files/manifest:7: 4294967295:0 is no owner",
        "files/manifest:8: /etc/x is a symlink: only files can be templates",
        "files/manifest:9: / is the root of the system, which is there already",
    ]
    assert not list((tree / "etc").iterdir())


def test_sources_and_conflicts_are_looked_at_before_writing(tree: Path, manifest: Manifest) -> None:
    env = manifest(
        "0100644 ME /etc/good",
        "0100644 ME /etc/missing",
        "0120000 ME /etc/file",
        "0100644 ME /etc/there",
        "0120000 ME /etc/link",
        "0040700 ME /etc/dir",
        "overwrite 0100644 ME /etc/dir",
        "0100644 ME /nowhere/x",
        "0100644 ME /etc/good/x",
        "0100644 ME /etc/good",
        "template 0100644 ME /etc/bad",
        good="x",
        file="x",
        there="x",
        dir="x",
        bad="{% if %}",
    )
    (tree.parent / "files/etc/link").symlink_to("x")
    for directory in ("nowhere", "etc/good"):
        (tree.parent / "files" / directory).parent.mkdir(exist_ok=True)
    (tree / "etc/there").write_text("mine")
    (tree / "etc/link").symlink_to("mine")
    (tree / "etc/dir").mkdir(mode=0o755)
    error = fail(NAME, tree, env=env)
    for line in (
        "files/manifest:2: can't read files/etc/missing: No such file",
        "files/manifest:3: files/etc/file is no symlink",
        "files/manifest:4: File already exists at /etc/there",
        "files/manifest:5: Symlink already exists at /etc/link",
        'files/manifest:6: "/etc/dir" exists and is not identical to directory',
        "files/manifest:8: the system has no directory /nowhere for x",
        "files/manifest:9: /etc/good is a file",
        "files/manifest:10: File already exists at /etc/good",
        "files/manifest:11: files/etc/bad:1: ",
    ):
        assert line in error, line
    assert sorted(path.name for path in (tree / "etc").iterdir()) == ["dir", "link", "there"]


def test_a_file_can_not_replace_a_directory(tree: Path, manifest: Manifest) -> None:
    (tree / "etc/dir").mkdir()
    env = manifest("overwrite 0100644 ME /etc/dir", dir="x")
    assert "/etc/dir is a directory, which a file can't replace" in fail(NAME, tree, env=env)
    (tree.parent / "files/etc/link").symlink_to("x")
    (tree / "etc/link").mkdir()
    env = manifest("overwrite 0120000 ME /etc/link")
    assert "/etc/link is a directory, which a symlink can't replace" in fail(NAME, tree, env=env)


def test_overwriting(tree: Path, manifest: Manifest) -> None:
    env = manifest(
        "overwrite 0040700 ME /etc/dir",
        "overwrite 0100600 ME /etc/file",
        "overwrite 0100600 ME /etc/was-link",
        "overwrite 0100600 ME /etc/fifo",
        "overwrite 0120000 ME /etc/link",
        "overwrite 0100600 ME /etc/new",
        file="new",
        new="new",
        fifo="new",
        **{"was-link": "new"},
    )
    (tree.parent / "files/etc/link").symlink_to("new")
    (tree / "etc/dir").mkdir(mode=0o755)
    (tree / "etc/dir/kept").write_text("")
    (tree / "etc/file").write_text("old")
    (tree / "etc/target").write_text("old")
    (tree / "etc/was-link").symlink_to("target")
    os.mkfifo(tree / "etc/fifo")
    (tree / "etc/link").write_text("old")
    succeed(NAME, tree, env=env)
    assert mode_of(tree / "etc/dir") == 0o700
    assert (tree / "etc/dir/kept").exists()
    for name in ("file", "was-link", "fifo", "new"):
        assert not (tree / "etc" / name).is_symlink()
        assert (tree / "etc" / name).read_text() == "new"
        assert mode_of(tree / "etc" / name) == 0o600
    assert str((tree / "etc/link").readlink()) == "new"
    assert (tree / "etc/target").read_text() == "old"


def test_what_is_identical_is_no_conflict(tree: Path, manifest: Manifest) -> None:
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin").chmod(0o755)
    (tree / "bin").symlink_to("usr/bin")
    (tree.parent / "files/bin").mkdir()
    (tree.parent / "files/bin/tool").write_text("x")
    env = manifest("0040755 ME /bin", "0100755 ME /bin/tool")
    succeed(NAME, tree, env=env)
    assert (tree / "bin").is_symlink()
    assert (tree / "usr/bin/tool").read_text() == "x"
    # The same file by another name is a conflict within the manifest.
    (tree / "usr/bin/tool").unlink()
    (tree.parent / "files/usr/bin").mkdir(parents=True)
    (tree.parent / "files/usr/bin/tool").write_text("y")
    env = manifest("0100755 ME /bin/tool", "0100755 ME /usr/bin/tool")
    assert "files/manifest:2: File already exists at /usr/bin/tool" in fail(NAME, tree, env=env)


def test_all_variables_that_start_alike_count(tree: Path, manifest: Manifest) -> None:
    manifest("0100644 ME /etc/one", name="manifest one", one="1")
    manifest("overwrite 0100644 ME /etc/one", "0100644 ME /etc/two", name="second", two="2")
    manifest("0100644 ME /etc/three", name="third", three="3")
    env = {
        "INSTALL_FILES_B": "files/second files/third",
        "INSTALL_FILES": "'files/manifest one'",
        "INSTALL_FILES_EMPTY": "",
        "OTHER_INSTALL_FILES": "files/nothing",
    }
    succeed(NAME, tree, env=env)
    assert sorted(path.name for path in (tree / "etc").iterdir()) == ["one", "three", "two"]
    error = fail(NAME, tree, env={"INSTALL_FILES": "files/no", "INSTALL_FILES_2": "files/none"})
    assert "can't read the manifest files/no:" in error
    assert "can't read the manifest files/none:" in error
    assert "No closing quotation" in fail(NAME, tree, env={"INSTALL_FILES": "'files/manifest"})


def test_nothing_is_done_without_variables(tree: Path) -> None:
    succeed(NAME, tree)
    assert not list((tree / "etc").iterdir())


def test_templates(tree: Path, manifest: Manifest) -> None:
    env = manifest(
        "template 0100640 ME /etc/conf",
        "0100640 ME /etc/plain",
        conf="{% include 'etc/part' %}name: {{ HOSTNAME }}\n{% if NOT_SET %}no{% endif %}end\n\n",
        part="€ {{ 1 + 1 }}\n",
        plain="{{ HOSTNAME }}\n",
    )
    succeed(NAME, tree, env={**env, "HOSTNAME": "<box>"})
    assert (tree / "etc/conf").read_text() == "€ 2\nname: <box>\nend\n\n"
    assert (tree / "etc/plain").read_text() == "{{ HOSTNAME }}\n"
    assert mode_of(tree / "etc/conf") == 0o640


@pytest.mark.parametrize(
    "template",
    ["{{ 1 / 0 }}", "{% include 'etc/none' %}", "{{ x.y.z }}", "{% include '../../secret' %}"],
)
def test_templates_that_fail_are_told(tree: Path, manifest: Manifest, template: str) -> None:
    (tree.parent / "secret").write_text("x")
    env = manifest("0100644 ME /etc/a", "template 0100644 ME /etc/conf", a="", conf=template)
    assert fail(NAME, tree, env=env).startswith("ERROR: files/manifest:2: files/etc/conf")
    assert not list((tree / "etc").iterdir())


def test_a_template_that_is_no_text(tree: Path, manifest: Manifest) -> None:
    env = manifest("template 0100644 ME /etc/conf")
    (tree.parent / "files/etc/conf").write_bytes(b"\xff{{ A }}")
    assert "files/manifest:1: files/etc/conf is no UTF-8 text" in fail(NAME, tree, env=env)


def test_by_hand_with_a_python_that_has_no_jinja(tree: Path, manifest: Manifest) -> None:
    """Any other Python: the extension goes on with that of the checkout."""
    env = manifest("template 0100644 ME /etc/conf", conf="{{ A }}\n")
    done = subprocess.run(
        ["/usr/bin/python3", "-S", EXTS / NAME, tree],
        env={"PATH": os.environ["PATH"], "A": "a", **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tree / "etc/conf").read_text() == "a\n"


def test_links_do_not_lead_out(tree: Path, manifest: Manifest) -> None:
    outside = tree.parent / "outside"
    outside.mkdir()
    (outside / "file").write_text("host")
    (tree / "opt").symlink_to(outside)
    (tree / "etc/file").symlink_to(outside / "file")
    for name in ("opt/file", "opt/link", "opt/dir"):
        (tree.parent / "files" / name).parent.mkdir(exist_ok=True)
    (tree.parent / "files/opt/file").write_text("x")
    (tree.parent / "files/opt/link").symlink_to("x")
    inside = tree / str(outside).lstrip("/")
    inside.mkdir(parents=True)
    env = manifest(
        "0100644 ME /opt/file",
        "0120000 ME /opt/link",
        "0040755 ME /opt/dir",
        "overwrite 0100644 ME /etc/file",
        file="x",
    )
    succeed(NAME, tree, env=env)
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == "host"
    assert sorted(path.name for path in inside.iterdir()) == ["dir", "file", "link"]


def test_as_an_ordinary_user(users_tree: Path) -> None:
    files = users_tree.parent / "files"
    (files / "etc").mkdir(parents=True)
    for path in (files.parent, files, files / "etc"):
        path.chmod(0o755)
    (files / "etc/a").write_text("a")
    (files / "manifest").write_text("0104755 0 0 /etc/a\n")
    env = {"INSTALL_FILES": "files/manifest"}
    done = run_in_namespace(NAME, users_tree, env=env, cwd=files.parent)
    assert done.returncode == 0, done.stderr
    found = (users_tree / "etc/a").stat()
    owner = NOBODY if os.geteuid() == 0 else os.geteuid()
    assert (found.st_uid, found.st_mode) == (owner, 0o104755)
    (files / "manifest").write_text("overwrite 0100644 0 7 /etc/a\n")
    done = run_in_namespace(NAME, users_tree, env=env, cwd=files.parent)
    assert done.returncode == 1
    assert "owner 0:7 needs more subordinate ids than this user has" in done.stderr


def test_essential_files(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "install-essential-files.configure"
    monkeypatch.chdir(tree.parent)
    assert "can't read the manifest essential-files/manifest" in fail(name, tree)
    (tree.parent / "essential-files/etc").mkdir(parents=True)
    (tree.parent / "essential-files/etc/profile").write_text("{{ X }}")
    manifest = tree.parent / "essential-files/manifest"
    manifest.write_text(f"0040755 {ME} /etc\ntemplate 0100644 {ME} /etc/profile\n")
    (tree / "etc").chmod(0o755)
    succeed(name, tree, env={"X": "y", "INSTALL_FILES": "files/none"})
    assert (tree / "etc/profile").read_text() == "y"


WORDS = st.sampled_from(["template", "overwrite", "0100644", "0040755", "0", "7", "/a", "..", "#"])


@given(st.lists(st.lists(WORDS, max_size=7).map(" ".join)).map("\n".join) | st.text())
def test_any_text_is_judged(text: str) -> None:
    try:
        entries = parse_manifest(text, Path("dir/manifest"))
    except MorphError as error:
        assert all(line.startswith("dir/manifest:") for line in str(error).split("\ndir/")[:1])
    else:
        lines = text.split("\n")
        for entry in entries:
            assert entry.path == os.path.normpath(entry.path)
            assert not entry.path.startswith(("/", "."))
            assert lines[entry.line - 1].split()


@given(
    st.sets(st.sampled_from(["template", "overwrite"])),
    st.integers(0, 0o7777),
    st.integers(0, 2**32 - 2),
    st.integers(0, 2**32 - 2),
    st.lists(st.from_regex(r"[^\s/\x00]+", fullmatch=True), min_size=1, max_size=4),
)
def test_entries(flags: set[str], mode: int, uid: int, gid: int, names: list[str]) -> None:
    parts = [name for name in names if name not in (".", "..")] or ["x"]
    line = " ".join([*flags, f"010{mode:04o}", str(uid), str(gid), "/" + "/".join(parts)])
    (entry,) = parse_manifest(line, Path("m"))
    assert entry.path == "/".join(parts)
    assert (entry.mode, entry.owner) == (mode, (uid, gid))
    assert (entry.template, entry.overwrite) == ("template" in flags, "overwrite" in flags)
