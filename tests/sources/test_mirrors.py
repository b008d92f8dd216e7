from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from morphlib.errors import MorphError, MorphErrors, Reason
from morphlib.sources import mirrors as mirrors_module
from morphlib.sources.mirrorgit import fetch_all, read_origin
from morphlib.sources.mirrors import MirrorCache
from morphlib.sources.names import quote_url
from tests.sources.conftest import Told
from tests.sources.repositories import Repository, snapshot


def test_clone_has_every_ref_and_its_traditional_name(
    mirrors: MirrorCache, repository: Repository, told: Told
) -> None:
    url = str(repository.path)
    repository.git("tag", "-a", "-m", "tag", "v1")
    repository.git("update-ref", "refs/odd/place", "HEAD")
    mirror = mirrors.obtain(url, ["master"])
    assert mirror.path == mirrors.directory / quote_url(url)
    for ref in ("master", "HEAD", "v1", "refs/odd/place", repository.head, repository.head[:10]):
        resolved = mirror.resolve(ref)
        assert (resolved.commit, resolved.tree) == (repository.head, repository.tree)
    assert read_origin(mirror.path) == url
    assert told.texts() == [f"Cloning {url}"]
    assert not list(mirrors.directory.glob("tmp-*"))


def test_unknown_ref(mirrors: MirrorCache, repository: Repository) -> None:
    mirror = mirrors.obtain(str(repository.path))
    for ref in ("nonsense", "0" * 40, repository.tree, "HEAD:hello"):
        with pytest.raises(MorphError, match=r"has no commit at ref|Refusing ref"):
            mirror.resolve(ref)


def test_other_object_formats_are_refused_by_name(mirrors: MirrorCache, tmp_path: Path) -> None:
    made = Repository(tmp_path / "new", "--object-format=sha256")
    made.commit({"file": "content"})
    for url in (made.url, str(made.path)):
        with pytest.raises(MorphError, match="names its objects by sha256"):
            mirrors.obtain(url, ["master"])
    assert not [path for path in mirrors.directory.iterdir() if path.is_dir()]


def test_known_commit_needs_no_network(
    mirrors: MirrorCache, repository: Repository, told: Told, tmp_path: Path
) -> None:
    url = str(repository.path)
    MirrorCache(mirrors.directory).obtain(url)
    commit = repository.head
    repository.path.rename(tmp_path / "gone")
    assert mirrors.obtain(url, [commit]).resolve(commit).commit == commit
    assert told.texts() == []
    assert told.texts("chatty")[0].startswith("Not updating git repository")


def test_missing_commit_and_symbolic_ref_are_fetched_once(
    repository: Repository, told: Told, tmp_path: Path
) -> None:
    url = str(repository.path)
    MirrorCache(tmp_path / "gits").obtain(url)
    commit = repository.commit({"new": "new"})
    MirrorCache(tmp_path / "gits", listener=told).obtain(url, [commit])
    assert told.texts() == [f"Updating {url} for ref {commit}"]
    told.clear()
    cache = MirrorCache(tmp_path / "gits", listener=told)
    for _ in range(3):
        assert cache.obtain(url, ["master", "v9"]).resolve("master").commit == commit
    assert told.texts() == [f"Updating {url} for 2 refs"]


def test_update_prunes_and_follows_rewritten_branches(
    repository: Repository, tmp_path: Path
) -> None:
    url = str(repository.path)
    repository.git("branch", "old")
    MirrorCache(tmp_path / "gits").obtain(url)
    repository.git("branch", "-D", "old")
    repository.git("branch", "old/er")
    repository.git("commit", "-q", "--amend", "-m", "rewritten")
    mirror = MirrorCache(tmp_path / "gits").obtain(url, ["master"])
    assert mirror.resolve("master").commit == repository.head
    assert mirror.resolve("old/er")
    with pytest.raises(MorphError, match="no commit at ref"):
        mirror.resolve("old")


def test_what_is_fetched_is_there_at_once(mirrors: MirrorCache, repository: Repository) -> None:
    mirror = mirrors.obtain(str(repository.path))
    packs = len(list(mirror.path.glob("objects/pack/*.pack")))
    repository.commit({"new": "file", "in/another": "directory"})
    assert not mirror.has(repository.head)
    MirrorCache(mirrors.directory).obtain(str(repository.path), [repository.head])
    assert mirror.has(repository.head)
    # One by one, a commit would be seen before its tree, and stay alone if the fetch was killed.
    assert not [path for path in mirror.path.glob("objects/??/*") if path.is_file()]
    assert len(list(mirror.path.glob("objects/pack/*.pack"))) == packs + 1


