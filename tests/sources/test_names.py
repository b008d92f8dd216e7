from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphlib.errors import MorphError
from morphlib.sources.names import (
    check_ref,
    check_submodule_path,
    check_url,
    is_git_directory,
    is_local,
    local_path,
    quote_url,
)


@pytest.mark.parametrize(
    "url",
    [
        "git://git.example.org/delta/zlib",
        "https://user:secret@example.org:8443/x.git",
        "http://example.org/~me/x",
        "ssh://git@example.org/x",
        "ssh://[::1]:22/x",
        "git@example.org:path/x.git",
        "file:///srv/git/x y",
        "/srv/a:b",
        "relative/path",
    ],
)
def test_good_urls(url: str) -> None:
    assert check_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "--upload-pack=touch /tmp/x",
        "-u./payload",
        "ext::sh -c touch% /tmp/x",
        "fd::17",
        "::x",
        "foo::bar",
        "ftp://example.org/x",
        "javascript://example.org/x",
        "ssh://-oProxyCommand=touch/x",
        "ssh://git@-oProxyCommand=touch/x",
        "-oProxyCommand=touch:x",
        "git@-oProxyCommand=touch:x",
        "git://-x/y",
        "git://host/x\ny",
        "git://host/x\0y",
        "git://host/\x1b[31m",
        "https:///x",
        "://x",
    ],
)
def test_hostile_urls(url: str) -> None:
    with pytest.raises(MorphError, match="Refusing repository"):
        check_url(url)


@pytest.mark.parametrize(
    "ref", ["master", "v1.0", "a" * 40, "refs/tags/x", "origin/x~3", "v1^", "HEAD", "feature/ü"]
)
def test_good_refs(ref: str) -> None:
    assert check_ref(ref) == ref


@pytest.mark.parametrize(
    "ref",
    ["", "--upload-pack=x", "-x", "a b", "a\nb", "a..b", "HEAD:file", ":/text", "a\0", "+a:b"],
)
def test_hostile_refs(ref: str) -> None:
    with pytest.raises(MorphError, match="Refusing ref"):
        check_ref(ref)


@pytest.mark.parametrize(
    "path",
    [
        *("", "/abs", "../x", "a/../../x", "a//b", ".", "./a", ".git", "a/.GIT/hooks", "-x"),
        *("a\nb", "git~1/x", "a/.git /x", ".g\u200cit"),
    ],
)
def test_hostile_submodule_paths(path: str) -> None:
    with pytest.raises(MorphError, match="Refusing submodule path"):
        check_submodule_path(path)


def test_good_submodule_paths() -> None:
    for path in ("a", "a/b.c", "third party/x", ".gitlab/x", "a/..b"):
        assert check_submodule_path(path) == path


def test_spellings_of_the_git_directory() -> None:
    assert all(map(is_git_directory, [".git", ".GiT", "git~1", ".git.", ".git::$INDEX_ALLOCATION"]))
    assert not any(map(is_git_directory, [".gitmodules", "git", ".gitignore", ".", "..", "a.git"]))


def test_mirror_names_are_those_of_tarball_servers() -> None:
    assert quote_url("git://git.example.org/delta/zlib") == "git___git_example_org_delta_zlib"
    assert quote_url("ssh://a@b/x_y%20é") == "ssh___a_b_x_y%20_"


@given(st.text())
def test_mirror_names_stay_in_their_directory(url: str) -> None:
    name = quote_url(url)
    assert len(name) == len(url)
    assert not set(name) & set("/.\0")


def test_local_urls() -> None:
    assert str(local_path("file:///a/b")) == "/a/b"
    assert str(local_path("file://localhost/a/b")) == "/a/b"
    assert local_path("git://a/b") is None
    with pytest.raises(MorphError, match="not absolute"):
        local_path("file://elsewhere/a")
    assert is_local("file:///a") and is_local("/a:b") and is_local("a/b:c")
    assert not is_local("host:a") and not is_local("https://a/b")
