"""Which submodules a commit has, and where each is to be fetched from.

`.gitmodules` is written by whoever wrote the repository, so it is checked: paths stay inside the
tree, and a repository from the network can't name repositories of this machine.
"""

from __future__ import annotations

from collections.abc import Mapping

from morphlib.errors import MorphError, Reason
from morphlib.sources.aliases import Aliases
from morphlib.sources.git import allows_local_submodules
from morphlib.sources.gitconfig import Section, parse_config
from morphlib.sources.model import Submodule
from morphlib.sources.names import check_submodule_path, check_url, is_local
from morphlib.sources.objects import FILE, GITLINK, ObjectReader


def read_submodules(objects: ObjectReader, commit: str, url: str) -> tuple[Submodule, ...]:
    """The submodules of a commit: sections of `.gitmodules` whose path really is one in the tree.

    Raises MorphError if the file is malformed or a path is hostile. `url` is for messages.
    """
    tree = objects.tree_of(commit)
    entry = objects.find(tree, ".gitmodules")
    if entry is None or entry.kind != FILE:
        return ()
    where = f"{url}, commit {commit}, file .gitmodules"
    try:
        sections = parse_config(objects.blob(entry.id))
    except ValueError as error:
        raise MorphError(f"{where}: {error}", reason=Reason.SOURCE) from error
    found: dict[str, Submodule] = {}
    for section in sections:
        name, path, target = _read_section(section, where)
        gitlink = objects.find(tree, path)
        if gitlink is not None and gitlink.kind == GITLINK:
            found[path] = Submodule(name, path, target, gitlink.id.hex())
    return tuple(found.values())


def submodule_url(
    submodule: Submodule, *, parent: str, overrides: Mapping[str, str], aliases: Aliases
) -> str:
    """The URL to fetch a submodule from.

    `overrides` are definitions' own URLs by submodule name; they win, and are trusted as far as
    definitions are. What the repository says may be relative (`./x`, `../x`) to the URL of its
    `parent`. Only a local parent may have a local submodule, unless git's own setting
    protocol.file.allow is "always". Raises MorphError for what is refused.
    """
    if submodule.name in overrides:
        return check_url(aliases.pull_url(overrides[submodule.name]))
    written = submodule.url
    if written.startswith(("./", "../")) or written in (".", ".."):
        url = _join(parent, written)
    else:
        url = aliases.pull_url(written)
    check_url(url)
    if is_local(url) and not _may_be_local(url, parent):
        raise _refusal(submodule, parent, "it would lead to a directory of this machine")
    return url


def _read_section(section: Section, where: str) -> tuple[str, str, str]:
    name = section.subsection("submodule")
    if name is None:
        raise MorphError(
            f"{where}: Found a misformatted section title: [{section.title}]",
            reason=Reason.SOURCE,
            hint='Each section of .gitmodules has to look like [submodule "NAME"].',
        )
    for key in ("path", "url"):
        if not section.values.get(key):
            raise MorphError(f'{where}: submodule "{name}" has no {key}', reason=Reason.SOURCE)
    return name, check_submodule_path(section.values["path"].rstrip("/")), section.values["url"]


def _join(parent: str, relative: str) -> str:
    """`relative` seen from the repository `parent`, which counts as a directory."""
    base = parent.rstrip("/")
    rest = relative
    while True:
        if rest in (".", "./"):
            rest = ""
        elif rest in ("..", "../") or rest.startswith("../"):
            base = _without_last(base, parent, relative)
            rest = rest[3:]
            continue
        elif rest.startswith("./"):
            rest = rest[2:]
            continue
        break
    if ".." in rest.split("/"):
        raise MorphError(
            f"Refusing submodule URL {relative!r}: '..' may stand at its beginning only",
            reason=Reason.SOURCE,
        )
    separator = "" if base.endswith(":") or not rest else "/"
    return f"{base}{separator}{rest}".rstrip("/")


def _without_last(base: str, parent: str, relative: str) -> str:
    head, slash, last = base.rpartition("/")
    if slash and last and not head.endswith(("/", ":")) and head:
        return head
    colon, found, path = base.rpartition(":")
    if found and path and "/" not in base:
        return colon + ":"  # host:path, without a slash
    raise MorphError(
        f"Refusing submodule URL {relative!r}: it leads above the top of {parent}",
        reason=Reason.SOURCE,
    )


def _may_be_local(url: str, parent: str) -> bool:
    if ".." in url.split("/"):
        return False
    return is_local(parent) or (url.startswith(("file://", "/")) and allows_local_submodules())


def _refusal(submodule: Submodule, parent: str, why: str) -> MorphError:
    return MorphError(
        f"Refusing submodule {submodule.name!r} of {parent}: {submodule.url!r}: {why}",
        reason=Reason.SOURCE,
        hint="If this is what you want, give its URL in the chunk's `submodules` field.",
    )
