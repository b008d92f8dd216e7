"""The command line of the importer."""

from __future__ import annotations

import time
from pathlib import Path

import click

from morphlib.errors import MorphError
from trove_import.apt import PrivateApt
from trove_import.importer import Importer
from trove_import.manifest import SourceEntry, read_manifest, repin_definitions, write_manifest


def _default_cache() -> Path:
    return Path.home() / ".cache/morph-import"


@click.command()
@click.argument("manifest", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("names", nargs=-1)
@click.option(
    "--trove",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Directory of the git repositories, one below it for each source.",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    default=_default_cache,
    help="Directory for downloads and apt's lists.  [default: ~/.cache/morph-import]",
)
@click.option(
    "--apt-etc",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/etc/apt"),
    help="Where the machine's package sources are read from.  [default: /etc/apt]",
)
@click.option(
    "--update",
    is_flag=True,
    help="Pin what is found: rewrite MANIFEST, and the commits in *.morph files beside it.",
)
def main(
    manifest: Path, names: tuple[str, ...], trove: Path, cache: Path, apt_etc: Path, update: bool
) -> None:
    """Make a git trove of what MANIFEST describes (only NAMES, where given).

    Packages come from the machine's own package sources in exactly the pinned versions. What is in
    the trove already is left alone.
    """
    started = time.monotonic()
    try:
        entries = read_manifest(manifest)
        wanted = _select(entries, names)
        importer = Importer(
            trove=trove.absolute(),
            downloads=cache.absolute() / "downloads",
            base=manifest.absolute().parent,
            apt=PrivateApt(cache.absolute() / "apt", apt_etc.absolute()),
            tell=click.echo,
            update=update,
        )
        done = importer.import_all(wanted)
        if update:
            _pin(manifest, entries, done)
    except MorphError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{len(done)} sources in {trove} ({time.monotonic() - started:.1f} s)")


def _select(entries: tuple[SourceEntry, ...], names: tuple[str, ...]) -> tuple[SourceEntry, ...]:
    unknown = sorted(set(names) - {entry.name for entry in entries})
    if unknown:
        raise click.UsageError(f"the manifest has no source named {', '.join(unknown)}")
    return tuple(entry for entry in entries if not names or entry.name in names)


def _pin(manifest: Path, entries: tuple[SourceEntry, ...], done: tuple[SourceEntry, ...]) -> None:
    found = {entry.name: entry for entry in done}
    write_manifest(manifest, tuple(found.get(entry.name, entry) for entry in entries))
    commits = {
        old.commit: found[old.name].commit
        for old in entries
        if old.name in found and old.commit and old.commit != found[old.name].commit
    }
    for path in repin_definitions(manifest.absolute().parent, commits):
        click.echo(f"{path}: new commits pinned")


if __name__ == "__main__":
    main(prog_name="import-sources")
