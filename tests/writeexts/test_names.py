"""What `morphlib.writeexts` offers: all names, at little cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import morphlib
from morphlib import util, writeexts
from morphlib.errors import MorphError
from morphlib.writeexts import ExtensionError

#: What the library of older Morphs had, and extensions for them use.
OLD = (
    "WriteExtension",
    "ExtensionError",
    "Fstab",
    "status",
    "get_disk_size",
    "get_ram_size",
    "get_vcpu_count",
    "get_environment_boolean",
    "parse_attach_disks",
    "get_dtb_path",
    "get_root_device",
    "get_extra_kernel_args",
    "get_bootloader_install",
    "get_bootloader_config_format",
    "bootloader_config_is_wanted",
    "check_for_btrfs_in_deployment_host_kernel",
    "require_btrfs_in_deployment_host_kernel",
    "check_ssh_connectivity",
    "is_device",
    "create_local_system",
    "created_disk_image",
    "create_raw_disk_image",
    "format_btrfs",
    "mkfs_btrfs",
    "create_system",
    "get_uuid",
    "mount",
    "create_btrfs_system_layout",
    "create_orig",
    "create_run",
    "create_state_subvolume",
    "complete_fstab_for_btrfs_layout",
    "find_initramfs",
    "install_initramfs",
    "install_kernel",
    "install_dtb",
    "generate_bootloader_config",
    "generate_extlinux_config",
    "install_bootloader",
    "install_bootloader_extlinux",
    "install_syslinux_menu",
)


@pytest.mark.parametrize("name", OLD)
def test_old_names_are_there(name: str) -> None:
    assert callable(getattr(writeexts, name))
    assert name in dir(writeexts)
    if name[0].islower() and name != "status":
        assert getattr(writeexts.WriteExtension(), name) is getattr(writeexts, name)


def test_type_checkers_see_what_is_there() -> None:
    tree = ast.parse(Path(writeexts.__file__ or "").read_text())
    shown = {
        (node.module, alias.name)
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    there = {(f"morphlib.writeexts.{home}", name) for name, home in writeexts._HOME_OF.items()}
    assert shown == there
    for _, name in there:
        assert getattr(writeexts, name) is not None


def test_nothing_is_loaded_before_it_is_used() -> None:
    program = (
        "import sys, morphlib.writeexts\n"
        "print([name for name in sys.modules if name.startswith('morphlib')])\n"
        "from morphlib.writeexts import text\n"
        "assert 'morphlib.writeexts.ssh' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.decode().strip() == "['morphlib', 'morphlib.writeexts']"


def test_what_is_not_there_is_told() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = writeexts.nothing
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = writeexts.WriteExtension().nothing
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = morphlib.nothing
    assert not hasattr(writeexts.WriteExtension(), "_private")


def test_the_package_has_the_old_names_too() -> None:
    program = (
        "import morphlib\n"
        "assert issubclass(morphlib.Error, Exception)\n"
        "assert morphlib.util.get_data and morphlib.writeexts.WriteExtension\n"
        "try: raise morphlib.Error('what is wrong')\n"
        "except morphlib.Error as error: assert error.msg == str(error) == 'what is wrong'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert issubclass(ExtensionError, MorphError)


def test_values_are_appended_in_order(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("first")
    path.chmod(0o600)
    util.write_from_dict(path, {"A": "b", "B": "Z", "C": "ä"})
    assert path.read_text() == "first\nZ\nb\nä\n"
    assert path.stat().st_mode & 0o7777 == 0o644
    seen = []

    def refuse(key: str, value: str) -> None:
        seen.append((key, value))
        if value == "bad":
            raise ExtensionError("it is bad")

    with pytest.raises(ExtensionError):
        util.write_from_dict(path, {"A": "a", "B": "bad"}, refuse)
    assert seen == [("A", "a"), ("B", "bad")]
    assert path.read_text() == "first\nZ\nb\nä\n"
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(MorphError, match="is a symlink"):
        util.write_from_dict(tmp_path / "link", {"A": "a"})
    util.write_from_dict(tmp_path / "new", {})
    assert (tmp_path / "new").read_bytes() == b""


def test_pairs() -> None:
    env = {"A": "1"}
    assert util.parse_environment_pairs(env, ["B=2=3", "C="]) == {"A": "1", "B": "2=3", "C": ""}
    assert env == {"A": "1"}
    with pytest.raises(MorphError, match=r"Keys \['A', 'B'\] are already set in the environment"):
        util.parse_environment_pairs({"A": "", "B": ""}, ["B=1", "A=1", "C=1"])
    with pytest.raises(MorphError, match="is not KEY=VALUE"):
        util.parse_environment_pairs({}, ["A"])


def test_data() -> None:
    assert util.get_data("exts/set_hostname.py").startswith('"""Names the system')
    assert util.get_data_path("recv-hole").endswith("exts/recv-hole")
    assert "DATA" in util.get_data("recv-hole")
    with pytest.raises(FileNotFoundError):
        util.get_data("nothing")


def test_what_a_subclass_replaces_can_be_called(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As extensions do that know better in one case and leave all others to the library."""

    class Careful(writeexts.WriteExtension):
        def get_disk_size(self) -> int:
            size = super().get_disk_size()  # type: ignore[misc]  # type checkers don't see it
            return max(int(size), 1 << 30)

        def status(self, msg: str, **fields: object) -> None:
            super().status(msg=f"careful: {msg}", **fields)

        def process_args(self, args: list[str]) -> None:
            self.status(msg="%(size)s", size=self.get_disk_size())

    monkeypatch.setenv("DISK_SIZE", "2G")
    Careful().run([])
    monkeypatch.setenv("DISK_SIZE", "1M")
    Careful().run([])
    assert capfd.readouterr().out == f"careful: {2 << 30}\ncareful: {1 << 30}\n"


@pytest.mark.parametrize("name", [name for name in OLD if name.islower() and name != "status"])
def test_each_function_is_a_method(name: str) -> None:
    assert name in dir(writeexts.WriteExtension)
    replaced = super(writeexts.WriteExtension, writeexts.WriteExtension())
    assert getattr(replaced, name) is getattr(writeexts, name)
