"""The words behind CLUSTER on the command line: which deployments, and variables for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from morphlib.definitions.models import Cluster, ClusterSystem
from morphlib.errors import MorphError, Reason


@dataclass(slots=True)
class Request:
    """What the words ask for. `selected` is empty where all deployments are meant."""

    selected: list[str] = field(default_factory=list)
    variables: dict[str, dict[str, str]] = field(default_factory=dict)  # by deployment
    errors: list[MorphError] = field(default_factory=list)


def parse_arguments(cluster: Cluster, arguments: Sequence[str]) -> Request:
    """Sort out the words: names of deployments, then NAME.KEY=VALUE. All errors are gathered.

    Names of deployments may have dots and `=` in them: of those that fit the longest counts.
    """
    return _Parsing(cluster).parse(arguments)


class _Parsing:
    def __init__(self, cluster: Cluster) -> None:
        self.top = dict.fromkeys(name for system in cluster.systems for name in system.deploy)
        self.nested = dict.fromkeys(
            name for system in cluster.systems for name in _names(system.subsystems)
        )
        self.known = {**self.top, **self.nested}
        self.request = Request()

    def parse(self, arguments: Sequence[str]) -> Request:
        rest = list(arguments)
        while rest and rest[0] in self.top:
            name = rest.pop(0)
            if name in self.request.selected:
                self._wrong(f"Deployment {name} is named twice")
            self.request.selected.append(name)
        for argument in rest:
            self._add_variable(argument)
        return self.request

    def _add_variable(self, argument: str) -> None:
        fitting = [name for name in self.known if argument.startswith(f"{name}.")]
        if argument in self.top:
            self._wrong(
                f"The deployment {argument} is named behind a variable",
                "Names of deployments come first, then variables.",
            )
        elif argument in self.nested:
            self._wrong(
                "Cannot directly deploy subsystems. Create a top level deployment for the "
                f"subsystem {argument} instead.",
                reason=Reason.NOT_FOUND,
            )
        elif not fitting:
            self._unknown(argument)
        else:
            name = max(fitting, key=len)
            self._set(name, argument.removeprefix(f"{name}."), argument)

    def _set(self, name: str, assignment: str, argument: str) -> None:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            self._wrong(f"{argument} sets no variable", f"Write {name}.KEY=VALUE.")
            return
        variables = self.request.variables.setdefault(name, {})
        if key in variables:
            self._wrong(f"{name}.{key} is set twice")
        variables[key] = value

    def _unknown(self, argument: str) -> None:
        word = argument.partition("=")[0]
        near = get_close_matches(word, self.top, n=1) or get_close_matches(
            word.rpartition(".")[0], self.known, n=1
        )
        hint = f"Did you mean {near[0]}?" if near else None
        if hint is None and self.known:
            hint = f"The cluster has {', '.join(self.known)}."
        self._wrong(
            f"Variable referenced a non-existent deployment name: {argument}",
            hint,
            reason=Reason.NOT_FOUND,
        )

    def _wrong(
        self, message: str, hint: str | None = None, *, reason: Reason = Reason.USAGE
    ) -> None:
        self.request.errors.append(MorphError(message, reason=reason, hint=hint))


def _names(systems: Iterable[ClusterSystem]) -> Iterable[str]:
    for system in systems:
        yield from system.deploy
        yield from _names(system.subsystems)


def is_selected(request: Request, deploy: Mapping[str, object]) -> list[str]:
    """Of the deployments of an entry, those that are wanted, in the order of the file."""
    return [name for name in deploy if not request.selected or name in request.selected]
