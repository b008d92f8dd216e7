"""The identity of a disk image: a UUID that follows from what is on it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import UUID

from morphlib.writeexts.devices import Device
from morphlib.writeexts.imageparameters import IMAGE_PARAMETERS
from morphlib.writeexts.parameters import Parameters
from morphlib.writeexts.tree import Tree

# Tells what makes this deployment of a system different from others.
_OF_DEPLOYMENT = "baserock/deployment.meta"


def identify(tree: Tree, given: Parameters, devices: Mapping[str, Device]) -> UUID:
    """The UUID of a new file system: the same for the same system and parameters.

    The key of the system (MORPH_SYSTEM_KEY) says what it was built as; what the deployment has made
    of it shows in /etc. Without a key, names, sizes and modes of all files have to do.
    """
    environment = given.environment
    key = environment.get("MORPH_SYSTEM_KEY", "")
    digest = hashlib.sha256()
    names = sorted(parameter.name for parameter in IMAGE_PARAMETERS)
    said = {name: environment[name] for name in names if environment.get(name)}
    digest.update(json.dumps([key, said], sort_keys=True).encode())
    for line in _described(tree, "etc", contents=True) if key else _described(tree, ""):
        digest.update(line)
    if tree.is_file(_OF_DEPLOYMENT):
        digest.update(tree.read(_OF_DEPLOYMENT))
    for path in sorted(devices):
        digest.update(repr((path, devices[path])).encode("utf-8", "surrogateescape"))
    return UUID(bytes=digest.digest()[:16], version=5)


def _described(tree: Tree, start: str, *, contents: bool = False) -> Iterator[bytes]:
    """A line for each entry below a directory of the tree, in order, without times."""
    pending = [tree.resolve(start)] if tree.is_directory(start or ".") else []
    while pending:
        directory = pending.pop()
        for entry in sorted(os.scandir(directory), key=lambda each: each.name):
            path = Path(entry.path)
            found = entry.stat(follow_symlinks=False)
            what: list[object] = [str(path.relative_to(tree.root)), found.st_mode]
            what += [found.st_uid, found.st_gid]
            if entry.is_dir(follow_symlinks=False):
                pending.append(path)
            elif entry.is_symlink():
                what.append(str(path.readlink()))
            elif entry.is_file(follow_symlinks=False):
                what.append(found.st_size)
                if contents or path.is_relative_to(tree.root / "etc"):
                    what.append(hashlib.sha256(path.read_bytes()).hexdigest())
            yield repr(what).encode("utf-8", "surrogateescape")
