"""Systems as virtual machines of libvirt."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

from morphlib.images.btrfs.reader import Image
from tests.exts.libvirtbox import run_libvirt_box
from tests.exts.programs import EXTS, fail, run_extension, succeed
from tests.sshd import DEAD, HOST, Sshd, run_sshd

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for the mounts of the host")
SETTINGS = {
    "DISK_SIZE": "64M",
    "RAM_SIZE": "128M",
    "NIC_CONFIG": "user",
    "BOOTLOADER_INSTALL": "none",
    "BOOTLOADER_CONFIG_FORMAT": "extlinux",
    "MORPH_SYSTEM_KEY": "0" * 64,
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with run_libvirt_box(tmp_path_factory.mktemp("box")) as sshd:
        yield sshd


@pytest.fixture
def box(running: Sshd) -> Iterator[Sshd]:
    yield running
    for path in running.commands.iterdir():
        path.unlink()
    for name in machines(running):
        running.login("virsh", "destroy", name, check=False)
        running.login("virsh", "undefine", name)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


@pytest.fixture
def tree(bootable_tree: Path) -> Path:
    return bootable_tree


def environment(box: Sshd, **more: str) -> dict[str, str]:
    return {**SETTINGS, "PATH": box.env["PATH"], **more}


def location(images: Path, guest: str = "web") -> str:
    return f"kvm+ssh://{HOST}/{guest}{images}/{guest}.img"


def machines(box: Sshd) -> list[str]:
    return box.login("virsh", "list", "--all", "--name").split()


def described(box: Sshd, guest: str = "web") -> ElementTree.Element:
    return ElementTree.fromstring(box.login("virsh", "dumpxml", guest))


@needs_root
def test_new_machine(box: Sshd, tree: Path, images: Path, tmp_path: Path) -> None:
    succeed("kvm.check", location(images), env=environment(box))
    assert not list(images.iterdir())
    env = environment(box, VCPUS="2", TMPDIR=str(tmp_path))
    printed = succeed("kvm.write", tree, location(images), env=env)
    assert "Virtual machine web has been created" in printed
    assert box.login("virsh", "domstate", "web").strip() == "shut off"
    assert "Autostart:      disable" in box.login("virsh", "dominfo", "web")
    xml = described(box)
    assert xml.findtext("memory") == str(128 << 10)
    assert xml.findtext("vcpu") == "2"
    (disk,) = xml.findall("devices/disk")
    assert disk.find("source").get("file") == str(images / "web.img")  # type: ignore[union-attr]
    assert disk.find("driver").get("type") == "raw"  # type: ignore[union-attr]
    target = disk.find("target")
    assert target is not None
    assert target.get("bus") in ("ide", "sata")
    (nic,) = xml.findall("devices/interface")
    assert nic.get("type") == "user"
    (image,) = images.iterdir()
    assert image.stat().st_size == 64 << 20
    assert image.stat().st_blocks * 512 < 32 << 20
    with Image(image) as content:
        assert b" root=/dev/sda" in content.read_file("extlinux.conf")
        assert content.read_file("systems/default/run/etc/hostname") == b"web\n"
    assert {path.name for path in tmp_path.iterdir()} == {"images", "tree"}


@needs_root
def test_start_with_everything(box: Sshd, tree: Path, images: Path) -> None:
    for name in ("a b.img", "c.img"):
        with (images / name).open("wb") as file:
            file.truncate(1 << 20)
    box.login("virsh", "net-start", "lan")
    env = environment(
        box,
        AUTOSTART="yes",
        ATTACH_DISKS=f"{images}/a b.img:{images}/c.img",
        NIC_CONFIG="user,model=virtio user,mac=52:54:00:12:34:56",
    )
    succeed("kvm.write", tree, location(images), env=env)
    box.login("virsh", "net-destroy", "lan")
    assert box.login("virsh", "domstate", "web").strip() == "running"
    assert "Autostart:      enable" in box.login("virsh", "dominfo", "web")
    xml = described(box)
    sources = [source.get("file") for source in xml.findall("devices/disk/source")]
    assert sources == [f"{images}/web.img", f"{images}/a b.img", f"{images}/c.img"]
    models = [model.get("type") for model in xml.findall("devices/interface/model")]
    assert models[0] == "virtio"
    addresses = [mac.get("address") for mac in xml.findall("devices/interface/mac")]
    assert addresses[1] == "52:54:00:12:34:56"


@needs_root
def test_firmware(box: Sshd, images: Path, tree: Path) -> None:
    """A machine whose disk is for UEFI must not look for a BIOS's boot loader."""
    printed = run_extension(
        "kvm.write",
        tree,
        location(images),
        env=environment(box, BOOTLOADER_INSTALL="grub-efi", DISK_SIZE="256M", MORPH_ARCH="x86_64"),
    )
    assert printed.returncode == 0, printed.stderr
    assert described(box).find("os").get("firmware") == "efi"  # type: ignore[union-attr]


