"""The help files of built-in extensions, made from what the extensions declare.

`python -m morphlib.writeexts.helpfile` writes them all anew. A help file is YAML: `help` is the
text that `morph help NAME.KIND` shows, `secret` names the parameters that must not be shown, and
`layers: true` asks for MORPH_LAYERS.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from morphlib.writeexts.extension import Extension, Upgrades, WriteExtension
from morphlib.writeexts.parameters import Parameter
from morphlib.writeexts.program import load_extension

_WIDTH = 78
_EXTS = Path(__file__).parents[1] / "exts"
_UPGRADES = {
    Upgrades.NEVER: "Only for initial deployments.",
    Upgrades.ALWAYS: "Only for upgrades (morph upgrade).",
    Upgrades.BOTH: "For initial deployments and for upgrades (morph upgrade).",
}


def help_text(extension: Extension) -> str:
    """What `morph help` shows for an extension."""
    parts = [textwrap.dedent(extension.description).strip()]
    if isinstance(extension, WriteExtension):
        parts.append(_UPGRADES[extension.upgrades])
        parts.append("Location:\n\n" + _indent(extension.location_help))
    if extension.parameters:
        described = "\n\n".join(_describe(each) for each in extension.parameters)
        parts.append("Parameters:\n\n" + described)
    return "\n\n".join(parts) + "\n"


def _describe(parameter: Parameter[Any]) -> str:
    notes = []
    if parameter.required:
        notes.append("required")
    elif parameter.shown:
        notes.append(f"default: {parameter.shown}")
    if parameter.secret:
        notes.append("secret")
    head = f"  {parameter.name}" + (f" ({', '.join(notes)})" if notes else "")
    return f"{head}\n{_indent(parameter.help, 6)}"


def _indent(text: str, by: int = 2) -> str:
    paragraphs = textwrap.dedent(text).strip().split("\n\n")
    return "\n\n".join(
        textwrap.fill(
            " ".join(paragraph.split()),
            _WIDTH,
            initial_indent=" " * by,
            subsequent_indent=" " * by,
            break_on_hyphens=False,
            break_long_words=False,
        )
        for paragraph in paragraphs
    )


def help_file(extension: Extension) -> str:
    """The content of the help file, YAML."""
    lines = ["help: |"]
    lines += [f"  {line}".rstrip() for line in help_text(extension).splitlines()]
    secret = [each.name for each in extension.parameters if each.secret]
    if secret:
        lines.append("secret:")
        lines += [f"- {name}" for name in secret]
    if isinstance(extension, WriteExtension) and extension.uses_layers:
        lines.append("layers: true")
    return "\n".join(lines) + "\n"


def built_in() -> Iterator[tuple[Path, Extension]]:
    """Each built-in extension with the file of its help."""
    for kind in ("configure", "write"):
        for path in sorted(_EXTS.glob(f"*.{kind}")):
            yield path.with_name(path.name + ".help"), load_extension(path.stem, kind)


def main() -> None:
    for path, extension in built_in():
        path.write_text(help_file(extension))


if __name__ == "__main__":
    main()
