from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from morphlib.cache.records import BuildRecord, Records
from tests.cache.conftest import Told

_fork = multiprocessing.get_context("fork")


def record(name: str, key: str, duration: float, **more: bool | str) -> BuildRecord:
    return BuildRecord(
        key=key,
        name=name,
        kind=str(more.get("kind", "chunk")),
        duration=duration,
        cpu=duration / 2,
        peak_memory=1 << 20,
        steps={"build": duration},
        succeeded=bool(more.get("succeeded", True)),
    )


def test_reading_makes_no_database(tmp_path: Path, told: Told) -> None:
    with Records(tmp_path / "cache" / "records.sqlite", told) as records:
        assert records.estimate([("zlib", "k1")]) == {}
        assert records.history("zlib") == []
    assert list(tmp_path.iterdir()) == []
    assert told == []


def test_records_survive_and_come_back_whole(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "records.sqlite"
    added = [record("zlib", "k1", 3.0), record("zlib", "k2", 4.0, succeeded=False)]
    with Records(path) as records:
        for each in added:
            records.add(each)
        records.add(record("zlib", "k3", 9.0, kind="system"))
    with Records(path) as records:
        assert records.history("zlib") == added[::-1]
        assert records.history("other") == []


def test_estimate_prefers_the_key_then_the_median_of_the_last_five(tmp_path: Path) -> None:
    with Records(tmp_path / "records.sqlite") as records:
        for number, duration in enumerate([1000, 10, 20, 90, 30, 40]):
            records.add(record("gcc", f"k{number}", duration))
        records.add(record("gcc", "k9", 5000, succeeded=False))
        records.add(record("gcc", "k9", 7000, kind="stratum"))
        records.add(record("zlib", "z", 2))
        assert records.estimate([("gcc", "new")]) == {"gcc": 30}
        assert records.estimate([("gcc", "k0"), ("zlib", "y"), ("lua", "l")]) == {
            "gcc": 1000,
            "zlib": 2,
        }
        assert records.estimate([("gcc", "k0")], kind="stratum") == {"gcc": 7000}
        assert records.estimate([]) == {}


def test_only_the_latest_builds_of_a_name_are_kept(tmp_path: Path) -> None:
    with Records(tmp_path / "records.sqlite") as records:
        records.add(record("lua", "l", 1))
        for number in range(60):
            records.add(record("gcc", f"k{number}", number))
        assert [each.key for each in records.history("gcc")] == [f"k{n}" for n in range(59, 9, -1)]
        assert len(records.history("lua")) == 1


def test_names_are_only_ever_data(tmp_path: Path) -> None:
    name = "'; DROP TABLE builds; -- \"é"
    with Records(tmp_path / "records.sqlite") as records:
        records.add(record(name, "k", 1))
        assert records.estimate([(name, "k")]) == {name: 1}


def test_a_large_graph_is_estimated_quickly(tmp_path: Path) -> None:
    with Records(tmp_path / "records.sqlite") as records:
        for number in range(431):
            for key in ("a", "b", "c"):
                records.add(record(f"chunk{number}", f"{number}{key}", number))
        start = time.process_time()
        found = records.estimate([(f"chunk{n}", f"{n}b") for n in range(431)])
        assert time.process_time() - start < 0.2
    assert found == {f"chunk{n}": n for n in range(431)}


@pytest.mark.parametrize("damage", ["text", "middle", "empty"])
def test_a_damaged_database_is_moved_aside_and_said_once(
    tmp_path: Path, told: Told, damage: str
) -> None:
    path = tmp_path / "records.sqlite"
    with Records(path) as records:
        for number in range(300):
            records.add(record(f"c{number}", "k", 1))
    match damage:
        case "text":
            path.write_bytes(b"this was never a database\n" * 100)
        case "middle":
            data = bytearray(path.read_bytes())
            data[100:] = os.urandom(len(data) - 100)
            path.write_bytes(data)
        case "empty":
            path.write_bytes(b"")
    with Records(path, told) as records:
        records.add(record("zlib", "k", 2))
        assert records.estimate([("zlib", "k")]) == {"zlib": 2}
        records.add(record("zlib", "k", 2))
    aside = tmp_path / "records.sqlite.damaged"
    assert aside.exists() == (damage != "empty")
    assert len(told) == (damage != "empty")
    with Records(path, told) as records:
        assert len(records.history("zlib")) == 2


def test_a_database_of_a_later_morph_is_left_alone(tmp_path: Path, told: Told) -> None:
    path = tmp_path / "records.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    with Records(path, told) as records:
        records.add(record("zlib", "k", 2))
        assert records.estimate([("zlib", "k")]) == {}
    assert path.read_bytes() == before
    assert len(told) == 1
    assert "later Morph" in told.warnings()[0]


def test_a_place_that_can_not_be_used_is_said_once_and_hurts_nobody(
    tmp_path: Path, told: Told
) -> None:
    (tmp_path / "file").touch()
    with Records(tmp_path / "file" / "records.sqlite", told) as records:
        records.add(record("zlib", "k", 2))
        records.add(record("zlib", "k", 2))
        assert records.estimate([("zlib", "k")]) == {}
    assert len(told.warnings()) == 1


def _add_many(path: Path, name: str, count: int) -> None:
    told = Told()
    with Records(path, told) as records:
        for number in range(count):
            records.add(record(name, f"{name}{number}", number))
    assert told == []


def test_processes_share_the_database(tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    children = [_fork.Process(target=_add_many, args=(path, f"c{n}", 40)) for n in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(50)
        assert child.exitcode == 0
    with Records(path) as records:
        assert [len(records.history(f"c{n}")) for n in range(4)] == [40] * 4


def test_a_forked_child_does_not_use_its_parents_connection(tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    with Records(path) as records:
        records.add(record("parent", "p", 1))
        child = _fork.Process(target=lambda: records.add(record("child", "c", 2)))
        child.start()
        child.join(30)
        assert child.exitcode == 0
        records.add(record("parent", "p", 1))
        assert records.estimate([("child", "c"), ("parent", "p")]) == {"child": 2, "parent": 1}


def test_killed_writers_damage_nothing(tmp_path: Path, told: Told) -> None:
    path = tmp_path / "records.sqlite"
    for number in range(8):
        child = _fork.Process(target=_add_many, args=(path, "gcc", 10000))
        child.start()
        time.sleep(0.01 + 0.013 * number)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
    with Records(path, told) as records:
        records.add(record("zlib", "k", 2))
        assert records.estimate([("zlib", "k")]) == {"zlib": 2}
    assert told == []
