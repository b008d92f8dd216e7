"""Assigning installed files to artifacts."""

from __future__ import annotations

import pytest

from morphlib.build.members import Member, file_member, with_parents
from morphlib.build.split import check_leftovers, split_members
from morphlib.errors import MorphError, Reason
from morphlib.graph.model import SplitRule


def _directory(path: str) -> Member:
    return Member(path, 0o040755)


def _rule(artifact: str, *patterns: str) -> SplitRule:
    return SplitRule(artifact, patterns)


TREE = [
    _directory("."),
    _directory("usr"),
    _directory("usr/bin"),
    file_member("usr/bin/tool", b""),
    _directory("usr/include"),
    file_member("usr/include/tool.h", b""),
]


def test_first_matching_rule_wins() -> None:
    split = split_members(TREE, [_rule("a", "usr/bin/.*"), _rule("b", "usr/bin/tool", ".*")])
    assert [member.path for member in split.artifacts["a"]] == ["usr/bin/tool"]
    assert [m.path for m in split.artifacts["b"]] == [
        ".",
        "usr",
        "usr/bin",
        "usr/include",
        "usr/include/tool.h",
    ]


def test_patterns_are_anchored_at_the_start_only() -> None:
    split = split_members(TREE, [_rule("start", "usr/b"), _rule("middle", "bin"), _rule("c", ".")])
    assert [m.path for m in split.artifacts["start"]] == ["usr/bin", "usr/bin/tool"]
    assert split.artifacts["middle"] == ()


def test_several_rules_of_one_artifact() -> None:
    split = split_members(TREE, [_rule("a", "usr/bin/"), _rule("b", r"\."), _rule("a", "usr")])
    assert list(split.artifacts) == ["a", "b"]
    assert "usr/include/tool.h" in [m.path for m in split.artifacts["a"]]


def test_leftover_files_are_named() -> None:
    split = split_members(TREE, [_rule("a", "usr/bin/tool")])
    with pytest.raises(
        MorphError, match=r"DESTDIR /x\.inst is not empty.*usr/include/tool\.h"
    ) as e:
        check_leftovers(split, "/x.inst")
    assert e.value.reason is Reason.BUILD
    assert "'usr/bin'" not in e.value.message


def test_directories_above_what_matches_are_no_leftovers() -> None:
    split = split_members(TREE, [_rule("a", "usr/bin/tool", "usr/include/tool.h")])
    check_leftovers(split, "/x.inst")


def test_empty_unmatched_directory_is_a_leftover() -> None:
    split = split_members([_directory("."), _directory("srv")], [_rule("a", "usr")])
    with pytest.raises(MorphError, match="'srv'"):
        check_leftovers(split, "/x.inst")


def test_parents_are_added_but_not_the_top() -> None:
    present = {member.path: member for member in TREE}
    members = with_parents(
        [present["usr/bin/tool"]], [file_member("baserock/a.meta", b"{}")], present
    )
    assert [member.path for member in members] == [
        "baserock",
        "baserock/a.meta",
        "usr",
        "usr/bin",
        "usr/bin/tool",
    ]


def test_installed_file_in_the_way_of_own_files_is_refused() -> None:
    present = {"baserock": file_member("baserock", b"")}
    with pytest.raises(MorphError, match="installs /baserock"):
        with_parents([], [file_member("baserock/a.meta", b"{}")], present)


def test_broken_pattern_is_a_definition_error() -> None:
    with pytest.raises(MorphError, match="no regular expression") as caught:
        split_members(TREE, [_rule("a", "(")])
    assert caught.value.reason is Reason.DEFINITION
