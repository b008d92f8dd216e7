"""The layout of a disk with a system and its versions, as entries of a btrfs image.

    systems/LABEL/orig      subvolume: the tree, with an fstab for this disk
    systems/LABEL/run       subvolume: a snapshot of orig; this is what boots
    systems/LABEL/kernel    and initramfs and dtb, where boot loaders find them: they do not look
                            into subvolumes
    systems/default         link to the LABEL that boots
    state/home ...          subvolumes: what is kept over upgrades
    extlinux.conf           what the boot loader reads

Nothing here is written to the tree, and nothing in the tree leads out of it.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from morphlib.errors import MorphError, Reason
from morphlib.images.btrfs.model import Directory, Entry, File, Node, Snapshot, Subvolume, Symlink
from morphlib.writeexts.boot import KERNELS
from morphlib.writeexts.devices import Device
from morphlib.writeexts.etcchanges import Item, read_etc_of_tree
from morphlib.writeexts.fstab import CompletedFstab, complete_fstab
from morphlib.writeexts.imageparameters import DTB_PATH, INITRAMFS_PATH
from morphlib.writeexts.parameters import Parameters
from morphlib.writeexts.tree import Tree

FIRST_LABEL = "factory"
DEFAULT = "systems/default"
EXTLINUX_CONF = "extlinux.conf"
_FSTAB = "etc/fstab"
_MENU = ("usr/share/syslinux/menu.c32", "usr/share/syslinux/libutil.c32")


@dataclass(frozen=True, slots=True)
class BootFiles:
    """What a boot loader loads of a version. Empty where the system has none."""

    kernel: bytes = b""
    initramfs: bytes = b""
    dtb: bytes = b""

    @property
    def names(self) -> frozenset[str]:
        return frozenset(name for name, content in self._all() if content)

    def _all(self) -> Iterator[tuple[str, bytes]]:
        yield "kernel", self.kernel
        yield "initramfs", self.initramfs
        yield "dtb", self.dtb

    def entries(self, label: str) -> Iterator[File]:
        for name, content in self._all():
            if content:
                yield File(f"systems/{label}/{name}", content)


def read_boot_files(tree: Tree, given: Parameters) -> BootFiles:
    """What the system has for a boot loader. To have no kernel is no error.

    Raises MorphError if it lacks an initramfs or device tree that is asked for.
    """
    kernel = tree.first_file(KERNELS)
    return BootFiles(
        kernel=tree.read(kernel) if kernel is not None else b"",
        initramfs=_asked_for(
            tree, given[INITRAMFS_PATH], "INITRAMFS_PATH specified, but file does not exist: {}"
        ),
        dtb=_asked_for(tree, given[DTB_PATH], "Failed to find device tree {}"),
    )


def _asked_for(tree: Tree, path: str, message: str) -> bytes:
    if not path:
        return b""
    if not tree.is_file(path):
        raise MorphError(message.format(path), reason=Reason.DEPLOY)
    content = tree.read(path)
    if not content:
        raise MorphError(f"{path} is empty", reason=Reason.DEPLOY)
    return content


@dataclass(frozen=True, slots=True)
class System:
    """A tree with what the disk that it goes to demands of it."""

    tree: Tree
    fstab: CompletedFstab
    devices: Mapping[str, Device]

    @classmethod
    def on(
        cls, tree: Tree, filesystem: UUID, devices: Mapping[str, Device], root_device: str
    ) -> System:
        """The system on the disk with this file system. Raises MorphError if it has no /etc."""
        if not tree.is_directory("etc"):
            raise MorphError("the system has no directory /etc", reason=Reason.DEPLOY)
        before = tree.read_text(_FSTAB) if tree.exists(_FSTAB) else ""
        fstab = complete_fstab(before, rootfs_uuid=str(filesystem), root_device=root_device)
        return cls(tree, fstab, devices)

    def version(
        self, label: str, boot: BootFiles, *, emptied: Iterable[str], like: str | None = None
    ) -> Iterator[Entry]:
        """The entries of a version. `emptied` are directories for state whose content is left out.

        `like` is the subvolume that unchanged files are shared with, for upgrades.
        """
        yield Directory(f"systems/{label}")
        orig = f"systems/{label}/orig"
        within = [self._directory(name) for name in emptied]
        yield self._subvolume(orig, "", (path for path in within if path is not None), like)
        yield self._fstab_entry(orig)
        for name in self.fstab.state:
            if not self.tree.exists(name):
                yield Directory(f"{orig}/{self._relative(self.tree.resolve(name))}")
        yield Snapshot(f"systems/{label}/run", of=orig)
        yield from boot.entries(label)

    def state(self, names: Iterable[str]) -> Iterator[Entry]:
        """Subvolumes for state, with what the system has in these directories."""
        for name in names:
            others = (self._directory(each) for each in self.fstab.state if each != name)
            path = self._directory(name)
            if path is None:
                yield Subvolume(f"state/{name}")
                continue
            inner = (each for each in others if each is not None and each.startswith(f"{path}/"))
            yield self._subvolume(f"state/{name}", path, inner, None)

    def _subvolume(
        self, path: str, directory: str, emptied: Iterable[str], like: str | None
    ) -> Subvolume:
        start = f"{directory}/" if directory else ""
        return Subvolume(
            path,
            self.tree.root / directory,
            emptied=frozenset(each.removeprefix(start) for each in emptied),
            nodes={
                name.removeprefix(start): Node(each.mode, each.uid, each.gid, each.number)
                for name, each in self.devices.items()
                if name.startswith(start)
            },
            like=like,
        )

    def _directory(self, name: str) -> str | None:
        """Where a directory for state is in the tree; None if there is none.

        Raises MorphError if something else is there, which nothing could be mounted on.
        """
        if self.tree.is_directory(name):
            return self._relative(self.tree.resolve(name))
        if self.tree.exists(name):
            raise MorphError(f"/{name} of the system is no directory", reason=Reason.DEPLOY)
        return None

    def etc(self) -> tuple[str, dict[str, Item]]:
        """Where /etc is in a version, and what is there when the version is made."""
        top = self.tree.resolve("etc")
        found = read_etc_of_tree(top)
        for name, each in self.devices.items():
            if self.tree.resolve(name).is_relative_to(top):
                path = str(self.tree.resolve(name).relative_to(top))
                found[path] = Item(each.mode, each.uid, each.gid, left=True)
        fstab = self._fstab_entry("")
        place = self.tree.resolve(_FSTAB)
        if place.is_relative_to(top):
            mode = stat.S_IFREG | fstab.mode
            found[str(place.relative_to(top))] = Item(mode, fstab.uid, fstab.gid, fstab.content)
        return self._relative(top), found

    def _fstab_entry(self, orig: str) -> File:
        place = self.tree.resolve(_FSTAB)
        content = self.fstab.text.encode("utf-8", "surrogateescape")
        path = f"{orig}/{self._relative(place)}"
        if not place.exists():
            return File(path, content)
        found = place.stat()
        return File(path, content, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)

    def _relative(self, place: Path) -> str:
        return str(place.relative_to(self.tree.root))


def initial_entries(system: System, boot: BootFiles, config: str) -> Iterator[Entry]:
    """All of a new disk but for the boot loader. `config` is extlinux.conf; empty for none."""
    state = system.fstab.state
    yield Directory("systems")
    yield from system.version(FIRST_LABEL, boot, emptied=state)
    yield Symlink(DEFAULT, FIRST_LABEL)
    yield Directory("state")
    yield from system.state(state)
    if config:
        yield File(EXTLINUX_CONF, config.encode())
        for path in _MENU:
            if system.tree.is_file(path):
                yield File(path.rpartition("/")[2], system.tree.read(path))
