"""Images for containers, read back here and by those that use them."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.exts.ociimages import Image, apply_layers, read_image
from tests.exts.programs import fail, run_in_namespace, succeed
from tests.mounting import needs_root

BUSYBOX = "/bin/busybox"


def make(root: Path, files: Mapping[str, str | None]) -> Path:
    """A tree of files with these contents, and directories (None)."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir(exist_ok=True)
        else:
            path.write_text(content)
    return root


class Parts:
    """Two strata, the system that they make, and where these are."""

    def __init__(self, top: Path) -> None:
        self.top = top
        core = make(
            top / "core",
            {"etc/passwd": "root", "bin/sh": "#!", "lib/a": "a", "gone/x": "", "gone/y": ""},
        )
        os.link(core / "lib/a", core / "lib/b")
        (core / "dev").mkdir()
        (core / "dev/null").touch()
        make(top / "more", {"lib/more": "more", "lib/a": "other", "late": None})
        (top / "more/late").chmod(0o700)
        self.tree = top / "tree"
        # As overlays are: a name that another stratum replaced is a file of its own.
        for part in ("core", "more"):
            shutil.copytree(
                top / part, self.tree, symlinks=True, dirs_exist_ok=True, copy_function=_replace
            )
        node = {"mode": stat.S_IFCHR | 0o666, "uid": 0, "gid": 5, "major": 1, "minor": 3}
        self.devices = {"dev/null": node}
        (top / "devices").write_text(json.dumps(self.devices))

    @property
    def environment(self) -> dict[str, str]:
        strata: list[dict[str, Any]] = [
            {"stratum": "core", "trees": [self._tree("core", self.devices)]},
            {"stratum": "more", "trees": [self._tree("more", {})]},
        ]
        (self.top / "layers").write_text(json.dumps(strata))
        return {
            "MORPH_LAYERS": str(self.top / "layers"),
            "MORPH_DEVICE_TABLE": str(self.top / "devices"),
        }

    def _tree(self, name: str, devices: object) -> dict[str, object]:
        return {"root": str(self.top / name), "has-top": name == "core", "devices": devices}

    def write(self, name: str, **environment: str) -> Image:
        target = self.top / name
        succeed("oci.write", self.tree, target, env={**self.environment, **environment})
        return read_image(target)


def _replace(source: str, target: str) -> None:
    Path(target).unlink(missing_ok=True)
    shutil.copy2(source, target, follow_symlinks=False)


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path)


def test_each_stratum_is_a_layer(parts: Parts) -> None:
    make(parts.tree, {"etc/hostname": "me"})
    (parts.tree / "lib/more").unlink()
    os.link(parts.tree / "lib/b", parts.tree / "lib/more")
    image = parts.write("x.oci")
    assert image.steps == ["stratum core", "stratum more", "integration and configuration"]
    assert {"etc/passwd", "lib/a", "lib/b", "dev/null"} <= image.names(0)
    assert image.names(1) == {"lib", "lib/more", "lib/a", "late"}
    assert {layer["mediaType"] for layer in image.manifest["layers"]} == {
        "application/vnd.oci.image.layer.v1.tar+gzip"
    }
    # Both names of a file with two are there, or they would be two files.
    assert image.names(2) == {"etc", "etc/hostname", "lib", "lib/b", "lib/more"}


def test_what_was_configured_is_on_top(parts: Parts) -> None:
    tree = parts.tree
    shutil.rmtree(tree / "gone")
    (tree / "gone").write_text("now a file")
    (tree / "lib/more").unlink()
    (tree / "etc/passwd").write_text("ROOT")
    (tree / "bin/sh").chmod(0o4755)
    (tree / "late").rmdir()
    make(tree, {"late": "x", "etc/new/deep": "deep"})
    (tree / "link").symlink_to("/etc/passwd")
    plain = parts.write("x.oci")
    assert plain.names(2) == {
        *("gone", "lib", "lib/.wh.more", "etc", "etc/passwd", "bin", "bin/sh", "late"),
        *("etc/new", "etc/new/deep", "link"),
    }
    found = apply_layers(plain)
    assert found["etc/passwd"][4] == b"ROOT"
    assert found["bin/sh"][1] == 0o4755
    assert found["link"][4] == "/etc/passwd"
    assert found["dev/null"] == ("device", 0o666, 0, 5, os.makedev(1, 3))
    assert set(found) == {
        str(path.relative_to(tree)) if path != tree else "." for path in (tree, *tree.rglob("*"))
    }


