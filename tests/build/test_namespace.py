"""The namespaces of a builder."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from morphlib.build.idmaps import subordinate_ranges
from morphlib.build.namespace import (
    NamespaceReport,
    enter_build_namespace,
    namespace_remedy,
)
from tests.build.isolation import Failed, in_child, in_namespace


def test_report(user: int) -> None:
    report = in_child(enter_build_namespace, user=user)
    assert isinstance(report, NamespaceReport)
    assert report.user_namespace
    assert report.overlay
    assert report.subordinate_ids == (report.problems == ())


def _forbid_more_user_namespaces() -> None:
    Path("/proc/sys/user/max_user_namespaces").write_text("0")


def test_root_does_without_a_user_namespace_and_says_so(user: int) -> None:
    def check() -> NamespaceReport:
        _forbid_more_user_namespaces()
        return enter_build_namespace()

    report = in_namespace(check, user=user)
    assert not report.user_namespace
    assert any("max_user_namespaces" in problem for problem in report.problems)


def test_user_who_may_have_no_namespace_is_told_what_to_change() -> None:
    def check() -> None:
        _forbid_more_user_namespaces()
        os.setresuid(1, 1, 1)
        enter_build_namespace()

    if os.getuid() != 0:
        pytest.skip("only root can become another user in a namespace")
    with pytest.raises(Failed, match=r"MorphError: .*isolated(.|\n)*max_user_namespaces=15000"):
        in_namespace(check)


def test_uid_is_0_and_no_groups_are_left(user: int) -> None:
    assert in_namespace(lambda: (os.getuid(), os.getgid()), user=user) == (0, 0)


def test_mounts_stay_inside(place: Path, user: int) -> None:
    from morphlib.build import syscalls

    def check() -> list[str]:
        syscalls.mount("tmpfs", str(place), "tmpfs", 0)
        (place / "inside").touch()
        return os.listdir(place)

    assert in_namespace(check, user=user) == ["inside"]
    assert os.listdir(place) == []


def test_loopback_works_and_nothing_else_does(user: int) -> None:
    def check() -> bool:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname()).close()
        try:
            socket.create_connection(("192.0.2.1", 80), timeout=5)
        except OSError:
            return True
        return False

    assert in_namespace(check, user=user)


def test_builder_dies_with_its_parent(tmp_path: Path) -> None:
    def parent() -> int:
        reading, writing = os.pipe()
        builder = os.fork()
        if builder == 0:
            enter_build_namespace(os.getppid())
            os.write(writing, b"1")
            time.sleep(60)
            os._exit(0)
        os.read(reading, 1)
        return builder

    builder = in_child(parent)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{builder}").exists() and time.monotonic() < deadline:
        if "Z" in Path(f"/proc/{builder}/stat").read_text().rpartition(")")[2].split()[0]:
            break
        time.sleep(0.01)
    else:
        assert not Path(f"/proc/{builder}").exists()


def test_builder_whose_parent_is_gone_already_dies() -> None:
    child = os.fork()
    if child == 0:
        enter_build_namespace(1 if os.getppid() != 1 else 2)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_subordinate_ranges(tmp_path: Path) -> None:
    file = tmp_path / "subuid"
    file.write_text("me:100000:65536\nother:1:2\n\n1000:300000:10\nme:x:y\nme:5:0\nbroken\n")
    assert subordinate_ranges(file, {"me", "1000"}) == ((100000, 65536), (300000, 10))
    assert subordinate_ranges(tmp_path / "none", {"me"}) == ()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("kernel.unprivileged_userns_clone", "0"),
        ("user.max_user_namespaces", "0"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1"),
    ],
)
def test_remedy_names_the_setting(setting: str, value: str) -> None:
    assert setting in namespace_remedy({setting: value}.get)


def test_remedy_without_a_setting() -> None:
    assert "container" in namespace_remedy(lambda name: None)


_ADD_KEY, _KEYCTL, _JOIN, _READ, _SESSION = 248, 250, 1, 11, -3


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="knows the calls of x86_64 only")
def test_keys_of_the_session_stay_outside(user: int) -> None:
    def read_key() -> tuple[int, int]:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.syscall(_KEYCTL, _JOIN, None)
        key = libc.syscall(_ADD_KEY, b"user", b"morph-test", b"secret", 6, _SESSION)
        assert key > 0, os.strerror(ctypes.get_errno())
        before = libc.syscall(_KEYCTL, _READ, key, None, 0)
        enter_build_namespace()
        return before, libc.syscall(_KEYCTL, _READ, key, None, 0)

    assert in_child(read_key, user=user) == (6, -1)