@needs_root
@pytest.mark.parametrize(
    ("command", "script", "autostart"),
    [
        ("virt-install", "echo no machine >&2; exit 1", "no"),
        ("virt-install", '/usr/bin/virt-install "$@"; exit 1', "no"),
        ("virt-install", '/usr/bin/virt-install "$@"; exit 1', "yes"),
        ("dd", "echo no room >&2; exit 1", "no"),
        ("sha256sum", "echo 0", "no"),
    ],
)
def test_failures_leave_nothing(
    box: Sshd, tree: Path, images: Path, command: str, script: str, autostart: str
) -> None:
    box.add_command(command, script)
    env = environment(box, AUTOSTART=autostart)
    done = run_extension("kvm.write", tree, location(images), env=env)
    assert done.returncode == 1
    assert ("Error deploying to libvirt" in done.stderr) == (command == "virt-install")
    assert "ERROR: " in done.stderr
    assert not list(images.iterdir())
    assert machines(box) == []


@needs_root
def test_a_machine_that_can_not_start(box: Sshd, tree: Path, images: Path) -> None:
    env = environment(box, AUTOSTART="yes", NIC_CONFIG="bridge=morph-none0")
    done = run_extension("kvm.write", tree, location(images), env=env)
    assert done.returncode == 1
    assert "morph-none0" in done.stderr
    assert not list(images.iterdir())
    assert machines(box) == []


@needs_root
def test_a_machine_that_can_not_start_with_the_host(box: Sshd, tree: Path, images: Path) -> None:
    script = 'case $* in *" autostart "*) exit 1;; esac\nexec /usr/bin/virsh "$@"'
    box.add_command("virsh", script)
    env = environment(box, AUTOSTART="yes")
    assert run_extension("kvm.write", tree, location(images), env=env).returncode == 1
    assert not list(images.iterdir())
    assert machines(box) == []


