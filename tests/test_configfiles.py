"""Configuration files: their format, and what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphlib.configfiles import default_files, parse_entries, read_entries, values_of
from morphlib.errors import MorphError, MorphErrors, Reason
from morphlib.rows import Value


def values(text: str) -> dict[str, Value]:
    return values_of(parse_entries(text, "x.conf"), warn=refuse_warning)


def refuse_warning(text: str) -> None:
    raise AssertionError(text)


def problems(text: str) -> list[str]:
    with pytest.raises(MorphError) as caught:
        values(text)
    assert caught.value.reason is Reason.CONFIG
    found = caught.value.errors if isinstance(caught.value, MorphErrors) else (caught.value,)
    return [str(error) for error in found]


def test_both_delimiters_and_any_case() -> None:
    text = "[config]\nTrove-Host = a\nlog: b\ncachedir=/c\n"
    assert values(text) == {"trove_host": "a", "log": "b", "cachedir": Path("/c")}


def test_values_may_hold_delimiters_hashes_and_percents() -> None:
    text = "[config]\nrepo-alias = x=git://h/%s#ssh://h/%s\nlog = a # b\n"
    assert values(text) == {"repo_alias": ("x=git://h/%s#ssh://h/%s",), "log": "a # b"}


def test_a_semicolon_starts_a_comment_only_behind_a_blank() -> None:
    assert values("[config]\nlog = a;b ; c\n") == {"log": "a;b"}
    assert values("[config]\nlog = ; c\n") == {"log": ""}


def test_comments_and_blank_lines_are_skipped() -> None:
    text = "# one\n; two\n[config]\n\n  # three\nlog = a\n"
    assert values(text) == {"log": "a"}


def test_indented_lines_continue_a_value() -> None:
    text = "[config]\nworker = a,\n  b,\n\n\tc ; comment\nlog = d\n"
    assert values(text) == {"worker": ("a", "b", "c"), "log": "d"}


def test_two_quotes_are_the_empty_string() -> None:
    assert values('[config]\ntarball-server = ""\ncache-server =\n') == {
        "tarball_server": "",
        "cache_server": "",
    }


def test_later_settings_and_sections_override_earlier_ones() -> None:
    text = "[config]\nlog = a\nlog = b\n[other]\nlog = c\n[config]\noutput = d\n"
    assert values(text) == {"log": "b", "output": "d"}


def test_aliases_of_settings_count() -> None:
    assert values("[config]\ntrove-prefix = a, b\n") == {"trove_id": ("a", "b")}


def test_none_is_what_unset_strings_are_dumped_as() -> None:
    text = "[config]\nrepo = None\ncache-server = None\ncompiler-cache-dir = None\n"
    assert values(text) == {"repo": None, "cache_server": None, "compiler_cache_dir": None}


def test_windows_line_ends_do_no_harm() -> None:
    assert values("[config]\r\nlog = a\r\n") == {"log": "a"}


def test_every_problem_is_told_with_its_line() -> None:
    found = problems("[config]\nmax-jobs = x\ncachdir = /c\nlog = a\nlocal-changes = no\n")
    assert [text.splitlines()[0] for text in found] == [
        "x.conf:2: max-jobs must be a whole number, not 'x'",
        "x.conf:3: there is no setting 'cachdir'",
        "x.conf:5: local-changes must be one of include, ignore, not 'no'",
    ]
    assert "Did you mean cachedir?" in found[1]


def test_the_line_of_a_long_value_is_its_first() -> None:
    (problem,) = problems("[config]\n\nlog-level = de\n  bug\n")
    assert problem.startswith("x.conf:3: ")


@pytest.mark.parametrize("text", ["log = a\n", "[config]\nlog\n", "[config\nlog = a\n", "= a\n"])
def test_lines_of_another_format_are_refused(text: str) -> None:
    assert problems(text)[0].startswith("x.conf:")


def test_doubtful_values_warn_with_their_line() -> None:
    warnings: list[str] = []
    values_of(parse_entries("[config]\ncachedir-min-space = lots\n", "x.conf"), warnings.append)
    assert warnings == [
        "x.conf:2: cachedir-min-space is no size, such as 4G or 512MiB: 'lots' counts as 0"
    ]


def test_files_that_are_not_there_say_nothing(tmp_path: Path) -> None:
    assert read_entries([tmp_path / "a", tmp_path / "b" / "c"]) == []


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MorphError, match="can't read configuration file"):
        read_entries([tmp_path])


def test_default_files_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".config" / "morf"
    folder.mkdir(parents=True)
    for name in ("b.conf", "a.conf", "B.conf", "c.txt"):
        (folder / name).touch()
    assert default_files("morf") == [
        Path("/etc/morf.conf"),
        tmp_path / ".morf.conf",
        folder / "B.conf",
        folder / "a.conf",
        folder / "b.conf",
    ]


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_entries(text, "x.conf")
    except MorphError as error:
        assert error.reason is Reason.CONFIG
