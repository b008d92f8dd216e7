from __future__ import annotations

from pathlib import Path

import pytest

from morphlib.cache.gcplan import (
    Candidate,
    GcPlan,
    Inventory,
    Limits,
    Place,
    What,
    describe_age,
    plan_collection,
)

DAY = 86400.0
NOW = 1000 * DAY


def candidate(
    what: What, name: str, *, days: float = 0, size: int = 10, held: str = ""
) -> Candidate:
    return Candidate(what, name, (Path("/x") / name,), size, NOW - days * DAY, held)


def plan(
    *candidates: Candidate,
    temp_free: int = 0,
    cache_free: int = 0,
    limits: Limits | None = None,
    one_device: bool = False,
) -> GcPlan:
    inventory = Inventory(candidates, temp_free, cache_free, one_device)
    return plan_collection(inventory, limits or Limits(100, 100), NOW)


def removed(made: GcPlan) -> list[str]:
    return [action.candidate.name for action in made.actions]


def test_garbage_goes_even_if_there_is_room() -> None:
    made = plan(
        candidate(What.STAGING, "area"),
        candidate(What.LEFTOVER, "vanished.log"),
        candidate(What.TEMPORARY, "token"),
        temp_free=1000,
        cache_free=1000,
    )
    assert removed(made) == ["area", "vanished.log", "token"]
    assert all(action.until_enough is None for action in made.actions)
    assert made.sufficient


@pytest.mark.parametrize("what", list(What))
def test_nothing_that_is_held_goes(what: What) -> None:
    made = plan(candidate(what, "thing", days=100, held="a build uses it"))
    assert made.actions == ()
    assert [kept.reason for kept in made.kept] == ["a build uses it"]
    assert not made.sufficient


def test_nothing_useful_goes_while_there_is_room() -> None:
    made = plan(
        candidate(What.DEPLOYMENT, "d", days=100),
        candidate(What.LAYER, "l", days=100),
        candidate(What.SOURCE, "s", days=100),
        temp_free=100,
        cache_free=100,
    )
    assert made.actions == ()
    assert {kept.reason for kept in made.kept} == {"there is room enough"}
    assert made.sufficient


def test_deployments_go_before_layers_and_old_layers_before_young_ones() -> None:
    layers = [candidate(What.LAYER, f"l{days}", days=days, size=30) for days in (1, 3, 2)]
    made = plan(*layers, candidate(What.DEPLOYMENT, "d", size=30), temp_free=30, cache_free=100)
    assert removed(made) == ["d", "l3", "l2"]
    assert all(action.until_enough is Place.TEMP for action in made.actions)
    assert made.sufficient


def test_all_sources_past_the_age_go_then_the_oldest_until_there_is_room() -> None:
    ages = (30, 8, 6, 4, 2, 0.5)
    sources = [candidate(What.SOURCE, f"s{days}", days=days, size=30) for days in ages]
    assert removed(plan(*sources, temp_free=100, cache_free=99)) == ["s30", "s8"]
    made = plan(*sources, temp_free=100, cache_free=0)
    assert removed(made) == ["s30", "s8", "s6", "s4"]
    assert made.sufficient
    assert [action.until_enough for action in made.actions] == [None, None, *[Place.CACHE] * 2]


def test_young_sources_never_go() -> None:
    made = plan(candidate(What.SOURCE, "s", days=0.9, size=1000), temp_free=100)
    assert made.actions == ()
    assert not made.sufficient
    assert made.kept[0].reason == "used 21 hours ago"


def test_sources_from_the_future_stay_and_say_why() -> None:
    made = plan(
        candidate(What.SOURCE, "far", days=-400),
        candidate(What.SOURCE, "near", days=-0.5),
        temp_free=100,
    )
    assert made.actions == ()
    reasons = {kept.candidate.name: kept.reason for kept in made.kept}
    assert "clock" in reasons["far"]
    assert "clock" not in reasons["near"]


def test_ages_are_settings() -> None:
    limits = Limits(0, 100, delete_older_than=2 * DAY, keep_younger_than=0)
    made = plan(
        candidate(What.SOURCE, "s3", days=3, size=200),
        candidate(What.SOURCE, "s1", days=1),
        limits=limits,
    )
    assert removed(made) == ["s3"]


def test_on_one_device_the_limits_add_up_and_all_removals_count() -> None:
    made = plan(
        candidate(What.LAYER, "l", size=60),
        candidate(What.SOURCE, "s", days=5, size=50),
        temp_free=100,
        cache_free=100,
        one_device=True,
    )
    assert removed(made) == ["l", "s"]
    assert made.sufficient
    made = plan(
        candidate(What.STAGING, "a", size=100),
        candidate(What.SOURCE, "s", days=50),
        temp_free=100,
        cache_free=100,
        one_device=True,
    )
    assert removed(made) == ["a"]


def test_plans_do_not_depend_on_the_order_of_what_was_found() -> None:
    found = [candidate(What.SOURCE, f"s{n}", days=3 + n % 3) for n in range(9)]
    assert plan(*found).actions == plan(*found[::-1]).actions


def test_ages_in_words() -> None:
    assert [describe_age(age) for age in (-5, 1, 130, 7300, 200000)] == [
        "0 seconds",
        "1 seconds",
        "2 minutes",
        "2 hours",
        "2 days",
    ]


def test_sources_go_oldest_first_until_the_rest_is_no_larger_than_it_may_be() -> None:
    ages = (6, 4, 2, 0.5)
    sources = [candidate(What.SOURCE, f"s{days}", days=days, size=30) for days in ages]
    limits = Limits(100, 100, max_size=70)
    made = plan(*sources, temp_free=1000, cache_free=1000, limits=limits)
    assert removed(made) == ["s6", "s4"]
    assert made.sufficient
    assert {kept.reason for kept in made.kept} == {"there is room enough", "used 12 hours ago"}
    made = plan(*sources, temp_free=1000, cache_free=1000, limits=Limits(100, 100, max_size=10))
    assert removed(made) == ["s6", "s4", "s2"]
    assert not made.sufficient
    assert not made.fits


def test_what_is_held_counts_but_does_not_go() -> None:
    sources = [
        candidate(What.SOURCE, "held", days=9, size=60, held="a build uses it"),
        candidate(What.SOURCE, "free", days=2, size=30),
    ]
    limits = Limits(0, 0, max_size=70)
    made = plan(*sources, limits=limits)
    assert removed(made) == ["free"]
    assert made.sufficient


def test_what_nobody_used_for_too_long_goes_even_if_there_is_room() -> None:
    sources = [candidate(What.SOURCE, f"s{days}", days=days) for days in (40, 20, 2)]
    limits = Limits(0, 0, expire_after=30 * DAY)
    made = plan(*sources, temp_free=1000, cache_free=1000, limits=limits)
    assert removed(made) == ["s40"]
    assert made.actions[0].reason == "not used for 40 days"
    limits = Limits(0, 0, expire_after=1 * DAY, keep_younger_than=30 * DAY)
    assert removed(plan(*sources, limits=limits)) == ["s40"]
