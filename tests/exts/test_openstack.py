"""Systems as images in a cloud."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from morphlib.errors import MorphError
from morphlib.images.btrfs.reader import Image
from morphlib.writeexts.openstackcloud import Account, logged_in
from tests.exts.cloud import PASSWORD, Cloud, make_certificate, run_cloud
from tests.exts.programs import EXTS, fail, run_extension, succeed

SETTINGS = {
    "OPENSTACK_USER": "demo",
    "OPENSTACK_PASSWORD": PASSWORD,
    "OPENSTACK_TENANT": "demos",
    "OPENSTACK_IMAGENAME": "web image",
    "DISK_SIZE": "64M",
    "BOOTLOADER_INSTALL": "none",
    "BOOTLOADER_CONFIG_FORMAT": "extlinux",
    "MORPH_SYSTEM_KEY": "0" * 64,
}


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with run_cloud() as running:
        yield running


@pytest.fixture
def tree(bootable_tree: Path) -> Path:
    return bootable_tree


def test_log_in(cloud: Cloud) -> None:
    succeed("openstack.check", cloud.url, env=SETTINGS)
    assert cloud.requests[0] == "POST /identity/v3/auth/tokens"
    assert not cloud.images


@pytest.mark.parametrize("old", ["", "/", "/v3/", "/v2.0", "/v2.0/"])
def test_locations(cloud: Cloud, old: str) -> None:
    succeed("openstack.check", cloud.url.removesuffix("/v3") + old, env=SETTINGS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENSTACK_PASSWORD", "wrong"),
        ("OPENSTACK_TENANT", "others"),
        ("OPENSTACK_USER", "me"),
        ("OPENSTACK_USER_DOMAIN", "Other"),
        ("OPENSTACK_PROJECT_DOMAIN", "Other"),
    ],
)
def test_who_may_not(cloud: Cloud, name: str, value: str) -> None:
    errors = fail("openstack.check", cloud.url, env={**SETTINGS, name: value})
    assert "Failed to authenticate with OpenStack" in errors
    assert "Wrong credentials." in errors


def test_where_no_cloud_is(cloud: Cloud) -> None:
    errors = fail("openstack.check", "http://localhost:1/v3", env=SETTINGS)
    assert "Failed to authenticate with OpenStack" in errors
    cloud.faults.add("no images")
    errors = fail("openstack.check", cloud.url, env=SETTINGS)
    assert "OpenStack has no images to offer" in errors


def test_regions(cloud: Cloud) -> None:
    cloud.regions = ("north", "south")
    succeed("openstack.check", cloud.url, env={**SETTINGS, "OPENSTACK_REGION": "south"})
    errors = fail("openstack.check", cloud.url, env={**SETTINGS, "OPENSTACK_REGION": "east"})
    assert "OpenStack has no images to offer" in errors


def test_upload(cloud: Cloud, tree: Path, tmp_path: Path) -> None:
    printed = succeed("openstack.write", tree, cloud.url, env={**SETTINGS, "TMPDIR": str(tmp_path)})
    ((number, image),) = cloud.images.items()
    assert f"The image web image is in OpenStack, with the id {number}" in printed
    assert (image.name, image.status, image.size) == ("web image", "active", 64 << 20)
    assert {path.name for path in tmp_path.iterdir()} == {"tree"}
    arrived = tmp_path / "arrived"
    arrived.write_bytes(image.content)
    with Image(arrived) as disk:
        assert b" root=/dev/vda" in disk.read_file("extlinux.conf")
        assert disk.read_file("systems/default/run/etc/hostname") == b"web\n"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """An image with a hole."""
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.write(b"start" * 1_000_000)
        file.seek(5 << 20, os.SEEK_CUR)
        file.write(b"end")
    return path


def test_content_arrives_whole(cloud: Cloud, disk: Path) -> None:
    told = []
    with logged_in(account(cloud)) as there:
        number = there.upload("disk", disk, lambda done, size: told.append((done, size)))
    assert cloud.images[number].content == disk.read_bytes()
    size = disk.stat().st_size
    assert told[-1] == (size, size)
    assert len(told) > 10


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("quota", "OpenStack did not take the image: .*too many images"),
        ("hang up", "OpenStack did not take the image: "),
        ("redirect", "OpenStack did not take the image: .*307"),
        ("token", "OpenStack did not take the image: .*who are you?"),
        ("full", "OpenStack did not take the image: .*no room"),
        ("bad disk", "OpenStack has another image than was sent"),
        ("short", "10242882 bytes instead of 10242883"),
        ("killed", "another image than was sent .status killed"),
    ],
)
def test_failures_leave_nothing(cloud: Cloud, disk: Path, fault: str, message: str) -> None:
    cloud.faults.add(fault)
    with logged_in(account(cloud)) as there, pytest.raises(MorphError, match=message):
        there.upload("disk", disk, lambda done, size: None)
    assert not cloud.images


def test_interrupted(cloud: Cloud, disk: Path) -> None:
    def interrupt(done: int, size: int) -> None:
        raise KeyboardInterrupt

    with logged_in(account(cloud)) as there, pytest.raises(KeyboardInterrupt):
        there.upload("disk", disk, interrupt)
    assert not cloud.images


def account(cloud: Cloud) -> Account:
    return Account(cloud.url, "demo", "demos", PASSWORD)


def test_the_password_is_told_to_nobody(cloud: Cloud, tree: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    fd = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.set_inheritable(fd, True)
    done = subprocess.run(
        [sys.executable, EXTS / "openstack.write", tree, cloud.url],
        env={**SETTINGS, "PATH": os.environ["PATH"], "MORPH_LOG_FD": str(fd)},
        pass_fds=[fd],
        capture_output=True,
        check=True,
    )
    os.close(fd)
    logged = log.read_bytes()
    assert b"POST" in logged
    for text in (logged, done.stdout, done.stderr):
        assert PASSWORD.encode() not in text
        assert b"pass w" not in text
        assert not any(token.encode() in text for token in cloud.tokens)


def test_certificates(tmp_path: Path) -> None:
    both, alone = make_certificate(tmp_path)
    with run_cloud(both) as cloud:
        succeed("openstack.check", cloud.url, env={**SETTINGS, "OPENSTACK_CACERT": str(alone)})
        relative = {**SETTINGS, "OPENSTACK_CACERT": alone.name}
        succeed("openstack.check", cloud.url, env=relative, cwd=tmp_path)
        cloud.requests.clear()
        errors = fail("openstack.check", cloud.url, env=SETTINGS)
        assert "certificate" in errors.lower()
        assert not cloud.requests
        wrong = cloud.url.replace("localhost", "127.0.0.1")
        env = {**SETTINGS, "OPENSTACK_CACERT": str(alone)}
        assert "127.0.0.1" in fail("openstack.check", wrong, env=env)
        assert not cloud.requests


def test_the_environment_of_other_programs_has_no_say(cloud: Cloud, tmp_path: Path) -> None:
    (tmp_path / "clouds.yaml").write_text("clouds: {x: {auth: {auth_url: 'http://localhost:1'}}}")
    env = {**SETTINGS, "OS_CLOUD": "x", "OS_AUTH_URL": "http://localhost:1", "OS_PASSWORD": "x"}
    succeed("openstack.check", cloud.url, env=env, cwd=tmp_path)


def test_without_the_library(tmp_path: Path, cloud: Cloud) -> None:
    (tmp_path / "openstack.py").write_text("raise ModuleNotFoundError('no', name='openstack')\n")
    env = {**SETTINGS, "PYTHONPATH": str(tmp_path)}
    errors = run_extension("openstack.check", cloud.url, env=env).stderr
    assert "openstack needs the Python library openstack" in errors
    assert "morph[openstack]" in errors


@pytest.mark.parametrize(
    ("location", "more", "message"),
    [
        ("http://localhost:1/v3", {"UPGRADE": "yes"}, "Use the `ssh-rsync` write extension"),
        ("https://[::1/v3", {}, "Cannot parse location https://[::1/v3"),
        ("ftp://localhost/v3", {}, "URL schema must be http or https in ftp://localhost/v3"),
        ("http://localhost/v1", {}, "API version must be v3 in http://localhost/v1"),
        ("http:///v3", {}, "is no URL of a Keystone"),
        ("http://me:secret@localhost/v3", {}, "do not belong into the location"),
        ("http://localhost/v3", {"OPENSTACK_USER": ""}, "OPENSTACK_USER was not given"),
        ("http://localhost/v3", {"OPENSTACK_PASSWORD": ""}, "OPENSTACK_PASSWORD was not given"),
        ("http://localhost/v3", {"OPENSTACK_TENANT": ""}, "OPENSTACK_TENANT was not given"),
        ("http://localhost/v3", {"OPENSTACK_IMAGENAME": ""}, "OPENSTACK_IMAGENAME was not given"),
        ("http://localhost/v3", {"OPENSTACK_CACERT": "/none"}, "there is no file /none"),
        ("http://localhost/v3", {"DISK_SIZE": ""}, "DISK_SIZE is not defined"),
        ("http://localhost/v3", {"DISK_SIZE": "0"}, "DISK_SIZE is not defined"),
    ],
)
def test_parameters(location: str, more: dict[str, str], message: str) -> None:
    assert message in fail("openstack.check", location, env={**SETTINGS, **more})
