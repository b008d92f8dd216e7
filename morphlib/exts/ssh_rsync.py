"""Upgrades a running Baserock system over ssh."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from morphlib.errors import MorphError, Reason
from morphlib.writeexts.extension import Upgrades, WriteExtension
from morphlib.writeexts.fstab import complete_fstab, root_from_environment
from morphlib.writeexts.parameters import Parameters, boolean
from morphlib.writeexts.remote import Remote
from morphlib.writeexts.remotetree import send_tree, xattr_options
from morphlib.writeexts.tree import Tree
from morphlib.writeexts.undo import undone_always, undone_on_failure
from morphlib.writeexts.versions import version_label

VERSION_LABEL = version_label(
    "The name of the new version: letters, digits and hyphens. The system must not have it yet.",
    required=True,
    missing="A VERSION_LABEL must be set when deploying an upgrade.",
)
AUTOSTART = boolean("AUTOSTART", "Restart the system at the end, into the new version.")

#: What is run from the new tree, because the old one may not know how to install the new.
_MANAGER = "usr/bin/system-version-manager"
_CONFIG_SYNC = "usr/bin/baserock-system-config-sync"

#: What has to be installed on the system.
_NEEDED = ("rsync", "btrfs", "blkid", "mktemp")
_RSYNC = ("--archive", "--hard-links", "--checksum", "--numeric-ids", "--delete")

_OCTAL = re.compile(r"\\([0-7]{3})")
_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")

# What ran over there when a connection broke may still be ending.
_UNMOUNT = """
n=0
until umount "$1"; do
    n=$((n + 1))
    [ "$n" -lt 10 ] || exit 1
    sleep 1
done
"""
# The system version manager may have removed some or all of it, or made more than it could remove.
_REMOVE_VERSION = """
set -eu
cd "$1" 2>/dev/null || exit 0
for each in run orig; do
    [ ! -d "$each" ] || btrfs subvolume delete "$each" >/dev/null || true
done
cd /
rm -rf -- "$1"
"""
_REMOVE_SUBVOLUME = '[ ! -d "$1" ] || btrfs subvolume delete "$1" >/dev/null'
# A state directory that had another file system before would leave the new version without one.
_MAKE_STATE = """
set -eu
[ ! -e "$1" ] || exit 44
mkdir -p "${1%/*}"
btrfs subvolume create "$1" >/dev/null
cp -a "$2/." "$1/"
chmod --reference="$2" "$1" 2>/dev/null || true
"""
_IS_THERE = 44


class SshRsync(WriteExtension):
    description = """
    Upgrade a running Baserock system over ssh.

    The new version goes beside the others on the btrfs file system of the system, made from a
    snapshot of the one that boots now, so that files that did not change take no room and are not
    transferred. Configuration that was changed on the system is merged into the new version, which
    becomes the one that boots. Nothing is left behind if any of that fails.
    """
    location_help = """
    HOST or root@HOST: the system, as ssh knows it. It has to be root who logs in.
    """
    parameters = (VERSION_LABEL, AUTOSTART)
    upgrades = Upgrades.ALWAYS
    wrong_mode = (
        "The ssh-rsync write is for upgrading existing remote Baserock machines. It cannot be used "
        "for an initial deployment: use morph upgrade."
    )

    def check(self, location: str, given: Parameters) -> None:
        check_target(Remote(location), given[VERSION_LABEL])

    def write(self, tree: Tree, location: str, given: Parameters) -> None:
        remote = Remote(location)
        label = given[VERSION_LABEL]
        tools = find_tools(tree)
        check_target(remote, label)
        disk = find_root_disk(remote)
        state = self._complete_fstab(tree, disk)
        with _mounted(remote, disk) as top:
            version = f"{top}/systems/{label}"
            self.status(f"Creating version {label} on {remote}")
            with _new_version(remote, top, version):
                self.status("Transferring the system")
                send_tree(
                    remote,
                    tree,
                    f"{version}/orig",
                    (*_RSYNC, *xattr_options(remote)),
                    devices=self.devices,
                    tell=self.status,
                )
                with _state_directories(remote, top, f"{version}/orig", state):
                    self._activate(remote, f"{version}/orig", label, tools)
        self.status(f"Version {label} is installed on {remote}")
        if given[AUTOSTART]:
            self.status(f"Restarting {remote}")
            remote.run_anyway("reboot")

    def _complete_fstab(self, tree: Tree, disk: Disk) -> tuple[str, ...]:
        """Give the tree's fstab what the layout needs. Returns the directories with state."""
        text = tree.read_text("etc/fstab") if tree.is_file("etc/fstab") else ""
        completed = complete_fstab(
            text, rootfs_uuid=disk.uuid, root_device=root_from_environment(self.environment)
        )
        tree.write("etc/fstab", completed.text)
        for name in completed.state:
            tree.make_directory(name)
        return completed.state

    def _activate(self, remote: Remote, orig: str, label: str, tools: Tools) -> None:
        """Let the new version install itself, and make it the one that boots."""
        manager = f"{orig}/{tools.manager}"
        with undone_on_failure(
            f"let the system forget version {label}",
            lambda: remote.run(manager, "remove", label),
        ):
            self.status("Installing the new version")
            remote.run(
                "env",
                f"BASEROCK_SYSTEM_CONFIG_SYNC={orig}/{tools.config_sync}",
                manager,
                "deploy",
                f"/systems/{label}/orig",
                what="system-version-manager deploy",
            )
            self.status("Making it the version that boots")
            remote.run(manager, "set-default", label, what="system-version-manager set-default")


