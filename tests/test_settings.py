"""The table of settings, and text as values."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphlib.rows import Kind
from morphlib.settings import (
    BUILT_IN_ALIASES,
    Settings,
    default_values,
    derive_settings,
    rows_by_name,
    table,
)
from morphlib.values import format_value, parse_list, parse_size, parse_value


def no_warning(text: str) -> None:
    raise AssertionError(f"unexpected warning: {text}")


def defaults() -> Settings:
    return Settings(**default_values())  # type: ignore[arg-type]  # the table gives each its type


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("17", 17),
        ("4G", 4_000_000_000),
        ("4g", 4_000_000_000),
        ("4GB", 4_000_000_000),
        ("4 gib", 4 * 2**30),
        ("1.5k", 1500),
        ("1.5Ki", 1536),
        (".5m", 500_000),
        ("2.", 2),
        ("2TiB", 2 * 2**40),
        ("12b", 12),
    ],
)
def test_sizes_have_units_of_1000_and_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "four", "4x", "-1", "4Gi4", "1e9", "i", "4ib", "٤"])
def test_what_is_no_size_is_told_and_counts_as_0(text: str) -> None:
    warnings: list[str] = []
    assert parse_value(rows_by_name()["log-max"], text, warnings.append) == 0
    assert len(warnings) == 1
    assert "log-max" in warnings[0]


@pytest.mark.parametrize("text", ["yes", "ON", "1", "True", " true "])
def test_true_words(text: str) -> None:
    assert parse_value(rows_by_name()["quiet"], text, no_warning) is True


@pytest.mark.parametrize("text", ["no", "Off", "0", "false", ""])
def test_false_words(text: str) -> None:
    assert parse_value(rows_by_name()["quiet"], text, no_warning) is False


def test_any_other_word_is_false_with_a_warning() -> None:
    warnings: list[str] = []
    assert parse_value(rows_by_name()["quiet"], "ture", warnings.append) is False
    assert warnings == ["quiet is a yes or no: 'ture' counts as no"]


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("max-jobs", "many", "must be a whole number"),
        ("max-jobs", "", "must be a whole number"),
        ("max-jobs", "1.5", "must be a whole number"),
        ("max-jobs", "9" * 5000, "must be a whole number"),
        ("max-jobs", "0", "must be at least 1"),
        ("log-keep", "-1", "must be at least 0"),
        ("priority", "-101", "must be at least -100"),
        ("priority", "101", "must be at most 100"),
        ("local-changes", "maybe", "must be one of include, ignore"),
        ("cachedir", " ", "must be a directory"),
    ],
)
def test_bad_values_are_refused(name: str, text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=f"{name} {complaint}"):
        parse_value(rows_by_name()[name], text, no_warning)


def test_lists_are_split_at_commas_and_trimmed() -> None:
    row = rows_by_name()["worker"]
    assert parse_value(row, " a ,b,,\n c", no_warning) == ("a", "b", "c")
    assert parse_list(row, ["a,b", "c"]) == ("a", "b", "c")


def test_an_empty_list_is_the_default() -> None:
    assert parse_value(rows_by_name()["repo-alias"], " ", no_warning) == BUILT_IN_ALIASES
    assert parse_value(rows_by_name()["worker"], "", no_warning) == ()


def test_directories_are_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/somewhere")
    row = rows_by_name()["cachedir"]
    assert parse_value(row, "cache", no_warning) == tmp_path / "cache"
    assert parse_value(row, "~/cache", no_warning) == Path("/somewhere/cache")


def test_tempdir_is_below_tmpdir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/scratch")
    assert defaults().tempdir == Path("/scratch/morph_tmp")
    monkeypatch.delenv("TMPDIR")
    assert defaults().tempdir == Path("/tmp/morph_tmp")


def test_servers_follow_from_the_trove() -> None:
    derived = derive_settings(replace(defaults(), trove_host="trove.example"))
    assert derived.cache_server == "http://trove.example:8080/"
    assert derived.artifact_cache_server == derived.cache_server
    assert derived.git_resolve_cache_server == derived.cache_server
    assert derived.tarball_server == "http://trove.example/tarballs/"


def test_servers_that_are_set_are_left_alone() -> None:
    given = replace(
        defaults(),
        cache_server="",
        git_resolve_cache_server="http://r/",
        tarball_server="http://t/",
    )
    derived = derive_settings(given)
    assert derived.cache_server == derived.artifact_cache_server == ""
    assert derived.git_resolve_cache_server == "http://r/"
    assert derived.tarball_server == "http://t/"


def test_without_a_trove_there_are_no_servers() -> None:
    derived = derive_settings(replace(defaults(), trove_host=""))
    assert derived.cache_server == derived.tarball_server == ""


@pytest.mark.parametrize(
    ("trove_id", "prefix"),
    [((), "baserock/builds"), (("a", "b"), "a/builds"), (("a=p#git#ssh",), "a/builds")],
)
def test_build_refs_are_named_by_the_first_trove_id(trove_id: tuple[str, ...], prefix: str) -> None:
    assert derive_settings(replace(defaults(), trove_id=trove_id)).build_ref_prefix == prefix


def test_defaults_of_numbers_and_choices() -> None:
    settings = defaults()
    assert 1 <= settings.max_jobs <= 20
    assert 1 <= settings.builders <= 20
    assert settings.tempdir_min_space == settings.cachedir_min_space == 4_000_000_000
    assert settings.no_distcc is True
    assert settings.local_changes == "include"
    assert settings.log_level == "debug"


def test_names_are_unique_and_plain() -> None:
    names = [name for row in table() for name in row.names]
    assert len(names) == len(set(names))
    assert all(re.fullmatch("[a-z]+(-[a-z]+)*", name) for name in names)
    letters = [row.letter for row in table() if row.letter]
    assert sorted(letters) == ["d", "h", "q", "v"]


def test_every_setting_has_help() -> None:
    assert all(row.help and row.group for row in table())


item = st.text(
    st.characters(exclude_characters=",", exclude_categories=["Cs", "Cc", "Z"]), min_size=1
)


@given(st.lists(item, min_size=1))
def test_lists_read_back_as_they_were_written(items: list[str]) -> None:
    row = rows_by_name()["worker"]
    assert parse_value(row, format_value(tuple(items)), no_warning) == tuple(items)


def test_every_default_reads_back_as_it_was_written() -> None:
    for row in table():
        default = row.default()
        if default is not None:
            assert parse_value(row, format_value(default), no_warning) == default, row.name
    assert {row.kind for row in table()} == set(Kind)
