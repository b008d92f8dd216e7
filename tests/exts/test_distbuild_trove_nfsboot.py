"""Distbuild networks on a trove that their machines boot from."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.exts.nfsbox import EXPORTS, NfsBox, run_nfs_box
from tests.exts.programs import fail, run_extension, succeed
from tests.sshd import DEAD, HOST

NAME = "distbuild-trove-nfsboot"
SETTINGS = {
    "DISTBUILD_CONTROLLER": "control",
    "DISTBUILD_WORKERS": "worker1 control  worker2",
    "DISTBUILD_GIT_SERVER": "trove",
    "DISTBUILD_SHARED_ARTIFACT_CACHE": "cache",
    "DISTBUILD_TROVE_ID": "acme",
}
NODES = ("control", "worker1", "worker2")
LINES = "".join(
    f"/srv/nfsboot/{node} *(rw,no_subtree_check,no_root_squash,async)\n" for node in NODES
)
needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root, for the mounts of the server"
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NfsBox]:
    with run_nfs_box(tmp_path_factory.mktemp("box")) as box:
        yield box


@pytest.fixture
def box(running: NfsBox) -> NfsBox:
    running.reset()
    return running


@pytest.fixture
def key(tmp_path: Path) -> str:
    (tmp_path / "own.key").write_text("private\n")
    return str(tmp_path / "own.key")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    for name in ("boot", "etc", "usr/bin"):
        (tree / name).mkdir(parents=True)
    (tree / "boot/vmlinuz-6").write_text("kernel\n")
    (tree / "boot/vmlinuz-6").chmod(0o600)
    (tree / "boot/vmlinuz").symlink_to("vmlinuz-6")
    (tree / "etc/hostname").write_text("baserock\n")
    (tree / "usr/bin/tool").write_text("tool\n")
    os.link(tree / "usr/bin/tool", tree / "usr/bin/same")
    return tree


def environment(box: NfsBox, key: str, **more: str) -> dict[str, str]:
    return box.environment(**SETTINGS, DISTBUILD_WORKER_SSH_KEY=key, **more)


def systems(box: NfsBox) -> list[str]:
    """Versions, and links with where they lead."""
    return sorted(line for line in box.listing() if line.split(" ")[0].count("/") < 3)


def expected(label: str, *others: str) -> list[str]:
    found = ["tftp"]
    for node in NODES:
        found += [f"tftp/{node} -> {node}-{label}"]
        found += sorted(f"tftp/{node}-{each}" for each in (label, *others))
        found += [node, f"{node}/systems"]
        found += [f"{node}/systems/{each}" for each in (label, *others)]
        found += [f"{node}/systems/default -> /srv/nfsboot/{node}/systems/{label}"]
    return sorted(found)


@needs_root
def test_first_version(box: NfsBox, tree: Path, key: str) -> None:
    env = environment(box, key, HOST_MAP="worker2=10.0.0.7 trove=10.0.0.1 x=10.9.9.9")
    succeed(f"{NAME}.check", HOST, env=env)
    assert box.listing() == ["tftp"]
    succeed(f"{NAME}.write", tree, HOST, env=env)
    assert sorted(box.listing()) == sorted(
        [*expected("factory"), *(f"{node}/systems/factory/run" for node in NODES)]
    )
    for node in NODES:
        run = box.root / node / "systems/factory/run"
        assert (run / "etc/hostname").read_text() == f"{node}\n"
        assert (run / "etc/distbuild/worker.key").read_text() == "private\n"
        assert stat.S_IMODE((run / "etc/distbuild/worker.key").stat().st_mode) == 0o600
        assert stat.S_IMODE((run / "etc/distbuild").stat().st_mode) == 0o755
        assert yaml.safe_load((run / "etc/distbuild/distbuild.conf").read_text()) == {
            "ARTIFACT_CACHE_SERVER": "cache",
            "CONTROLLERHOST": "control",
            "TROVE_HOST": "10.0.0.1",
            "TROVE_ID": "acme",
            "DISTBUILD_CONTROLLER": node == "control",
            "DISTBUILD_WORKER": True,
            "WORKERS": "worker1, control, 10.0.0.7",
            "WORKER_SSH_KEY": "/etc/distbuild/worker.key",
        }
        kernel = box.root / "tftp" / node
        assert kernel.samefile(run / "boot/vmlinuz-6")
        assert stat.S_IMODE(kernel.stat().st_mode) == 0o644
        assert (run / "usr/bin/tool").stat().st_nlink == 1
    assert box.exports == EXPORTS + LINES
    assert box.told.count("reload-or-restart nfs-server.service") == 1
    assert (tree / "etc/hostname").read_text() == "baserock\n"


@needs_root
def test_upgrade(box: NfsBox, tree: Path, key: str) -> None:
    succeed(f"{NAME}.write", tree, HOST, env=environment(box, key))
    (tree / "usr/bin/tool").write_text("new tool\n")
    again = environment(box, key, VERSION_LABEL="v2")
    errors = fail(f"{NAME}.check", HOST, env=again)
    for node in NODES:
        assert f"System {node} already exists at root@testbox" in errors
    assert "Try `morph upgrade`" in errors
    same = environment(box, key, UPGRADE="yes")
    assert "version factory already exists" in fail(f"{NAME}.write", tree, HOST, env=same)
    succeed(f"{NAME}.write", tree, HOST, env={**again, "UPGRADE": "yes"})
    assert systems(box) == expected("v2", "factory")
    for label, content in (("factory", "tool\n"), ("v2", "new tool\n")):
        path = box.root / f"worker2/systems/{label}/run/usr/bin/tool"
        assert path.read_text() == content
    assert box.exports == EXPORTS + LINES


@needs_root
def test_overwrite(box: NfsBox, tree: Path, key: str) -> None:
    succeed(f"{NAME}.write", tree, HOST, env=environment(box, key))
    (tree / "usr/bin/tool").write_text("new tool\n")
    (tree / "boot/vmlinuz-6").write_text("new kernel\n")
    env = environment(box, key, OVERWRITE="yes")
    box.sshd.add_command("mv", 'case $4 in */tftp/worker2) exit 1;; esac\nexec /bin/mv "$@"')
    assert run_extension(f"{NAME}.write", tree, HOST, env=env).returncode == 1
    assert systems(box) == expected("factory")
    for node in NODES:
        assert (box.root / "tftp" / node).read_text() == "kernel\n"
        run = box.root / node / "systems/factory/run"
        assert (run / "usr/bin/tool").read_text() == "tool\n"
    (box.sshd.commands / "mv").unlink()
    succeed(f"{NAME}.write", tree, HOST, env=env)
    assert systems(box) == expected("factory")
    for node in NODES:
        assert (box.root / "tftp" / node).read_text() == "new kernel\n"
        run = box.root / node / "systems/factory/run"
        assert (run / "usr/bin/tool").read_text() == "new tool\n"


@needs_root
def test_only_what_is_there_is_upgraded(box: NfsBox, tree: Path, key: str) -> None:
    env = environment(box, key, UPGRADE="yes")
    errors = fail(f"{NAME}.write", tree, HOST, env=env)
    assert errors.count("cannot deploy an upgrade") == 3
    assert box.listing() == ["tftp"]


@needs_root
@pytest.mark.parametrize(
    ("command", "script"),
    [
        ("rsync", 'case $* in *--server*) ;; *) exit 1;; esac\nexec /usr/bin/rsync "$@"'),
        ("mv", 'case $3 in */worker.key) exit 1;; esac\nexec /bin/mv "$@"'),
        ("mv", 'case $4 in */worker2/systems/factory) exit 1;; esac\nexec /bin/mv "$@"'),
        ("mv", 'case $4 in */worker2/systems/default) exit 1;; esac\nexec /bin/mv "$@"'),
        ("systemctl", '[ "$1" = is-enabled ]'),
    ],
)
def test_failures_leave_nothing(
    box: NfsBox, tree: Path, key: str, command: str, script: str
) -> None:
    box.sshd.add_command(command, script)
    if command == "rsync":  # only the one that runs on the server is to fail
        script = f'case $* in *"-e ssh"*) exec /usr/bin/rsync "$@";; esac\n{script}'
        box.sshd.add_command(command, script)
    done = run_extension(f"{NAME}.write", tree, HOST, env=environment(box, key))
    assert done.returncode == 1
    assert "failed on root@testbox" in done.stderr
    assert box.listing() == ["tftp"]
    assert box.exports == EXPORTS


@needs_root
def test_hostile_links_lead_nowhere(box: NfsBox, tree: Path, key: str) -> None:
    (box.srv / "hostname").write_text("mine\n")
    (tree / "etc/hostname").unlink()
    (tree / "etc/hostname").symlink_to("/srv/hostname")
    (tree / "etc/distbuild").symlink_to("/srv/distbuild")
    succeed(f"{NAME}.write", tree, HOST, env=environment(box, key))
    assert (box.srv / "hostname").read_text() == "mine\n"
    assert not (box.srv / "distbuild").exists()
    run = box.root / "worker1/systems/factory/run"
    assert (run / "etc/hostname").read_text() == "worker1\n"
    assert (run / "srv/distbuild/worker.key").read_text() == "private\n"


def test_a_system_without_a_kernel(tree: Path, key: str) -> None:
    (tree / "boot/vmlinuz").unlink()
    env = {**SETTINGS, "DISTBUILD_WORKER_SSH_KEY": key}
    errors = fail(f"{NAME}.write", tree, DEAD, env=env)
    assert "Could not find a kernel in the system" in errors


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"DISTBUILD_CONTROLLER": ""}, "Please specify exactly one controller."),
        ({"DISTBUILD_CONTROLLER": "a b"}, "Please specify exactly one controller."),
        ({"DISTBUILD_WORKERS": " "}, "Please specify at least one worker."),
        ({"DISTBUILD_WORKERS": "../x"}, "is no host name"),
        ({"DISTBUILD_WORKERS": "tftp"}, "no machine can have the name tftp"),
        ({"DISTBUILD_TROVE_ID": "a: b"}, "characters that are not expected there"),
        ({"DISTBUILD_WORKER_SSH_KEY": "/none"}, "can't read /none"),
        ({"HOST_MAP": "worker1"}, "'worker1' is not NAME=ADDRESS"),
        ({"DISTBUILD_WORKERS": "control-factory"}, "would have the name of another machine"),
    ],
)
def test_parameters(key: str, more: dict[str, str], message: str) -> None:
    env = {**SETTINGS, "DISTBUILD_WORKER_SSH_KEY": key, **more}
    assert message in fail(f"{NAME}.check", DEAD, env=env)


def test_all_that_is_missing_is_told() -> None:
    env = {"DISTBUILD_WORKERS": "a", "DISTBUILD_TROVE_ID": ""}
    assert (
        "Please set: DISTBUILD_CONTROLLER, DISTBUILD_GIT_SERVER, DISTBUILD_SHARED_ARTIFACT_CACHE, "
        "DISTBUILD_TROVE_ID, DISTBUILD_WORKER_SSH_KEY"
    ) in fail(f"{NAME}.check", DEAD, env=env)