def test_no_git_update(repository: Repository, tmp_path: Path) -> None:
    url = str(repository.path)
    frozen = MirrorCache(tmp_path / "gits", no_git_update=True)
    with pytest.raises(MorphError, match="is not cached yet"):
        frozen.obtain(url, ["master"])
    MirrorCache(tmp_path / "gits").obtain(url)
    old = repository.head
    repository.commit({"new": "new"})
    assert frozen.obtain(url, ["master"]).resolve("master").commit == old


def test_colliding_names_get_two_mirrors(mirrors: MirrorCache, tmp_path: Path) -> None:
    repositories = [Repository(tmp_path / name) for name in ("a-b", "a_b", "a.b")]
    for repository in repositories:
        repository.commit({"name": repository.path.name})
    urls = [str(repository.path) for repository in repositories]
    assert len({quote_url(url) for url in urls}) == 1
    for cache in (mirrors, MirrorCache(mirrors.directory, no_git_update=True)):
        found = [cache.obtain(url, ["HEAD"]) for url in urls]
        assert len({mirror.path for mirror in found}) == 3
        for mirror, repository in zip(found, repositories, strict=True):
            assert mirror.resolve("HEAD").commit == repository.head


def test_long_url(mirrors: MirrorCache, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "/".join(["long" * 30] * 3))
    repository.commit()
    mirror = mirrors.obtain(str(repository.path), ["master"])
    assert mirror.resolve("master").commit == repository.head
    assert mirrors.has(str(repository.path))


