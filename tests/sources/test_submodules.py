from __future__ import annotations

from pathlib import Path

import pytest

from morphlib.errors import MorphError
from morphlib.sources.aliases import Aliases, RepoAlias
from morphlib.sources.mirror import Mirror
from morphlib.sources.mirrors import MirrorCache
from morphlib.sources.model import SourceRef, Submodule
from morphlib.sources.pool import GitSource, fetch_sources, stage_source
from morphlib.sources.submodules import submodule_url
from tests.sources.conftest import Told
from tests.sources.repositories import Repository


def source_of(repository: Repository, url: str | None = None) -> SourceRef:
    return SourceRef("repo", url or repository.url, "master", repository.head, repository.tree)


def make(path: Path, files: dict[str, str]) -> Repository:
    repository = Repository(path)
    repository.commit(files)
    return repository


def url_of(url: str, parent: str, overrides: dict[str, str] | None = None) -> str:
    submodule = Submodule("name", "path", url, "0" * 40)
    aliases = Aliases([RepoAlias("local", "file:///srv/%s", ""), RepoAlias("up", "git://u/", "")])
    return submodule_url(submodule, parent=parent, overrides=overrides or {}, aliases=aliases)


@pytest.mark.parametrize(
    ("parent", "relative", "expected"),
    [
        ("git://h/a/b", "../c", "git://h/a/c"),
        ("git://h/a/b/", "../../c/d", "git://h/c/d"),
        ("https://h/a/b.git", "./c", "https://h/a/b.git/c"),
        ("git@h:a/b", "../c", "git@h:a/c"),
        ("git@h:b", "../c", "git@h:c"),
        ("file:///srv/a", "../b", "file:///srv/b"),
        ("/srv/x/a", "../../b", "/srv/b"),
        ("git://h/a/b", "..", "git://h/a"),
        ("git://h/a/b", "git://other/x", "git://other/x"),
        ("git://h/a/b", "up:x", "git://u/x"),
    ],
)
def test_urls(parent: str, relative: str, expected: str) -> None:
    assert url_of(relative, parent) == expected


@pytest.mark.parametrize(
    ("parent", "url"),
    [
        ("git://h/a", "../../../x"),
        ("file:///srv/a", "../../../../x"),
        ("git@h:a", "../../x"),
        ("git://h/a/b", "../x/../../y"),
        ("git://h/a", "file:///home/me/secret"),
        ("git://h/a", "/home/me/secret"),
        ("git://h/a", "secret"),
        ("git://h/a", "local:x"),
        ("file:///srv/a", "local:../home/me/secret"),
        ("file:///srv/a", "/srv/../etc"),
        ("git://h/a", "ext::sh -c touch% canary"),
        ("git://h/a", "--upload-pack=touch canary"),
        ("git://h/a", "-u./payload"),
        ("git://h/a", "ssh://-oProxyCommand=touch/x"),
        ("git://h/a", "git://h/a\n--upload-pack=x"),
    ],
)
def test_hostile_urls(parent: str, url: str) -> None:
    with pytest.raises(MorphError, match="Refusing"):
        url_of(url, parent)


@pytest.mark.parametrize("way", ["file", "environment", "protocols"])
def test_git_s_own_switch_allows_local_submodules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    match way:
        case "file":
            config = tmp_path / "gitconfig"
            config.write_text('[protocol "file"]\n    allow = always\n')
            monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
        case "environment":
            monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
            monkeypatch.setenv("GIT_CONFIG_KEY_0", "protocol.file.allow")
            monkeypatch.setenv("GIT_CONFIG_VALUE_0", "always")
        case _:
            monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "git:file")
    assert url_of("file:///srv/x", "git://h/a") == "file:///srv/x"
    assert url_of("/srv/x", "git://h/a") == "/srv/x"
    for url in ("secret", "file:///srv/../etc", "local:../etc"):
        with pytest.raises(MorphError, match="Refusing"):
            url_of(url, "git://h/a")


@pytest.mark.parametrize("value", ["user", "never"])
def test_git_s_own_switch_is_off_otherwise(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "protocol.file.allow")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", value)
    with pytest.raises(MorphError, match="Refusing"):
        url_of("file:///srv/x", "git://h/a")


