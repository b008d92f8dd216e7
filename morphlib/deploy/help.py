"""Extensions for people: which ones there are, and their help, YAML files beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from morphlib.errors import MorphError, Reason

#: The extensions that come with Morph.
BUILT_IN = Path(__file__).parents[1] / "exts"

#: Kinds that people name; those of the kind `check` go with the `write` extension of their name.
KINDS = ("configure", "write")


def find_extensions(start: Path) -> dict[str, Path]:
    """Name with kind -> file, for the checkout around `start` and for what comes with Morph.

    Extensions may be anywhere in the checkout, and win over those of the same name that come with
    Morph; of several in a checkout, the one nearest to its root does.
    """
    found: dict[str, Path] = {}
    checkout = next((path for path in (start, *start.parents) if (path / ".git").exists()), None)
    candidates = [*_walk(checkout)] if checkout else []
    candidates.sort(key=lambda path: (len(path.parts), path))
    for path in [*candidates, *_walk(BUILT_IN)]:
        found.setdefault(path.name, path)
    return found


def _walk(top: Path) -> Iterator[Path]:
    suffixes = tuple(f".{kind}" for kind in KINDS)
    for directory, folders, files in os.walk(top):
        if directory == str(top) and ".git" in folders:
            folders.remove(".git")
        for name in files:
            if name.endswith(suffixes):
                yield Path(directory, name)


def extension_help(topic: str, start: Path) -> str:
    """The help of the extension NAME.KIND. Raises MorphError if there is no such thing."""
    extension = find_extensions(start).get(topic)
    if extension is None:
        raise MorphError(
            f"Unknown subcommand or extension {topic}",
            reason=Reason.NOT_FOUND,
            hint="See morph --help and morph help-extensions.",
        )
    for directory in (extension.parent, BUILT_IN):
        path = directory / f"{topic}.help"
        if path.is_file():
            return _read_help(path)
    raise MorphError(f"Help not available for extension {topic}", reason=Reason.NOT_FOUND)


def find_help(root: Path, name: str) -> Path | None:
    """The help of an extension NAME.KIND that a deployment uses, if there is any.

    NAME may have directories; of a bare name the built-in help counts too, if the definitions have
    none.
    """
    places = [root] if "/" in name else [root, BUILT_IN]
    return next((path for place in places if (path := place / f"{name}.help").is_file()), None)


def read_document(path: Path) -> Any:
    """What a help file holds. Raises MorphError if it is no YAML."""
    import yaml

    try:
        return yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, OSError, ValueError) as error:
        raise MorphError(f"{path} can't be read: {error}", reason=Reason.NOT_FOUND) from error


def secret_parameters(root: Path, name: str) -> frozenset[str]:
    """The parameters that the help of the extension NAME.KIND calls secret: a list `secret`."""
    names = _entry(root, name, "secret")
    return frozenset(str(name) for name in names) if isinstance(names, list) else frozenset()


def wants_layers(root: Path, name: str) -> bool:
    """Whether the help of the extension NAME.KIND says `layers: true`: that it makes use of a
    system's layers."""
    return _entry(root, name, "layers") is True


def _entry(root: Path, name: str, key: str) -> Any:
    path = find_help(root, name)
    document = read_document(path) if path is not None else None
    return document.get(key) if isinstance(document, dict) else None


def _read_help(path: Path) -> str:
    document = read_document(path)
    text = document.get("help") if isinstance(document, dict) else None
    if not isinstance(text, str):
        raise MorphError(f"{path} has no text called 'help'", reason=Reason.NOT_FOUND)
    return text


def list_extensions(start: Path) -> list[str]:
    """The names of the configure extensions, then of the write extensions, sorted."""
    names = find_extensions(start)
    return [name for kind in KINDS for name in sorted(names) if name.endswith(f".{kind}")]
