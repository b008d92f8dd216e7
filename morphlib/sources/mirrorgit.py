"""What git does for mirrors: clones and fetches, and the configuration that a mirror has."""

from __future__ import annotations

import os
from pathlib import Path

from morphlib.errors import MorphError, Reason
from morphlib.sources.git import run_git
from morphlib.sources.names import is_local

# The owner of a repository on this machine may be somebody else. A constant text: git hands it to a
# shell and adds the repository's path, quoted.
_LOCAL_UPLOAD_PACK = "--upload-pack=git -c 'safe.directory=*' upload-pack"


def clone_mirror(url: str, into: Path) -> None:
    """Clone every ref of a repository into an empty directory. Raises ProcessError."""
    options = ["--mirror", "--quiet", "--no-local", "--template="]
    if is_local(url):
        options.append(_LOCAL_UPLOAD_PACK)
    run_git(["clone", *options, "--end-of-options", origin_of(url), into])


def fetch_all(git_dir: Path, url: str) -> None:
    """Bring a mirror up to date with its origin. Raises ProcessError.

    What comes is there at once, as one pack. Taken apart, a commit would be found before its tree
    by whoever looks meanwhile, and for ever if the fetch is killed.
    """
    options = ["--prune", "--quiet", "--no-auto-maintenance", "--no-write-fetch-head", "--force"]
    if is_local(url):
        options.append(_LOCAL_UPLOAD_PACK)
    run_git(
        [
            *("-c", "fetch.unpackLimit=1", "fetch", *options),
            *("--end-of-options", origin_of(url), "+refs/*:refs/*"),
        ],
        git_dir=git_dir,
    )


def write_mirror_config(git_dir: Path, url: str) -> None:
    """Replace a mirror's configuration by the least that it needs, whatever it was."""
    origin = origin_of(url).replace("\\", "\\\\").replace('"', '\\"')
    (git_dir / "config").write_bytes(
        b"[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"
        b'[remote "origin"]\n\turl = "'
        + os.fsencode(origin)
        + b'"\n\tfetch = +refs/*:refs/*\n\tmirror = true\n'
    )


def check_object_format(git_dir: Path, url: str) -> None:
    """Raises MorphError for a repository whose objects have other names than SHA-1."""
    found = _read_config(git_dir, "extensions", "objectformat")
    if found is not None and found.lower() != "sha1":
        raise MorphError(
            f"Git repository {url} names its objects by {found}, and Morph knows sha1 only",
            reason=Reason.SOURCE,
            hint="Convert it: git init --object-format=sha1, then git fast-export and fast-import.",
        )


def read_origin(git_dir: Path) -> str | None:
    """The URL of `origin` that a mirror's configuration tells, None if there is none."""
    return _read_config(git_dir, 'remote "origin"', "url")


def _read_config(git_dir: Path, title: str, name: str) -> str | None:
    """A value of a repository's own configuration, None if there is none."""
    from morphlib.sources.gitconfig import parse_config

    try:
        sections = parse_config((git_dir / "config").read_bytes())
    except (OSError, ValueError):
        return None
    found = [s.values[name] for s in sections if s.title == title and name in s.values]
    return found[-1] if found else None


def origin_of(url: str) -> str:
    """What git is given for `url`: a path is made absolute, for git takes `a:b` for a host."""
    return str(Path(url).absolute()) if is_local(url) and "://" not in url else url
