"""Real git repositories for tests, honest ones and hostile ones."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

TIME = 1_400_000_000  # committer time of every commit


def git_environment(home: Path) -> dict[str, str]:
    return {
        "GIT_AUTHOR_NAME": "A U Thor",
        "GIT_AUTHOR_EMAIL": "author@example.com",
        "GIT_AUTHOR_DATE": f"{TIME} +0000",
        "GIT_COMMITTER_NAME": "C O Mitter",
        "GIT_COMMITTER_EMAIL": "committer@example.com",
        "GIT_COMMITTER_DATE": f"{TIME} +0000",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "HOME": str(home),
    }


class Repository:
    """A repository under construction, checked out at `path`."""

    def __init__(self, path: Path, *options: str) -> None:
        """`options` are for `git init`."""
        self.path = path
        path.mkdir(parents=True)
        self.git("init", "-q", "-b", "master", *options, ".")

    @property
    def url(self) -> str:
        return f"file://{self.path}"

    @property
    def head(self) -> str:
        return self.git("rev-parse", "HEAD")

    @property
    def tree(self) -> str:
        return self.git("rev-parse", "HEAD^{tree}")

    def git(self, *arguments: str, stdin: bytes | None = None) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.path,
            input=stdin,
            env=dict(os.environ, GIT_ALLOW_PROTOCOL="file"),
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def write(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def commit(self, files: Mapping[str, str] | None = None, message: str = "change") -> str:
        """Commit everything that is there, after writing `files`. Returns the commit."""
        self.write(files or {})
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.head

    def blob(self, content: bytes) -> str:
        return self.git("hash-object", "-w", "--stdin", stdin=content)

    def raw_tree(self, entries: Sequence[tuple[str, bytes, str]]) -> str:
        """Write a tree with (mode, name, id) exactly as they are, sound or not."""
        data = b"".join(
            mode.encode() + b" " + name + b"\0" + bytes.fromhex(id) for mode, name, id in entries
        )
        return self.git("hash-object", "-w", "-t", "tree", "--literally", "--stdin", stdin=data)

    def commit_tree(self, tree: str) -> str:
        """A commit of any tree, put on the branch `master`."""
        text = (
            f"tree {tree}\nauthor A <a@example.com> {TIME} +0000\n"
            f"committer C <c@example.com> {TIME} +0000\n\nraw\n"
        )
        commit = self.git(
            "hash-object", "-w", "-t", "commit", "--literally", "--stdin", stdin=text.encode()
        )
        (self.path / ".git/refs/heads/master").write_text(commit + "\n")
        return commit

    def commit_submodules(
        self, modules: Sequence[tuple[str, str, str, str]], gitmodules: str | None = None
    ) -> str:
        """Commit (name, path, url, commit) as submodules, with `.gitmodules` to match (or not)."""
        text = "".join(
            f'[submodule "{name}"]\n\tpath = {path}\n\turl = {url}\n'
            for name, path, url, _ in modules
        )
        self.write({".gitmodules": text if gitmodules is None else gitmodules})
        self.git("add", ".gitmodules")
        for _, path, _, commit in modules:
            self.git("update-index", "--add", "--cacheinfo", f"160000,{commit},{path}")
        self.git("commit", "-q", "-m", "submodules")
        return self.head


def snapshot(directory: Path) -> dict[str, tuple[int, int, bytes]]:
    """Path -> (mode, modification time in ns, content or target) of all below `directory`."""
    found = {}
    for path in sorted([directory, *directory.rglob("*")]):
        about = path.lstat()
        if path.is_symlink():
            content = os.fsencode(path.readlink())
        else:
            content = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(directory))] = (about.st_mode, about.st_mtime_ns, content)
    return found
