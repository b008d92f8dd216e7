"""Installs files that manifests name."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from morphlib.errors import MorphError, Reason, raise_all
from morphlib.writeexts.extension import ConfigureExtension
from morphlib.writeexts.manifest import Entry, Type, read_manifest
from morphlib.writeexts.parameters import Parameters, prefixed
from morphlib.writeexts.program import use_own_python
from morphlib.writeexts.tree import Tree

A = TypeVar("A")
B = TypeVar("B")

INSTALL_FILES = prefixed(
    "INSTALL_FILES",
    """Manifests, relative to the root of the definitions, with blanks between them (quoted as in a
    shell). Every variable whose name starts so is read, in the order of the names. Without any
    nothing is changed.""",
)
#: What people need to know of manifests, for this extension and for install-essential-files.
MANIFESTS = """
A manifest has a line for each file, symlink and directory:

  [template ][overwrite ]OCTALMODE UID GID PATH

OCTALMODE says the type too: 0040755 for a directory, 0100644 for a file, 0120000 for a symlink.
PATH, which has no blanks, is where the thing goes in the system, and where it is found below the
directory of the manifest. Directories have to be named before what is in them, unless the
system has them. Blank lines, and lines that start with #, mean nothing.

With overwrite, what the system has in that place is replaced; a directory gets the new owner
and mode. Without it that is an error, but for directories that are the same.

With template, the file is a Jinja2 template: {{ NAME }} stands for a parameter of the
deployment. Others are found relative to the manifest's directory.

