"""Lets a machine boot a system over the network."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from morphlib.errors import MorphError, Reason
from morphlib.exts.initramfs import write_cpio
from morphlib.writeexts.boot import KERNELS
from morphlib.writeexts.bootserver import Place, place_at
from morphlib.writeexts.bootversion import BootVersion, configured, new_version, remove_others
from morphlib.writeexts.extension import WriteExtension
from morphlib.writeexts.imageidentity import identify
from morphlib.writeexts.imageparameters import DTB_PATH, INITRAMFS_PATH, KERNEL_ARGS
from morphlib.writeexts.netboot import Servers
from morphlib.writeexts.parameters import Parameters, parameter_error
from morphlib.writeexts.pxe import (
    Address,
    config_text,
    initramfs_arguments,
    nfs_arguments,
    parse_mac,
)
from morphlib.writeexts.pxeparameters import (
    BOOTLOADER,
    INSTALLED_COMMAND,
    INSTALLER,
    INTERFACE,
    IPMI_HOST,
    IPMI_PASSWORD,
    IPMI_USER,
    LDLINUX,
    MODE,
    NFSROOT,
    PARAMETERS,
    PXE_REBOOT_COMMAND,
    PXELINUX,
    REBOOT_COMMAND,
    ROOTFS,
    TFTP,
    Bootloader,
    Mode,
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
        if given[MODE] is Mode.SPAWN_NOVLAN:
            Servers(given[INTERFACE]).check()
        self._restarting(given).check()

    def write(self, tree: Tree, location: str, given: Parameters) -> None:
        self._check_parameters(location, given)
        restarting = self._restarting(given)
        with tempfile.TemporaryDirectory() as scratch:
            tftp, *rootfs = _places(given, Path(scratch))
            for each in (tftp, *rootfs):
                each.check()
            version = str(identify(tree, given, self.devices))[:8]
            target = new_version(parse_mac(location), version, tftp, rootfs)
            files, arguments = self._boot_files(tree, target, given, Path(scratch))
            spawned = given[MODE] is Mode.SPAWN_NOVLAN
            bootloader = spawned or given[BOOTLOADER] is Bootloader.PXELINUX
            with self._served(tree, target, tftp, rootfs, files, bootloader=bootloader):
                where = f"{target.files}/{target.version}"
                with (
                    configured(tftp, target, config_text(where, tuple(files), arguments)),
                    _spawned(given, tftp, target),
                ):
                    self.status(f"{location} boots {where} from {tftp.address}")
                    restarting.restart("pxe", f"Let {location} boot from the network now")
                    if given[INSTALLER]:
                        self._wait(given)
            if given[INSTALLER]:
                self._remove_all(target, tftp, rootfs)
                restarting.restart("disk", f"Let {location} boot from its disk now")
            else:
                remove_others(target, tftp, rootfs)

    def _boot_files(
        self, tree: Tree, target: BootVersion, given: Parameters, scratch: Path
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
        target: BootVersion,
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

    def _remove_all(self, target: BootVersion, tftp: Place, rootfs: list[Place]) -> None:
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
    if given[MODE] is Mode.SPAWN_NOVLAN:
        directory = scratch / "tftp"
        directory.mkdir()
        return [place_at(Address("", str(directory)), scratch)]
    return [place_at(each, scratch) for each in (given[TFTP], given[ROOTFS]) if each is not None]


def _spawned(given: Parameters, tftp: Place, target: BootVersion) -> AbstractContextManager[None]:
    """The servers that run here, if they do."""
    if given[MODE] is not Mode.SPAWN_NOVLAN:
        return nullcontext()
    directory = Path(tftp.address.path)
    return Servers(given[INTERFACE]).running(directory, target.mac, "pxelinux.0")


WRITE = WritePxeboot()