def test_definitions_may_override_with_anything_sound() -> None:
    assert url_of("ext::x", "git://h/a", {"name": "local:x"}) == "file:///srv/x"
    assert url_of("git://h/x", "git://h/a", {"other": "local:x"}) == "git://h/x"
    with pytest.raises(MorphError, match="Refusing"):
        url_of("git://h/x", "git://h/a", {"name": "ext::sh"})


def test_nested_submodules_are_fetched_and_staged(
    tmp_path: Path, mirrors: MirrorCache, told: Told
) -> None:
    """Paths as URLs are mirrored, so this clones; relative URLs and aliases at inner levels."""
    leaf = make(tmp_path / "leaf", {"leaf": "leaf"})
    middle = make(tmp_path / "middle", {"middle": "middle"})
    middle.commit_submodules([("leaf", "sub/leaf", "../leaf", leaf.head)])
    top = make(tmp_path / "top", {"top": "top"})
    top.commit_submodules(
        [
            ("middle", "third party/middle", f"ab:{middle.path}", middle.head),
            ("again", "again", str(leaf.path), leaf.head),
        ]
    )
    aliases = Aliases([RepoAlias("ab", "%s", "%s")])
    source = GitSource(source_of(top, str(top.path)))
    source.fetch(mirrors, aliases)
    assert sorted(told.texts()) == sorted(f"Cloning {r.path}" for r in (leaf, middle, top))
    told.clear()
    offline = MirrorCache(mirrors.directory, no_git_update=True, listener=told)
    staged = source.stage(offline, aliases, tmp_path / "out")
    assert (tmp_path / "out/third party/middle/sub/leaf/leaf").read_text() == "leaf"
    assert (tmp_path / "out/again/leaf").read_text() == "leaf"
    assert [below for _, below in staged.binds] == [
        ".git/mirror-objects",
        "third party/middle/.git/mirror-objects",
        "again/.git/mirror-objects",
        "third party/middle/sub/leaf/.git/mirror-objects",
    ]
    assert told.texts() == []
    times = {p.lstat().st_mtime for p in (tmp_path / "out").rglob("*")}
    assert times == {staged.commit_time}


def test_overrides_hold_at_every_level(tmp_path: Path, mirrors: MirrorCache) -> None:
    leaf = make(tmp_path / "leaf", {"leaf": "leaf"})
    middle = make(tmp_path / "middle", {})
    middle.commit_submodules([("deep", "leaf", "git://127.0.0.1:1/nothing", leaf.head)])
    top = make(tmp_path / "top", {})
    top.commit_submodules([("middle", "middle", middle.url, middle.head)])
    with pytest.raises(
        MorphError, match=r"Cannot find remote git repository: git://127\.0\.0\.1:1"
    ):
        fetch_sources([GitSource(source_of(top))], mirrors, Aliases())
    source = GitSource(source_of(top), (("deep", leaf.url),))
    fetch_sources([source], mirrors, Aliases())
    stage_source(source, mirrors, Aliases(), tmp_path / "out")
    assert (tmp_path / "out/middle/leaf/leaf").read_text() == "leaf"


def test_repositories_that_contain_each_other_end(tmp_path: Path, mirrors: MirrorCache) -> None:
    one = make(tmp_path / "one", {"1": "1"})
    two = make(tmp_path / "two", {"2": "2"})
    for _ in range(3):
        one.commit_submodules([("two", "two", two.url, two.head)])
        two.commit_submodules([("one", "one", one.url, one.head)])
    source = GitSource(source_of(one))
    fetch_sources([source], mirrors, Aliases())
    stage_source(source, mirrors, Aliases(), tmp_path / "out")
    assert (tmp_path / "out/two/one/two/one/two/2").read_text() == "2"


