"""Documents that follow from the tables are current.

`python -m tests.test_docs` writes all that follows from the tables anew: parts of docs/, and
completions/.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from cacheserver.program import fill_server_template
from cacheserver.settings import server_table
from morphlib.commands import COMMANDS, command_help
from morphlib.completion import SHELLS, completion_script
from morphlib.helptext import help_text
from morphlib.manpage import fill_template
from morphlib.rows import Group, Row
from morphlib.settings import table
from tests.commandline import run_morph

DOCS = Path(__file__).parent.parent / "docs"
MANUAL = DOCS / "morph.1"
CONFIGURATION = DOCS / "configuration.md"
SERVER_MANUAL = DOCS / "morph-cache-server.1"
SERVER = DOCS / "cache-server.md"
COMPLETIONS = DOCS.parent / "completions"
FILES_OF_SHELLS = {"bash": "morph", "zsh": "_morph", "fish": "morph.fish"}

_TABLE = re.compile(r"(<!-- The table .*? -->\n)(.*?)(?=\n## )", re.DOTALL)


def settings_tables(rows: Sequence[Row]) -> str:
    """The settings as tables, one for each group."""
    lines: list[str] = []
    for group in Group:
        if all(row.group is not group for row in rows):
            continue
        title = "General options" if group is Group.GENERAL else group.value
        lines += ["", f"### {title}", "", "| Setting | Value | Meaning |", "|---|---|---|"]
        for row in rows:
            if row.group is group:
                names = ", ".join(f"`{name}`" for name in row.names)
                names += f" (`-{row.letter}`)" if row.letter else ""
                text = re.sub(r"([<>|{}])", r"\\\1", help_text(row))
                lines.append(f"| {names} | {row.metavar.lower() or 'flag'} | {text} |")
    return "\n".join(lines) + "\n"


def with_tables(text: str, rows: Sequence[Row]) -> str:
    return _TABLE.sub(lambda found: found[1] + settings_tables(rows), text)


@pytest.mark.parametrize(("path", "rows"), [(CONFIGURATION, table()), (SERVER, server_table())])
def test_the_settings_in_the_documents_are_current(path: Path, rows: Sequence[Row]) -> None:
    text = path.read_text()
    assert _TABLE.search(text)
    assert text == with_tables(text, rows)


def test_the_manual_pages_are_current() -> None:
    assert MANUAL.read_text() == fill_template(MANUAL)
    assert SERVER_MANUAL.read_text() == fill_server_template(SERVER_MANUAL)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_completion_scripts_are_current(shell: str) -> None:
    assert (COMPLETIONS / FILES_OF_SHELLS[shell]).read_text() == completion_script(shell)


def test_the_manual_page_is_what_the_option_generates(tmp_path: Path) -> None:
    template = tmp_path / "x.1"
    template.write_text(".TH X 1\n.SH SYNOPSIS\nold\n.SH OPTIONS\nold\n.SH OTHER\nkept\n")
    page = run_morph(f"--generate-manpage={template}", home=tmp_path).out
    assert page.startswith(".TH X 1\n.SH SYNOPSIS\n.nf\n")
    assert page.endswith(".SH OTHER\nkept\n")
    assert "\nold\n" not in page
    assert "\\-\\-cachedir" in page


def test_a_template_that_is_not_there_is_told(tmp_path: Path) -> None:
    ran = run_morph("--generate-manpage=nowhere", home=tmp_path)
    assert ran.status == 1
    assert ran.err.startswith("ERROR: can't read nowhere: ")


@pytest.mark.parametrize(
    ("page", "option"), [(MANUAL, "--cachedir=DIR"), (SERVER_MANUAL, "--port-file=FILE")]
)
def test_the_manual_pages_can_be_formatted(page: Path, option: str) -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-P-cbou", page],
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert option in done.stdout.decode()


@pytest.mark.parametrize("name", [c.name for c in COMMANDS.values() if not c.hidden])
def test_every_command_is_documented(name: str) -> None:
    headings = re.findall(r"^## (.*)$", (DOCS / "commands.md").read_text(), re.MULTILINE)
    assert name in {word for heading in headings for word in heading.split(", ")}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(name: str) -> None:
    assert len(command_help(COMMANDS[name])) > len(COMMANDS[name].summary) / 2
    assert COMMANDS[name].summary[0].isupper()


if __name__ == "__main__":
    CONFIGURATION.write_text(with_tables(CONFIGURATION.read_text(), table()))
    SERVER.write_text(with_tables(SERVER.read_text(), server_table()))
    MANUAL.write_text(fill_template(MANUAL))
    SERVER_MANUAL.write_text(fill_server_template(SERVER_MANUAL))
    for shell, name in FILES_OF_SHELLS.items():
        (COMPLETIONS / name).write_text(completion_script(shell))
