"""Telling what is wrong with other machines once, though they may try again every second."""

from __future__ import annotations

import logging

_log = logging.getLogger("morph.distbuild")

_MOST = 1000
#: By peer, what was told of it last.
_told: dict[str, str] = {}


def complain(text: str, peer: str, reason: str) -> None:
    """Log `text`, a format for both, unless that was the last that was said of a peer."""
    if _told.get(peer) != reason:
        if len(_told) >= _MOST:
            _told.clear()
        _told[peer] = reason
        _log.warning(text, peer, reason)


def forgive(peer: str) -> None:
    """All is well now: what goes wrong next is told."""
    _told.pop(peer, None)
