"""The program `distbuild-helper`: command line, settings, log, and the exit status.

0 when the daemon hangs up, or after SIGTERM or SIGINT; 1 where the daemon can't be reached or
refuses; 2 for a command line that can't be understood.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from types import FrameType

from distbuild.helpersettings import HelperSettings, helper_table
from morphlib.sideprogram import SideProgram


def run_program(argv: Sequence[str]) -> int:
    """Do what the command line `argv` (program first) says. The exit status is returned."""
    _let_end(_interrupt)
    try:
        return SideProgram("distbuild-helper", helper_table(), HelperSettings, _help).run(argv)
    except KeyboardInterrupt:
        return 0  # it was not at work yet


def _interrupt() -> None:
    raise KeyboardInterrupt


def _let_end(end: Callable[[], None]) -> None:
    """What signals that ask the program to end do from now on.

    While it is at work that raises nothing: an exception could come between any two steps, also
    of what holds a lock.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        end()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handle)


def _help(settings: HelperSettings, argv: Sequence[str]) -> int:
    """Work for the daemon. Raises MorphError."""
    from distbuild import crashing
    from distbuild.addresses import Address
    from distbuild.handshake import read_party
    from distbuild.helper import serve
    from distbuild.messages import Role
    from morphlib.events import silence
    from morphlib.logs import add_log

    if settings.log not in ("", "none"):
        add_log(silence, settings, argv)
    crashing.arm(settings.crash_condition)
    party = read_party(Role.HELPER, settings)
    serve(Address(settings.parent_address, settings.parent_port), party, _let_end)
    return 0
