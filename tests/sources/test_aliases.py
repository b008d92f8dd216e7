from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphlib.errors import MorphError
from morphlib.sources.aliases import Aliases, RepoAlias

BUILTIN = (
    "freedesktop=git://anongit.freedesktop.org/#ssh://git.freedesktop.org/",
    "github=git://github.com/%s#ssh://git@github.com/%s",
)


def test_trove_aliases() -> None:
    aliases = Aliases.from_settings("trove.example.com", [], [])
    assert aliases.pull_url("baserock:a/b") == "git://trove.example.com/baserock/a/b"
    assert aliases.push_url("baserock:a/b") == "ssh://git@trove.example.com/baserock/a/b"
    assert aliases.pull_url("upstream:zlib") == "git://trove.example.com/delta/zlib"
    assert aliases.push_url("upstream:zlib") == "ssh://git@trove.example.com/delta/zlib"


def test_no_trove_host_no_trove_aliases() -> None:
    assert Aliases.from_settings("", ["foo"], []).as_settings() == []


def test_short_trove_id_never_replaces_long_one_does() -> None:
    aliases = Aliases.from_settings("h", ["upstream", "foo", "foo=p/q#ssh#git", "foo"], [])
    assert aliases.pull_url("upstream:x") == "git://h/delta/x"
    assert aliases.pull_url("foo:x") == "ssh://git@h/p/q/x"
    assert aliases.push_url("foo:x") == "git://h/p/q/x"


def test_trove_id_of_unknown_form_is_ignored() -> None:
    aliases = Aliases.from_settings("h", ["foo=bar", "a=b#c"], [])
    assert aliases == Aliases.from_settings("h", [], [])


def test_all_errors_at_once() -> None:
    with pytest.raises(MorphError) as caught:
        Aliases.from_settings("h", ["foo=bar#https#ssh"], ["nonsense", "X=a#b"])
    assert "Unknown protocol in trove_id: https" in str(caught.value)
    assert "Invalid repo-alias: nonsense" in str(caught.value)
    assert "Invalid repo-alias: X=a#b" in str(caught.value)


def test_settings_win_over_trove() -> None:
    aliases = Aliases.from_settings("h", ["github"], BUILTIN)
    assert aliases.pull_url("github:a/b") == "git://github.com/a/b"


def test_pattern_without_placeholder_gets_the_rest_appended() -> None:
    aliases = Aliases.from_settings("", [], BUILTIN)
    assert aliases.pull_url("freedesktop:x") == "git://anongit.freedesktop.org/x"


@pytest.mark.parametrize(
    "name",
    ["git://host/x", "file:///x", "/plain/path", "unknown:x", "GITHUB:x", "a:x", "", "github"],
)
def test_others_stay_as_they_are(name: str) -> None:
    aliases = Aliases.from_settings("", [], BUILTIN)
    assert aliases.pull_url(name) == name
    assert aliases.push_url(name) == name


def test_names_of_url() -> None:
    aliases = Aliases.from_settings("h", [], [*BUILTIN, "two-of-them=git://x/%s/y/%s#ssh://x/%s"])
    assert aliases.names_of("git://github.com/a") == ["github:a"]
    assert aliases.names_of("ssh://git@github.com/a") == ["github:a"]
    assert aliases.names_of("git://x/z/y/z") == ["two-of-them:z"]
    assert aliases.names_of("git://x/z/y/other") == []
    assert aliases.names_of("git://h/delta/a") == ["upstream:a"]


def test_settings_round_trip() -> None:
    aliases = Aliases.from_settings("h", ["foo"], BUILTIN)
    assert Aliases.from_settings("", [], aliases.as_settings()) == aliases


@given(st.text())
def test_what_is_expanded_is_found_again(rest: str) -> None:
    aliases = Aliases([RepoAlias("ab", "git://h/%s/end", "ssh://h/%s")])
    assert f"ab:{rest}" in aliases.names_of(aliases.pull_url(f"ab:{rest}"))
