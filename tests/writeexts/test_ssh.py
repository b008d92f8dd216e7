from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from morphlib import process
from morphlib.errors import MorphError
from morphlib.writeexts.ssh import (
    check_ssh_connectivity,
    checked_host,
    remote_succeeds,
    rsync_command,
    rsync_to,
    run_remote,
    spawn_remote,
    ssh_command,
)
from tests.sshd import DEAD, HOST, Sshd, run_sshd


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with run_sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def box(server: Sshd, monkeypatch: pytest.MonkeyPatch) -> Sshd:
    monkeypatch.setenv("PATH", server.env["PATH"])
    return server


@pytest.mark.parametrize(
    "host", ["box", "root@box.example.com", "me.too@10.0.0.1", "root@fe80::1%eth0", "a-b", "a@b-c"]
)
def test_hosts(host: str) -> None:
    assert checked_host(host) == host
    command = ssh_command(host, ["true"])
    assert command[0] == "ssh"
    assert command[-3:] == ["--", host, "true"]


@pytest.mark.parametrize(
    "host",
    ["", "-oProxyCommand=touch /tmp/x", "root@-oProxyCommand=x", "a b", "a\nb", "root@", "$(x)"],
)
def test_wrong_hosts(host: str) -> None:
    with pytest.raises(MorphError, match="is no host for ssh"):
        run_remote(host, ["true"])
    with pytest.raises(MorphError, match="is no host for ssh"):
        rsync_to(host, Path(), "/srv")


def test_arguments_arrive_as_they_are(box: Sshd) -> None:
    odd = ["a b", "$HOME", "'", '"', "*", "-n", "", "x;y", "new\nline", "\\"]
    done = run_remote(HOST, ["printf", "%s\\0", *odd])
    assert done.stdout.decode().split("\0")[:-1] == odd


def test_data_is_fed_and_failures_are_told(box: Sshd) -> None:
    assert run_remote(HOST, ["cat"], stdin=b"\0\xff data").stdout == b"\0\xff data"
    assert run_remote(HOST, ["sh", "-c", "exit 3"], check=False).status == 3
    with pytest.raises(MorphError, match=r"exit 3' failed on testbox \(exit status 3\)\n    bad"):
        run_remote(HOST, ["sh", "-c", "echo bad >&2; exit 3"])
    assert remote_succeeds(HOST, ["true"])
    assert not remote_succeeds(HOST, ["test", "-e", "/proc/none"])


def test_streams(box: Sshd, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(1 << 20))
    target = tmp_path / "target"
    with source.open("rb") as file:
        child = spawn_remote(HOST, ["dd", f"of={target}"], stdin=file.fileno())
    assert child.wait(timeout=60) == 0
    assert target.read_bytes() == source.read_bytes()
    child = spawn_remote(HOST, ["cat", target], stdout=process.PIPE)
    assert child.communicate(timeout=60)[0] == source.read_bytes()


def test_connectivity(box: Sshd) -> None:
    check_ssh_connectivity(HOST)
    with pytest.raises(MorphError, match=r"Unable to SSH to deadbox(.|\n)*refused"):
        check_ssh_connectivity(DEAD)
    with pytest.raises(MorphError, match=r"Can't reach deadbox with ssh: .*refused"):
        remote_succeeds(DEAD, ["true"])


def test_what_runs_there_can_be_replaced_in_tests(box: Sshd) -> None:
    program = box.add_command("virsh", "printf 'fake %s' \"$*\"")
    try:
        assert run_remote(HOST, ["virsh", "list", "a b"]).stdout == b"fake list a b"
    finally:
        program.unlink()


def test_a_changed_key_is_refused_whatever_is_configured(tmp_path: Path) -> None:
    with run_sshd(tmp_path / "sshd") as running:
        config = running.directory / "ssh_config"
        lax = config.read_text().replace("Checking accept-new", "Checking no")
        config.write_text(lax)
        environment = {**os.environ, "PATH": running.env["PATH"]}
        known = running.directory / "known"

        def log_in() -> subprocess.CompletedProcess[bytes]:
            code = "from morphlib.writeexts.ssh import *; check_ssh_connectivity('testbox')"
            return subprocess.run(
                [sys.executable, "-c", code], env=environment, capture_output=True, check=False
            )

        assert log_in().returncode == 0
        host, kind, _ = known.read_text().split()[:3]
        other = (running.directory / "user.pub").read_text().split()[1]
        known.write_text(f"{host} {kind} {other}\n")
        assert b"Unable to SSH to testbox" in log_in().stderr
        config.write_text(lax.replace("Checking no", "Checking yes"))
        known.write_text("")
        assert b"Unable to SSH to testbox" in log_in().stderr


def test_noise_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "ssh"
    fake.write_text("#!/bin/sh\necho Welcome; echo test\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(MorphError, match="Unexpected output from remote machine: Welcome"):
        check_ssh_connectivity("box")


def test_trees_are_copied(box: Sshd, tmp_path: Path) -> None:
    source = tmp_path / "a 'b"
    (source / "sub dir").mkdir(parents=True)
    (source / ".dot").write_text("x")
    (source / "sub dir/$(touch x)").write_text("y")
    target = tmp_path / "to * here"
    target.mkdir()
    (target / "old").write_text("")
    rsync_to(HOST, source, str(target))
    assert sorted(p.name for p in target.rglob("*")) == ["$(touch x)", ".dot", "sub dir"]
    with pytest.raises(MorphError, match="Can't copy to /proc/no on testbox"):
        rsync_to(HOST, source, "/proc/no")


def test_rsync_gets_no_module_and_no_split_address() -> None:
    assert rsync_command("root@fe80::1", Path("/"), "/x", [])[-1] == "root@[fe80::1]:/x/"
    with pytest.raises(MorphError, match="no absolute path"):
        rsync_command("box", Path("/"), ":module", [])
