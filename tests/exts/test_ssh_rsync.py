"""Upgrades of a running system."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.exts.baserockbox import MANAGER, look, put_program, put_tools, run_box
from tests.exts.programs import fail, run_extension, succeed
from tests.sshd import DEAD, HOST, Sshd, run_sshd

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root, for the mounts of the system that is upgraded"
)
UPGRADE = {"UPGRADE": "yes", "VERSION_LABEL": "v2"}
BEFORE = "default -> factory\nfactory\nfactory/orig\nfactory/run\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with run_box(tmp_path_factory.mktemp("box")) as running:
        yield running


@pytest.fixture
def box(server: Sshd) -> Iterator[Sshd]:
    yield server
    for path in server.commands.iterdir():
        path.unlink()
    look(
        server,
        """
        ln -sfnT factory $top/systems/default
        for each in $top/systems/*; do
            case ${each##*/} in
                default | factory) ;;
                *) btrfs -q subvolume delete $each/orig $each/run; rm -r $each ;;
            esac
        done
        [ -e $top/state/opt ] || btrfs -q subvolume create $top/state/opt
        rm -f $top/calls
        """,
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    for name in ("baserock", "etc", "usr/bin", "usr/share", "opt", "dev", "proc", "tmp", "run"):
        (tree / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (tree / name).symlink_to(f"usr/{name}")
    (tree / "etc/which").write_text("new\n")
    (tree / "etc/unchanged").write_text("unchanged\n")
    (tree / "opt/tool").write_text("tool\n")
    (tree / "odd 'name $(x)").write_text("odd\n")
    os.link(tree / "opt/tool", tree / "opt/same")
    put_tools(tree)
    return tree


def environment(box: Sshd, **more: str) -> dict[str, str]:
    return {**UPGRADE, "PATH": box.env["PATH"], **more}


def versions(box: Sshd) -> str:
    """What is in systems, and where links there lead to."""
    return look(
        box,
        """
        cd $top/systems
        find . -mindepth 1 -maxdepth 2 -printf '%P -> %l\\n' | sed 's/ -> $//' | LC_ALL=C sort
        """,
    )


def assert_untouched(box: Sshd) -> None:
    assert versions(box) == BEFORE
    assert box.login("grep", "-c", "btrfs", "/proc/mounts").strip() == "1"
    assert box.login("find", "/tmp", "-name", "tmp.*") == ""


@needs_root
def test_upgrade(box: Sshd, tree: Path) -> None:
    succeed("ssh-rsync.check", HOST, env=environment(box))
    printed = succeed("ssh-rsync.write", tree, HOST, env=environment(box))
    assert "Version v2 is installed on testbox" in printed
    assert versions(box) == (
        "default -> v2\nfactory\nfactory/orig\nfactory/run\nv2\nv2/kernel\nv2/orig\nv2/run\n"
    )
    found = look(
        box,
        """
        cd $top/systems/v2
        cat orig/etc/which run/opt/same "run/odd 'name \\$(x)" run/etc/merged
        stat -c %h orig/opt/tool
        grep -c . $top/systems/factory/orig/etc/which
        ls $top/state
        cat $top/calls
        """,
    ).splitlines()
    assert found[:3] == ["new", "tool", "odd"]
    assert found[3].endswith("/systems/v2/orig/usr/bin/baserock-system-config-sync")
    assert found[4:6] == ["2", "1"]
    assert found[6:11] == ["home", "opt", "root", "srv", "var"]
    assert found[11:] == ["deploy /systems/v2/orig", "set-default v2"]
    assert box.login("grep", "-c", "btrfs", "/proc/mounts").strip() == "1"
    assert box.login("find", "/tmp", "-name", "tmp.*") == ""


@needs_root
def test_fstab_knows_the_disk(box: Sshd, tree: Path) -> None:
    succeed("ssh-rsync.write", tree, HOST, env=environment(box))
    uuid = box.login("sh", "-c", "blkid -s UUID -o value $(df -P / | tail -n1 | cut -d' ' -f1)")
    fstab = look(box, "cat $top/systems/v2/run/etc/fstab").splitlines()
    assert f"UUID={uuid.strip()}  / btrfs defaults,rw,noatime 0 1" in fstab
    assert any(f"UUID={uuid.strip()}  /var" in line for line in fstab)
    assert look(box, "ls -d $top/systems/v2/orig/var").strip().endswith("/var")


@needs_root
def test_unchanged_files_take_no_room(box: Sshd, tree: Path) -> None:
    succeed("ssh-rsync.write", tree, HOST, env=environment(box))
    inodes = look(
        box, "cd $top/systems; stat -c %i factory/orig/etc/unchanged v2/orig/etc/unchanged"
    )
    assert len(set(inodes.split())) == 1


@needs_root
def test_missing_state_is_made(box: Sshd, tree: Path) -> None:
    look(box, "btrfs -q subvolume delete $top/state/opt")
    succeed("ssh-rsync.write", tree, HOST, env=environment(box))
    assert look(box, "cat $top/state/opt/tool; stat -c %i $top/state/opt") == "tool\n256\n"


@needs_root
def test_devices_of_an_ordinary_user(box: Sshd, tree: Path, tmp_path: Path) -> None:
    (tree / "dev/console").touch()
    (tree / "dev/gone").mkdir()
    (tree / "elsewhere").symlink_to("/etc")
    devices = {
        "dev/console": [stat.S_IFCHR | 0o620, 0, 5, 5, 1],
        "dev/gone": [stat.S_IFCHR | 0o620, 0, 5, 5, 1],
        "elsewhere/passwd": [stat.S_IFCHR | 0o620, 0, 5, 5, 1],
    }
    table = tmp_path / "devices"
    names = ("mode", "uid", "gid", "major", "minor")
    table.write_text(json.dumps({p: dict(zip(names, v, strict=True)) for p, v in devices.items()}))
    succeed("ssh-rsync.write", tree, HOST, env=environment(box, MORPH_DEVICE_TABLE=str(table)))
    found = look(box, "cd $top/systems/v2/orig; stat -c '%F %a %g %t:%T' dev/console dev/gone")
    assert found.splitlines()[0] == "character special file 620 5 5:1"
    assert found.splitlines()[1].startswith("directory")
    assert "root" in box.login("cat", "/etc/passwd")


@needs_root
def test_restart(box: Sshd, tree: Path, tmp_path: Path) -> None:
    box.add_command("reboot", f"touch {box.directory}/restarted; kill -9 $PPID")
    succeed("ssh-rsync.write", tree, HOST, env=environment(box))
    assert not (box.directory / "restarted").exists()
    again = environment(box, VERSION_LABEL="v3", AUTOSTART="yes")
    succeed("ssh-rsync.write", tree, HOST, env=again)
    assert (box.directory / "restarted").exists()


@needs_root
@pytest.mark.parametrize(
    ("command", "script"),
    [
        ("rsync", '[ "$1" = --server ] || exec /usr/bin/rsync "$@"\necho no room >&2; exit 11'),
        ("mount", "echo no mount >&2; exit 32"),
        ("mkdir", "echo no mkdir >&2; exit 1"),
        ("btrfs", '[ "$2" != snapshot ] || exit 1\nexec /usr/bin/btrfs "$@"'),
        ("mktemp", "exit 1"),
        ("blkid", "exit 2"),
        ("mknod", "exit 1"),
    ],
)
def test_failures_leave_nothing(
    box: Sshd, tree: Path, tmp_path: Path, command: str, script: str
) -> None:
    table = tmp_path / "devices"
    (tree / "dev/null").touch()
    fields = {"mode": 0o20666, "uid": 0, "gid": 0, "major": 1, "minor": 3}
    table.write_text(json.dumps({"dev/null": fields}))
    program = box.add_command(command, script)
    env = environment(box, MORPH_DEVICE_TABLE=str(table))
    errors = fail("ssh-rsync.write", tree, HOST, env=env)
    assert "failed on testbox" in errors
    program.unlink()
    assert_untouched(box)


@needs_root
@pytest.mark.parametrize("stage", ["deploy", "set-default"])
def test_what_the_new_version_fails_at_is_undone(box: Sshd, tree: Path, stage: str) -> None:
    (tree / "usr/share/fails").write_text(stage)
    look(box, "btrfs -q subvolume delete $top/state/opt")
    errors = fail("ssh-rsync.write", tree, HOST, env=environment(box))
    assert f"system-version-manager {stage} failed on testbox" in errors
    assert f"can't {stage}" in errors
    assert_untouched(box)
    assert look(box, "cd $top; tail -n1 calls; ls state") == "remove v2\nhome\nroot\nsrv\nvar\n"


@needs_root
def test_leavings_are_removed_without_the_help_of_the_new_version(box: Sshd, tree: Path) -> None:
    broken = MANAGER.replace('rm "$top/systems/$2/kernel"', "exit 7")
    put_program(tree / "usr/bin/system-version-manager", broken)
    (tree / "usr/share/fails").write_text("deploy")
    done = run_extension("ssh-rsync.write", tree, HOST, env=environment(box))
    assert done.returncode == 1
    errors = done.stderr
    assert "can't let the system forget version v2" in errors
    assert "system-version-manager deploy failed on testbox" in errors
    assert_untouched(box)


@needs_root
def test_versions_are_not_replaced(box: Sshd, tree: Path) -> None:
    for name in ("ssh-rsync.check", "ssh-rsync.write"):
        args = (HOST,) if name.endswith("check") else (tree, HOST)
        errors = fail(name, *args, env=environment(box, VERSION_LABEL="factory"))
        assert "VERSION_LABEL factory already exists on testbox" in errors
    assert_untouched(box)


@needs_root
def test_an_empty_directory_of_that_name_stays(box: Sshd, tree: Path) -> None:
    """Nothing is in the list of subvolumes, but it is somebody else's all the same."""
    look(box, "mkdir $top/systems/v2")
    assert "mkdir" in fail("ssh-rsync.write", tree, HOST, env=environment(box))
    assert look(box, "rmdir $top/systems/v2") == ""
    assert_untouched(box)


