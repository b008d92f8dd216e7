"""Machines that boot over the network: what they find on the servers, and when."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.network import boot_from_network
from tests.boot.tiny import make_system
from tests.exts.programs import EXTS, fail, run_in_namespace, succeed
from tests.exts.trees import fill, seen
from tests.mounting import needs_root
from tests.sshd import DEAD, HOST, Sshd, run_sshd

MAC = "52:54:00:AB:cd:01"
NAME = "52-54-00-ab-cd-01"
CONFIG = f"pxelinux.cfg/01-{NAME}"


@pytest.fixture
def tftp(tmp_path: Path) -> Path:
    (tmp_path / "tftp").mkdir()
    return tmp_path / "tftp"


@pytest.fixture
def system(tree: Path) -> Path:
    (tree / "boot").mkdir()
    (tree / "boot/vmlinuz").write_text("kernel")
    (tree / "boot/board.dtb").write_text("dtb")
    (tree / "boot/initramfs.gz").write_text("initramfs")
    return tree


def listed(top: Path) -> set[str]:
    return {str(path.relative_to(top)) for path in top.rglob("*") if not path.is_dir()}


def configuration(tftp: Path) -> dict[str, str]:
    """Keyword -> the rest of its line."""
    lines = (tftp / CONFIG).read_text().splitlines()
    return dict(line.strip().partition(" ")[::2] for line in lines)


def stays(tftp: Path, **more: str) -> dict[str, str]:
    return {"PXEBOOT_CONFIG_TFTP_ADDRESS": str(tftp), "PXE_INSTALLER": "no", **more}


def test_a_machine_boots_from_what_is_written(tmp_path: Path, tftp: Path) -> None:
    """With pxelinux, a kernel and the system as an initramfs."""
    tree = make_system(tmp_path / "tree", "one", initramfs=False)
    done = succeed(
        "pxeboot.write",
        tree,
        MAC,
        env=stays(tftp, PXEBOOT_BOOTLOADER="pxelinux", KERNEL_ARGS="console=ttyS0 panic=5"),
    )
    assert f"Let {MAC} boot from the network now" in done
    console = boot_from_network(tftp, MAC)
    assert "system one runs" in console
    assert "rdinit=/sbin/init console=ttyS0 panic=5" in console


def test_what_is_there_for_a_root_over_nfs(system: Path, tftp: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may put trees into directories of this machine")
    fill(system, nodes=True, owners=True)
    (tmp_path / "nfs").mkdir()
    environment = stays(
        tftp,
        PXEBOOT_ROOTFS_RSYNC_ADDRESS=f"file://{tmp_path}/nfs",
        KERNEL_ARGS="console=ttyS1",
        DTB_PATH="/boot/board.dtb",
        INITRAMFS_PATH="boot/initramfs.gz",
    )
    succeed("pxeboot.write", system, MAC, env=environment)
    config = configuration(tftp)
    (version,) = os.listdir(tmp_path / "nfs" / NAME)
    root = tmp_path / "nfs" / NAME / version
    assert config["append"] == (f"root=/dev/nfs nfsroot={root},vers=3,tcp ip=dhcp rw console=ttyS1")
    assert seen(root) == seen(system)
    for keyword, content in (("kernel", "kernel"), ("initrd", "initramfs"), ("fdt", "dtb")):
        assert (tftp / config[keyword]).read_text() == content
    environment["PXEBOOT_NFSROOT"] = "10.0.0.1:/srv/"
    succeed("pxeboot.write", system, MAC, env=environment)
    assert f"nfsroot=10.0.0.1:/srv/{NAME}/{version}-2," in configuration(tftp)["append"]


def test_another_version_takes_the_place(system: Path, tftp: Path) -> None:
    """Of one machine: others keep theirs."""
    (tftp / "morph/other").mkdir(parents=True)
    (tftp / "morph/other/kernel").write_text("other")
    succeed("pxeboot.write", system, MAC, env=stays(tftp))
    first = configuration(tftp)["kernel"]
    (system / "boot/vmlinuz").write_text("newer kernel")
    succeed("pxeboot.write", system, MAC, env=stays(tftp))
    second = configuration(tftp)["kernel"]
    assert first != second
    assert (tftp / second).read_text() == "newer kernel"
    assert listed(tftp) == {
        *(CONFIG, second, second.replace("kernel", "initramfs"), "morph/other/kernel")
    }


def test_an_installer_is_served_until_it_is_done(system: Path, tftp: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    boot = f"ls {tftp}/pxelinux.cfg >>{log}; # a comment\necho pxe >>{log}"
    environment = {
        "PXEBOOT_CONFIG_TFTP_ADDRESS": str(tftp),
        "PXEBOOT_PXE_REBOOT_COMMAND": boot,
        "PXEBOOT_INSTALLED_COMMAND": f"ls {tftp}/morph >>{log}",
        "PXEBOOT_REBOOT_COMMAND": f"find {tftp} -type f >>{log}; echo disk >>{log}",
    }
    succeed("pxeboot.check", MAC, env=environment)
    assert not log.exists()
    succeed("pxeboot.write", system, MAC, env=environment)
    assert log.read_text().split() == [f"01-{NAME}", "pxe", NAME, "disk"]
    assert listed(tftp) == set()


def test_people_can_tell_that_it_is_installed(system: Path, tftp: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, EXTS / "pxeboot.write", system, MAC],
        env={"PATH": os.environ["PATH"], "PXEBOOT_CONFIG_TFTP_ADDRESS": str(tftp)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("what?\n")
        process.stdin.flush()
        for line in process.stdout:
            if "Waiting for the word" in line:
                break
        assert (tftp / CONFIG).exists()
        process.stdin.write("installed\n")
        process.stdin.close()
        assert f"Let {MAC} boot from its disk now" in process.stdout.read()
    assert process.returncode == 0
    assert listed(tftp) == set()


@pytest.mark.parametrize("ended", ["command", "input", "signal"])
def test_a_failure_leaves_what_was_there(system: Path, tftp: Path, ended: str) -> None:
    succeed("pxeboot.write", system, MAC, env=stays(tftp))
    before = {path: (tftp / path).read_bytes() for path in listed(tftp)}
    (system / "boot/vmlinuz").write_text("another")
    environment = {"PATH": os.environ["PATH"], "PXEBOOT_CONFIG_TFTP_ADDRESS": str(tftp)}
    if ended == "command":
        environment["PXEBOOT_PXE_REBOOT_COMMAND"] = "echo no power >&2; exit 7"
    process = subprocess.Popen(
        [sys.executable, EXTS / "pxeboot.write", system, MAC],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stderr is not None
        if ended == "input":
            process.stdin.close()
        if ended == "signal":
            deadline = time.monotonic() + 60
            while (tftp / CONFIG).read_bytes() == before[CONFIG]:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.terminate()
        said = process.stderr.read()
    assert process.returncode != 0
    if ended == "command":
        assert "failed with status 7: no power" in said
    if ended == "input":
        assert "ended without the word 'installed'" in said
    assert "Traceback" not in said
    assert {path: (tftp / path).read_bytes() for path in listed(tftp)} == before


def test_ipmi(system: Path, tftp: Path, tmp_path: Path) -> None:
    """A stand-in for ipmitool: it notes what it is called with, and that the machine is off."""
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin/ipmitool"
    tool.write_text(
        f'#!/bin/sh\necho "$IPMI_PASSWORD $*" >>{tmp_path}/log\n'
        'case $* in *status) echo "Chassis Power is off" ;; esac\n'
    )
    tool.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "PXEBOOT_CONFIG_TFTP_ADDRESS": str(tftp),
        "PXEBOOT_INSTALLED_COMMAND": "true",
        "IPMI_HOST": "10.0.0.9",
        "IPMI_USER": "admin",
        "IPMI_PASSWORD": "pass word",
    }
    said = succeed("pxeboot.write", system, MAC, env=environment)
    assert "pass word" not in said
    start = "pass word -I lanplus -H 10.0.0.9 -U admin -E chassis"
    assert (tmp_path / "log").read_text().splitlines() == [
        f"{start} {words}"
        for device in ("pxe", "disk")
        for words in (f"bootdev {device}", "power status", "power on")
    ]
    del environment["IPMI_USER"]
    assert "IPMI_USER was not given" in fail("pxeboot.check", MAC, env=environment)


#: Starts a machine whose network card is on the interface `tap0`.
_START = """
qemu-system-x86_64 -m 512 -nodefaults -no-user-config -display none -machine q35,accel=tcg \\
    -vga std -serial file:{log} -no-reboot \\
    -netdev tap,id=net0,ifname=tap0,script=no,downscript=no \\
    -device virtio-net-pci,netdev=net0,mac={mac},bootindex=1 </dev/null >{errors} 2>&1 &