def test_an_unchanged_system_has_no_layer_on_top(parts: Parts) -> None:
    os.utime(parts.tree / "etc/passwd", (1, 1))
    assert parts.write("x.oci").steps == ["stratum core", "stratum more"]


def test_systems_share_layers(parts: Parts) -> None:
    """Also if another time has passed, and another system is called otherwise."""
    make(parts.tree, {"etc/hostname": "one"})
    first = parts.write("a.oci")
    make(parts.tree, {"etc/hostname": "other"})
    other = parts.write("b.oci", OCI_NAME="other", OCI_CMD="/bin/true")
    assert first.digests[:2] == other.digests[:2]
    assert first.digests[2] != other.digests[2]


def test_equal_systems_give_equal_bytes(parts: Parts, tmp_path: Path) -> None:
    parts.write("a.oci")
    twin = Parts(tmp_path / "twin")
    twin.write("b.oci")
    for path in twin.tree.rglob("*"):
        os.utime(path, follow_symlinks=False)
    twin.write("c.oci")
    whole = (tmp_path / "a.oci").read_bytes()
    assert (tmp_path / "twin/b.oci").read_bytes() == whole
    assert (tmp_path / "twin/c.oci").read_bytes() == whole


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_compression(parts: Parts, compression: str) -> None:
    image = parts.write("x.oci", OCI_COMPRESSION=compression)
    suffix = "" if compression == "none" else f"+{compression}"
    assert all(layer["mediaType"].endswith(f".tar{suffix}") for layer in image.manifest["layers"])
    assert apply_layers(image)["lib/a"][4] == b"other"


def test_a_system_without_layers_is_one(tree: Path, tmp_path: Path) -> None:
    (tree / "etc/x").write_text("x")
    succeed("oci.write", tree, tmp_path / "x.oci")
    image = read_image(tmp_path / "x.oci")
    assert image.steps == ["system"]
    assert image.names(0) == {".", "etc", "etc/x"}
    assert image.annotations == {"org.opencontainers.image.ref.name": "system"}
    assert image.config["config"]["Cmd"] == ["/sbin/init"]
    assert image.config["created"] == "1991-08-24T23:00:00Z"


def test_configuration(parts: Parts) -> None:
    make(parts.tree, {"baserock/deployment.meta": '{"system-artifact-name": "My_Web-rootfs"}'})
    image = parts.write("x.oci")
    assert image.annotations["org.opencontainers.image.ref.name"] == "my-web"
    assert image.config["os"] == "linux"
    assert image.config["config"]["Cmd"] == ["/bin/sh"]
    assert image.config["config"]["Labels"] == {"org.opencontainers.image.title": "My_Web"}
    image = parts.write(
        "x.oci",
        OCI_NAME="example.com:5000/web/app:1.2",
        OCI_ENTRYPOINT="['/bin/sh', '-c', 'echo a b']",
        OCI_ENV="A='b c' PATH=/bin",
        OCI_LABELS="{'vendor': 'me', 'n': 1}",
        OCI_USER="7:8",
        OCI_WORKDIR="/srv",
        OCI_ARCHITECTURE="arm/v7",
        SOURCE_DATE_EPOCH="86400",
    )
    assert image.annotations["org.opencontainers.image.ref.name"] == "example.com:5000/web/app:1.2"
    assert (image.config["architecture"], image.config["variant"]) == ("arm", "v7")
    assert image.config["created"] == "1970-01-02T00:00:00Z"
    assert image.config["config"] == {
        "Entrypoint": ["/bin/sh", "-c", "echo a b"],
        "Env": ["PATH=/bin", "A=b c"],
        "Labels": {"org.opencontainers.image.title": "My_Web", "vendor": "me", "n": "1"},
        "User": "7:8",
        "WorkingDir": "/srv",
    }


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OCI_NAME", "No Name", "OCI_NAME No Name can't be the name of an image"),
        ("OCI_ENV", "A", "OCI_ENV has NAME=VALUE in it, not 'A'"),
        ("OCI_CMD", "'x", "Cannot parse OCI_CMD value 'x"),
        ("OCI_CMD", "[x", "Cannot parse OCI_CMD value [x"),
        ("OCI_WORKDIR", "srv", "OCI_WORKDIR srv does not start with /"),
        ("OCI_COMPRESSION", "xz", "Invalid OCI_COMPRESSION xz (known: gzip, zstd, none)"),
        ("SOURCE_DATE_EPOCH", "now", "SOURCE_DATE_EPOCH is a number of seconds"),
        ("UPGRADE", "yes", "Cannot upgrade an OCI image"),
    ],
)
def test_what_makes_no_sense_is_refused_early(
    name: str, value: str, said: str, tmp_path: Path
) -> None:
    assert said in fail("oci.check", tmp_path / "x", env={name: value})


