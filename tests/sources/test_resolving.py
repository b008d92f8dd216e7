from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

import morphlib
from morphlib.errors import MorphErrors
from morphlib.sources.aliases import Aliases, RepoAlias
from morphlib.sources.mirrors import MirrorCache
from morphlib.sources.model import SourceRef
from morphlib.sources.pool import resolve_refs
from morphlib.sources.refcache import RefCache
from morphlib.sources.remote import RemoteResolver
from tests.sources.conftest import Told
from tests.sources.repositories import Repository
from tests.sources.servers import answer_refs, serve


def sha(text: object) -> str:
    return hashlib.sha1(str(text).encode()).hexdigest()


@pytest.fixture
def cache(tmp_path: Path) -> RefCache:
    return RefCache(tmp_path / "gits" / "trees.cache.json")


def test_order_cache_mirror_server_clone(
    tmp_path: Path, mirrors: MirrorCache, cache: RefCache, told: Told
) -> None:
    names = ("cached", "mirrored", "served", "cloned")
    repositories = {name: Repository(tmp_path / name) for name in names}
    for name, repository in repositories.items():
        repository.commit({name: name})
    aliases = Aliases([RepoAlias("my", f"{tmp_path}/%s", "")])
    cache.put("my:cached", sha("commit"), sha("tree"))
    mirrors.obtain(str(repositories["mirrored"].path))
    told.clear()
    served = repositories["served"]
    known = {(str(served.path), served.head): (served.head, sha("as served"))}
    wanted = [
        ("my:cached", sha("commit")),
        ("my:mirrored", repositories["mirrored"].head),
        ("my:served", served.head),
        ("my:cloned", "master"),
        ("my:cloned", repositories["cloned"].head),
    ]
    with serve(answer_refs(known)) as server:
        remote = RemoteResolver(server.url)
        found = resolve_refs(wanted, mirrors=mirrors, aliases=aliases, cache=cache, remote=remote)
        assert len(server.requests) == 1
        asked = server.requests[0][2]
        assert b"served" in asked and b"cloned" in asked
        assert b"mirrored" not in asked and b"cached" not in asked
    assert list(found) == wanted
    assert [found[pair].tree for pair in wanted] == [
        sha("tree"),
        repositories["mirrored"].tree,
        sha("as served"),
        repositories["cloned"].tree,
        repositories["cloned"].tree,
    ]
    assert told.texts() == [f"Cloning {tmp_path}/cloned"]
    assert found[wanted[3]] == SourceRef(
        "my:cloned",
        f"{tmp_path}/cloned",
        "master",
        repositories["cloned"].head,
        repositories["cloned"].tree,
    )
    told.clear()
    again = RefCache(cache.path)
    fixed = [pair for pair in wanted if pair[1] != "master"]
    empty = MirrorCache(tmp_path / "none", no_git_update=True)
    resolved = resolve_refs(fixed, mirrors=empty, aliases=aliases, cache=again, remote=None)
    assert resolved == {pair: found[pair] for pair in fixed}


def test_all_failures_at_once_and_the_rest_is_remembered(
    tmp_path: Path, mirrors: MirrorCache, cache: RefCache, repository: Repository
) -> None:
    good = (str(repository.path), repository.head)
    wanted = [
        ("/no/such", "master"),
        good,
        (str(repository.path), "nonsense"),
        ("ext::sh -c x", "master"),
        ("git://h/x", "--upload-pack=x"),
        (f"file://{tmp_path}/nothing", "master"),
    ]
    with pytest.raises(MorphErrors) as caught:
        resolve_refs(wanted, mirrors=mirrors, aliases=Aliases(), cache=cache, remote=None)
    messages = [error.message for error in caught.value.errors]
    assert len(messages) == 5
    for message, phrase in zip(
        messages,
        (
            "Cannot find remote git repository: /no/such",
            "has no commit at ref nonsense",
            "Refusing repository 'ext::sh -c x'",
            "Refusing ref '--upload-pack=x'",
            "no git repository",
        ),
        strict=True,
    ):
        assert phrase in message
    assert RefCache(cache.path).get(*good) == repository.tree


def test_a_tag_resolves_to_its_commit(
    mirrors: MirrorCache, cache: RefCache, repository: Repository
) -> None:
    repository.git("tag", "-a", "-m", "a", "v1")
    repository.git("tag", "-a", "-m", "a", "v2", "v1")
    tag = repository.git("rev-parse", "v2")
    wanted = [(repository.url, ref) for ref in ("v1", "v2", tag)]
    found = resolve_refs(wanted, mirrors=mirrors, aliases=Aliases(), cache=cache, remote=None)
    assert {ref.commit for ref in found.values()} == {repository.head}


def test_warm_cache_needs_neither_libgit2_nor_http(tmp_path: Path, checkout_root: Path) -> None:
    """Commands that only look at a large system stay quick by not even loading these."""
    code = f"""
import sys
from pathlib import Path
from morphlib.events import silence
from morphlib.sources.aliases import Aliases
from morphlib.sources.checkout import open_checkout
from morphlib.sources.mirrors import MirrorCache
from morphlib.sources.pool import resolve_refs
from morphlib.sources.refcache import RefCache
cache = RefCache(Path({str(tmp_path)!r}) / "trees")
wanted = [("a:%d" % n, "%040x" % n) for n in range(431)]
for pair in wanted:
    cache.put(*pair, "0" * 40)
cache.save()
cache = RefCache(cache.path)
mirrors = MirrorCache(Path({str(tmp_path)!r}))
root = Path({str(checkout_root)!r})
source = open_checkout(root, local_changes="include", mirrors=mirrors, listener=silence)
assert source.reader.read("hello")
found = resolve_refs(wanted, mirrors=mirrors, aliases=Aliases(), cache=cache, remote=None)
assert len(found) == 431
print([name for name in ("pygit2", "http.client", "urllib.request", "tarfile", "concurrent")
       if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(morphlib.__file__).parents[1],
    )
    assert done.stdout == "[]\n", done.stderr


@pytest.fixture
def checkout_root(repository: Repository) -> Path:
    return repository.path
