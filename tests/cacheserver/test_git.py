"""Answers about git repositories, and that Morph's client takes them."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from morphlib.sources.mirrors import MirrorCache
from morphlib.sources.model import Resolved
from morphlib.sources.names import quote_url
from morphlib.sources.remote import RemoteResolver
from tests.cacheserver.server import CacheServer, running
from tests.sources.repositories import Repository, git_environment

FILES = {"README": "hello\n", "sub/g": "g\n", "sub/deep/h": "h\n", "caf\u00e9": "x\n"}


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in git_environment(tmp_path_factory.mktemp("home")).items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, environment: None) -> Iterator[CacheServer]:
    home = tmp_path_factory.mktemp("direct")
    with running(home, "--direct-mode", "--max-file-size=100k") as server:
        yield server


@pytest.fixture(scope="module")
def repository(server: CacheServer) -> Repository:
    """`git://host/group/work`, with a branch, tags, a symlink, a submodule and odd names."""
    made = Repository(server.home / "gits" / "group" / "work")
    made.write(FILES)
    (made.path / "link").symlink_to("/etc/passwd")
    made.git("add", ".")
    made.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},submodule")
    made.git("commit", "-q", "-m", "first")
    made.git("branch", "stable")
    made.git("tag", "-a", "-m", "v1", "v1")
    return made


URL = "git://host/group/work"


def ls_tree(repository: Repository, *arguments: str) -> dict[str, dict[str, str]]:
    """What git itself shows."""
    found = {}
    for line in repository.git("ls-tree", "-z", *arguments).rstrip("\0").split("\0"):
        if line:
            data, _, name = line.partition("\t")
            mode, kind, sha1 = data.split()
            found[name] = {"mode": mode, "kind": kind, "sha1": sha1}
    return found


# ---- Refs ----------------------------------------------------------------------------------------


def test_a_ref_has_a_commit_and_a_tree(server: CacheServer, repository: Repository) -> None:
    head, tree = repository.head, repository.tree
    for ref in ("master", "stable", "refs/heads/master", "HEAD", head, head[:10], "v1^{commit}"):
        answer = server.get("/1.0/sha1s", repo=URL, ref=ref)
        assert answer.status == 200, ref
        assert answer.json == {"repo": URL, "ref": ref, "sha1": head, "tree": tree}
        assert answer.headers["cache-control"] == "no-cache"


def test_a_tag_is_what_it_is(server: CacheServer, repository: Repository) -> None:
    answer = server.get("/1.0/sha1s", repo=URL, ref="v1")
    assert answer.json["sha1"] == repository.git("rev-parse", "v1") != repository.head
    assert answer.json["tree"] == repository.tree


@pytest.mark.parametrize(
    ("repo", "ref"),
    [
        (URL, "gone"),
        (URL, "0" * 40),
        (URL, ""),
        (URL, "--all"),
        (URL, "-h"),
        (URL, "master:README"),
        (URL, "HEAD^{/first}"),
        (URL, "HEAD~99999999"),
        (URL, "HEAD@{1}"),
        (URL, "master\n"),
        ("git://host/group/gone", "master"),
        ("git://host/group", "master"),
        ("", "master"),
    ],
)
def test_refs_that_mean_nothing(
    server: CacheServer, repository: Repository, repo: str, ref: str
) -> None:
    answer = server.get("/1.0/sha1s", repo=repo, ref=ref)
    assert (answer.status, answer.body) == (404, b"")
    (found,) = server.post("/1.0/sha1s", [{"repo": repo, "ref": ref}]).json
    assert set(found) == {"repo", "ref", "error"}
    assert str(server.home) not in found["error"]


def test_many_refs_at_once_keep_their_order(server: CacheServer, repository: Repository) -> None:
    gone = "git://host/none"
    wanted = [
        {"repo": URL, "ref": "master"},
        {"repo": gone, "ref": "master"},
        {"repo": URL, "ref": "gone"},
        {"repo": URL, "ref": repository.head},
        {"repo": URL, "ref": "master"},
    ]
    known = {"sha1": repository.head, "tree": repository.tree}
    answer = server.post("/1.0/sha1s", wanted)
    assert answer.status == 200
    assert answer.json == [
        {**wanted[0], **known},
        {**wanted[1], "error": f"Repository {gone} does not exist in the cache"},
        {**wanted[2], "error": f"Ref gone is an invalid reference for repo {URL}"},
        {**wanted[3], **known},
        {**wanted[4], **known},
    ]
    assert server.post("/1.0/sha1s", []).json == []


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[1]", b'[{"repo": "x"}]', b'[{"repo": 1, "ref": "x"}]']
)
def test_questions_that_are_none(server: CacheServer, body: bytes) -> None:
    for path in ("/1.0/sha1s", "/1.0/files"):
        assert server.ask("POST", path, body=body).status == 400


def test_what_is_pushed_is_seen_at_once(server: CacheServer) -> None:
    made = Repository(server.home / "gits" / "moving")
    url = "git://host/moving"
    for number in range(3):
        made.write({"file": str(number)})
        made.git("add", ".")
        made.git("commit", "-q", "-m", str(number))
        if number == 1:
            made.git("gc", "-q", "--prune=now")
        assert server.get("/1.0/sha1s", repo=url, ref="master").json["sha1"] == made.head
    made.path.rename(server.home / "gits" / "moved")
    assert server.get("/1.0/sha1s", repo=url, ref="master").status == 404
    other = Repository(server.home / "gits" / "moving")
    other.git("commit", "-q", "--allow-empty", "-m", "other")
    assert server.get("/1.0/sha1s", repo=url, ref="master").json["sha1"] == other.head


def test_morphs_client_resolves_refs(server: CacheServer, repository: Repository) -> None:
    wanted = [(URL, "master"), (URL, repository.head), (URL, "gone"), ("git://host/none", "x")]
    known = Resolved(repository.head, repository.tree)
    for slash in ("", "/"):
        resolver = RemoteResolver(server.url.rstrip("/") + slash)
        assert resolver.resolve(wanted) == dict.fromkeys(wanted[:2], known)


# ---- Where repositories are ----------------------------------------------------------------------


def test_bare_repositories_may_leave_out_git(server: CacheServer, repository: Repository) -> None:
    bare = server.home / "gits" / "bare.git"
    subprocess.run(["git", "clone", "-q", "--bare", repository.path, bare], check=True)
    for url in ("git://host/bare", "git://host/bare.git", "ssh://git@host//bare/", "bare"):
        assert server.get("/1.0/sha1s", repo=url, ref="master").status == 200, url


@pytest.mark.parametrize(
    "url",
    [
        "git://host/../outside",
        "git://host/group/../../outside",
        "git://host/%2e%2e/outside",
        "../outside",
        "git://host/link",
        "git://host/gitfile",
        "git://host/worktree",
        "git://host/",
        "git://host",
        "git://[",
        "git://host/group//work",
        "git://host/./group/work",
        "git://host/group/work\0",
        "git://host/" + "x" * 5000,
    ],
)
def test_no_url_leads_outside(server: CacheServer, repository: Repository, url: str) -> None:
    outside = server.home / "outside"
    gits = server.home / "gits"
    if not outside.exists():
        made = Repository(outside)
        made.git("commit", "-q", "--allow-empty", "-m", "secret")
        (gits / "link").symlink_to(outside)
        (gits / "gitfile").mkdir()
        (gits / "gitfile" / ".git").write_text(f"gitdir: {outside}/.git\n")
        made.git("worktree", "add", "-q", str(gits / "worktree"))
    assert server.get("/1.0/sha1s", repo=url, ref="HEAD").status == 404


def test_mirrors_are_found_by_their_whole_url(home: Path) -> None:
    upstream = Repository(home / "upstream")
    upstream.git("commit", "-q", "--allow-empty", "-m", "x")
    urls = [str(upstream.path), f"file:{upstream.path}"]
    with running(home) as server:
        old = server.home / "gits" / f"{quote_url('git://host/old')}.git"
        subprocess.run(["git", "clone", "-q", "--bare", upstream.path, old], check=True)
        subprocess.run(
            ["git", "-C", old, "update-ref", "refs/origin/topic", upstream.head], check=True
        )
        MirrorCache(server.home / "gits").obtain(urls[0])
        for url, ref in (("git://host/old", "topic"), ("git://host/old", "refs/origin/topic")):
            assert server.get("/1.0/sha1s", repo=url, ref=ref).json["sha1"] == upstream.head
        answer = server.get("/1.0/sha1s", repo=urls[0], ref="master")
        assert answer.json["sha1"] == upstream.head
        assert server.get("/1.0/sha1s", repo="git://host/none", ref="master").status == 404


def test_the_mirror_of_another_url_with_the_same_name_is_not_taken(home: Path) -> None:
    paths = [home / "a-b", home / "a_b"]
    heads = []
    with running(home) as server:
        cache = MirrorCache(server.home / "gits")
        for path in paths:
            made = Repository(path)
            made.git("commit", "-q", "--allow-empty", "-m", path.name)
            heads.append(made.head)
        cache.obtain(str(paths[0]))
        assert server.get("/1.0/sha1s", repo=str(paths[1]), ref="master").status == 404
        cache.obtain(str(paths[1]))
        for path, head in zip(paths, heads, strict=True):
            answer = server.get("/1.0/sha1s", repo=str(path), ref="master")
            assert answer.json["sha1"] == head


# ---- Files and trees -----------------------------------------------------------------------------


def test_files_come_as_they_are(server: CacheServer, repository: Repository) -> None:
    for path, text in FILES.items():
        answer = server.get("/1.0/files", repo=URL, ref=repository.head, filename=path)
        assert (answer.status, answer.body) == (200, text.encode())
        assert answer.headers["content-type"] == "application/octet-stream"
    answer = server.get("/1.0/files", repo=URL, ref=repository.head, filename="link")
    assert answer.body == b"/etc/passwd"


ABSENT = ["", "/", "gone", "sub", "submodule", "/etc/passwd", "../../../events", "link/x", "sub//g"]
ABSENT += ["README/", ".git/config", "README\0", "./README"]


@pytest.mark.parametrize("path", ABSENT)
def test_files_that_are_not_there(server: CacheServer, repository: Repository, path: str) -> None:
    answer = server.get("/1.0/files", repo=URL, ref=repository.head, filename=path)
    assert (answer.status, answer.body) == (404, b"")


def test_files_and_trees_need_a_full_commit_id(server: CacheServer, repository: Repository) -> None:
    for ref in ("master", repository.head[:39], "", "1" * 40):
        assert server.get("/1.0/files", repo=URL, ref=ref, filename="README").status == 404
        assert server.get("/1.0/trees", repo=URL, ref=ref).status == 404


def test_many_files_at_once(server: CacheServer, repository: Repository) -> None:
    head = repository.head
    wanted = [
        {"repo": URL, "ref": head, "filename": "README"},
        {"repo": URL, "ref": "master", "filename": "README"},
        {"repo": URL, "ref": head, "filename": "gone"},
        {"repo": "git://host/none", "ref": head, "filename": "README"},
    ]
    found = server.post("/1.0/files", wanted).json
    assert [{k: each[k] for k in ("repo", "ref", "filename")} for each in found] == wanted
    assert base64.b64decode(found[0]["data"]) == b"hello\n"
    assert found[1]["error"] == f"Ref master is not a SHA1 ref for repo {URL}"
    assert found[2]["error"] == f"File gone is not in ref {head} of repo {URL}"
    assert found[3]["error"] == "Repository git://host/none does not exist in the cache"


def test_files_have_a_largest_size(server: CacheServer) -> None:
    made = Repository(server.home / "gits" / "large")
    for name, size in (("small", 60_000), ("large", 100_001)):
        made.write({name: "x" * size})
    made.git("add", ".")
    made.git("commit", "-q", "-m", "large")
    url = "git://host/large"
    sizes = {
        name: server.get("/1.0/files", repo=url, ref=made.head, filename=name)
        for name in ("small", "large")
    }
    assert (len(sizes["small"].body), sizes["large"].status) == (60_000, 404)
    question = {"repo": url, "ref": made.head, "filename": "small"}
    found = server.post("/1.0/files", [question, question]).json
    assert ["data" in each for each in found] == [True, False]


@pytest.mark.parametrize(
    "path",
    [None, "", "sub", "sub/", "sub/deep", "sub/deep/", "sub/g", "README", "gone", "gone/", "link"],
)
def test_trees_are_what_git_shows(
    server: CacheServer, repository: Repository, path: str | None
) -> None:
    query = {"repo": URL, "ref": repository.head, **({} if path is None else {"path": path})}
    answer = server.ask("GET", "/1.0/trees", query)
    assert answer.status == 200
    assert answer.json == {
        "repo": URL,
        "ref": repository.head,
        "tree": ls_tree(repository, repository.head, *([path] if path else [])),
    }


def test_names_that_are_no_utf8_can_be_told(server: CacheServer) -> None:
    made = Repository(server.home / "gits" / "odd")
    (made.path / os.fsdecode(b"\xff\xfe")).touch()
    made.git("add", ".")
    made.git("commit", "-q", "-m", "odd")
    tree = server.get("/1.0/trees", repo="git://host/odd", ref=made.head).json["tree"]
    assert list(tree) == ["\\xff\\xfe"]


def test_a_damaged_repository_is_no_answer(server: CacheServer) -> None:
    made = Repository(server.home / "gits" / "broken")
    made.write({"file": "x"})
    made.git("add", ".")
    made.git("commit", "-q", "-m", "x")
    head, tree = made.head, made.tree
    for sha1 in (tree, made.git("rev-parse", "HEAD:file")):
        path = made.path / ".git" / "objects" / sha1[:2] / sha1[2:]
        path.chmod(0o644)
        path.write_bytes(b"nonsense")
        assert (
            server.get("/1.0/files", repo="git://h/broken", ref=head, filename="file").status == 404
        )
    assert server.get("/1.0/trees", repo="git://h/broken", ref=head).status == 404
    assert server.get("/1.0/sha1s", repo="git://h/broken", ref="master").status == 404
    assert "Traceback" not in server.events


# ---- Bundles -------------------------------------------------------------------------------------


def test_bundles(server: CacheServer, repository: Repository) -> None:
    path = server.home / "bundles" / f"{quote_url(URL)}.bndl"
    repository.git("bundle", "create", "-q", str(path), "master")
    answer = server.get("/1.0/bundles", repo=URL)
    assert (answer.status, answer.body) == (200, path.read_bytes())
    assert answer.headers["content-disposition"] == f'attachment; filename="{path.name}"'
    part = server.get("/1.0/bundles", repo=URL, headers={"Range": "bytes=2-4"})
    assert (part.status, part.body) == (206, path.read_bytes()[2:5])
    for url in ("git://host/none", "", "../events", "x" * 300):
        assert server.get("/1.0/bundles", repo=url).status == 404
