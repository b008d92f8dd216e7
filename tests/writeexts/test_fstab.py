from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from morphlib.writeexts.fstab import (
    STATE_DIRECTORIES,
    complete_fstab,
    read_mounts,
    replace_root,
    root_from_environment,
)

ALL = """
# Morph default system layout
UUID=1234  / btrfs defaults,rw,noatime 0 1
UUID=1234  /home  btrfs subvol=/state/home,defaults,rw,noatime 0 2
UUID=1234  /root  btrfs subvol=/state/root,defaults,rw,noatime 0 2
UUID=1234  /opt  btrfs subvol=/state/opt,defaults,rw,noatime 0 2
UUID=1234  /srv  btrfs subvol=/state/srv,defaults,rw,noatime 0 2
UUID=1234  /var  btrfs subvol=/state/var,defaults,rw,noatime 0 2
"""


def test_mounts_are_read() -> None:
    text = (
        "# /dev/sdc /no\n  /dev/sda   /\text4 rw 0 1\n#x\n\nlonely\n"
        "LABEL=my\\040disk /srv/a\\040b/ auto\ntmpfs /tmp/\n  # x /y\nswap none swap\n"
    )
    assert read_mounts(text) == {
        "/": "/dev/sda",
        "/srv/a b": "LABEL=my disk",
        "/tmp": "tmpfs",
        "none": "swap",
    }


def test_everything_is_added_to_an_empty_table() -> None:
    done = complete_fstab("", rootfs_uuid="1234", root_device="/dev/vda")
    assert done.text == ALL
    assert done.state == ("home", "root", "opt", "srv", "var")
    assert done.root_device == "UUID=1234"


def test_entries_that_are_there_win() -> None:
    before = "/dev/sda2 / ext4 rw 0 1\n/dev/sda3 /home/ ext4 rw 0 2\n/dev/sda4 /var/tmp ext4 rw 0 2"
    done = complete_fstab(before, rootfs_uuid="1234")
    assert done.text.startswith(before + "\n# Morph default system layout\n/dev/sda2  /root  btrfs")
    assert done.state == ("root", "opt", "srv", "var")
    assert "1234" not in done.text


def test_root_device_is_the_last_resort() -> None:
    assert "\n/dev/sda  / btrfs" in complete_fstab("").text
    assert "\n/dev/vda  / btrfs" in complete_fstab("", root_device="/dev/vda").text
    assert root_from_environment({}) == "/dev/sda"
    assert root_from_environment({"ROOT_DEVICE": ""}) == "/dev/sda"
    assert root_from_environment({"ROOT_DEVICE": "/dev/vda"}) == "/dev/vda"


@given(
    st.text(max_size=50),
    st.lists(st.sampled_from(["/", *STATE_DIRECTORIES]), max_size=4),
    st.none() | st.uuids().map(str),
)
def test_completing_twice_changes_nothing(text: str, points: list[str], uuid: str | None) -> None:
    text += "".join(f"\n/dev/x{n} /{point.strip('/')} auto\n" for n, point in enumerate(points))
    once = complete_fstab(text, rootfs_uuid=uuid)
    assert once.text.startswith(text)
    mounts = read_mounts(once.text)
    assert {"/", *(f"/{name}" for name in STATE_DIRECTORIES)} <= mounts.keys()
    assert all(mounts[f"/{name}"] == once.root_device for name in once.state)
    assert mounts["/"] == once.root_device
    again = complete_fstab(once.text, rootfs_uuid=uuid)
    assert again.text == once.text
    assert again.state == ()


def test_the_root_can_be_replaced() -> None:
    before = "# kept\n/dev/sda / ext4\n/dev/sdb /srv ext4\nUUID=1 // btrfs"
    assert replace_root(before, "/dev/vda / btrfs") == (
        "/dev/vda / btrfs\n# kept\n/dev/sdb /srv ext4\n"
    )
