"""A library for people who write deployment extensions in Python.

An extension subclasses `WriteExtension` or `ConfigureExtension`, declares its parameters, and ends
with `.run()`:

    from morphlib.writeexts import ConfigureExtension, text

    MOTD = text("MOTD", "What people see when they log in.")

    class Motd(ConfigureExtension):
        description = "Write the message of the day."
        parameters = (MOTD,)

        def configure(self, tree, given):
            tree.write("etc/motd", given[MOTD] + "\\n")

    Motd().run()

docs/extensions.md tells the rest. Everything that is meant for use can be imported from here, and
is loaded when it is first used:

    extension classes       WriteExtension, ConfigureExtension, Upgrades, ExtensionError
    parameters              text, required_text, words, size, number, boolean, choice, prefixed
    the system              Tree, read_devices
    writing beside          new_file, new_directory
    other machines          run_remote, spawn_remote, rsync_to, check_ssh_connectivity, ...
    output                  status

Extensions that were written for the library of older Morphs find all names that it had. They define
`process_args(args)`, and can call the functions as methods too:

    parameters              get_disk_size, get_ram_size, get_environment_boolean, ...
    images                  create_local_system, created_disk_image, mkfs_btrfs, mount, ...
    layout and boot loader  create_btrfs_system_layout, complete_fstab_for_btrfs_layout, ...
"""

# ruff: noqa: F401  (the imports tell type checkers what there is)

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from morphlib.writeexts.aside import new_directory, new_file
    from morphlib.writeexts.boot import (
        extlinux_config,
        find_initramfs,
        generate_bootloader_config,
        generate_extlinux_config,
        install_bootloader,
        install_bootloader_extlinux,
        install_dtb,
        install_initramfs,
        install_kernel,
        install_syslinux_menu,
    )
    from morphlib.writeexts.btrfs_layout import (
        complete_fstab_for_btrfs_layout,
        create_btrfs_system_layout,
        create_local_system,
        create_orig,
        create_run,
        create_state_subvolume,
        create_system,
    )
    from morphlib.writeexts.devices import Device, read_devices
    from morphlib.writeexts.diskimage import (
        check_for_btrfs_in_deployment_host_kernel,
        create_raw_disk_image,
        created_disk_image,
        format_btrfs,
        get_uuid,
        is_device,
        mkfs_btrfs,
        mount,
        require_btrfs_in_deployment_host_kernel,
    )
    from morphlib.writeexts.environment import (
        bootloader_config_is_wanted,
        get_bootloader_config_format,
        get_bootloader_install,
        get_disk_size,
        get_dtb_path,
        get_environment_boolean,
        get_extra_kernel_args,
        get_ram_size,
        get_root_device,
        get_vcpu_count,
        parse_attach_disks,
    )
    from morphlib.writeexts.extension import Upgrades
    from morphlib.writeexts.fstab import complete_fstab, read_mounts
    from morphlib.writeexts.fstabfile import Fstab
    from morphlib.writeexts.output import status
    from morphlib.writeexts.parameters import (
        Parameter,
        Parameters,
        boolean,
        choice,
        number,
        prefixed,
        required_text,
        size,
        text,
        words,
    )
    from morphlib.writeexts.ported import (
        ConfigureExtension,
        Extension,
        ExtensionError,
        WriteExtension,
    )
    from morphlib.writeexts.ssh import (
        check_ssh_connectivity,
        remote_succeeds,
        rsync_to,
        run_remote,
        spawn_remote,
    )
    from morphlib.writeexts.tree import Tree

#: Name -> the module here that has it.
_HOMES = {
    "aside": "new_directory new_file",
    "boot": """extlinux_config find_initramfs generate_bootloader_config generate_extlinux_config
        install_bootloader install_bootloader_extlinux install_dtb install_initramfs install_kernel
        install_syslinux_menu""",
    "btrfs_layout": """complete_fstab_for_btrfs_layout create_btrfs_system_layout
        create_local_system create_orig create_run create_state_subvolume create_system""",
    "devices": "Device read_devices",
    "diskimage": """check_for_btrfs_in_deployment_host_kernel create_raw_disk_image
        created_disk_image format_btrfs get_uuid is_device mkfs_btrfs mount
        require_btrfs_in_deployment_host_kernel""",
    "environment": """bootloader_config_is_wanted get_bootloader_config_format
        get_bootloader_install get_disk_size get_dtb_path get_environment_boolean
        get_extra_kernel_args get_ram_size get_root_device get_vcpu_count parse_attach_disks""",
    "extension": "Upgrades",
    "fstab": "complete_fstab read_mounts",
    "fstabfile": "Fstab",
    "output": "status",
    "parameters": """Parameter Parameters boolean choice number prefixed required_text size text
        words""",
    "ported": "ConfigureExtension Extension ExtensionError WriteExtension",
    "ssh": "check_ssh_connectivity remote_succeeds rsync_to run_remote spawn_remote",
    "tree": "Tree",
}
#: Where the functions are that are methods too, as in the library of older Morphs.
_HOMES_OF_METHODS = ("boot", "btrfs_layout", "devices", "diskimage", "environment", "fstab", "ssh")
METHODS = tuple(
    name for home in _HOMES_OF_METHODS for name in _HOMES[home].split() if name.islower()
)
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
