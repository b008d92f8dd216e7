"""Running ldconfig for staging areas and systems."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from morphlib.build.ldconfig import run_ldconfig
from morphlib.build.staging import stage, stage_writable
from tests.build.isolation import Failed, in_namespace, make_layer


def _configure(top: Path) -> None:
    (top / "etc").mkdir()
    (top / "etc/ld.so.conf").write_text("/usr/local/lib\n")
    (top / "usr/local/lib").mkdir(parents=True)


def test_staging_area_gets_a_cache(place: Path, user: int) -> None:
    def check() -> bytes:
        layer = make_layer(place / "layers", "a", _configure)
        (place / "work").mkdir()
        with (
            (place / "log").open("wb") as log,
            stage([layer], ["dev"], place / "work", ldconfig_log=log.fileno()) as staged,
        ):
            assert not (layer.root / "etc/ld.so.cache").exists()
            return (staged.root / "etc/ld.so.cache").read_bytes()

    assert b"ld.so" in in_namespace(check, user=user)


def test_nothing_is_run_without_configuration(place: Path, user: int) -> None:
    def check() -> bool:
        layer = make_layer(place / "layers", "a", lambda top: (top / "etc").mkdir())
        (place / "work").mkdir()
        with stage_writable([layer], place / "work") as staged:
            return run_ldconfig(staged.root, place, 2)

    assert in_namespace(check, user=user) is False


def test_fifo_for_a_configuration_is_refused(place: Path, user: int) -> None:
    """Nobody ever writes to it, and a build would never end."""

    def fill(top: Path) -> None:
        (top / "etc").mkdir()
        os.mkfifo(top / "etc/fifo")
        (top / "etc/ld.so.conf").symlink_to("/etc/fifo")

    def check() -> None:
        layer = make_layer(place / "layers", "a", fill)
        (place / "work").mkdir()
        with stage_writable([layer], place / "work") as staged:
            run_ldconfig(staged.root, place, 2)

    with pytest.raises(Failed, match="is no file"):
        in_namespace(check, user=user)


def test_hostile_tree_does_not_lead_out(place: Path, user: int) -> None:
    def fill(top: Path) -> None:
        _configure(top)
        (top / "etc/ld.so.cache").symlink_to(place / "outside/file")
        (top / "etc/ld.so.conf").write_text(f"{place}/outside\n/usr/local/lib\n")

    def check() -> None:
        (place / "outside").mkdir()
        layer = make_layer(place / "layers", "a", fill)
        (place / "work").mkdir()
        with stage_writable([layer], place / "work") as staged:
            assert run_ldconfig(staged.root, place, 2)

    in_namespace(check, user=user)
    assert list((place / "outside").iterdir()) == []
