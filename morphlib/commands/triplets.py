"""Commands that take REPO REF MORPHOLOGY on their command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from morphlib.commands.session import Session
from morphlib.errors import MorphError, Reason


def with_repo(session: Session, repo: str, ref: str) -> Session:
    """The session as it would be with --repo and --ref."""
    return replace(session, settings=replace(session.settings, repo=repo, ref=ref))


def triplets(arguments: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Raises MorphError (USAGE) unless there are whole triplets."""
    if not arguments or len(arguments) % 3:
        raise MorphError(
            "Argument list must have full triplets",
            reason=Reason.USAGE,
            hint="Give REPO REF MORPHOLOGY, once or several times.",
        )
    for start in range(0, len(arguments), 3):
        repo, ref, morphology = arguments[start : start + 3]
        yield repo, ref, morphology
