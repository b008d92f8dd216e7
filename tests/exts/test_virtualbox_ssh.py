"""Systems as virtual machines of VirtualBox."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from morphlib.images.btrfs.reader import Image
from tests.exts import vboxmanage
from tests.exts.programs import fail, run_extension, succeed
from tests.sshd import DEAD, HOST, Sshd, run_sshd

SETTINGS = {
    "DISK_SIZE": "64M",
    "RAM_SIZE": "128M",
    "HOST_IPADDR": "192.168.56.1",
    "NETMASK": "255.255.255.0",
    "BOOTLOADER_INSTALL": "none",
    "BOOTLOADER_CONFIG_FORMAT": "extlinux",
    "MORPH_SYSTEM_KEY": "0" * 64,
}
HEADER = b"<<< Oracle VM VirtualBox Disk Image >>>\n"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with run_sshd(tmp_path_factory.mktemp("box")) as sshd:
        yield sshd


@pytest.fixture
def box(running: Sshd) -> Sshd:
    for path in running.commands.iterdir():
        path.unlink()
    vboxmanage.install(running, running.directory / "state")
    return running


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


@pytest.fixture
def tree(bootable_tree: Path) -> Path:
    return bootable_tree


def change(box: Sshd, **state: object) -> None:
    """Let VirtualBox be as it was at first, but for this."""
    (box.directory / "state").write_text(json.dumps({**vboxmanage.EMPTY, **state}))


def state(box: Sshd) -> vboxmanage.State:
    found: vboxmanage.State = json.loads((box.directory / "state").read_text())
    return found


def environment(box: Sshd, **more: str) -> dict[str, str]:
    return {**SETTINGS, "PATH": box.env["PATH"], **more}


def location(images: Path, guest: str = "web") -> str:
    return f"vbox+ssh://{HOST}/{guest}{images}/{guest}.vdi"


def test_new_machine(box: Sshd, tree: Path, images: Path, tmp_path: Path) -> None:
    succeed("virtualbox-ssh.check", location(images), env=environment(box))
    assert state(box) == vboxmanage.EMPTY
    assert not list(images.iterdir())
    env = environment(box, VCPUS="2", TMPDIR=str(tmp_path))
    printed = succeed("virtualbox-ssh.write", tree, location(images), env=env)
    assert "Virtual machine web has been created" in printed
    (machine,) = state(box)["machines"].values()
    assert (machine["name"], machine["ostype"], machine["running"]) == ("web", "Linux26_64", False)
    assert machine["settings"] == {
        "--ioapic": "on",
        "--firmware": "bios",
        "--memory": "128",
        "--cpus": "2",
        "--nic1": "hostonly",
        "--hostonlyadapter1": "vboxnet0",
        "--nic2": "nat",
        "--natnet2": "default",
    }
    assert machine["controllers"] == {
        "SATA Controller": {"ports": 2, "disks": {"0": f"{images}/web.vdi"}}
    }
    assert state(box)["interfaces"] == {"vboxnet0": ["192.168.56.1", "255.255.255.0"]}
    assert {path.name for path in tmp_path.iterdir()} == {"images", "tree"}
    (image,) = images.iterdir()
    content = image.read_bytes()
    assert content.startswith(HEADER)
    raw = tmp_path / "raw"
    raw.write_bytes(content.removeprefix(HEADER))
    assert raw.stat().st_size == 64 << 20
    with Image(raw) as disk:
        assert b" root=/dev/sda" in disk.read_file("extlinux.conf")
        assert disk.read_file("systems/default/run/etc/hostname") == b"web\n"


def test_start_with_more_disks(box: Sshd, tree: Path, images: Path) -> None:
    disks = [images / name for name in ("a b.vdi", "c.vdi", "d.vdi")]
    for disk in disks:
        disk.write_bytes(HEADER)
    interfaces = {
        "vboxnet0": ["10.0.0.1", "255.0.0.0"],
        "vboxnet1": ["192.168.56.1", "255.255.0.0"],
    }
    change(box, interfaces=interfaces, version="4.2.18r88780")
    env = environment(box, AUTOSTART="yes", ATTACH_DISKS=":".join(map(str, disks)))
    succeed("virtualbox-ssh.write", tree, location(images), env=env)
    (machine,) = state(box)["machines"].values()
    assert machine["running"]
    assert machine["settings"]["--hostonlyadapter1"] == "vboxnet1"
    attached = machine["controllers"]["SATA Controller"]["disks"]
    assert list(attached.values()) == [f"{images}/web.vdi", *map(str, disks)]
    assert state(box)["interfaces"] == interfaces


def test_vagrant(box: Sshd, tree: Path, images: Path) -> None:
    env = environment(box, VAGRANT="yes", HOST_IPADDR="", NETMASK="")
    succeed("virtualbox-ssh.check", location(images), env=env)
    succeed("virtualbox-ssh.write", tree, location(images), env=env)
    (machine,) = state(box)["machines"].values()
    assert machine["settings"]["--nic1"] == "nat"
    assert "--nic2" not in machine["settings"]
    assert state(box)["interfaces"] == {}


@pytest.mark.parametrize(
    "step",
    [
        "--version",
        "convertfromraw",
        "hostonlyif",
        "createvm",
        "modifyvm",
        "storagectl",
        "storageattach",
        "startvm",
    ],
)
def test_failures_leave_nothing(box: Sshd, tree: Path, images: Path, step: str) -> None:
    other = images / "other.vdi"
    other.write_bytes(HEADER)
    # The interface is there, unless it is what fails, for it would not be removed either.
    interfaces = {} if step == "hostonlyif" else {"vboxnet0": ["192.168.56.1", "255.255.255.0"]}
    change(box, fails=step, interfaces=interfaces)
    env = environment(box, AUTOSTART="yes", ATTACH_DISKS=str(other))
    done = run_extension("virtualbox-ssh.write", tree, location(images), env=env)
    assert done.returncode == 1
    assert "as you wish" in done.stderr
    assert ("Error deploying to VirtualBox" in done.stderr) == (step != "convertfromraw")
    assert state(box)["machines"] == {}
    assert list(images.iterdir()) == [other]


def test_an_interface_that_was_made_is_removed(box: Sshd, tree: Path, images: Path) -> None:
    change(box, fails="startvm")
    env = environment(box, AUTOSTART="yes")
    assert run_extension("virtualbox-ssh.write", tree, location(images), env=env).returncode == 1
    assert state(box)["interfaces"] == {}
    assert state(box)["machines"] == {}


def test_a_file_that_is_no_disk_is_refused_and_stays(box: Sshd, tree: Path, images: Path) -> None:
    (images / "text").write_text("text")
    env = environment(box, ATTACH_DISKS=f"{images}/text")
    done = run_extension("virtualbox-ssh.write", tree, location(images), env=env)
    assert "VERR_NOT_SUPPORTED" in done.stderr
    assert list(images.iterdir()) == [images / "text"]
    assert state(box)["machines"] == {}


def test_what_is_there_stays(box: Sshd, tree: Path, images: Path) -> None:
    (images / "web.vdi").write_text("old")
    for name, args in (("check", []), ("write", [tree])):
        errors = fail(f"virtualbox-ssh.{name}", *args, location(images), env=environment(box))
        assert f"{images}/web.vdi already exists on testbox" in errors
    change(box, machines={"x": {"name": "web", "uuid": "x"}})
    for name, args in (("check", []), ("write", [tree])):
        other = location(images) + "2"
        errors = fail(f"virtualbox-ssh.{name}", *args, other, env=environment(box))
        assert "Host testbox already has a VM named web" in errors
    assert (images / "web.vdi").read_text() == "old"


def test_what_is_missing_there(box: Sshd, images: Path) -> None:
    (box.commands / "VBoxManage").unlink()
    errors = fail("virtualbox-ssh.check", location(images), env=environment(box))
    assert "VBoxManage does not seem to be installed on host testbox" in errors
    errors = fail("virtualbox-ssh.check", location(images / "none"), env=environment(box))
    assert "Can't write to location" in errors
    place = f"vbox+ssh://{DEAD}/web/x.vdi"
    errors = fail("virtualbox-ssh.check", place, env=environment(box))
    assert f"Unable to SSH to {DEAD}" in errors


@pytest.mark.parametrize(
    ("where", "more", "message"),
    [
        ("vbox+ssh://h/g/p", {"UPGRADE": "yes"}, "Use the `ssh-rsync` write extension"),
        ("kvm+ssh://h/g/p", {}, "URL schema must be vbox+ssh in kvm+ssh://h/g/p"),
        ("vbox+ssh://h/g", {}, "Cannot parse location vbox+ssh://h/g"),
        ("vbox+ssh://h/g/p", {"HOST_IPADDR": ""}, "HOST_IPADDR was not given"),
        ("vbox+ssh://h/g/p", {"NETMASK": ""}, "NETMASK was not given"),
        ("vbox+ssh://h/g/p", {"HOST_IPADDR": "--ip"}, "HOST_IPADDR --ip is no address"),
        ("vbox+ssh://h/g/p", {"NETMASK": "1.2.3.4"}, "'1.2.3.4' is no netmask"),
        ("vbox+ssh://h/g/p", {"DISK_SIZE": ""}, "DISK_SIZE is not defined"),
        ("vbox+ssh://h/g/p", {"ATTACH_DISKS": ":".join(["/x"] * 30)}, "has room for 29 disks"),
    ],
)
def test_parameters(where: str, more: dict[str, str], message: str) -> None:
    assert message in fail("virtualbox-ssh.check", where, env={**SETTINGS, **more})