echo $! >{pid}
"""
_WAIT = """
n=0
until grep -q "system one runs" {log}; do
    n=$((n + 1))
    [ $n -lt 1200 ] || {{ cat {log} {errors} >&2; exit 1; }}
    sleep 0.1
done
"""
#: Becomes a program in a network of its own.
_ENTER = """
set -eu
ip tuntap add tap0 mode tap
ip address add 10.9.0.1/24 dev tap0
ip link set tap0 up
exec "$@"
"""


@needs_root
def test_servers_of_its_own(tmp_path: Path) -> None:
    tree = make_system(tmp_path / "tree", "one", initramfs=False)
    names = {name: str(tmp_path / name) for name in ("log", "errors", "pid")}
    (tmp_path / "tmp").mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "TMPDIR": str(tmp_path / "tmp"),
        "PXEBOOT_MODE": "spawn-novlan",
        "PXEBOOT_DEPLOYER_INTERFACE": "tap0",
        "PXEBOOT_PXE_REBOOT_COMMAND": _START.format(mac=MAC, **names),
        "PXEBOOT_INSTALLED_COMMAND": _WAIT.format(**names),
        "PXEBOOT_REBOOT_COMMAND": f"kill $(cat {names['pid']}) || true",
        "KERNEL_ARGS": "console=ttyS0",
    }
    enter = ["unshare", "--net", "sh", "-c", _ENTER, "sh"]
    for program, arguments in (("pxeboot.check", [MAC]), ("pxeboot.write", [str(tree), MAC])):
        done = subprocess.run(
            [*enter, sys.executable, str(EXTS / program), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert "rdinit=/sbin/init console=ttyS0" in (tmp_path / "log").read_text("utf-8", "replace")
    assert not list((tmp_path / "tmp").iterdir())
    argv = ["pgrep", "--full", f"tftp-root={tmp_path}"]
    assert subprocess.run(argv, check=False).returncode == 1, "a server runs on"


@needs_root
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PXEBOOT_DEPLOYER_INTERFACE", "no-such", "no network interface no-such with an IPv4"),
        ("PXEBOOT_DEPLOYER_INTERFACE", "-x", "'-x' is no network interface"),
        ("PXEBOOT_CONFIG_TFTP_ADDRESS", "/srv", "is for PXEBOOT_MODE existing-server"),
        ("PXE_INSTALLER", "no", "PXE_INSTALLER no is for PXEBOOT_MODE existing-server"),
        ("", "", ""),
    ],
)
def test_what_servers_of_its_own_need(name: str, value: str, said: str) -> None:
    environment = {
        "PXEBOOT_MODE": "spawn-novlan",
        "PXEBOOT_DEPLOYER_INTERFACE": "lo",
        "PXEBOOT_INSTALLED_COMMAND": "true",
    }
    if name:
        assert said in fail("pxeboot.check", MAC, env={**environment, name: value})
    else:
        succeed("pxeboot.check", MAC, env=environment)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sshd]:
    with run_sshd(tmp_path / "sshd") as sshd:
        yield sshd


@needs_root
def test_servers_are_reached_over_ssh(
    system: Path, tftp: Path, tmp_path: Path, server: Sshd
) -> None:
    fill(system, nodes=True, owners=True)
    (tmp_path / "nfs").mkdir()
    environment = {
        "PATH": server.env["PATH"],
        "PXEBOOT_CONFIG_TFTP_ADDRESS": f"sftp://{HOST}{tftp}/",
        "PXEBOOT_ROOTFS_RSYNC_ADDRESS": f"rsync://root@{HOST}{tmp_path}/nfs/",
        "PXE_INSTALLER": "false",
    }
    succeed("pxeboot.check", MAC, env=environment)
    assert listed(tftp) == set()
    succeed("pxeboot.write", system, MAC, env=environment)
    (version,) = os.listdir(tmp_path / "nfs" / NAME)
    root = tmp_path / "nfs" / NAME / version
    assert seen(root) == seen(system)
    config = configuration(tftp)
    assert f"nfsroot={HOST}:{root},vers=3,tcp" in config["append"]
    assert (tftp / config["kernel"]).read_text() == "kernel"
    assert stat.S_IMODE((tftp / config["kernel"]).stat().st_mode) == 0o644
    # A failure restores, and nothing of the version that failed is left.
    before = listed(tftp)
    environment["PXEBOOT_PXE_REBOOT_COMMAND"] = "false"
    fail("pxeboot.write", system, MAC, env=environment)
    assert configuration(tftp) == config
    assert listed(tftp) == before
    assert os.listdir(tmp_path / "nfs" / NAME) == [version]
    # What was installed needs none of it any more.
    environment |= {"PXEBOOT_PXE_REBOOT_COMMAND": "true", "PXEBOOT_INSTALLED_COMMAND": "true"}
    succeed("pxeboot.write", system, MAC, env={**environment, "PXE_INSTALLER": "yes"})
    assert listed(tftp) == set()
    assert os.listdir(tmp_path / "nfs") == []


@needs_root
def test_an_ordinary_user_gets_owners_and_devices(
    users_tree: Path, tftp: Path, tmp_path: Path, server: Sshd
) -> None:
    (users_tree / "boot").mkdir()
    (users_tree / "boot/vmlinuz").write_text("kernel")
    (users_tree / "null").touch()
    node = {"mode": stat.S_IFCHR | 0o666, "uid": 0, "gid": 5, "major": 1, "minor": 3}
    table = users_tree.with_name("devices")
    table.write_text(json.dumps({"null": node}))
    for path in users_tree.rglob("*"):
        os.chown(path, 65534, 65534)
    (tmp_path / "nfs").mkdir()
    environment = {
        "PATH": server.path_for(65534, users_tree.parent),
        "PXEBOOT_CONFIG_TFTP_ADDRESS": f"sftp://root@{HOST}{tftp}",
        "PXEBOOT_ROOTFS_RSYNC_ADDRESS": f"rsync://root@{HOST}{tmp_path}/nfs",
        "PXE_INSTALLER": "no",
        "MORPH_DEVICE_TABLE": str(table),
    }
    done = run_in_namespace("pxeboot.write", users_tree, MAC, env=environment)
    assert done.returncode == 0, done.stderr
    (root,) = (tmp_path / "nfs" / NAME).iterdir()
    found = (root / "null").stat()
    assert (found.st_mode, found.st_gid, found.st_rdev) == (node["mode"], 5, os.makedev(1, 3))
    assert (root / "boot/vmlinuz").stat().st_uid == 0
    # Here, such a user would give files to others than they shall belong to.
    shutil.rmtree(tmp_path / "nfs" / NAME)
    place = users_tree.with_name("nfs")
    place.mkdir()
    os.chown(place, 65534, 65534)
    environment["PXEBOOT_ROOTFS_RSYNC_ADDRESS"] = str(place)
    done = run_in_namespace("pxeboot.write", users_tree, MAC, env=environment)
    assert done.returncode == 1
    assert "only root can put a tree into" in done.stderr
    assert listed(place) == set()


@pytest.mark.parametrize(
    ("location", "name", "value", "said"),
    [
        ("14:58:d0:57:7f", "", "", "14:58:d0:57:7f is no MAC address"),
        ("11325652330", "", "", "put it in quotes"),
        (MAC, "PXEBOOT_MODE", "vlan", "Invalid PXEBOOT_MODE vlan (known: existing-server, spawn"),
        (MAC, "PXEBOOT_MODE", "spawn-vlan", "use spawn-novlan with PXEBOOT_DEPLOYER_INTERFACE"),
        (MAC, "PXEBOOT_MODE", "existing-dhcp", "use existing-server with that one's directory"),
        (MAC, "PXEBOOT_MODE", "spawn-novlan", "PXEBOOT_DEPLOYER_INTERFACE was not given"),
        (MAC, "PXEBOOT_CONFIG_TFTP_ADDRESS", "", "PXEBOOT_CONFIG_TFTP_ADDRESS was not given"),
        (MAC, "PXEBOOT_CONFIG_TFTP_ADDRESS", "http://a/b", "has to be sftp://HOST/DIRECTORY"),
        (MAC, "PXEBOOT_CONFIG_TFTP_ADDRESS", "sftp://a:22/b", "in ssh's configuration"),
        (MAC, "PXEBOOT_CONFIG_TFTP_ADDRESS", "sftp://-oX=y/b", "'-oX=y' is no host for ssh"),
        (MAC, "PXEBOOT_CONFIG_TFTP_ADDRESS", "sftp://a/b/../c", "no plain absolute path"),
        (MAC, "PXEBOOT_CONFIG_TFTP_ADDRESS", "/no/such/place", "no directory that can be written"),
        (MAC, "PXEBOOT_ROOTFS_RSYNC_ADDRESS", "rsync://a/b%20c", "do not understand"),
        (MAC, "INITRAMFS_PATH", "boot/x", "INITRAMFS_PATH needs PXEBOOT_ROOTFS_RSYNC_ADDRESS"),
        (MAC, "PXE_INSTALLER", "yes", "nobody can tell when the machine is installed"),
        (MAC, "KERNEL_ARGS", "a\nb", "KERNEL_ARGS has to be one line"),
        (MAC, "UPGRADE", "yes", "Cannot upgrade a machine that boots over the network"),
    ],
)
def test_what_makes_no_sense_is_refused_early(
    location: str, name: str, value: str, said: str, tftp: Path
) -> None:
    environment = {**stays(tftp), name: value} if name else stays(tftp)
    assert said in fail("pxeboot.check", location, env=environment)


def test_servers_that_do_not_answer_are_told(server: Sshd, tftp: Path) -> None:
    environment = {**stays(tftp), "PATH": server.env["PATH"]}
    environment["PXEBOOT_CONFIG_TFTP_ADDRESS"] = f"sftp://{DEAD}/srv"
    assert f"Unable to SSH to {DEAD}" in fail("pxeboot.check", MAC, env=environment)
    environment["PXEBOOT_CONFIG_TFTP_ADDRESS"] = f"sftp://{HOST}/no/such/place"
    assert "no directory that can be written to" in fail("pxeboot.check", MAC, env=environment)


def test_a_system_without_kernel_can_not_boot(tree: Path, tftp: Path) -> None:
    said = fail("pxeboot.write", tree, MAC, env=stays(tftp))
    assert "Could not find a kernel in the system" in said
    assert listed(tftp) == set()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("quiet", "rdinit=/sbin/init quiet"),
        ("init=/a init=/b quiet", "rdinit=/b init=/a init=/b quiet"),
        ("rdinit=/c quiet", "rdinit=/c quiet"),
    ],
)
def test_what_starts_in_an_initramfs(system: Path, tftp: Path, given: str, expected: str) -> None:
    succeed("pxeboot.write", system, MAC, env=stays(tftp, KERNEL_ARGS=given))
    assert configuration(tftp)["append"] == expected
    (system / "init").write_text("#!/bin/sh\n")
    succeed("pxeboot.write", system, MAC, env=stays(tftp, KERNEL_ARGS="quiet"))
    assert configuration(tftp)["append"] == "quiet"
