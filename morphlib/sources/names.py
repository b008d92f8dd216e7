"""What URLs, refs and submodule paths may look like.

All of these come from definitions and from repositories that anybody may have written, and end up
as arguments of git or as paths. What git could take for an option, for a command to run, or for a
place outside is refused here, whether or not the git at hand would refuse it as well.
"""

from __future__ import annotations

import re
from pathlib import Path

from morphlib.errors import MorphError, Reason

#: The transports that may be used. Others run programs (ext::) or reach into descriptors (fd::).
PROTOCOLS = ("file", "git", "http", "https", "ssh")
_SCHEMES = frozenset((*PROTOCOLS, "git+ssh", "ssh+git"))

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SHA1 = re.compile(r"[0-9a-f]{40}")
_SCHEME = re.compile(r"([A-Za-z0-9][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_HELPER = re.compile(r"[A-Za-z0-9+.-]*::")
_BAD_REF = re.compile(r"[\s:?*\[\\]|\.\.|[\x00-\x20\x7f]")
_UNQUOTABLE = re.compile(r"[^A-Za-z0-9%_]")


def is_sha1(ref: str) -> bool:
    """Is it a full commit id (40 hexadecimal digits, lower case)?"""
    return _SHA1.fullmatch(ref) is not None


def check_url(url: str) -> str:
    """`url` itself. Raises MorphError unless it is a path or URL that git may be given."""
    trouble = _find_url_trouble(url)
    if trouble:
        raise MorphError(
            f"Refusing repository {url!r}: {trouble}",
            reason=Reason.SOURCE,
            hint=f"Use an absolute path or a URL of: {', '.join(PROTOCOLS)}.",
        )
    return url


def check_ref(ref: str) -> str:
    """`ref` itself. Raises MorphError if it can't name a commit, or could be an option."""
    if not ref or ref.startswith("-") or _BAD_REF.search(ref) or _CONTROL.search(ref):
        raise MorphError(
            f"Refusing ref {ref!r}: it is not the name of a branch, tag or commit",
            reason=Reason.SOURCE,
            hint="Use a commit id, or the name of a branch or tag.",
        )
    return ref


def check_submodule_path(path: str) -> str:
    """`path` itself. Raises MorphError unless it stays below the tree and out of `.git`."""
    parts = path.split("/")
    hostile = (
        not path
        or path.startswith(("-", "/"))
        or _CONTROL.search(path)
        or any(part in ("", ".", "..") or is_git_directory(part) for part in parts)
    )
    if hostile:
        raise MorphError(
            f"Refusing submodule path {path!r}: it would lead outside of the source tree",
            reason=Reason.SOURCE,
        )
    return path


def is_git_directory(name: str) -> bool:
    """Is `name` a spelling of `.git` on some file system?

    Besides case, HFS+ ignores some invisible characters and NTFS ignores trailing dots and spaces,
    knows `git~1` as a short name, and takes a colon for the start of a stream's name.
    """
    visible = re.sub("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]", "", name).lower()
    base = visible.split(":", 1)[0].rstrip(" .")
    return base in (".git", "git~1")


def quote_url(url: str) -> str:
    """The name of a mirror's directory. Tarball servers use the same names, so it can't change."""
    return _UNQUOTABLE.sub("_", url)


def local_path(url: str) -> Path | None:
    """The directory that a `file://` URL stands for, None for any other URL."""
    if not url.startswith("file://"):
        return None
    rest = url.removeprefix("file://")
    if not rest.startswith("/"):
        host, _, path = rest.partition("/")
        if host != "localhost":
            raise MorphError(
                f"Refusing repository {url!r}: its path is not absolute",
                reason=Reason.SOURCE,
                hint="Write file:// followed by an absolute path.",
            )
        rest = "/" + path
    return Path(rest)


def is_local(url: str) -> bool:
    """Does `url` lead to this machine's own file system (file:// or a plain path)?"""
    if _SCHEME.match(url):
        return url.startswith("file://")
    head, colon, _ = url.partition(":")
    return not colon or "/" in head


def _find_url_trouble(url: str) -> str | None:
    if not url:
        return "it is empty"
    if url.startswith("-"):
        return "it could be taken for an option"
    if _CONTROL.search(url):
        return "it contains control characters"
    if _HELPER.match(url):
        return "it names a transport that runs programs"
    match = _SCHEME.fullmatch(url)
    if match is None:
        if "://" in url.split("/", 1)[0] + "//":
            return "its scheme is malformed"
        host = url.split(":", 1)[0] if not is_local(url) else ""
        return _find_host_trouble(host)
    if match[1] not in _SCHEMES:
        return f"the protocol {match[1]} is not allowed"
    if match[1] == "file":
        return None
    host = match[2].split("/", 1)[0]
    return _find_host_trouble(host) if host else "it has no host"


def _find_host_trouble(host: str) -> str | None:
    """ssh takes a host or user that begins with '-' for an option that may run a command."""
    parts = [host, *host.split("@")]
    if any(part.startswith(("-", "[-")) for part in parts):
        return "its host could be taken for an option"
    return None
