"""Finding extensions of deployments and their help, which stands in YAML files beside them."""

from __future__ import annotations

from pathlib import Path

from morphlib.errors import MorphError, Reason

#: The extensions that come with Morph.
BUILT_IN = Path(__file__).parent / "exts"

KINDS = ("check", "configure", "write")


def extension_directories() -> list[Path]:
    """Where extensions are looked for: the definitions checkout, if we are in one, comes first."""
    here = Path.cwd()
    checkouts = (path for path in (here, *here.parents) if (path / ".git").exists())
    return [*([checkout] if (checkout := next(checkouts, None)) else []), BUILT_IN]


def extension_help(topic: str) -> str:
    """The help of the extension NAME.KIND. Raises MorphError if there is no such thing."""
    name, _, kind = topic.rpartition(".")
    if not name or kind not in KINDS or "/" in topic:
        raise MorphError(
            f"Unknown subcommand or extension {topic}",
            reason=Reason.NOT_FOUND,
            hint="See morph --help and morph help-extensions.",
        )
    for directory in extension_directories():
        path = directory / f"{topic}.help"
        if path.is_file():
            return _read_help(path)
    raise MorphError(f"Help not available for extension {topic}", reason=Reason.NOT_FOUND)


def _read_help(path: Path) -> str:
    import yaml

    try:
        document = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, OSError, ValueError) as error:
        raise MorphError(f"{path} can't be read: {error}", reason=Reason.NOT_FOUND) from error
    text = document.get("help") if isinstance(document, dict) else None
    if not isinstance(text, str):
        raise MorphError(f"{path} has no text called 'help'", reason=Reason.NOT_FOUND)
    return text


def list_extensions() -> list[str]:
    """The configure extensions, then the write extensions, each once and sorted."""
    names: list[str] = []
    for kind in ("configure", "write"):
        found = {path.name for top in extension_directories() for path in top.glob(f"*.{kind}")}
        names += sorted(found)
    return names