@needs_root
def test_interrupted(box: Sshd, tree: Path, images: Path, tmp_path: Path) -> None:
    box.add_command("virt-install", f"touch {tmp_path}/begun; sleep 2; exit 1")
    child = subprocess.Popen(
        [EXTS / "kvm.write", tree, location(images)],
        env=environment(box),
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    child.terminate()
    assert child.wait() == -15
    assert not list(images.iterdir())


@needs_root
def test_what_is_there_stays(box: Sshd, tree: Path, images: Path) -> None:
    succeed("kvm.write", tree, location(images), env=environment(box))
    before = (images / "web.img").stat()
    for name, args in (("check", []), ("write", [tree])):
        errors = fail(f"kvm.{name}", *args, location(images), env=environment(box))
        assert f"{images}/web.img already exists on testbox" in errors
        other = location(images) + "2"
        errors = fail(f"kvm.{name}", *args, other, env=environment(box))
        assert "Host testbox already has a VM named web" in errors
    assert (images / "web.img").stat() == before
    assert machines(box) == ["web"]


@needs_root
def test_a_machine_of_that_name_that_somebody_makes_meanwhile_stays(
    box: Sshd, tree: Path, images: Path
) -> None:
    """The undoing knows our machine by its disk."""
    other = images / "other.img"
    other.write_bytes(bytes(1 << 20))
    box.add_command(
        "virt-install",
        "/usr/bin/virt-install --import --name web --os-variant generic --memory 64 "
        f"--disk path={other} --network user --noreboot --noautoconsole; exit 1",
    )
    assert run_extension("kvm.write", tree, location(images), env=environment(box)).returncode == 1
    assert machines(box) == ["web"]
    assert list(images.iterdir()) == [other]


@needs_root
def test_networks(box: Sshd, images: Path) -> None:
    errors = fail("kvm.check", location(images), env=environment(box, NIC_CONFIG="network=lan"))
    assert "Network 'lan' is not started" in errors
    assert "virsh net-start lan" in errors
    box.login("virsh", "net-start", "lan")
    succeed("kvm.check", location(images), env=environment(box, NIC_CONFIG="network=lan user"))
    box.login("virsh", "net-destroy", "lan")
    errors = fail("kvm.check", location(images), env=environment(box, NIC_CONFIG=""))
    assert "default" in errors
    box.add_command(
        "virsh", 'case $* in *net-info*) echo hello; exit;; esac\nexec /usr/bin/virsh "$@"'
    )
    errors = fail("kvm.check", location(images), env=environment(box, NIC_CONFIG="network=lan"))
    assert "Got unexpected output" in errors


@needs_root
def test_what_is_missing_there(box: Sshd, images: Path) -> None:
    errors = fail("kvm.check", location(images / "none"), env=environment(box))
    assert f"Can't write to location {images}/none/web.img on testbox" in errors
    env = environment(box, ATTACH_DISKS=f"{images}/none.img")
    errors = fail("kvm.check", location(images), env=env)
    assert f"Did not find file {images}/none.img on host testbox" in errors
    for name in ("virsh", "virt-install"):
        present = {"virsh", "virt-install"} - {name}
        farm = images / name
        farm.mkdir()
        for each in present:
            (farm / each).symlink_to(f"/usr/bin/{each}")
        box.add_command("sh", f'[ "$4" != virsh ] || PATH={farm}\nexec /bin/sh "$@"')
        errors = fail("kvm.check", location(images), env=environment(box))
        assert f"{name} does not seem to be installed on host testbox" in errors


@needs_root
def test_no_room(box: Sshd, tree: Path, images: Path) -> None:
    box.add_command("df", "echo / 1 1 100 1% /")
    errors = fail("kvm.write", tree, location(images), env=environment(box))
    assert "testbox has no room for" in errors
    assert not list(images.iterdir())


@needs_root
def test_as_an_ordinary_user(box: Sshd, tree: Path, images: Path) -> None:
    home = Path(tempfile.mkdtemp(prefix="morph-tests-"))
    try:
        shutil.copytree(tree, home / "tree")
        for path in (home, *home.rglob("*")):
            os.chown(path, 65534, 65534)
        env = {**SETTINGS, "PATH": box.path_for(65534, home)}
        succeed("kvm.check", location(images), env=env, user=65534)
        succeed("kvm.write", home / "tree", location(images), env=env, user=65534)
    finally:
        shutil.rmtree(home)
    assert machines(box) == ["web"]


def test_where_nobody_answers(tmp_path: Path) -> None:
    with run_sshd(tmp_path / "sshd") as box:
        place = f"kvm+ssh://{DEAD}/web/x.img"
        assert f"Unable to SSH to {DEAD}" in fail("kvm.check", place, env=environment(box))


@pytest.mark.parametrize(
    ("where", "more", "message"),
    [
        ("kvm+ssh://h/g/p", {"UPGRADE": "yes"}, "Use the `ssh-rsync` write extension"),
        ("http://h/g/p", {}, "URL schema must be kvm+ssh in http://h/g/p"),
        ("kvm+ssh://h/g", {}, "Cannot parse location kvm+ssh://h/g"),
        ("kvm+ssh://h/g/", {}, "Cannot parse location"),
        ("kvm+ssh:///g/p", {}, "Cannot parse location"),
        ("kvm+ssh:h/g/p", {}, "URL schema must be kvm+ssh in kvm+ssh:h/g/p"),
        ("http://[/g/p", {}, "URL schema must be kvm+ssh in http://[/g/p"),
        ("kvm+ssh://h//p", {}, "Cannot parse location"),
        ("kvm+ssh://h/-g/p", {}, "Cannot parse location"),
        ("kvm+ssh://-oProxyCommand=x/g/p", {}, "is no host for ssh"),
        ("kvm+ssh://h/g/a/../b", {}, "is no plain absolute path"),
        ("kvm+ssh://h/g/a,bus=ide", {}, "no comma or colon can be in it"),
        ("kvm+ssh://h/g/p", {"DISK_SIZE": ""}, "DISK_SIZE is not defined"),
        ("kvm+ssh://h/g/p", {"RAM_SIZE": "1k"}, "RAM_SIZE 1k is less than 1M"),
        ("kvm+ssh://h/g/p", {"VCPUS": "0"}, "VCPUS has to be at least 1"),
        ("kvm+ssh://h/g/p", {"ATTACH_DISKS": "/a:b"}, "ATTACH_DISKS: 'b' is no plain absolute"),
        ("kvm+ssh://h/g/p", {"NIC_CONFIG": "network"}, "malformed NIC_CONFIG"),
        ("kvm+ssh://h/g/p", {"NIC_CONFIG": "lan"}, "malformed NIC_CONFIG"),
        ("kvm+ssh://h/g/p", {"AUTOSTART": "maybe"}, "Unexpected value for AUTOSTART: maybe"),
        ("kvm+ssh://h/g/p", {"LIBVIRT_URI": "--all"}, "is no URI"),
    ],
)
def test_parameters(where: str, more: dict[str, str], message: str) -> None:
    assert message in fail("kvm.check", where, env={**SETTINGS, **more})
