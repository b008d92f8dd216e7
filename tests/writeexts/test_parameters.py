from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

import pytest

from morphlib.errors import MorphError, MorphErrors
from morphlib.writeexts.imageparameters import KERNEL_ARGS
from morphlib.writeexts.parameters import (
    Parameter,
    boolean,
    choice,
    number,
    read_parameters,
    required_text,
    size,
    text,
    words,
)

T = TypeVar("T")


class Loader(StrEnum):
    EXTLINUX = "extlinux"
    NONE = "none"


def value_of(parameter: Parameter[T], value: str | None) -> T:
    environment = {} if value is None else {parameter.name: value}
    return read_parameters([parameter], environment)[parameter]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("20M", 20 << 20),
        ("1g", 1 << 30),
        ("7K", 7168),
        ("512", 512),
        (" 4G ", 4 << 30),
        ("0" * 30 + "1", 1),
    ],
)
def test_sizes(given: str, expected: int) -> None:
    assert value_of(size("DISK_SIZE", "x"), given) == expected


@pytest.mark.parametrize("given", ["8589934592G", "9" * 20 + "G", "9" * 5000])
def test_sizes_of_nothing(given: str) -> None:
    with pytest.raises(MorphError, match=r"DISK_SIZE value .* is larger than any file can be"):
        value_of(size("DISK_SIZE", "x"), given)


@pytest.mark.parametrize("given", ["x", "1T", "-1", "1.5G", "10 000"])
def test_wrong_sizes(given: str) -> None:
    with pytest.raises(MorphError, match="Cannot parse DISK_SIZE value"):
        value_of(size("DISK_SIZE", "x"), given)


@pytest.mark.parametrize("given", [None, "", "0", "0G"])
def test_required_size(given: str | None) -> None:
    with pytest.raises(MorphError, match="DISK_SIZE is not defined"):
        value_of(size("DISK_SIZE", "x", required=True), given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, False), ("yes", True), ("TRUE", True), ("1", True), ("No", False), ("0", False)],
)
def test_booleans(given: str | None, expected: bool) -> None:
    assert value_of(boolean("AUTOSTART", "x"), given) is expected


@pytest.mark.parametrize("given", ["", "maybe", "2"])
def test_wrong_booleans(given: str) -> None:
    with pytest.raises(MorphError, match="Unexpected value for AUTOSTART"):
        value_of(boolean("AUTOSTART", "x"), given)


def test_choices() -> None:
    loader = choice("BOOTLOADER_INSTALL", "x", Loader.EXTLINUX)
    assert value_of(loader, None) is Loader.EXTLINUX
    assert value_of(loader, "none") is Loader.NONE
    with pytest.raises(MorphError, match="Invalid BOOTLOADER_INSTALL grub"):
        value_of(loader, "grub")


def test_lists_and_numbers() -> None:
    assert value_of(words("DISKS", "x", separator=":"), "a:b c::d") == ("a", "b c", "d")
    assert value_of(words("KEYS", "x"), " a\tb\n") == ("a", "b")
    assert value_of(number("VCPUS", "x", 1), None) == 1
    assert value_of(number("VCPUS", "x", 1), "2") == 2
    assert value_of(text("ARGS", "x", "none"), "") == "none"


def test_all_errors_at_once() -> None:
    declared = (size("DISK_SIZE", "x", required=True), required_text("NAME", "x"), text("T", "x"))
    with pytest.raises(MorphErrors) as caught:
        read_parameters(declared, {"DISK_SIZE": "many"})
    assert "Cannot parse DISK_SIZE value many" in str(caught.value)
    assert "NAME was not given" in str(caught.value)


def test_arguments_of_the_kernel_are_one_line() -> None:
    """Text that YAML folds ends in a newline, which is no second line."""
    given = read_parameters([KERNEL_ARGS], {"KERNEL_ARGS": "quiet console=ttyS0\n"})
    assert given[KERNEL_ARGS] == "quiet console=ttyS0"
    with pytest.raises(MorphError, match="KERNEL_ARGS has to be one line of text"):
        read_parameters([KERNEL_ARGS], {"KERNEL_ARGS": "quiet\nlabel other\n"})
