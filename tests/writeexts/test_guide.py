"""The extensions in docs/extensions.md do what the text says: taken from it and run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

from morphlib.writeexts import diskimage

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/extensions.md").read_text()
BLOCKS = re.findall(r"^```(?:python|sh)\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)
NAMES = ("motd.configure", "tgz.write", "issue.configure", "oldstyle.write")


@pytest.fixture
def extensions(tmp_path: Path) -> Path:
    directory = tmp_path / "extensions"
    directory.mkdir()
    for name, text in zip(NAMES, BLOCKS, strict=True):
        (directory / name).write_text(text)
        (directory / name).chmod(0o755)
    (directory / "tgz.check").symlink_to("tgz.write")
    (tmp_path / "tree/etc").mkdir(parents=True)
    return directory


def run(program: Path, *args: Path | str, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **env}
    return subprocess.run(
        [program, *args], env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_the_first_one(extensions: Path) -> None:
    tree = extensions.parent / "tree"
    assert run(extensions / "motd.configure", tree).returncode == 0
    assert not list((tree / "etc").iterdir())
    assert run(extensions / "motd.configure", tree, MOTD="Hello").returncode == 0
    assert (tree / "etc/motd").read_text() == "Hello\n"
    assert "Wrong number of command line args" in run(extensions / "motd.configure").stderr


def test_the_one_with_everything(extensions: Path) -> None:
    tree, location = extensions.parent / "tree", extensions.parent / "out/x.tgz"
    (tree / "dev").mkdir()
    (tree / "dev/console").write_text("")
    (tree / "etc/motd").write_text("Hello\n")
    table = extensions.parent / "table"
    device = {"mode": 0o20620, "uid": 0, "gid": 5, "major": 5, "minor": 1}
    table.write_text(json.dumps({"dev/console": device}))
    done = run(extensions / "tgz.check", location, UPGRADE="no")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = run(extensions / "tgz.write", tree, location, MORPH_DEVICE_TABLE=str(table))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"Compressing the system to {location}\n"
    with tarfile.open(location) as tar:
        assert tar.getnames() == [
            "system",
            *(f"system/{name}" for name in ("dev", "dev/console", "etc", "etc/motd")),
        ]
        node = tar.getmember("system/dev/console")
        assert node.ischr()
        assert (node.mode, node.gid, node.devmajor, node.devminor) == (0o620, 5, 5, 1)
    first = location.read_bytes()
    run(extensions / "tgz.write", tree, location, MORPH_DEVICE_TABLE=str(table))
    assert location.read_bytes() == first
    assert os.listdir(location.parent) == ["x.tgz"]


def test_what_the_one_with_everything_refuses(extensions: Path) -> None:
    check = extensions / "tgz.check"
    for env, message in (
        ({"UPGRADE": "yes"}, "A compressed tar file can't be upgraded."),
        ({"TGZ_LEVEL": "x"}, "Cannot parse TGZ_LEVEL value x"),
        ({"TGZ_LEVEL": "10"}, "TGZ_LEVEL is 0 to 9, not 10"),
    ):
        done = run(check, "x.tgz", **env)
        assert (done.returncode, done.stderr) == (1, f"ERROR: {message}\n")
    assert "is a directory" in run(check, extensions).stderr


def test_help_is_made(extensions: Path) -> None:
    shown = run(extensions / "tgz.write", "--help").stdout
    assert shown.startswith("Write the system to a compressed tar file.\n")
    assert "TGZ_LEVEL (default: 6)" in shown
    file = run(extensions / "tgz.write", "--help-file").stdout
    assert yaml.safe_load(file)["help"] == shown


def test_the_one_in_shell(extensions: Path) -> None:
    tree = extensions.parent / "tree"
    log = extensions.parent / "log"
    # Some shells know descriptors of one digit only.
    script = 'exec 3>"$1"; shift; exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", log, extensions / "issue.configure", tree],
        env={"PATH": os.environ["PATH"], "ISSUE": "hi", "MORPH_LOG_FD": "3"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "Writing /etc/issue\n"
    assert log.read_text() == "it says: hi\n"
    assert (tree / "etc/issue").read_text() == "hi\n"


@pytest.mark.skipif(
    os.geteuid() != 0 or not diskimage.check_for_btrfs_in_deployment_host_kernel(),
    reason="only root can mount images, and only where the kernel knows btrfs",
)
def test_the_old_one(extensions: Path) -> None:
    tree, image = extensions.parent / "tree", extensions.parent / "image"
    program = extensions / "oldstyle.write"
    assert run(program, tree).stderr == "ERROR: Wrong number of command line args\n"
    assert run(program, tree, image).stderr == "ERROR: DISK_SIZE is not defined\n"
    assert run(program, tree, image, UPGRADE="1").stderr == "ERROR: This can't be upgraded\n"
    assert not image.exists()
    env = {"DISK_SIZE": "64M", "BOOTLOADER_INSTALL": "none"}
    done = run(program, tree, image, **env)
    assert done.returncode == 0, done.stderr
    assert f"Disk image has been created at {image}\n" in done.stdout
    with diskimage.mount(image) as point:
        assert Path(point, "systems/default/run/etc/fstab").is_file()


def test_all_old_names_stand_in_the_guide() -> None:
    from tests.writeexts.test_names import OLD

    assert [name for name in OLD if name not in GUIDE] == []
