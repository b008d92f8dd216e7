"""A tiny system that boots: Debian's kernel for virtual machines, and busybox for all the rest."""

from __future__ import annotations

import functools
import gzip
import shutil
import subprocess
import sys
from pathlib import Path

BUSYBOX = Path("/bin/busybox")
_APPLETS = ("sh", "mount", "cat", "echo", "poweroff", "sync", "ls", "mkdir", "uname", "sleep")

#: Runs before the real system: finds its file system by the kernel's command line.
_INITRAMFS_INIT = """\
#!/bin/sh
mount -t proc proc /proc
mount -t devtmpfs dev /dev
echo "initramfs %(version)s starts"
for module in /modules/*.ko; do insmod "$module"; done
for word in $(cat /proc/cmdline); do
    case $word in
        root=UUID=* | root=PARTUUID=*) root=$(findfs "${word#root=}") ;;
        root=*) root=${word#root=} ;;
        rootflags=*) flags=${word#rootflags=} ;;
    esac
done
mount -t btrfs -o "rw,$flags" "$root" /root
exec switch_root /root /sbin/init
echo "no system to be found on $root"
poweroff -f
"""
#: The system itself: says what it is, mounts what its fstab says, and ends.
_INIT = """\
#!/bin/sh
mount -t proc proc /proc
mount -t devtmpfs dev /dev
mount -a
echo "system $(cat /etc/version) runs"
echo "cmdline: $(cat /proc/cmdline)"
while read -r device point kind options rest; do
    case $kind in btrfs) echo "mounted: $point $options" ;; esac
done < /proc/mounts
echo "state: $(cat /home/kept)"
sync
poweroff -f
"""


def kernel() -> Path:
    """The newest of Debian's kernels for virtual machines on this machine."""
    return sorted(Path("/boot").glob("vmlinuz-*-cloud-amd64"))[-1]


@functools.cache
def modules() -> tuple[Path, ...]:
    """What the kernel needs for a btrfs on a virtio disk, in the order of loading."""
    release = kernel().name.removeprefix("vmlinuz-")
    found: dict[Path, None] = {}
    for name in ("virtio_pci", "virtio_blk", "btrfs"):
        shown = subprocess.run(
            ["/sbin/modprobe", "-S", release, "--show-depends", name],
            capture_output=True,
            text=True,
            check=True,
        )
        for line in shown.stdout.splitlines():
            match line.split():
                case ["insmod", path, *_]:
                    found[Path(path)] = None
    return tuple(found)


def make_system(tree: Path, version: str, *, initramfs: bool = True) -> Path:
    """Make the tree of a system that tells its version. Returns it."""
    for name in ("bin", "sbin", "etc", "proc", "dev", "boot", "home", "root", "usr/share"):
        (tree / name).mkdir(parents=True)
    _add_busybox(tree)
    _add_program(tree / "sbin/init", _INIT)
    (tree / "etc/version").write_text(f"{version}\n")
    (tree / "etc/fstab").write_text("")
    (tree / "home/kept").write_text(f"of {version}\n")
    shutil.copyfile(kernel(), tree / "boot/vmlinuz")
    if initramfs:
        (tree / "boot/initramfs.gz").write_bytes(make_initramfs(tree.parent, version))
    return tree


def make_initramfs(scratch: Path, version: str) -> bytes:
    tree = scratch / f"initramfs-{version}"
    for name in ("bin", "proc", "dev", "root", "modules"):
        (tree / name).mkdir(parents=True)
    _add_busybox(tree, "insmod", "findfs", "switch_root")
    _add_program(tree / "init", _INITRAMFS_INIT % {"version": version})
    for number, path in enumerate(modules()):
        shutil.copyfile(path, tree / "modules" / f"{number:02}-{path.name}")
    names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))
    archive = subprocess.run(
        ["cpio", "--quiet", "-o", "-H", "newc", "--owner", "0:0", "--reproducible"],
        cwd=tree,
        input="\n".join(names).encode(),
        capture_output=True,
        check=True,
    )
    shutil.rmtree(tree)
    return gzip.compress(archive.stdout, 1, mtime=0)


def _add_busybox(tree: Path, *applets: str) -> None:
    shutil.copyfile(BUSYBOX, tree / "bin/busybox")
    (tree / "bin/busybox").chmod(0o755)
    for name in (*_APPLETS, *applets):
        (tree / "bin" / name).symlink_to("busybox")


def _add_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def main() -> None:
    """For scenarios: makes a tree, the argument, of one that boots from memory."""
    make_system(Path(sys.argv[1]), "one", initramfs=False)


if __name__ == "__main__":
    main()