All mistakes in all manifests are told at once, and then nothing is installed.
"""


class InstallFiles(ConfigureExtension):
    description = f"Install files that manifests name.\n{MANIFESTS}"
    parameters = (INSTALL_FILES,)

    def configure(self, tree: Tree, given: Parameters) -> None:
        install(tree, find_manifests(given[INSTALL_FILES]), given.environment)


def find_manifests(variables: Mapping[str, str]) -> list[Path]:
    """The manifests that the variables name. Raises MorphError for quotes that do not end."""
    found = []
    for name, value in variables.items():
        try:
            found += [Path(word) for word in shlex.split(value)]
        except ValueError as error:
            raise MorphError(f"{name} {value!r}: {error}", reason=Reason.DEPLOY) from error
    return found


def install(tree: Tree, manifests: Iterable[Path], environment: Mapping[str, str]) -> None:
    """Install what the manifests name. Raises MorphError for all that is wrong, before it writes.

    `environment` is what templates see.
    """
    errors: list[MorphError] = []
    entries = [each for found in _map(read_manifest, manifests, errors) for each in found]
    raise_all(errors)
    contents = _map(lambda entry: read_source(entry, environment), entries, errors)
    errors += Conflicts(tree).find(entries)
    raise_all(errors)
    for entry, content in zip(entries, contents, strict=True):
        _install_entry(tree, entry, content)


def _map(function: Callable[[A], B], items: Iterable[A], errors: list[MorphError]) -> list[B]:
    """The results of those calls that succeed; the errors of the others are added to `errors`."""
    results = []
    for item in items:
        try:
            results.append(function(item))
        except MorphError as error:
            errors.append(error)
    return results


def read_source(entry: Entry, environment: Mapping[str, str]) -> bytes | str | None:
    """What is to be installed: bytes of a file, the target of a symlink, None for a directory."""
    try:
        match entry.type:
            case Type.DIRECTORY:
                return None
            case Type.SYMLINK:
                return os.fsdecode(os.readlink(entry.source))  # noqa: PTH115 (as it is written)
            case Type.FILE:
                if not stat.S_ISREG(entry.source.stat().st_mode):
                    raise entry.error(f"{entry.source} is no file")
                return render(entry, environment) if entry.template else entry.source.read_bytes()
    except OSError as error:
        if entry.type is Type.SYMLINK and os.path.lexists(entry.source):
            raise entry.error(f"{entry.source} is no symlink") from error
        raise entry.error(f"can't read {entry.source}: {error.strerror}") from error


def render(entry: Entry, environment: Mapping[str, str]) -> bytes:
    """A template filled in. Raises MorphError."""
    try:
        import jinja2
    except ModuleNotFoundError:
        use_own_python()
        raise entry.error("install-files templates require jinja2") from None
    loader = jinja2.FileSystemLoader(entry.manifest.parent)
    templates = jinja2.Environment(loader=loader, keep_trailing_newline=True, autoescape=False)
    try:
        text = templates.get_template(entry.path).render(environment)
        return text.encode("utf-8", "surrogateescape")
    except jinja2.TemplateSyntaxError as error:
        place = f"{entry.manifest.parent / (error.name or entry.path)}:{error.lineno}"
        raise entry.error(f"{place}: {error.message}") from error
    except UnicodeDecodeError as error:
        raise entry.error(f"{entry.source} is no UTF-8 text, as templates must be") from error
    except Exception as error:  # a template can fail in any way that an expression can
        raise entry.error(f"{entry.source}: {error or type(error).__name__}") from error


@dataclass
class Conflicts:
    """Finds what can't be installed because of what a tree has, or earlier entries."""

    tree: Tree

    def find(self, entries: Sequence[Entry]) -> list[MorphError]:
        made: dict[Path, Entry] = {}  # by the places in the tree
        errors = []
        for entry in entries:
            try:
                problem = self._problem(entry, made)
                made[self.tree.place(entry.path)] = entry
            except MorphError as error:  # a circle of symlinks
                problem = error.message
            if problem:
                errors.append(entry.error(problem))
        return errors

    def _problem(self, entry: Entry, made: Mapping[Path, Entry]) -> str | None:
        parent = entry.path.rpartition("/")[0]
        above = made.get(self.tree.resolve(parent))
        if above is not None and above.type is Type.FILE:
            return f"/{parent} is a file"
        if above is None and not self.tree.is_directory(parent):
            return f"the system has no directory /{parent} for {entry.path.rpartition('/')[2]}"
        before = made.get(self.tree.place(entry.path))
        return self._existing(entry) if before is None else self._again(entry, before)

    def _again(self, entry: Entry, before: Entry) -> str | None:
        """An earlier entry has the same path."""
        if Type.DIRECTORY in (entry.type, before.type):
            same = entry.type is before.type
            equal = (entry.mode, entry.owner) == (before.mode, before.owner)
            if same and (equal or entry.overwrite):
                return None
            return f'"/{entry.path}" exists and is not identical to directory'
        return None if entry.overwrite else _exists(entry)

    def _existing(self, entry: Entry) -> str | None:
        """The tree has, or has not, the same path."""
        place = self.tree.place(entry.path)
        if entry.type is Type.DIRECTORY:
            if self.tree.is_directory(entry.path):
                found = self.tree.resolve(entry.path).stat()
                equal = (stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid)) == (
                    entry.mode,
                    entry.owner,
                )
                if equal or entry.overwrite:
                    return None
            elif not os.path.lexists(place):
                return None
            return f'"/{entry.path}" exists and is not identical to directory'
        if not os.path.lexists(place):
            return None
        if place.is_dir() and not place.is_symlink():
            return f"/{entry.path} is a directory, which a {entry.type} can't replace"
        return None if entry.overwrite else _exists(entry)


def _exists(entry: Entry) -> str:
    what = "Symlink" if entry.type is Type.SYMLINK else "File"
    return f"{what} already exists at /{entry.path}"


def _install_entry(tree: Tree, entry: Entry, content: bytes | str | None) -> None:
    match entry.type:
        case Type.DIRECTORY:
            tree.make_directory(entry.path, mode=entry.mode, owner=entry.owner)
            tree.change(entry.path, mode=entry.mode, owner=entry.owner)
        case Type.SYMLINK:
            assert isinstance(content, str)
            tree.remove(entry.path)
            tree.make_symlink(entry.path, content, owner=entry.owner)
        case Type.FILE:
            assert isinstance(content, bytes)
            tree.remove(entry.path)
            tree.write(entry.path, content, mode=entry.mode, owner=entry.owner, follow=False)


CONFIGURE = InstallFiles()
