"""add-config-files.configure, sshkeys.configure and nfsboot.configure."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.exts.programs import fail, succeed


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mode_of(path: Path) -> int:
    return path.lstat().st_mode & 0o7777


def test_config_files_are_copied(tree: Path, checkout: Path) -> None:
    source = checkout / "my config"
    (source / "sub/deep").mkdir(parents=True)
    (source / "sub").chmod(0o750)
    (source / ".git").write_text("")
    (source / "sub/.hidden").write_text("h")
    (source / "run.sh").write_text("new")
    (source / "run.sh").chmod(0o775)
    (source / "secret").write_text("x")
    (source / "secret").chmod(0o600)
    (source / "shadow").write_text("new")
    (source / "link").symlink_to("/run/x")
    (tree / "etc/shadow").write_text("old")
    (tree / "etc/shadow").chmod(0o600)
    (tree / "etc/link").write_text("old")
    succeed("add-config-files.configure", tree, env={"SRC_CONFIG_DIR": "my config"})
    assert sorted(str(p.relative_to(tree)) for p in tree.rglob("*")) == [
        "etc",
        "etc/link",
        "etc/run.sh",
        "etc/secret",
        "etc/shadow",
        "etc/sub",
        "etc/sub/.hidden",
        "etc/sub/deep",
    ]
    assert str((tree / "etc/link").readlink()) == "/run/x"
    assert (tree / "etc/shadow").read_text() == "new"
    modes = {name: mode_of(tree / "etc" / name) for name in ("run.sh", "secret", "shadow", "sub")}
    assert modes == {"run.sh": 0o755, "secret": 0o600, "shadow": 0o600, "sub": 0o750}


def test_config_files_do_not_lead_out(tree: Path, checkout: Path) -> None:
    outside = checkout / "outside"
    outside.mkdir()
    (outside / "file").write_text("host")
    (checkout / "config/dir").mkdir(parents=True)
    (checkout / "config/dir/file").write_text("x")
    (checkout / "config/file").write_text("x")
    (tree / "etc/dir").symlink_to(outside)
    (tree / "etc/file").symlink_to(outside / "file")
    succeed("add-config-files.configure", tree, env={"SRC_CONFIG_DIR": "config"})
    assert (outside / "file").read_text() == "host"
    assert (tree / str(outside).lstrip("/") / "file").read_text() == "x"


def test_config_files_that_can_not_be_copied(tree: Path, checkout: Path) -> None:
    name = "add-config-files.configure"
    succeed(name, tree)
    succeed(name, tree, env={"SRC_CONFIG_DIR": ""})
    assert "none is not a directory" in fail(name, tree, env={"SRC_CONFIG_DIR": "none"})
    (checkout / "config").mkdir()
    os.mkfifo(checkout / "config/fifo")
    assert "config/fifo is neither file, directory nor symlink" in fail(
        name, tree, env={"SRC_CONFIG_DIR": "config"}
    )


def test_keys_are_added(tree: Path, checkout: Path) -> None:
    (checkout / "me.pub").write_text("ssh-ed25519 AAAA me")
    (checkout / "you.pub").write_text("ssh-rsa BBBB you\n")
    env = {"SSHKEYS": " me.pub\n you.pub "}
    said = succeed("sshkeys.configure", tree, env=env)
    assert "me.pub" in said
    assert "you.pub" in said
    keys = tree / "root/.ssh/authorized_keys"
    assert keys.read_text() == "ssh-ed25519 AAAA me\nssh-rsa BBBB you\n"
    assert (mode_of(keys), mode_of(keys.parent)) == (0o600, 0o700)
    keys.write_text("ssh-rsa CCCC they")
    keys.chmod(0o640)
    keys.parent.chmod(0o755)
    succeed("sshkeys.configure", tree, env={"SSHKEYS": "me.pub"})
    assert keys.read_text() == "ssh-rsa CCCC they\nssh-ed25519 AAAA me\n"
    assert (mode_of(keys), mode_of(keys.parent)) == (0o640, 0o700)


def test_keys_that_are_none(tree: Path, checkout: Path) -> None:
    succeed("sshkeys.configure", tree)
    (checkout / "id").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n")
    error = fail("sshkeys.configure", tree, env={"SSHKEYS": "id none.pub"})
    assert "id is a private key; give the public one (id.pub)" in error
    assert "can't read none.pub: No such file" in error
    assert not (tree / "root").exists()


def test_keys_do_not_lead_out(tree: Path, checkout: Path) -> None:
    outside = checkout / "outside"
    outside.mkdir(mode=0o755)
    (tree / "root").mkdir()
    (tree / "root/.ssh").symlink_to(outside)
    (checkout / "me.pub").write_text("ssh-ed25519 AAAA me")
    succeed("sshkeys.configure", tree, env={"SSHKEYS": "me.pub"})
    assert not list(outside.iterdir())
    assert mode_of(outside) == 0o755
    assert (tree / str(outside).lstrip("/") / "authorized_keys").is_file()


def test_nfsboot_leaves_the_network_alone(tree: Path) -> None:
    succeed("nfsboot.configure", tree)
    succeed("nfsboot.configure", tree, env={"NFSBOOT_CONFIGURE": ""})
    assert not (tree / "etc/network").exists()
    (tree / "etc/network").mkdir()
    (tree / "etc/network/interfaces").write_text("auto eth0\niface eth0 inet dhcp\n")
    succeed("nfsboot.configure", tree, env={"NFSBOOT_CONFIGURE": "True"})
    expected = "auto lo\niface lo inet loopback\n"
    assert (tree / "etc/network/interfaces").read_text() == expected


def test_sshkeys_are_files(tree: Path, tmp_path: Path) -> None:
    """Reading something else may never end."""
    os.mkfifo(tmp_path / "pipe")
    said = fail("sshkeys.configure", tree, env={"SSHKEYS": f"/dev/zero {tmp_path}/pipe"})
    assert "/dev/zero is no file" in said
    assert "pipe is no file" in said
    assert not (tree / "root").exists()
