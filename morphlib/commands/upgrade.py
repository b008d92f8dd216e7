"""Upgrade what the deployments of a cluster made before.

This is `morph deploy`, but for two things: what a deployment says as upgrade-type and
upgrade-location takes the place of its type and location, and extensions know that they upgrade
something. See `morph help deploy`.
"""

from __future__ import annotations

from collections.abc import Sequence

from morphlib.commands.deploy import deploy
from morphlib.commands.session import Session


def run(session: Session, arguments: Sequence[str]) -> None:
    deploy(session, arguments, "upgrade", upgrade=True)
