"""A running system with versions on btrfs, as far as one can have it without booting it.

An ssh server in a mount namespace of its own, whose root is the version that `default` names on a
real btrfs; programs come from this machine. Needs root, for the mounts.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.sshd import Sshd, run_sshd

#: Goes to the namespace, makes the disk and becomes what follows, in there.
_ENTER = r"""
set -eu
loop=$1 top=$2 shared=$3
shift 3
mkdir -p "$top"
mount -t btrfs "$loop" "$top"
mkdir -p "$top/systems/factory" "$top/state"
for each in home opt root srv var; do btrfs -q subvolume create "$top/state/$each"; done
orig=$top/systems/factory/orig
btrfs -q subvolume create "$orig"
mkdir "$orig/baserock" "$orig/dev" "$orig/etc" "$orig/proc" "$orig/run" "$orig/tmp" "$orig/usr"
for each in home opt root srv var; do mkdir "$orig/$each"; done
for each in bin lib lib64 sbin; do ln -s "usr/$each" "$orig/$each"; done
echo 'root:x:0:0:root:/root:/bin/sh' >"$orig/etc/passwd"
echo 'sshd:x:100:65534::/run/sshd:/usr/sbin/nologin' >>"$orig/etc/passwd"
echo 'root:x:0:' >"$orig/etc/group"
echo old >"$orig/etc/which"
echo unchanged >"$orig/etc/unchanged"
btrfs -q subvolume snapshot "$orig" "$top/systems/factory/run"
ln -s factory "$top/systems/default"
umount "$top"
mount -t btrfs -o subvol=systems/factory/run "$loop" "$top"
mount --rbind /dev "$top/dev"
mount --rbind /proc "$top/proc"
mount --rbind /usr "$top/usr"
mount -t tmpfs tmpfs "$top/tmp"
mount -t tmpfs tmpfs "$top/run"
mkdir -p "$top/run/sshd" "$top$shared"
mount --bind "$shared" "$top$shared"
exec chroot "$top" "$@"
"""

#: Does with versions what the real one does. Fails where the file named after it says so.
MANAGER = r"""#!/bin/sh
set -eu
new=${0%/usr/bin/*}
top=$(mktemp -d)
trap 'umount "$top"; rmdir "$top"' EXIT
mount -t btrfs -o subvolid=5 "$(sed -n 's| / btrfs .*||p' /proc/mounts)" "$top"
echo "$*" >>"$top/calls"
fails=$(cat "$new/usr/share/fails" 2>/dev/null || true)
case $1 in
    deploy)
        version=${2#/systems/}
        version=${version%/orig}
        btrfs -q subvolume snapshot "$top$2" "$top/systems/$version/run"
        "$BASEROCK_SYSTEM_CONFIG_SYNC" "$top/systems/$version/run"
        echo kernel >"$top/systems/$version/kernel"
        ;;
    set-default)
        [ "$fails" = set-default ] || ln -sfnT "$2" "$top/systems/default"
        ;;
    remove)
        rm "$top/systems/$2/kernel"
        btrfs -q subvolume delete "$top/systems/$2/run" "$top/systems/$2/orig"
        rmdir "$top/systems/$2"
        ;;
esac
if [ "$fails" = "$1" ]; then
    echo "can't $1" >&2
    exit 3
fi
"""

CONFIG_SYNC = """#!/bin/sh
echo "merged by $0" >"$1/etc/merged"
"""


@contextmanager
def run_box(directory: Path) -> Iterator[Sshd]:
    """Run a system whose only version is called `factory`."""
    image = directory / "disk"
    with image.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run(["mkfs.btrfs", "-q", "-L", "baserock", image], check=True)
    loop = subprocess.run(
        ["losetup", "--find", "--show", image], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        enter: list[str | Path] = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            _ENTER,
            "sh",
            loop,
            directory / "root",
        ]
        shared = directory / "sshd"
        with run_sshd(shared, start=[*enter, shared]) as server:
            yield server
    finally:
        subprocess.run(["losetup", "--detach", loop], check=True)


def look(box: Sshd, script: str) -> str:
    """What a shell script prints over there, with the top of the file system as $top."""
    disk = "$(sed -n 's| / btrfs .*||p' /proc/mounts)"
    mounted = f'top=$(mktemp -d); mount -t btrfs -o subvolid=5 "{disk}" $top'
    return box.login("sh", "-euc", f"{mounted}\n{script}\ncd /; umount $top; rmdir $top")


def put_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def put_tools(tree: Path) -> None:
    """Give a tree what it needs to be a version of such a system."""
    programs = tree / "usr/bin"
    programs.mkdir(parents=True, exist_ok=True)
    put_program(programs / "system-version-manager", MANAGER)
    put_program(programs / "baserock-system-config-sync", CONFIG_SYNC)


if __name__ == "__main__":  # for scenarios: the tree is the argument
    put_tools(Path(sys.argv[1]))
