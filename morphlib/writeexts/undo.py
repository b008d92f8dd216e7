"""Undoing what was done so far, innermost first, when a later step fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from morphlib.errors import MorphError
from morphlib.writeexts.output import complain


@contextmanager
def undone_on_failure(what: str, undo: Callable[[], object]) -> Iterator[None]:
    """Call `undo` if the block fails. What fails in undoing is told, and hides no other error."""
    try:
        yield
    except BaseException:
        _try(what, undo)
        raise


@contextmanager
def undone_always(what: str, undo: Callable[[], object]) -> Iterator[None]:
    """Call `undo` at the end of the block. Raises what fails in undoing if the block did not."""
    with undone_on_failure(what, undo):
        yield
    undo()


def _try(what: str, undo: Callable[[], object]) -> None:
    try:
        undo()
    except (MorphError, OSError) as error:
        complain(f"can't {what}: {error}")
