"""Lets a machine boot a system over the network."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from morphlib.errors import MorphError, Reason
from morphlib.exts.initramfs import write_cpio
from morphlib.writeexts.boot import KERNELS
from morphlib.writeexts.bootserver import Place, place_at
from morphlib.writeexts.extension import WriteExtension
from morphlib.writeexts.imageidentity import identify
from morphlib.writeexts.imageparameters import DTB_PATH, INITRAMFS_PATH, KERNEL_ARGS
from morphlib.writeexts.parameters import Parameters, parameter_error
from morphlib.writeexts.pxe import (
    FILES,
    config_name,
    config_text,
    initramfs_arguments,
    nfs_arguments,
    parse_mac,
)
from morphlib.writeexts.pxeparameters import (
    BOOTLOADER,
    INSTALLED_COMMAND,
    INSTALLER,
    IPMI_HOST,
    IPMI_PASSWORD,
    IPMI_USER,
    LDLINUX,
    NFSROOT,
    PARAMETERS,
    PXE_REBOOT_COMMAND,
    PXELINUX,
    REBOOT_COMMAND,
    ROOTFS,
    TFTP,
    Bootloader,
    check_together,
)
from morphlib.writeexts.restarting import (
    Ipmi,
    Restarting,
    run_command,
    wait_until_told,
)
from morphlib.writeexts.tree import Tree
from morphlib.writeexts.undo import undone_on_failure


@dataclass(frozen=True, slots=True)
class _Target:
    """A machine and what it is to boot: `version` tells what it boots from what it booted."""

    mac: str
    version: str

    @property
    def files(self) -> str:
        return f"{FILES}/{self.mac}"

    @property
    def config(self) -> str:
        return config_name(self.mac)


class WritePxeboot(WriteExtension):
    description = """
        Let a machine boot the system over the network.

        Kernel, device tree and the configuration of the boot loader (pxelinux, or another that
        reads the same) go to a TFTP server, the system to an NFS server or into an initramfs. The
        machine is restarted then. If the system is one that installs another, that is waited for;
        the machine is restarted from its disk, and what was put on the servers is taken away.

        The configuration is changed last and at once, and is what it was before if anything fails.
        """
    location_help = """
        The MAC address of the network card that the machine boots from, such as
        14:58:d0:57:7f:42, in quotes in the cluster.
        """
    wrong_mode = "Cannot upgrade a machine that boots over the network: deploy it anew."
    parameters = PARAMETERS

    def check(self, location: str, given: Parameters) -> None:
        self._check_parameters(location, given)
        with tempfile.TemporaryDirectory() as scratch:
            for each in _places(given, Path(scratch)):
                each.check()

    def _check_parameters(self, location: str, given: Parameters) -> None:
        parse_mac(location)
        check_together(given)
        self._restarting(given).check()

    def write(self, tree: Tree, location: str, given: Parameters) -> None:
        self._check_parameters(location, given)
        restarting = self._restarting(given)
        with tempfile.TemporaryDirectory() as scratch:
            tftp, *rootfs = _places(given, Path(scratch))
            for each in (tftp, *rootfs):
                each.check()
            version = str(identify(tree, given, self.devices))[:8]
            target = _new_version(parse_mac(location), version, tftp, rootfs)
            files, arguments = self._boot_files(tree, target, given, Path(scratch))
            bootloader = given[BOOTLOADER] is Bootloader.PXELINUX
            with self._served(tree, target, tftp, rootfs, files, bootloader=bootloader):
                where = f"{target.files}/{target.version}"
                with _configured(tftp, target, config_text(where, tuple(files), arguments)):
                    self.status(f"{location} boots {where} from {tftp.address}")
                    restarting.restart("pxe", f"Let {location} boot from the network now")
                    if given[INSTALLER]:
                        self._wait(given)
            if given[INSTALLER]:
                self._remove_all(target, tftp, rootfs)
                restarting.restart("disk", f"Let {location} boot from its disk now")
            else:
                _remove_others(target, tftp, rootfs)

    def _boot_files(
        self, tree: Tree, target: _Target, given: Parameters, scratch: Path
    ) -> tuple[dict[str, Path], str]:
        """What the boot loader loads, by name, and what it tells the kernel."""
        kernel = tree.first_file(KERNELS)
        if kernel is None:
            raise MorphError("Could not find a kernel in the system", reason=Reason.DEPLOY)
        files = {"kernel": tree.resolve(kernel)}
        for name, path in (("initramfs", given[INITRAMFS_PATH]), ("dtb", given[DTB_PATH])):
            if path:
                if not tree.is_file(path):
                    raise MorphError(f"the system has no file /{path}", reason=Reason.DEPLOY)
                files[name] = tree.resolve(path)
        rootfs = given[ROOTFS]
        if rootfs is not None:
            directory = given[NFSROOT] or str(rootfs).rpartition("@")[2]
            export = f"{directory.rstrip('/')}/{target.mac}/{target.version}"
            return files, nfs_arguments(export, given[KERNEL_ARGS])
        self.status("Packing the system as an initramfs")
        files["initramfs"] = scratch / "initramfs"
        with (
            files["initramfs"].open("wb") as raw,
            gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
        ):
            write_cpio(tree.root, packed, self.devices)
        return files, initramfs_arguments(tree, given[KERNEL_ARGS])

    @contextmanager
    def _served(
        self,
        tree: Tree,
        target: _Target,
        tftp: Place,
        rootfs: list[Place],
        files: dict[str, Path],
        *,
        bootloader: bool,
    ) -> Iterator[None]:
        """Put everything but the configuration there. It goes again if the block fails."""
        version = f"{target.files}/{target.version}"
        root = f"{target.mac}/{target.version}"

        def undo() -> None:
            tftp.remove(version)
            for each in rootfs:
                each.remove(root)

        with undone_on_failure(f"remove {version}", undo):
            for each in rootfs:
                self.status(f"Putting the system into {each.address}/{root}")
                each.put_tree(root, tree, self.devices, self.status)
            self.status(f"Putting kernel and configuration into {tftp.address}")
            tftp.put_files(version, files)
            if bootloader:
                tftp.put("ldlinux.c32", LDLINUX.path.read_bytes())
                tftp.put("pxelinux.0", PXELINUX.path.read_bytes())
            yield

    def _wait(self, given: Parameters) -> None:
        if command := given[INSTALLED_COMMAND]:
            self.status("Waiting until the machine is installed")
            run_command(command, "PXEBOOT_INSTALLED_COMMAND")
        else:
            wait_until_told(self.status)

    def _remove_all(self, target: _Target, tftp: Place, rootfs: list[Place]) -> None:
        """The configuration first: what it names goes after it."""
        tftp.remove(target.config)
        tftp.remove(target.files)
        for each in rootfs:
            each.remove(target.mac)

    def _restarting(self, given: Parameters) -> Restarting:
        words = {name: given[name] for name in (IPMI_HOST, IPMI_USER, IPMI_PASSWORD)}
        missing = [name.name for name, value in words.items() if not value]
        if len(missing) not in (0, len(words)):
            raise parameter_error(f"{' and '.join(missing)} was not given")
        ipmi = None
        if not missing:
            ipmi = Ipmi(words[IPMI_HOST], words[IPMI_USER], words[IPMI_PASSWORD])
        commands = {"pxe": given[PXE_REBOOT_COMMAND], "disk": given[REBOOT_COMMAND]}
        return Restarting(commands, ipmi, self.status)  # type: ignore[arg-type]


def _places(given: Parameters, scratch: Path) -> list[Place]:
    """Where the TFTP server looks, and where the NFS server does if there is one."""
    return [place_at(each, scratch) for each in (given[TFTP], given[ROOTFS]) if each is not None]


def _new_version(mac: str, name: str, tftp: Place, rootfs: list[Place]) -> _Target:
    """The name of a version that is nowhere yet: what the machine runs now is left alone."""
    taken = {*tftp.names(f"{FILES}/{mac}"), *(name for each in rootfs for name in each.names(mac))}
    names = (name, *(f"{name}-{number}" for number in range(2, len(taken) + 3)))
    return _Target(mac, next(name for name in names if name not in taken))


@contextmanager
def _configured(tftp: Place, target: _Target, config: str) -> Iterator[None]:
    """Let the machine boot this; if the block fails, what it booted before."""
    before = tftp.read(target.config)

    def undo() -> None:
        if before is None:
            tftp.remove(target.config)
        else:
            tftp.put(target.config, before)

    with undone_on_failure(f"restore {target.config}", undo):
        tftp.put(target.config, config.encode())
        yield


def _remove_others(target: _Target, tftp: Place, rootfs: list[Place]) -> None:
    for place, directory in [(tftp, target.files), *((each, target.mac) for each in rootfs)]:
        for name in place.names(directory):
            if name != target.version:
                place.remove(f"{directory}/{name}")


WRITE = WritePxeboot()
