from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphlib.sources.gitconfig import parse_config
from morphlib.sources.mirrorgit import read_origin, write_mirror_config

TEXT = b"""\
# comment
[submodule "a \\"quoted\\" name"]
\tpath = some where  ; comment
  url = "git://h/x # no comment" # comment
[Core] bare
\trepositoryFormatVersion=0
[submodule "b"] path = one \\
two
\turl = a\\tb"  c  "\\\\
\tupdate = !touch canary
"""


def test_reads_what_git_reads(tmp_path: Path) -> None:
    (tmp_path / "config").write_bytes(TEXT)
    first, core, second = parse_config(TEXT)
    assert first.subsection("submodule") == 'a "quoted" name'
    assert core.subsection("submodule") is None
    for key, value in (
        ('submodule.a "quoted" name.path', first.values["path"]),
        ('submodule.a "quoted" name.url', first.values["url"]),
        ("submodule.b.path", second.values["path"]),
        ("submodule.b.url", second.values["url"]),
    ):
        done = subprocess.run(
            ["git", "config", "-z", "-f", tmp_path / "config", key], capture_output=True, check=True
        )
        assert done.stdout.decode() == value + "\0"
    assert core.values == {"bare": "true", "repositoryformatversion": "0"}


@pytest.mark.parametrize("text", [b"x = y", b"[a\nb=c", b'[a]\nb="c', b"[a]\nb=\\q", b"[a]\n=b"])
def test_malformed(text: bytes) -> None:
    with pytest.raises(ValueError, match="line"):
        parse_config(text)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        for section in parse_config(data):
            section.subsection("submodule")
    except ValueError as error:
        assert "line" in str(error)


@given(st.text(st.characters(blacklist_characters="\0\n\r", blacklist_categories=["Cs"])))
def test_recorded_origin_is_read_back(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    directory = tmp_path_factory.getbasetemp() / "mirror"
    directory.mkdir(exist_ok=True)
    url = f"git://host/{name}"
    write_mirror_config(directory, url)
    assert read_origin(directory) == url
