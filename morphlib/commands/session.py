"""What a command is given besides its arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from morphlib.events import Listener, Status
from morphlib.settings import Settings
from morphlib.text import make_valid

if TYPE_CHECKING:
    from morphlib.commands import Command


@dataclass(frozen=True, slots=True)
class Session:
    """One run of the program.

    `output` takes statuses and what most commands print (--output may lead it to a file), `stdout`
    is the real standard output, where listings go that ignore --output. `listener` shows events.
    `call` are the words that begin a command line which uses the same directories.
    """

    program: str
    settings: Settings
    output: TextIO
    stdout: TextIO
    listener: Listener
    warn: Callable[[str], None]
    call: tuple[str, ...] = ("morph",)

    def status(self, text: str) -> None:
        """Tell a line that --quiet hides."""
        self.listener(Status(text=text))

    def chat(self, text: str) -> None:
        """Tell a line that only --debug shows."""
        self.listener(Status(text=text, level="chatty"))

    def print(self, text: str = "") -> None:
        self.output.write(text + "\n")

    def print_json(self, value: object) -> None:
        """Write plain values, dataclasses or structs as indented JSON."""
        self.output.write(format_json(value) + "\n")


def format_json(value: object) -> str:
    """`value` as indented UTF-8 JSON; names that are no valid text get backslash escapes."""
    import msgspec

    try:
        encoded = msgspec.json.encode(value)
    except UnicodeEncodeError:
        encoded = msgspec.json.encode(make_valid(msgspec.to_builtins(value)))
    return msgspec.json.format(encoded, indent=2).decode()


CommandRun = Callable[[Session, Sequence[str]], int | None]


def load_run(command: Command) -> CommandRun:
    """The function that carries the command out."""
    from importlib import import_module

    run: CommandRun = import_module(command.module).run
    return run
