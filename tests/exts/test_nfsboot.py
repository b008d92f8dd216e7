"""Systems on servers that machines boot from over the network."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.exts.nfsbox import EXPORTS, NfsBox, run_nfs_box
from tests.exts.programs import EXTS, fail, succeed
from tests.sshd import DEAD, HOST, run_sshd

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root, for the mounts of the server"
)
LINE = "/srv/nfsboot/web *(rw,no_subtree_check,no_root_squash,async)\n"
FACTORY = [
    "tftp",
    "tftp/web -> web-factory",
    "tftp/web-factory",
    "web",
    "web/systems",
    "web/systems/default -> /srv/nfsboot/web/systems/factory",
    "web/systems/factory",
    "web/systems/factory/orig",
    "web/systems/factory/run",
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NfsBox]:
    with run_nfs_box(tmp_path_factory.mktemp("box")) as box:
        yield box


@pytest.fixture
def box(running: NfsBox) -> NfsBox:
    running.reset()
    return running


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    for name in ("boot", "dev", "etc", "usr/bin"):
        (tree / name).mkdir(parents=True)
    (tree / "boot/vmlinuz-6").write_text("kernel\n")
    (tree / "boot/vmlinuz-6").chmod(0o600)
    (tree / "boot/vmlinuz").symlink_to("/boot/vmlinuz-6")
    (tree / "etc/hostname").write_text("web\n")
    (tree / "usr/bin/tool").write_text("tool\n")
    os.link(tree / "usr/bin/tool", tree / "usr/bin/same")
    (tree / "odd 'name $(x)").write_text("odd\n")
    os.setxattr(tree / "usr/bin/tool", "user.note", b"kept")
    return tree


def deploy(box: NfsBox, tree: Path, **more: str) -> str:
    return succeed("nfsboot.write", tree, HOST, env=box.environment(HOSTNAME="web", **more))


@needs_root
def test_first_version(box: NfsBox, tree: Path) -> None:
    succeed("nfsboot.check", HOST, env=box.environment(HOSTNAME="web"))
    assert box.listing() == ["tftp"]
    printed = deploy(box, tree)
    assert "testbox:/srv/nfsboot/web/systems/default/run" in printed
    assert box.listing() == [*FACTORY[:-2], "web/systems/factory/orig", "web/systems/factory/run"]
    version = box.root / "web/systems/factory"
    for name in ("orig", "run"):
        assert (version / name / "etc/hostname").read_text() == "web\n"
        assert (version / name / "odd 'name $(x)").read_text() == "odd\n"
        assert (version / name / "usr/bin/tool").samefile(version / "orig/usr/bin/same")
        assert os.getxattr(version / name / "usr/bin/tool", "user.note") == b"kept"
    assert not (version / "run/etc/hostname").samefile(version / "orig/etc/hostname")
    assert not (version / "run/kernel").exists()
    kernel = box.root / "tftp/web"
    assert kernel.read_text() == "kernel\n"
    assert kernel.samefile(version / "orig/kernel")
    assert stat.S_IMODE(kernel.stat().st_mode) == 0o644
    assert stat.S_IMODE((version / "orig/boot/vmlinuz-6").stat().st_mode) == 0o600
    assert box.exports == EXPORTS + LINE
    assert stat.S_IMODE((box.etc / "exports").stat().st_mode) == 0o640
    assert box.told == [
        "is-enabled nfs-server.service",
        "is-enabled nfs-server.service",
        "reload-or-restart nfs-server.service",
    ]


@needs_root
def test_another_version(box: NfsBox, tree: Path) -> None:
    deploy(box, tree)
    (tree / "boot/vmlinuz-6").write_text("new kernel\n")
    deploy(box, tree, VERSION_LABEL="v2")
    listing = box.listing()
    assert "tftp/web -> web-v2" in listing
    assert "web/systems/default -> /srv/nfsboot/web/systems/v2" in listing
    assert (box.root / "tftp/web").read_text() == "new kernel\n"
    assert (box.root / "tftp/web-factory").read_text() == "kernel\n"
    assert box.exports == EXPORTS + LINE
    assert sum(line.startswith("reload") for line in box.told) == 1


@needs_root
def test_versions_are_not_replaced(box: NfsBox, tree: Path) -> None:
    deploy(box, tree)
    for name, args in (("check", [HOST]), ("write", [tree, HOST])):
        errors = fail(f"nfsboot.{name}", *args, env=box.environment(HOSTNAME="web"))
        assert "Root file system for host web (version factory) already exists" in errors
    assert box.listing() == FACTORY


@needs_root
def test_kernels_of_others_are_not_replaced(box: NfsBox, tree: Path) -> None:
    (box.root / "tftp/web-v2").symlink_to("web-v2-factory")
    env = box.environment(HOSTNAME="web", VERSION_LABEL="v2")
    assert "On root@testbox, /srv/nfsboot/tftp/web-v2 exists already" in fail(
        "nfsboot.check", HOST, env=env
    )
    (box.root / "tftp/web").mkdir()
    errors = fail("nfsboot.write", tree, HOST, env=box.environment(HOSTNAME="web"))
    assert "is something else than a link" in errors
    assert box.listing() == ["tftp", "tftp/web", "tftp/web-v2 -> web-v2-factory"]


@needs_root
@pytest.mark.parametrize(
    "before",
    [
        "/srv/nfsboot/web 10.0.0.1(rw)\n",
        '"/srv/nfsboot/web/" \\\n  10.0.0.1(rw)\n',
        "/srv/nfsboot/web\t*(ro)",
    ],
)
def test_what_is_exported_stays(box: NfsBox, tree: Path, before: str) -> None:
    (box.etc / "exports").write_text(before)
    deploy(box, tree)
    assert box.exports == before
    assert "reload-or-restart nfs-server.service" not in box.told


@needs_root
def test_other_exports_are_not_mistaken_for_it(box: NfsBox, tree: Path) -> None:
    before = "#/srv/nfsboot/web *(rw)\n/srv/nfsboot/web2 *(rw)\n/x /srv/nfsboot/web"
    (box.etc / "exports").write_text(before)
    deploy(box, tree)
    assert box.exports == f"{before}\n{LINE}"


@needs_root
def test_exports_behind_a_link(box: NfsBox, tree: Path) -> None:
    (box.etc / "exports").rename(box.etc / "exports.real")
    (box.etc / "exports").symlink_to("exports.real")
    deploy(box, tree)
    (box.etc / "exports.real").rename(box.etc / "exports")
    assert box.exports == EXPORTS + LINE


@needs_root
def test_only_some_may_mount(box: NfsBox, tree: Path) -> None:
    deploy(box, tree, NFSBOOT_CLIENTS="10.1.0.0/16  web.example.com")
    options = "(rw,no_subtree_check,no_root_squash,async)"
    line = f"/srv/nfsboot/web 10.1.0.0/16{options} web.example.com{options}\n"
    assert box.exports == EXPORTS + line


@needs_root
def test_side_by_side(box: NfsBox, tree: Path) -> None:
    """Neither forgets what the other wrote."""
    names = [f"web{number}" for number in range(4)]
    children = [
        subprocess.Popen(
            [EXTS / "nfsboot.write", tree, HOST],
            env=box.environment(HOSTNAME=name),
            stdout=subprocess.DEVNULL,
        )
        for name in names
    ]
    assert [child.wait() for child in children] == [0, 0, 0, 0]
    assert box.exports.startswith(EXPORTS)
    added = box.exports.removeprefix(EXPORTS)
    assert sorted(added.splitlines(keepends=True)) == [LINE.replace("web", name) for name in names]


@needs_root
@pytest.mark.parametrize(
    ("command", "script"),
    [
        ("rsync", '[ "$1" = --server ] || exec /usr/bin/rsync "$@"\necho no room >&2; exit 11'),
        ("cp", '[ "$1" != -al ] || exit 1\nexec /bin/cp "$@"'),
        ("mknod", "exit 1"),
        ("mv", 'case $4 in */factory) exit 1;; esac\nexec /bin/mv "$@"'),
        ("mv", 'case $4 in */default) exit 1;; esac\nexec /bin/mv "$@"'),
        ("mv", 'case $4 in */tftp/web) exit 1;; esac\nexec /bin/mv "$@"'),
        ("mv", 'case $4 in */exports) exit 1;; esac\nexec /bin/mv "$@"'),
        ("ln", "exit 1"),
        ("systemctl", '[ "$1" = is-enabled ]'),
    ],
)
def test_failures_leave_nothing(
    box: NfsBox, tree: Path, tmp_path: Path, command: str, script: str
) -> None:
    table = tmp_path / "devices"
    (tree / "dev/null").touch()
    fields = {"mode": stat.S_IFCHR | 0o666, "uid": 0, "gid": 0, "major": 1, "minor": 3}
    table.write_text(json.dumps({"dev/null": fields}))
    box.sshd.add_command(command, script)
    env = box.environment(HOSTNAME="web", MORPH_DEVICE_TABLE=str(table))
    done = subprocess.run(
        [EXTS / "nfsboot.write", tree, HOST], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "failed on root@testbox" in done.stderr
    assert box.listing() == ["tftp"]
    assert box.exports == EXPORTS
    assert {path.name for path in box.etc.iterdir() if path.name.startswith("exports")} == {
        "exports"
    }


@needs_root
def test_what_boots_stays_after_a_failure(box: NfsBox, tree: Path) -> None:
    deploy(box, tree)
    box.sshd.add_command("mv", 'case $4 in */tftp/web) exit 1;; esac\nexec /bin/mv "$@"')
    env = box.environment(HOSTNAME="web", VERSION_LABEL="v2")
    assert "linking /srv/nfsboot/tftp/web" in fail("nfsboot.write", tree, HOST, env=env)
    assert box.listing() == FACTORY
    assert (box.root / "tftp/web").read_text() == "kernel\n"
    assert box.exports == EXPORTS + LINE


@needs_root
def test_interrupted(box: NfsBox, tree: Path) -> None:
    box.sshd.add_command("cp", 'touch /srv/copying; sleep 1; exec /bin/cp "$@"')
    child = subprocess.Popen(
        [EXTS / "nfsboot.write", tree, HOST],
        env=box.environment(HOSTNAME="web"),
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (box.srv / "copying").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    child.terminate()
    assert child.wait() == -15
    (box.srv / "copying").unlink()
    assert box.listing() == ["tftp"]


@needs_root
def test_hostile_links_lead_nowhere(box: NfsBox, tree: Path) -> None:
    outside = box.srv / "outside"
    outside.write_text("outside\n")
    (tree / "kernel").symlink_to("/srv/outside")
    (tree / "etc/hostname").unlink()
    (tree / "etc").rmdir()
    (tree / "etc").symlink_to("/srv")
    deploy(box, tree)
    assert outside.read_text() == "outside\n"
    assert (box.root / "tftp/web").read_text() == "kernel\n"
    assert (box.root / "web/systems/factory/run/etc").readlink() == Path("/srv")


@needs_root
def test_devices_of_an_ordinary_user(box: NfsBox, tree: Path) -> None:
    home = Path(tempfile.mkdtemp(prefix="morph-tests-"))
    try:
        shutil.copytree(tree, home / "tree", symlinks=True)
        (home / "tree/dev/console").touch()
        table = home / "devices"
        fields = {"mode": stat.S_IFCHR | 0o620, "uid": 0, "gid": 5, "major": 5, "minor": 1}
        table.write_text(json.dumps({"dev/console": fields}))
        for path in (home, *home.rglob("*")):
            os.chown(path, 65534, 65534, follow_symlinks=False)
        env = {
            "PATH": box.sshd.path_for(65534, home),
            "HOSTNAME": "web",
            "MORPH_DEVICE_TABLE": str(table),
        }
        succeed("nfsboot.check", f"root@{HOST}", env=env, user=65534)
        succeed("nfsboot.write", home / "tree", f"root@{HOST}", env=env, user=65534)
    finally:
        shutil.rmtree(home)
    for name in ("orig", "run"):
        found = (box.root / f"web/systems/factory/{name}/dev/console").stat()
        assert (found.st_mode, found.st_gid) == (stat.S_IFCHR | 0o620, 5)
        assert found.st_rdev == os.makedev(5, 1)


@needs_root
def test_what_is_no_such_server(box: NfsBox) -> None:
    env = box.environment(HOSTNAME="web")
    box.sshd.add_command("sh", f'PATH={box.sshd.commands} exec /bin/sh "$@"')
    assert "does not have rsync, flock, mktemp" in fail("nfsboot.check", HOST, env=env)
    (box.sshd.commands / "sh").unlink()
    (box.root / "tftp").rmdir()
    assert "does not export /srv/nfsboot/tftp" in fail("nfsboot.check", HOST, env=env)
    box.sshd.add_command("systemctl", "exit 1")
    errors = fail("nfsboot.check", HOST, env=env)
    assert "does not control its nfs server by systemd" in errors
    (box.etc / "exports").unlink()
    assert "root@testbox is not an nfs server" in fail("nfsboot.check", HOST, env=env)


def test_where_nobody_answers(tmp_path: Path) -> None:
    with run_sshd(tmp_path / "sshd") as box:
        env = {"PATH": box.env["PATH"], "HOSTNAME": "web"}
        assert f"Unable to SSH to root@{DEAD}" in fail("nfsboot.check", DEAD, env=env)
        assert "is no host for ssh" in fail("nfsboot.check", "-oProxyCommand=x", env=env)
        assert "it is root that logs in" in fail("nfsboot.check", f"me@{HOST}", env=env)


def test_a_system_without_a_kernel(tree: Path) -> None:
    """Before anything is said to the other side: it need not even be there."""
    (tree / "boot/vmlinuz-6").unlink()
    errors = fail("nfsboot.write", tree, DEAD, env={"HOSTNAME": "web"})
    assert "Could not find a kernel in the system" in errors


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"HOSTNAME": "web", "UPGRADE": "yes"}, "Upgrading is not currently supported for NFS"),
        ({}, "You must specify a HOSTNAME."),
        ({"HOSTNAME": ""}, "You must specify a HOSTNAME."),
        ({"HOSTNAME": "baserock"}, 'forbidden to nfsboot a system with hostname "baserock"'),
        ({"HOSTNAME": "tftp"}, "no machine can have the name tftp"),
        ({"HOSTNAME": "../web"}, "is no host name"),
        ({"HOSTNAME": "-web"}, "is no host name"),
        ({"HOSTNAME": "web", "VERSION_LABEL": "a/b"}, "letters, digits and hyphens"),
        ({"HOSTNAME": "web", "NFSBOOT_CLIENTS": "a(rw)"}, "nothing that exports(5) knows"),
    ],
)
def test_parameters(env: dict[str, str], message: str) -> None:
    assert message in fail("nfsboot.check", HOST, env=env)