def test_submodule_bomb_ends(tmp_path: Path, mirrors: MirrorCache) -> None:
    """Twenty levels of two each stand for a million directories."""
    repository = make(tmp_path / "r", {"a": "a"})
    for _ in range(20):
        head = repository.head
        repository.commit_submodules(
            [("x", "x", repository.url, head), ("y", "y", repository.url, head)]
        )
        repository.git("commit", "-q", "--amend", "-m", f"on {head}")
    source = GitSource(source_of(repository))
    fetch_sources([source], mirrors, Aliases())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("morphlib.sources.staging.MAX_SUBMODULES", 50)
        with pytest.raises(MorphError, match="more than 50 submodules"):
            stage_source(source, mirrors, Aliases(), tmp_path / "out")


def test_sections_without_gitlink_and_gitlinks_without_section(
    tmp_path: Path, mirrors: MirrorCache
) -> None:
    leaf = make(tmp_path / "leaf", {"leaf": "leaf"})
    top = make(tmp_path / "top", {"file": "file"})
    top.commit_submodules(
        [("orphan", "orphan", "", leaf.head)],
        '[submodule "gone"]\n\tpath = gone\n\turl = x\n[submodule "f"]\npath=file\nurl=y\n',
    )
    mirror = mirrors.obtain(top.url, [top.head])
    assert mirror.submodules(top.head) == ()
    assert mirror.submodules(top.git("rev-parse", "HEAD~1")) == ()
    stage_source(GitSource(source_of(top)), mirrors, Aliases(), tmp_path / "out")
    assert list((tmp_path / "out/orphan").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[submodule]\npath=a\nurl=b\n", "Found a misformatted section title"),
        ("[core]\nhooksPath=x\n", "Found a misformatted section title"),
        ('[submodule "a"]\nurl=b\n', "has no path"),
        ('[submodule "a"]\npath=b\n', "has no url"),
        ('[submodule "a"\npath=b\n', "line 1"),
        ('[submodule "a"]\npath="b\n', "unclosed quote"),
        ("path = x\n", "line 1"),
        ('[submodule "a"]\npath=../../etc\nurl=x\n', "Refusing submodule path"),
        ('[submodule "a"]\npath=/etc\nurl=x\n', "Refusing submodule path"),
        ('[submodule "a"]\npath=.git/hooks\nurl=x\n', "Refusing submodule path"),
        ('[submodule "a"]\npath=x/.GIT\nurl=x\n', "Refusing submodule path"),
        ('[submodule "a"]\npath=-x\nurl=x\n', "Refusing submodule path"),
    ],
)
def test_bad_gitmodules(repository: Repository, text: str, message: str) -> None:
    commit = repository.commit({".gitmodules": text})
    with pytest.raises(MorphError, match=message):
        Mirror(repository.url, repository.path / ".git").submodules(commit)


def test_gitmodules_that_is_a_symlink_does_not_count(repository: Repository) -> None:
    real = repository.blob(b'[submodule "a"]\npath=a\nurl=ext::x\n')
    link = ("120000", b".gitmodules", repository.blob(b"real"))
    gitlink = ("160000", b"a", repository.head)
    tree = repository.raw_tree([link, gitlink, ("100644", b"real", real)])
    commit = repository.commit_tree(tree)
    assert Mirror(repository.url, repository.path / ".git").submodules(commit) == ()


def test_submodule_below_a_symlink_is_never_written_through(
    tmp_path: Path, mirrors: MirrorCache
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    leaf = make(tmp_path / "leaf", {"owned": "owned"})
    top = Repository(tmp_path / "top")
    modules = f'[submodule "m"]\n\tpath = link/m\n\turl = {leaf.url}\n'.encode()
    inner = top.raw_tree([("160000", b"m", leaf.head)])
    link = ("120000", b"link", top.blob(str(outside).encode()))
    entries = [("100644", b".gitmodules", top.blob(modules)), link]
    for number, extra in enumerate([[("40000", b"link", inner)], []]):
        top.commit_tree(top.raw_tree([*entries, *extra]))
        source = GitSource(source_of(top))
        if extra:
            fetch_sources([source], mirrors, Aliases())
            with pytest.raises(MorphError, match="twice"):
                stage_source(source, mirrors, Aliases(), tmp_path / f"out{number}")
        else:
            stage_source(source, mirrors, Aliases(), tmp_path / f"out{number}")
    assert not list(outside.iterdir())