def test_file_urls_are_used_in_place_and_never_touched(
    mirrors: MirrorCache, repository: Repository, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.git"
    repository.git("clone", "-q", "--bare", ".", str(bare))
    repository.git("worktree", "add", "-q", "-b", "side", str(tmp_path / "worktree"))
    for path in (repository.path, bare, tmp_path / "worktree"):
        before = snapshot(path)
        mirror = mirrors.obtain(f"file://{path}", ["master"])
        assert mirror.resolve("master").commit == repository.head
        assert mirror.resolve("HEAD").tree == repository.tree
        mirror.export(repository.tree, tmp_path / f"out-{path.name}", mtime=1)
        assert snapshot(path) == before
    assert not mirrors.directory.exists()


def test_clone_failure_tells_why_and_leaves_nothing(mirrors: MirrorCache, tmp_path: Path) -> None:
    with pytest.raises(MorphError, match="Cannot find remote git repository: /no/such") as caught:
        mirrors.obtain("/no/such/repository")
    assert "does not exist" in str(caught.value)
    assert not [p for p in mirrors.directory.iterdir() if p.suffix != ".lock"]
    with pytest.raises(MorphError, match="no git repository"):
        mirrors.obtain(f"file://{tmp_path}")


def test_update_failure(repository: Repository, mirrors: MirrorCache, tmp_path: Path) -> None:
    url = str(repository.path)
    MirrorCache(mirrors.directory).obtain(url)
    repository.path.rename(tmp_path / "gone")
    with pytest.raises(MorphError, match="Failed to update cached version of repo"):
        mirrors.obtain(url, ["master"])


def test_many_at_once_all_errors_together(mirrors: MirrorCache, tmp_path: Path) -> None:
    repositories = [Repository(tmp_path / f"r{n}") for n in range(5)]
    for repository in repositories:
        repository.commit({"name": repository.path.name})
    found = mirrors.obtain_many({str(r.path): ["master"] for r in repositories})
    assert [m.resolve("master").commit for m in found.values()] == [r.head for r in repositories]
    with pytest.raises(MorphErrors) as caught:
        mirrors.obtain_many({"/no/1": [], str(repositories[0].path): [], "/no/2": []})
    assert len(caught.value.errors) == 2


@pytest.mark.parametrize(
    "url",
    [
        "--upload-pack=touch {canary}",
        "-u{canary}",
        "ext::sh -c touch% {canary}",
        "ssh://-oProxyCommand=touch${{IFS}}{canary}/x",
        "-oProxyCommand=touch {canary}:x",
        "file://{canary}\n--upload-pack=x",
        "fd::{canary}",
    ],
)
def test_hostile_urls_start_nothing(mirrors: MirrorCache, tmp_path: Path, url: str) -> None:
    canary = tmp_path / "canary"
    with pytest.raises(MorphError, match="Refusing repository"):
        mirrors.obtain(url.format(canary=canary), ["master"])
    assert not canary.exists()
    assert not mirrors.directory.exists()


def test_hostile_refs_reach_no_git(
    mirrors: MirrorCache, repository: Repository, tmp_path: Path
) -> None:
    for ref in (f"--upload-pack=touch {tmp_path}/canary", "+refs/x:refs/y", "a\nb"):
        with pytest.raises(MorphError, match="Refusing ref"):
            mirrors.obtain(str(repository.path), [ref])
    assert not (tmp_path / "canary").exists()


def test_shell_characters_in_paths_are_only_characters(
    mirrors: MirrorCache, tmp_path: Path
) -> None:
    repository = Repository(tmp_path / "a; touch canary; $(touch canary) ' \"`touch canary`")
    repository.commit({"a": "b"})
    mirror = mirrors.obtain(str(repository.path), ["master"])
    assert mirror.resolve("master").commit == repository.head
    assert read_origin(mirror.path) == str(repository.path)
    repository.commit({"a": "c"})
    again = MirrorCache(mirrors.directory).obtain(str(repository.path), ["master"])
    assert again.resolve("master").commit == repository.head
    assert not list(tmp_path.rglob("canary"))
    assert not Path("canary").exists()


def test_hooks_and_replace_refs_do_not_count(
    mirrors: MirrorCache, repository: Repository, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    first = repository.head
    second = repository.commit({"hello": "replaced"})
    repository.git("replace", first, second)
    url = str(repository.path)
    mirror = mirrors.obtain(url, [first])
    assert mirror.resolve(first).tree != mirror.resolve(second).tree
    hooks = mirror.path / "hooks"
    hooks.mkdir()
    for name in ("reference-transaction", "post-update", "pre-auto-gc", "update"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {canary}\n")
        (hooks / name).chmod(0o755)
    repository.commit({"x": "y"})
    MirrorCache(mirrors.directory).obtain(url, ["master"])
    assert not canary.exists()


def test_environment_of_a_surrounding_git_does_not_leak(
    mirrors: MirrorCache, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Repository(tmp_path / "other")
    other.commit({"other": "other"})
    before = snapshot(other.path)
    commit = repository.head
    for name, value in (
        ("GIT_DIR", str(other.path / ".git")),
        ("GIT_INDEX_FILE", str(other.path / ".git/index")),
        ("GIT_WORK_TREE", str(other.path)),
        ("GIT_TEMPLATE_DIR", str(other.path)),
    ):
        monkeypatch.setenv(name, value)
    assert mirrors.obtain(str(repository.path), ["master"]).resolve("master").commit == commit
    assert snapshot(other.path) == before


CLONER = """
import sys, time
from pathlib import Path
from morphlib.events import Status
from morphlib.sources.mirrors import MirrorCache
directory, url, ref, start = sys.argv[1:]
time.sleep(max(0, float(start) - time.time()))
def tell(event):
    if isinstance(event, Status) and event.level == "normal":
        print(event.text, flush=True)
print(MirrorCache(Path(directory), listener=tell).obtain(url, [ref]).resolve(ref).commit)
"""


def start_cloner(directory: Path, url: str, ref: str) -> subprocess.Popen[str]:
    start = str(time.time() + 0.5)
    return subprocess.Popen(
        [sys.executable, "-c", CLONER, str(directory), url, ref, start],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(mirrors_module.__file__).parents[2],
        start_new_session=True,
    )


def test_two_processes_clone_once_and_fetch_once(repository: Repository, tmp_path: Path) -> None:
    url = str(repository.path)
    for ref in ("master", repository.head):
        cloners = [start_cloner(tmp_path / f"gits-{len(ref)}", url, ref) for _ in range(3)]
        lines = "".join(cloner.communicate(timeout=50)[0] for cloner in cloners).splitlines()
        assert lines.count(repository.head) == 3
        assert lines.count(f"Cloning {url}") == 1
        assert not any(line.startswith("Updating") for line in lines if len(ref) == 40)
    commit = repository.commit({"new": "new"})
    cloners = [start_cloner(tmp_path / "gits-40", url, commit) for _ in range(3)]
    lines = "".join(cloner.communicate(timeout=50)[0] for cloner in cloners).splitlines()
    assert lines.count(commit) == 3
    assert 1 <= lines.count(f"Updating {url} for ref {commit}") <= 3


def test_waiting_for_a_fetch_makes_another_one_needless(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(repository.path)
    directory = tmp_path / "gits"
    MirrorCache(directory).obtain(url)
    commit = repository.commit({"new": "new"})
    fetches = []
    real = fetch_all

    def slow_fetch(git_dir: Path, url: str) -> None:
        fetches.append(url)
        time.sleep(0.3)
        real(git_dir, url)

    monkeypatch.setattr(mirrors_module, "fetch_all", slow_fetch)
    caches = [MirrorCache(directory) for _ in range(4)]  # as many processes would have
    refs = ["master", "master", commit, commit]
    threads = [
        threading.Thread(target=cache.obtain, args=(url, [ref]))
        for cache, ref in zip(caches, refs, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fetches == [url]


def test_killed_clone_leaves_only_what_the_next_run_removes(
    repository: Repository, tmp_path: Path
) -> None:
    """Killed while it waits for a server that never says a word."""
    directory = tmp_path / "gits"
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"git://127.0.0.1:{server.getsockname()[1]}/x"
        cloner = start_cloner(directory, url, "master")
        deadline = time.time() + 20
        while not list(directory.glob("tmp-*/*")) and time.time() < deadline:
            time.sleep(0.02)
        leftovers = list(directory.glob("tmp-*"))
        assert len(leftovers) == 1
        MirrorCache(directory).obtain(str(repository.path))
        assert leftovers[0].exists(), "somebody is at work there"
        os.killpg(cloner.pid, signal.SIGKILL)
        cloner.wait()
    assert not MirrorCache(directory).has(url)
    repository.commit({"new": "new"})
    mirror = MirrorCache(directory).obtain(str(repository.path), ["master"])
    assert mirror.resolve("master").commit == repository.head
    assert not list(directory.glob("tmp-*"))


@pytest.fixture
def daemon(tmp_path: Path, repository: Repository) -> Iterator[str]:
    """A git daemon that serves the repository; gives its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["--reuseaddr", "--export-all", f"--base-path={tmp_path}", f"--port={port}"]
    process = subprocess.Popen(
        ["git", "daemon", "--listen=127.0.0.1", *arguments, str(tmp_path)],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.02)
    yield f"git://127.0.0.1:{port}/{repository.path.name}/.git"
    os.killpg(process.pid, signal.SIGTERM)
    process.wait()


def test_git_protocol(mirrors: MirrorCache, repository: Repository, daemon: str) -> None:
    assert mirrors.obtain(daemon, ["master"]).resolve("master").commit == repository.head
    commit = repository.commit({"new": "new"})
    again = MirrorCache(mirrors.directory)
    assert again.obtain(daemon, [commit]).resolve(commit).tree == repository.tree


def test_hostile_remote_can_not_redirect_into_other_protocols(
    mirrors: MirrorCache, repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Even where the user's own configuration rewrites a URL to a transport that runs programs."""
    config = tmp_path / "config"
    config.write_text(f'[url "ext::sh -c touch% {tmp_path}/canary "]\n\tinsteadOf = git://evil/\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    with pytest.raises(MorphError, match=r"not allowed"):
        mirrors.obtain("git://evil/x")
    assert not (tmp_path / "canary").exists()


def test_read_blob_follows_nothing(mirrors: MirrorCache, repository: Repository) -> None:
    (repository.path / "link").symlink_to("hello")
    (repository.path / "out").symlink_to("/etc")
    commit = repository.commit()
    mirror = mirrors.obtain(repository.url, [commit])
    assert mirror.read_blob(commit, "hello") == b"hello\n"
    assert mirror.read_blob(repository.tree, "src/main.c") == b"int main;\n"
    for path in ("link", "out/passwd", "../x", "nothing", "src", ""):
        assert mirror.read_blob(commit, path) is None


def test_reader_follows_links_inside_only(mirrors: MirrorCache, repository: Repository) -> None:
    for name, target in (
        ("link", "src/main.c"),
        ("src/up", "../hello"),
        ("directory", "src"),
        ("out", "../../etc/passwd"),
        ("absolute", "/etc/passwd"),
        ("loop", "loop"),
        ("dangling", "nowhere"),
    ):
        (repository.path / name).symlink_to(target)
    commit = repository.commit()
    mirror = mirrors.obtain(repository.url, [commit])
    reader = mirror.reader(mirror.resolve(commit).tree)
    assert "src/main.c" in set(reader.paths()) and "link" in set(reader.paths())
    assert reader.read("link") == b"int main;\n"
    assert reader.read("src/up") == b"hello\n"
    assert reader.read("directory/main.c") == b"int main;\n"
    for path in ("dangling", "nothing", "src", "hello/x", ".git/config"):
        assert reader.read(path) is None
    for path in ("out", "absolute", "loop"):
        with pytest.raises(MorphError) as caught:
            reader.read(path)
        assert caught.value.reason is Reason.DEFINITION
