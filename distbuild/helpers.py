"""A daemon's side of its helpers: programs that run, or wait for a helper to run them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distbuild.connection import Connection
from distbuild.messages import Hello
from distbuild.workermessages import (
    ExecCancel,
    ExecInput,
    ExecOutput,
    ExecRequest,
    ExecResponse,
    FromHelper,
)

#: What the end of a program that was never started is called, and of one whose helper was lost.
NEVER_STARTED, LOST = -15, -1


@dataclass(eq=False, slots=True)
class Program:
    """`on_output` is given pieces of standard output and error, `on_end` the exit status, once.

    One that `keeps_input` may be given more of it (`Helpers.feed`).
    """

    id: str
    argv: tuple[str, ...]
    stdin: bytes
    on_output: Callable[[bytes, bytes], None]
    on_end: Callable[[int], None]
    keeps_input: bool = False
    helper: _Helper | None = None


class Helpers:
    """All helpers of a daemon. `on_change` is called when one comes."""

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self._on_change = on_change
        self._helpers: list[_Helper] = []
        self._programs: dict[str, Program] = {}
        self._numbers = itertools.count(1)

    @property
    def are_there(self) -> bool:
        return bool(self._helpers)

    def run(
        self,
        argv: Sequence[str],
        stdin: bytes,
        on_output: Callable[[bytes, bytes], None],
        on_end: Callable[[int], None],
        *,
        keeps_input: bool = False,
    ) -> Program:
        """Let a program be run, as soon as there is a helper. If its helper is lost it is run
        again by the next, unless it `keeps_input`: then it has ended (`LOST`)."""
        name = f"run-{next(self._numbers)}"
        program = Program(name, tuple(argv), stdin, on_output, on_end, keeps_input)
        self._programs[name] = program
        self._assign()
        return program

    def feed(self, program: Program, data: bytes, *, is_last: bool = False) -> None:
        """Give a program more input. `data` is at most as long as a message may have it."""
        if program.id not in self._programs:
            return
        if program.helper is None:
            program.stdin += data
            program.keeps_input = program.keeps_input and not is_last
        else:
            message = ExecInput(id=program.id, data=data, is_last=is_last)
            program.helper.connection.send(message)

    def cancel(self, program: Program) -> None:
        """End a program. Its end comes as that of any other."""
        if program.id not in self._programs:
            return
        if program.helper is not None:
            program.helper.connection.send(ExecCancel(id=program.id))
        else:
            del self._programs[program.id]
            program.on_end(NEVER_STARTED)

    def speaker(self, hello: Hello) -> _Helper:
        """What listens to a helper that connects."""
        return _Helper(self)

    def _assign(self) -> None:
        if not self._helpers:
            return
        for program in self._programs.values():
            if program.helper is None:
                program.helper = min(self._helpers, key=self._load_of)
                program.helper.connection.send(
                    ExecRequest(
                        id=program.id,
                        argv=program.argv,
                        stdin=program.stdin,
                        keeps_input=program.keeps_input,
                    )
                )

    def _load_of(self, helper: _Helper) -> int:
        return sum(program.helper is helper for program in self._programs.values())

    def add(self, helper: _Helper) -> None:
        self._helpers.append(helper)
        self._assign()
        self._on_change()

    def remove(self, helper: _Helper) -> None:
        self._helpers.remove(helper)
        ended = []
        for program in self._programs.values():
            if program.helper is helper:
                program.helper = None
                if program.keeps_input:
                    ended.append(program)
        for program in ended:
            del self._programs[program.id]
        for program in ended:
            program.on_end(LOST)
        self._assign()

    def heard(self, helper: _Helper, message: FromHelper) -> None:
        match message:
            case ExecOutput(id=name, stdout=out, stderr=err):
                program = self._programs.get(name)
                if program is not None and program.helper is helper:
                    program.on_output(out, err)
            case ExecResponse(id=name, exit=status):
                program = self._programs.get(name)
                if program is not None and program.helper is helper:
                    del self._programs[name]
                    program.on_end(status)
            case _:
                pass


class _Helper:
    """Listens to one helper."""

    union = FromHelper

    def __init__(self, helpers: Helpers) -> None:
        self._helpers = helpers
        self.connection: Connection

    def greeted(self, connection: Connection) -> None:
        self.connection = connection
        self._helpers.add(self)

    def heard(self, message: FromHelper) -> None:
        self._helpers.heard(self, message)

    def lost(self, reason: str) -> None:
        self._helpers.remove(self)