@dataclass(frozen=True, slots=True)
class Tools:
    """Paths of programs, relative to the tree, no symlink in them."""

    manager: str
    config_sync: str


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system that all versions of a system are on."""

    device: str
    uuid: str


def find_tools(tree: Tree) -> Tools:
    """The programs of the tree that are run over there. Raises MorphError if one is missing."""
    missing = [
        path
        for path in (_MANAGER, _CONFIG_SYNC)
        if not (tree.is_file(path) and tree.resolve(path).stat().st_mode & 0o111)
    ]
    if missing:
        programs = " and ".join(f"/{path}" for path in missing)
        raise MorphError(
            f"the new system has no program {programs}",
            reason=Reason.DEPLOY,
            hint="it installs itself with these: the chunk tbdiff has them",
        )
    manager, config_sync = (
        str(tree.resolve(path).relative_to(tree.root)) for path in (_MANAGER, _CONFIG_SYNC)
    )
    return Tools(manager, config_sync)


def check_target(remote: Remote, label: str) -> None:
    """Raises MorphError unless this is a system that can be upgraded, without that version."""
    remote.check_reachable()
    if not remote.is_directory("/baserock"):
        raise MorphError(f"{remote} is not a baserock system", reason=Reason.DEPLOY)
    if missing := remote.missing_programs(*_NEEDED):
        raise MorphError(f"{remote} does not have {', '.join(missing)}", reason=Reason.DEPLOY)
    if remote.output("id", "-u").strip() != "0":
        raise MorphError(f"it has to be root who logs in to {remote}", reason=Reason.DEPLOY)
    listed = remote.output("btrfs", "subvolume", "list", "/")
    if re.search(rf" path (?:<FS_TREE>/)?systems/{re.escape(label)}/", listed):
        raise MorphError(f"VERSION_LABEL {label} already exists on {remote}", reason=Reason.DEPLOY)


def find_root_disk(remote: Remote) -> Disk:
    """What the system has mounted as its root. Raises MorphError unless that is a btrfs."""
    mounts = [line.split() for line in remote.output("cat", "/proc/mounts").splitlines()]
    found = [words for words in mounts if words[1:2] == ["/"] and words[0] != "rootfs"]
    if not found or found[-1][2] != "btrfs":
        kind = found[-1][2] if found else "unknown"
        raise MorphError(
            f"the root file system of {remote} is {kind}, not btrfs: it has no versions",
            reason=Reason.DEPLOY,
        )
    device = _OCTAL.sub(lambda match: chr(int(match[1], 8)), found[-1][0])
    if not (device.startswith("/") and remote.succeeds("test", "-b", device)):
        device = _btrfs_device(remote)  # such as /dev/root, which only the kernel knows
    uuid = _UUID.search(remote.output("blkid", "-s", "UUID", "-o", "value", device))
    if uuid is None:
        raise MorphError(f"blkid on {remote} knows no UUID of {device}", reason=Reason.DEPLOY)
    return Disk(device, uuid[0].lower())


def _btrfs_device(remote: Remote) -> str:
    shown = remote.output("btrfs", "filesystem", "show", "/")
    match = re.search(r" path (/.*)$", shown, re.MULTILINE)
    if match is None:
        raise MorphError(f"can't find the disk that {remote} runs from", reason=Reason.DEPLOY)
    return match[1]


@contextmanager
def _mounted(remote: Remote, disk: Disk) -> Iterator[str]:
    """The top of the file system, mounted over there."""
    with remote.temporary_directory() as top:
        remote.run("mount", "-t", "btrfs", "-o", "subvolid=5", disk.device, top)
        with undone_always(
            f"unmount {top}",
            lambda: remote.script(_UNMOUNT, top, what=f"umount {top}"),
        ):
            yield top


@contextmanager
def _new_version(remote: Remote, top: str, version: str) -> Iterator[None]:
    """A version with a copy of what the one that boots now was made from; removed on failure."""
    remote.run("mkdir", version)
    with undone_on_failure(
        f"remove {version}",
        lambda: remote.script(_REMOVE_VERSION, version, what=f"removing {version}"),
    ):
        remote.run(
            "btrfs", "subvolume", "snapshot", f"{top}/systems/default/orig", f"{version}/orig"
        )
        yield


@contextmanager
def _state_directories(
    remote: Remote, top: str, orig: str, names: tuple[str, ...]
) -> Iterator[None]:
    """Subvolumes for the directories that keep their content; new ones are removed on failure."""
    with ExitStack() as made:
        for name in names:
            made.enter_context(_state_directory(remote, f"{top}/state/{name}", f"{orig}/{name}"))
        yield


@contextmanager
def _state_directory(remote: Remote, path: str, content: str) -> Iterator[None]:
    what = f"making {path}"
    made = remote.script(_MAKE_STATE, path, content, check=False, what=what)
    if made.status == _IS_THERE:
        yield
        return
    with undone_on_failure(
        f"remove {path}", lambda: remote.script(_REMOVE_SUBVOLUME, path, what=f"removing {path}")
    ):
        if made.status != 0:
            raise remote.failure(what, made.status, made.stderr)
        yield


WRITE = SshRsync()
