"""What a deployed system says of its deployment: `baserock/deployment.meta`."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morphlib.build.members import MTIME_NS
from morphlib.build.metadata import encode
from morphlib.credentials import hide_credentials, is_secret_name
from morphlib.deploy.plan import Deployment
from morphlib.errors import MorphError, Reason
from morphlib.process import run
from morphlib.rooted import resolve_in, write_in
from morphlib.sources.git import git_environment
from morphlib.text import make_valid

_PLACE = "baserock/deployment.meta"


@dataclass(frozen=True, slots=True)
class Versions:
    """What the definitions are (`git describe`), and which Morph deploys them."""

    definitions: str
    morph: Mapping[str, str]


def describe_definitions(root: Path) -> str:
    """The state of a checkout in one word. Raises MorphError if git can't tell."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=-unreproducible"]
    return run(command, env=git_environment()).stdout.decode("utf-8", "replace").strip()


def deployment_metadata(
    deployment: Deployment, artifact: str, versions: Versions, secret: Collection[str]
) -> bytes:
    """The content of the file. What `secret` names, or what has the name of a secret, is left out.

    Nothing of it comes from the environment of who deploys, but for what that has of parameters.
    """
    configuration = {
        name: hide_credentials(value)
        for name, value in deployment.configuration.items()
        if name not in secret and not is_secret_name(name)
    }
    document: dict[str, Any] = {
        "system-artifact-name": artifact,
        "configuration": configuration,
        "deployment-type": deployment.type,
        "location": hide_credentials(deployment.location),
        "definitions-version": {"describe": versions.definitions},
        "morph-version": dict(versions.morph),
        "partial": deployment.partial,
    }
    if deployment.partial:
        document["partial-components"] = list(deployment.components)
    valid = make_valid(document)
    assert isinstance(valid, dict)
    return encode(valid)


def write_metadata(tree: Path, content: bytes) -> None:
    """Write the file into a tree, whatever symlinks that has. Raises MorphError."""
    write_timeless(tree, _PLACE, content)


def write_timeless(tree: Path, path: str, content: bytes) -> None:
    """Write a file into a tree with the time that everything in it has.

    Raises MorphError if something is in the way.
    """
    try:
        parent = resolve_in(tree, path.rpartition("/")[0])
        if not parent.is_dir():
            parent.mkdir(mode=0o755, parents=True)
            os.utime(parent.parent, ns=MTIME_NS)
        write_in(tree, path, content)
        os.utime(parent / path.rpartition("/")[2], ns=MTIME_NS)
        os.utime(parent, ns=MTIME_NS)
    except OSError as error:
        raise MorphError(
            f"can't write /{path} into the system: {error.strerror or error}", reason=Reason.DEPLOY
        ) from error
