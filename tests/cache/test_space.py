from __future__ import annotations

import os
from pathlib import Path

import pytest

from morphlib.cache.space import Room, add_up, check_space, find_shortages, measure
from morphlib.errors import MorphError, Reason

HUGE = 1 << 60


def room(required: int, available: int, device: int) -> Room:
    return Room(Path("/x"), required, available, device)


def test_requirements_on_one_device_add_up() -> None:
    assert find_shortages(add_up([room(10, 15, 1), room(10, 15, 2)])) == ()
    assert [
        each.required for each in find_shortages(add_up([room(10, 15, 1), room(10, 15, 1)]))
    ] == [
        20,
        20,
    ]
    assert find_shortages(add_up([room(10, 20, 1), room(10, 20, 1)])) == ()
    assert len(find_shortages(add_up([room(10, 9, 1), room(10, 10, 2)]))) == 1


def test_a_directory_that_is_yet_to_be_made_is_measured(tmp_path: Path) -> None:
    found = measure(tmp_path / "not" / "there", 7)
    assert found.path == tmp_path / "not" / "there"
    assert found.required == 7
    assert found.device == tmp_path.stat().st_dev
    assert found.available > 0


def test_enough_space_is_silent(tmp_path: Path) -> None:
    check_space((tmp_path / "cache", 1), (tmp_path / "temp", 1))


def test_zero_disables_the_check(tmp_path: Path) -> None:
    check_space((tmp_path, 0), (Path("/proc/none"), 0))


def test_shortage_names_paths_bytes_and_what_to_do(tmp_path: Path) -> None:
    cachedir, tempdir = tmp_path / "cache", tmp_path / "temp"
    with pytest.raises(MorphError) as caught:
        check_space((tempdir, HUGE), (cachedir, HUGE))
    error = caught.value
    assert error.reason is Reason.SPACE
    first, *lines = error.message.splitlines()
    assert first == "Insufficient space on disk:"
    assert [line.split()[0] for line in lines] == [os.fspath(tempdir), os.fspath(cachedir)]
    assert all(str(2 * HUGE) in line for line in lines)
    assert error.hint is not None
    for word in ("morph gc", "--tempdir-min-space", "--cachedir-min-space"):
        assert word in error.hint


def test_one_limit_alone_is_enforced(tmp_path: Path) -> None:
    with pytest.raises(MorphError):
        check_space((tmp_path / "cache", HUGE), (tmp_path / "temp", 0))


def test_one_directory_for_both_has_to_have_room_for_both(tmp_path: Path) -> None:
    with pytest.raises(MorphError) as caught:
        check_space((tmp_path, HUGE), (tmp_path, HUGE))
    (line,) = caught.value.message.splitlines()[1:]
    assert f"{tmp_path} requires {2 * HUGE} bytes free" in line
