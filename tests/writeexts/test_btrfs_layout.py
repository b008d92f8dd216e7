"""Disk images that are made by mounting them: as root, with loop devices."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from morphlib.errors import MorphError
from morphlib.writeexts import boot, btrfs_layout, diskimage
from morphlib.writeexts.fstabfile import Fstab

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not diskimage.check_for_btrfs_in_deployment_host_kernel(),
    reason="only root can mount images, and only where the kernel knows btrfs",
)


@pytest.fixture(autouse=True)
def parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot, "_SETTLING", 0.0)
    for name in ("INITRAMFS_PATH", "DTB_PATH", "ROOT_DEVICE", "KERNEL_ARGS", "BOOTLOADER_INSTALL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISK_SIZE", "64M")
    monkeypatch.setenv("BOOTLOADER_CONFIG_FORMAT", "extlinux")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name in ("etc", "boot", "root/.ssh", "usr/share/syslinux", "var/lib"):
        (root / name).mkdir(parents=True)
    (root / "etc/fstab").write_text("LABEL=data /srv ext4 defaults 0 2\n")
    (root / "etc/fstab").chmod(0o640)
    (root / "root").chmod(0o700)
    (root / "root/.ssh/authorized_keys").write_text("key")
    (root / "boot/vmlinuz-5").write_text("the kernel")
    (root / "boot/vmlinuz").symlink_to("/boot/vmlinuz-5")
    (root / "boot/initrd").write_text("the initramfs")
    (root / "boot/board.dtb").write_text("the device tree")
    (root / "usr/share/syslinux/menu.c32").write_text("the menu")
    os.chown(root / "var/lib", 5, 6)
    os.mknod(root / "node", 0o60600, os.makedev(7, 7))
    os.setxattr(root / "etc/fstab", "user.note", b"kept")
    return root


def make(tree: Path, image: Path) -> None:
    btrfs_layout.create_local_system(str(tree), str(image))


def is_subvolume(path: Path) -> bool:
    return path.stat().st_ino == 256


def test_layout(tree: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "image"
    make(tree, image)
    assert image.stat().st_size == 64 << 20
    uuid = diskimage.get_uuid(image)
    with diskimage.mount(image) as name:
        point = Path(name)
        factory = point / "systems/factory"
        assert (point / "systems/default").readlink() == Path("factory")
        for subvolume in ("orig", "run"):
            assert is_subvolume(factory / subvolume)
            fstab = factory / subvolume / "etc/fstab"
            assert f"UUID={uuid}  / btrfs" in fstab.read_text()
            assert "state/srv" not in fstab.read_text()
            assert fstab.stat().st_mode & 0o7777 == 0o640
            assert (factory / subvolume / "node").stat().st_rdev == os.makedev(7, 7)
            assert list((factory / subvolume / "root").iterdir()) == []
            for mount_point in ("home", "root", "opt", "var"):
                assert (factory / subvolume / mount_point).is_dir()
        assert sorted(os.listdir(point / "state")) == ["home", "opt", "root", "var"]
        assert all(is_subvolume(path) for path in (point / "state").iterdir())
        assert (point / "state/root/.ssh/authorized_keys").read_text() == "key"
        assert (point / "state/root").stat().st_mode & 0o7777 == 0o700
        assert (point / "state/home").stat().st_mode & 0o7777 == 0o755
        assert (point / "state/var/lib").stat().st_uid == 5
        assert (factory / "kernel").read_text() == "the kernel"
        assert not (factory / "initramfs").exists()
        assert (point / "menu.c32").read_text() == "the menu"
        assert (point / "ldlinux.c32").exists()
        assert (point / "extlinux.conf").read_text() == (
            "default linux\ntimeout 1\nlabel linux\nkernel /systems/default/kernel\n"
            "append rw init=/sbin/init rootfstype=btrfs "
            "rootflags=subvol=systems/default/run root=/dev/sda\n"
        )
    assert not point.exists()
    assert b"SYSLINUX" in image.read_bytes()[:4096]
    assert "Creating empty disk image\n" in capfd.readouterr().out


def test_initramfs_and_dtb(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INITRAMFS_PATH", "boot/initrd")
    monkeypatch.setenv("DTB_PATH", "boot/board.dtb")
    monkeypatch.setenv("KERNEL_ARGS", " console=ttyS0 ")
    monkeypatch.setenv("BOOTLOADER_INSTALL", "none")
    make(tree, tmp_path / "image")
    with diskimage.mount(tmp_path / "image") as name:
        point = Path(name)
        assert (point / "systems/default/initramfs").read_text() == "the initramfs"
        assert (point / "systems/default/dtb").read_text() == "the device tree"
        assert not (point / "ldlinux.c32").exists()
        config = (point / "extlinux.conf").read_text()
    uuid = diskimage.get_uuid(tmp_path / "image")
    assert "\ninitrd /systems/default/initramfs\ndevicetree /systems/default/dtb\n" in config
    assert config.endswith(f" root=UUID={uuid} console=ttyS0\n")


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("INITRAMFS_PATH", "boot/none", "INITRAMFS_PATH specified, but file does not exist"),
        ("INITRAMFS_PATH", "../outside", "INITRAMFS_PATH specified, but file does not exist"),
        ("DTB_PATH", "boot/none", "Failed to find device tree boot/none"),
        ("KERNEL_ARGS", "a\nb", "have to be one line"),
        ("DISK_SIZE", "1M", "mkfs.btrfs"),
        ("DISK_SIZE", "", "DISK_SIZE is not defined"),
    ],
)
def test_nothing_stays_of_a_failure(
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    problem: str,
) -> None:
    (tmp_path / "outside").write_text("of the host")
    monkeypatch.setenv(variable, value)
    with pytest.raises(MorphError, match=problem):
        make(tree, tmp_path / "image")
    assert not (tmp_path / "image").exists()
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert str(tmp_path) not in subprocess.check_output(["losetup", "-a"], text=True)


def test_what_is_there_is_not_overwritten(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "image").write_text("mine")
    with pytest.raises(MorphError, match="File exists"):
        make(tree, tmp_path / "image")
    assert (tmp_path / "image").read_text() == "mine"


def test_a_block_device(tree: Path, tmp_path: Path) -> None:
    backing = tmp_path / "backing"
    diskimage.create_raw_disk_image(backing, 64 << 20)
    device = subprocess.check_output(["losetup", "-f", "--show", backing], text=True).strip()
    try:
        assert diskimage.is_device(device)
        make(tree, Path(device))
        with diskimage.mount(device) as point:
            assert Path(point, "systems/default/kernel").read_text() == "the kernel"
    finally:
        subprocess.run(["losetup", "-d", device], check=True)
    assert not diskimage.is_device(backing)
    assert not diskimage.is_device(tmp_path / "none")


def test_links_in_the_system_do_not_lead_out(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("of the host")
    (tree / "etc/fstab").unlink()
    (tree / "etc/fstab").symlink_to(outside / "fstab")
    (tree / "boot/vmlinuz").unlink()
    (tree / "boot/vmlinuz").symlink_to(outside / "secret")
    (tree / "opt").symlink_to(outside)
    make(tree, tmp_path / "image")
    assert os.listdir(outside) == ["secret"]
    with diskimage.mount(tmp_path / "image") as point:
        assert not Path(point, "systems/factory/kernel").exists()


def test_what_can_not_be_mounted_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "image").write_bytes(bytes(1 << 20))
    with pytest.raises(MorphError, match="mount"), diskimage.mount(tmp_path / "image"):
        pass
    assert "Error mounting filesystem" in capfd.readouterr().err
    with pytest.raises(MorphError, match="blkid"):
        diskimage.get_uuid(tmp_path / "image")


def test_labels_do_not_lead_out(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(MorphError, match="is no label of a version"):
        btrfs_layout.create_btrfs_system_layout(str(tree), str(tmp_path), "../x", None)


def test_a_table_can_be_changed_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "fstab"
    path.write_text("/dev/sda / ext4")
    path.chmod(0o640)
    table = Fstab(str(path))
    assert table.get_mounts() == {"/": "/dev/sda"}
    table.add_line("/dev/sdb /srv ext4")
    assert path.read_text() == "/dev/sda / ext4"
    table.write()
    assert path.read_text() == "/dev/sda / ext4\n/dev/sdb /srv ext4\n"
    assert path.stat().st_mode & 0o7777 == 0o640
    assert Fstab(path).get_mounts() == {"/": "/dev/sda", "/srv": "/dev/sdb"}
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(MorphError, match="is a symlink"):
        Fstab(tmp_path / "link")
    Fstab(tmp_path / "new").write()
    assert (tmp_path / "new").read_text() == ""