@needs_root
def test_as_an_ordinary_user(box: Sshd, tree: Path) -> None:
    home = Path(tempfile.mkdtemp(prefix="morph-tests-"))
    try:
        shutil.copytree(tree, home / "tree", symlinks=True)
        for path in (home, *home.rglob("*")):
            os.chown(path, 65534, 65534, follow_symlinks=False)
        env = {**UPGRADE, "PATH": box.path_for(65534, home)}
        succeed("ssh-rsync.check", HOST, env=env, user=65534)
        succeed("ssh-rsync.write", home / "tree", HOST, env=env, user=65534)
        assert look(box, "cat $top/systems/v2/run/etc/which") == "new\n"
    finally:
        shutil.rmtree(home)


def test_tools_must_be_in_the_new_system(tmp_path: Path, tree: Path) -> None:
    """Before anything is said to the other side: it need not even be there."""
    (tree / "usr/bin/system-version-manager").chmod(0o644)
    errors = fail("ssh-rsync.write", tree, DEAD, env=UPGRADE)
    assert "the new system has no program /usr/bin/system-version-manager" in errors
    (tree / "usr/bin/baserock-system-config-sync").unlink()
    (tree / "usr/bin/baserock-system-config-sync").symlink_to("/bin/sh")
    assert "and /usr/bin/baserock" in fail("ssh-rsync.write", tree, DEAD, env=UPGRADE)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"UPGRADE": "no", "VERSION_LABEL": "v2"}, "for upgrading existing remote Baserock"),
        ({"UPGRADE": "yes"}, "A VERSION_LABEL must be set when deploying an upgrade."),
        ({"UPGRADE": "yes", "VERSION_LABEL": "../x"}, "not made of letters, digits and hyphens"),
        ({"UPGRADE": "yes", "VERSION_LABEL": "-x"}, "not made of letters, digits and hyphens"),
        ({"UPGRADE": "yes", "VERSION_LABEL": "default"}, "the version that boots"),
    ],
)
def test_parameters(env: dict[str, str], message: str) -> None:
    assert message in fail("ssh-rsync.check", HOST, env=env)


def test_what_is_no_such_system(tmp_path: Path) -> None:
    with run_sshd(tmp_path / "sshd") as box:
        assert "testbox is not a baserock system" in fail(
            "ssh-rsync.check", HOST, env=environment(box)
        )
        assert "Unable to SSH to deadbox" in fail("ssh-rsync.check", DEAD, env=environment(box))
        errors = fail("ssh-rsync.check", "-oProxyCommand=x", env=environment(box))
        assert "is no host for ssh" in errors


@needs_root
def test_what_is_missing_there(box: Sshd, tree: Path) -> None:
    box.add_command("id", "echo 1000")
    assert "it has to be root" in fail("ssh-rsync.check", HOST, env=environment(box))
    (box.commands / "id").unlink()
    box.add_command("cat", "echo /dev/sda / ext4 rw 0 0")
    errors = fail("ssh-rsync.write", tree, HOST, env=environment(box))
    assert "the root file system of testbox is ext4, not btrfs" in errors
    (box.commands / "cat").unlink()
    box.add_command("sh", 'PATH=/nonexistent exec /bin/sh "$@"')
    errors = fail("ssh-rsync.check", HOST, env=environment(box))
    assert "testbox does not have rsync, btrfs, blkid, mktemp" in errors
