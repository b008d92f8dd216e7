"""Names of architectures, and what can be built where."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from morphlib.architecture import can_build, check_target, host_architecture, targets_of
from morphlib.errors import MorphError, Reason

ENDING = "l" if sys.byteorder == "little" else "b"


@pytest.mark.parametrize(
    ("machine", "architecture"),
    [
        ("x86_64", "x86_64"),
        ("i386", "x86_32"),
        ("i486", "x86_32"),
        ("i586", "x86_32"),
        ("i686", "x86_32"),
        ("armv5l", "armv5l"),
        ("armv7b", "armv7b"),
        ("armv8l", "armv8l"),
        ("armv8b", "armv8b"),
        ("aarch64", "armv8l64"),
        ("aarch64_be", "armv8b64"),
        ("ppc64", "ppc64"),
        ("mips", "mips32" + ENDING),
        ("mips64", "mips64" + ENDING),
    ],
)
def test_machines_have_names(machine: str, architecture: str) -> None:
    assert host_architecture(machine) == architecture


@pytest.mark.parametrize(
    ("shown", "architecture"),
    [("  Tag_ABI_VFP_args: VFP registers\\n", "armv7lhf"), ("  Tag_CPU_arch: v7\\n", "armv7l")],
)
def test_a_32_bit_arm_is_told_by_its_calling_convention(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shown: str, architecture: str
) -> None:
    readelf = tmp_path / "readelf"
    readelf.write_text(f"#!/bin/sh\nprintf '{shown}'\n")
    readelf.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert host_architecture("armv7l") == architecture


def test_other_machines_are_refused() -> None:
    with pytest.raises(MorphError, match="Unknown host architecture vax"):
        host_architecture("vax")


@pytest.mark.parametrize(
    ("host", "target", "possible"),
    [
        ("x86_64", "x86_64", True),
        ("x86_64", "x86_32", False),
        ("armv8l", "armv7l", True),
        ("armv8l", "armv7lhf", True),
        ("armv8b", "armv7b", True),
        ("armv8b", "armv7bhf", True),
        ("armv7l", "armv5l", True),
        ("armv7lhf", "armv5l", True),
        ("armv7lhf", "armv7l", False),
        ("armv5l", "armv7l", False),
        ("x86_64", "testarch", False),
    ],
)
def test_what_can_be_built_where(host: str, target: str, possible: bool) -> None:
    assert can_build(host, target) is possible


def test_a_machine_builds_for_itself_and_for_its_kin() -> None:
    assert targets_of("x86_64") == ("x86_64",)
    assert targets_of("armv8l") == ("armv8l", "armv7l", "armv7lhf")
    for host in ("armv8b", "armv7lhf"):
        assert all(can_build(host, target) for target in targets_of(host))


def test_cross_builds_are_refused() -> None:
    check_target("x86_64", "x86_64")
    with pytest.raises(MorphError) as caught:
        check_target("testarch", "x86_64")
    assert caught.value.reason is Reason.GRAPH
    assert caught.value.message == (
        "Are you trying to cross-build? Host architecture is x86_64 but target is testarch"
    )


def test_the_host_is_this_machine_unless_said() -> None:
    check_target(host_architecture())
