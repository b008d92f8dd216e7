"""How often sources are asked for, and are there: counted, kept, and told to whom they belong."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheserver import hits as hits_module
from cacheserver import tallies as tallies_module
from cacheserver.hits import FILE, Hits
from cacheserver.tallies import (
    DAYS,
    Label,
    Tallies,
    Tally,
    common_name,
    decode_tallies,
    encode_tallies,
    fade,
    merge,
    owner_of,
    rates,
)
from morphlib.cache.locks import acquire_directory
from morphlib.cache.store import ArtifactStore
from tests.cacheserver.server import KEY, OTHER_KEY, running, sha256

labels = st.builds(Label, st.sampled_from(["chunk", "system"]), st.text(max_size=5))
tally = st.builds(Tally, st.integers(0, 9), st.integers(0, 9))
tallies = st.dictionaries(labels, st.dictionaries(st.integers(0, 90), tally, max_size=3))


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


class Clock:
    now = 20_000 * 86400.0

    def __call__(self) -> float:
        return self.now


ZLIB = Label("chunk", "zlib")


# ---- Whose counts they are -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "known", "owner"),
    [
        (Label("chunk", "zlib-bins"), {ZLIB}, ZLIB),
        (Label("chunk", "zlib-ng-bins"), {ZLIB, Label("chunk", "zlib-ng")}, "zlib-ng"),
        (Label("chunk", "zlib-odd-part"), {ZLIB}, ZLIB),
        (Label("chunk", "zlib-bins"), {Label("system", "zlib")}, ZLIB),
        (Label("chunk", "zlib-odd"), set(), "zlib-odd"),
        (Label("chunk", "-bins"), set(), "-bins"),
        (Label("stratum", "core-runtime"), {Label("stratum", "core")}, "core"),
        (Label("stratum", "core-runtime"), set(), "core-runtime"),
        (Label("system", "base-rootfs"), set(), "base"),
    ],
)
def test_whose_artifacts_they_are(label: Label, known: set[Label], owner: Label | str) -> None:
    assert owner_of(label, known) == (Label(label.kind, owner) if isinstance(owner, str) else owner)


@pytest.mark.parametrize(
    ("names", "common"),
    [
        (["zlib-bins"], "zlib-bins"),
        (["zlib-bins", "zlib-misc"], "zlib"),
        (["zlib-devel", "zlib-doc"], "zlib"),
        (["core", "core.meta"], "core"),
        (["a", "b"], ""),
    ],
)
def test_what_names_have_in_common(names: list[str], common: str) -> None:
    assert common_name(names) == common


@given(st.lists(st.text(max_size=8), min_size=1, max_size=4))
def test_all_names_begin_with_what_they_have_in_common(names: list[str]) -> None:
    assert all(name.startswith(common_name(names)) for name in names)


# ---- Sums ----------------------------------------------------------------------------------------


@given(tallies, tallies)
def test_nothing_is_lost_in_sums(a: Tallies, b: Tallies) -> None:
    def total(*parts: Tallies) -> int:
        return sum(sum(t) for part in parts for days in part.values() for t in days.values())

    assert total(merge(a, b)) == total(a, b)
    found = rates(merge(a, b), {label for label in a if "-" not in label.name})
    assert sum(rate.asked for rate in found.values()) == total(a, b)


@given(tallies)
def test_counts_survive_the_trip(given: Tallies) -> None:
    assert decode_tallies(encode_tallies(given)) == given


@given(st.binary())
def test_what_holds_no_counts_is_worth_nothing(raw: bytes) -> None:
    assert decode_tallies(b"x" + raw) == {}


@given(tallies, st.integers(0, 200))
def test_days_fade(given: Tallies, today: int) -> None:
    for days in fade(given, today).values():
        assert days
        assert all(today - DAYS < day <= today + 1 for day in days)


def test_of_too_many_names_the_last_and_most_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallies_module, "MOST", 2)
    given: Tallies = {
        Label("chunk", "old"): {10: Tally(9, 9)},
        Label("chunk", "rare"): {11: Tally(0, 1)},
        Label("chunk", "often"): {11: Tally(1, 1)},
        Label("chunk", "new"): {12: Tally(0, 1)},
    }
    assert {label.name for label in fade(given, 12)} == {"new", "often"}


# ---- Counting ------------------------------------------------------------------------------------


def question(key: str, *names: str, there: bool) -> dict[str, bool]:
    return {f"{key}.chunk.{name}": there for name in names}


def counted(hits: Hits) -> tuple[int, int]:
    rate = hits.rates({ZLIB})[ZLIB]
    return rate.hits, rate.misses


def test_a_source_counts_once_in_a_question(store: ArtifactStore) -> None:
    hits = Hits(store, Clock())
    hits.add_question(question(KEY, "zlib-bins", "zlib-misc", there=True))
    hits.add_question(question(OTHER_KEY, "zlib-bins", "zlib-misc", there=False))
    half = question(OTHER_KEY, "zlib-bins", there=True) | question(KEY, "zlib-misc", there=True)
    hits.add_question({**half, f"{OTHER_KEY}.chunk.zlib-doc": False})
    assert counted(hits) == (2, 2)


def test_what_is_fetched_after_it_was_asked_for_counts_no_more(store: ArtifactStore) -> None:
    clock = Clock()
    hits = Hits(store, clock)
    hits.add_question(question(KEY, "zlib-bins", "zlib-misc", there=True))
    for name in ("zlib-bins", "zlib-misc"):
        hits.add_file(f"{KEY}.chunk.{name}", is_there=True)
    assert counted(hits) == (1, 0)
    # Old clients ask for one file at a time.
    for name in ("zlib-bins", "zlib-misc"):
        hits.add_file(f"{OTHER_KEY}.chunk.{name}", is_there=False)
    assert counted(hits) == (1, 1)
    clock.now += 3600
    hits.add_file(f"{KEY}.chunk.zlib-bins", is_there=True)
    assert counted(hits) == (2, 1)


def test_junk_is_not_counted(store: ArtifactStore) -> None:
    hits = Hits(store, Clock())
    hits.add_question({"": False, "x.chunk.a": False, f"{KEY}.build-log": True})
    hits.add_question({f"{KEY}.cluster.a": False, f"{KEY}.chunk.a\x1b[2J": False})
    hits.add_file(f"{KEY}.chunk.{'x' * 201}", is_there=False)
    assert hits.rates(set()) == {}


def test_memory_is_bounded(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hits_module, "MOST", 10)
    monkeypatch.setattr(hits_module, "_REMEMBERED", 10)
    hits = Hits(store, Clock())
    for number in range(100):
        hits.add_file(f"{sha256(b'%d' % number)}.chunk.name{number}", is_there=False)
    assert len(hits.rates(set())) == 10
    hits.add_question(question(KEY, "name3", there=True))
    assert hits.rates(set())[Label("chunk", "name3")].asked == 2


# ---- Keeping -------------------------------------------------------------------------------------


def test_counts_are_kept_and_old_ones_go(store: ArtifactStore) -> None:
    clock = Clock()
    hits = Hits(store, clock)
    hits.add_question(question(KEY, "zlib", there=True))
    hits.save()
    hits.add_question(question(KEY, "zlib", there=False))
    hits.save()
    assert counted(hits) == (1, 1)
    assert counted(Hits(store, clock)) == (1, 1)
    clock.now += 86400 * (DAYS - 1)
    assert counted(Hits(store, clock)) == (1, 1)
    clock.now += 86400
    assert Hits(store, clock).rates(set()) == {}
    assert store.names() == []


def test_servers_of_one_directory_add_up(store: ArtifactStore) -> None:
    one, two = Hits(store, Clock()), Hits(store, Clock())
    one.add_question(question(KEY, "zlib", there=True))
    two.add_question(question(KEY, "zlib", there=False))
    one.save()
    two.save()
    assert counted(two) == (1, 1)
    one.add_question(question(KEY, "zlib", there=True))
    one.save()
    assert counted(one) == (2, 1)


def test_a_file_of_junk_is_replaced(store: ArtifactStore) -> None:
    (store.directory / FILE).write_bytes(b"junk")
    hits = Hits(store, Clock())
    hits.add_question(question(KEY, "zlib", there=True))
    hits.save()
    assert counted(Hits(store, Clock())) == (1, 0)


@pytest.mark.parametrize("counts", ["[0,0]", "[-5,5]", "[1,-1]", "[18446744073709551615,1]"])
def test_pages_bear_a_file_of_other_counts(home: Path, counts: str) -> None:
    (home / "artifacts").mkdir()
    day = int(time.time() // 86400)
    text = f'{{"chunk":{{"zlib-bins":{{"{day}":{counts}}}}}}}'
    (home / "artifacts" / FILE).write_text(text)
    with running(home) as server:
        assert server.get("/hits", kind="chunk").status == 200
        assert server.artifact(f"{KEY}.chunk.zlib-bins").status == 404
        assert server.get("/hits", kind="chunk").status == 200
        assert server.stop() == 0
    assert "Traceback" not in server.events


def test_a_server_ends_though_somebody_holds_the_directory(home: Path) -> None:
    """Such as a program that was stopped. Counts are worth no more than a moment."""
    with running(home) as server:
        assert server.artifact(f"{KEY}.chunk.zlib-bins").status == 404
        held = acquire_directory(server.artifacts)
        assert held is not None
        with held:
            assert server.stop() == 0


def test_a_pipe_in_the_place_of_counts_is_not_waited_for(home: Path) -> None:
    (home / "artifacts").mkdir()
    os.mkfifo(home / "artifacts" / FILE)
    with running(home) as server:
        assert server.artifact(f"{KEY}.chunk.zlib-bins").status == 404
        assert server.stop() == 0
    assert (home / "artifacts" / FILE).is_file()


def test_what_can_not_be_kept_is_counted_still(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "gone")
    hits = Hits(store, Clock())
    hits.add_question(question(KEY, "zlib", there=True))
    hits.try_to_save()
    assert counted(hits) == (1, 0)
    store.directory.mkdir()
    hits.try_to_save()
    assert counted(Hits(store, Clock())) == (1, 0)


def test_a_server_keeps_its_counts_when_it_ends(home: Path) -> None:
    for _ in range(2):
        with running(home) as server:
            server.post("/1.0/artifacts", list(question(KEY, "zlib-bins", there=False)))
            assert server.artifact(f"{OTHER_KEY}.chunk.zlib-bins").status == 404
            assert server.artifact(FILE).status == 404
            assert server.stop() == 0
    with running(home) as server:
        page = server.get("/hits", kind="chunk").body.decode()
        assert '<td class="number">4</td>' in page