def test_files_that_look_like_whiteouts_are_refused(tree: Path, tmp_path: Path) -> None:
    (tree / "etc/.wh.x").write_text("")
    (tmp_path / "x.oci").write_text("before")
    assert "a file /etc/.wh.x" in fail("oci.write", tree, tmp_path / "x.oci")
    assert (tmp_path / "x.oci").read_text() == "before"
    assert {path.name for path in tmp_path.iterdir()} == {"tree", "x.oci"}


@pytest.mark.parametrize("name", ["oci", "squashfs", "ext4"])
def test_a_directory_is_refused_early(name: str, tmp_path: Path) -> None:
    assert str(tmp_path) in fail(f"{name}.check", tmp_path)


def test_a_bad_table_is_told(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "layers").write_text('[{"trees": 1}]')
    said = fail("oci.write", tree, tmp_path / "x", env={"MORPH_LAYERS": str(tmp_path / "layers")})
    assert f"table of layers {tmp_path}/layers can't be read" in said


def test_an_ordinary_user_gets_owners_and_devices(users_tree: Path) -> None:
    (users_tree / "null").touch()
    node = {"mode": stat.S_IFCHR | 0o666, "uid": 0, "gid": 5, "major": 1, "minor": 3}
    table = users_tree.with_name("devices")
    table.write_text(json.dumps({"null": node}))
    target = users_tree.with_name("x.oci")
    done = run_in_namespace("oci.write", users_tree, target, env={"MORPH_DEVICE_TABLE": str(table)})
    assert done.returncode == 0, done.stderr
    found = apply_layers(read_image(target))
    assert found["etc"][2:4] == (0, 0)
    assert found["null"] == ("device", 0o666, 0, 5, os.makedev(1, 3))


def test_skopeo_knows_the_image(parts: Parts) -> None:
    image = parts.write("x.oci", OCI_COMPRESSION="zstd")
    said = subprocess.run(
        ["skopeo", "inspect", f"oci-archive:{parts.top}/x.oci"], capture_output=True, check=True
    ).stdout
    assert json.loads(said)["Layers"] == image.digests
    copied = parts.top / "copied"
    subprocess.run(
        ["skopeo", "--insecure-policy", "copy", f"oci-archive:{parts.top}/x.oci", f"dir:{copied}"],
        check=True,
    )
    assert (copied / image.digests[0].removeprefix("sha256:")).is_file()


@pytest.fixture
def podman() -> Iterator[list[str]]:
    """The command with a storage of its own."""
    top = Path(tempfile.mkdtemp(prefix="morph-podman-"))
    command = ["podman", "--storage-driver", "vfs", "--events-backend", "none"]
    command += ["--cgroup-manager", "cgroupfs", "--root", str(top / "root")]
    yield [*command, "--runroot", str(top / "run"), "--tmpdir", str(top / "tmp")]
    shutil.rmtree(top)


@needs_root
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_podman_loads_the_image(parts: Parts, podman: list[str], compression: str) -> None:
    shutil.rmtree(parts.tree / "gone")
    (parts.tree / "dev/null").unlink()
    os.mknod(parts.tree / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.chown(parts.tree / "dev/null", 0, 5)
    (parts.tree / "dev/null").chmod(0o666)
    os.chown(parts.tree / "etc/passwd", 70, 80)
    os.setxattr(parts.tree / "etc/passwd", "user.note", b"\xff\0note")
    environment = parts.environment
    del environment["MORPH_DEVICE_TABLE"]
    environment.update(OCI_NAME="web:1.2", OCI_COMPRESSION=compression)
    succeed("oci.write", parts.tree, parts.top / "x.oci", env=environment)

    def run(*arguments: str) -> str:
        done = subprocess.run([*podman, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert run("load", "--input", f"{parts.top}/x.oci") == "Loaded image: localhost/web:1.2"
    mounted = Path(run("image", "mount", "localhost/web:1.2"))
    try:
        assert _listing(mounted) == _listing(parts.tree)
        assert os.getxattr(mounted / "etc/passwd", "user.note") == b"\xff\0note"
        assert (mounted / "etc/passwd").read_text() == "root"
    finally:
        run("image", "umount", "localhost/web:1.2")


def _listing(root: Path) -> dict[str, tuple[int, int, int, int]]:
    return {
        str(path.relative_to(root)): (found.st_mode, found.st_uid, found.st_gid, found.st_rdev)
        for path in root.rglob("*")
        for found in [path.lstat()]
    }
