"""Split rules: which artifacts a source has, and what goes into which.

Rules are ordered and the first that matches wins. Patterns are matched at the start of the text and
are not anchored at its end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from morphlib.definitions import models
from morphlib.definitions.models import Chunk, ChunkSpec, Stratum, StratumSpec
from morphlib.graph.model import SplitRule


def chunk_rules(chunk: Chunk, defaults: Sequence[models.SplitRule]) -> tuple[SplitRule, ...]:
    """The rules for the files of a chunk: its products, then the defaults.

    A default rule whose full artifact name a product has already is left out altogether.
    """
    return _with_defaults(chunk.name, chunk.products, defaults)


def _with_defaults(
    name: str, products: Sequence[models.SplitRule], defaults: Sequence[models.SplitRule]
) -> tuple[SplitRule, ...]:
    defined = {rule.artifact for rule in products}
    rules = [SplitRule(rule.artifact, rule.include) for rule in products]
    for rule in defaults:
        artifact = name + rule.artifact
        if artifact not in defined:
            rules.append(SplitRule(artifact, rule.include))
    return tuple(rules)


def artifact_names(rules: Iterable[SplitRule]) -> tuple[str, ...]:
    """The artifacts that rules name, in the order in which they first appear."""
    return tuple(dict.fromkeys(rule.artifact for rule in rules))


@lru_cache(maxsize=4096)
def _alternatives(patterns: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern) for pattern in patterns)


class StratumSplit:
    """What goes into which artifact of one stratum.

    Explicit assignments of chunk specs come first, then the stratum's products, then the default
    rules. Assignments do not keep a default rule out; products of the same name do.
    """

    def __init__(self, stratum: Stratum, defaults: Sequence[models.SplitRule]) -> None:
        self._assigned = {
            (spec.name, artifact): target
            for spec in stratum.chunks
            for artifact, target in spec.artifacts
        }
        self._rules = _with_defaults(stratum.name, stratum.products, defaults)
        self._cache: dict[str, str | None] = {}
        #: every artifact that a rule names, be it empty
        self.artifacts = tuple(
            dict.fromkeys([*self._assigned.values(), *artifact_names(self._rules)])
        )

    def artifact_for(self, spec: ChunkSpec, chunk_artifact: str) -> str | None:
        """The stratum artifact that a chunk artifact goes into, or None for nowhere."""
        assigned = self._assigned.get((spec.name, chunk_artifact))
        return assigned if assigned is not None else self._match(chunk_artifact)

    def _match(self, chunk_artifact: str) -> str | None:
        if chunk_artifact not in self._cache:
            self._cache[chunk_artifact] = next(
                (
                    rule.artifact
                    for rule in self._rules
                    if any(p.match(chunk_artifact) for p in _alternatives(rule.include))
                ),
                None,
            )
        return self._cache[chunk_artifact]


def selected(spec: StratumSpec, artifacts: Sequence[str]) -> tuple[str, ...]:
    """The artifacts of a stratum that a system takes: all, or those that it lists."""
    if spec.artifacts is None:
        return tuple(artifacts)
    return tuple(artifact for artifact in artifacts if artifact in spec.artifacts)
