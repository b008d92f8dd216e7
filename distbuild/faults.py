"""How `morph worker-build` says with its exit status whose fault it is that nothing was built."""

from __future__ import annotations

from distbuild.workermessages import Fault
from morphlib.errors import MorphError, MorphErrors, Reason

STATUS_SPACE, STATUS_MACHINE = 75, 76

#: What another worker need not suffer from.
_OF_THE_MACHINE = frozenset({Reason.SANDBOX, Reason.CACHE, Reason.CONFIG, Reason.INTERRUPTED})


def status_of(error: MorphError) -> int:
    """The exit status for a failure."""
    reasons = {each.reason for each in error.errors} if isinstance(error, MorphErrors) else set()
    reasons.add(error.reason)
    if Reason.SPACE in reasons:
        return STATUS_SPACE
    return STATUS_MACHINE if reasons & _OF_THE_MACHINE else 1


def fault_of(status: int) -> Fault:
    """Whose fault an exit status other than 0 tells. A program that was killed, or that could not
    be started, says nothing against what it was to build."""
    if status == STATUS_SPACE:
        return Fault.SPACE
    return Fault.BUILD if status == 1 else Fault.MACHINE
