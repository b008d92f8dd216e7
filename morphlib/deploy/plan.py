"""What a run of deploy will do: a pure function of cluster, command line and environment."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from morphlib.definitions.models import Cluster, ClusterSystem
from morphlib.deploy.arguments import Request, is_selected, parse_arguments
from morphlib.deploy.clashes import find_clashes
from morphlib.deploy.parameters import (
    inherited,
    is_yes,
    problems_of_names,
    sanitise_values,
    with_python_path,
)
from morphlib.deploy.partial import components_of, partial_problems
from morphlib.deploy.times import newest_time
from morphlib.errors import MorphError, Reason, raise_all

#: Write extensions whose partial deployments make sense.
PARTIAL_TYPES = ("tar", "sysroot")


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a plan depends on besides cluster and words.

    `root` is the root of the definitions, `below` the path from there to the working directory ("",
    if that is the root or elsewhere), `environment` the caller's.
    """

    root: str
    environment: Mapping[str, str]
    upgrade: bool = False
    partial: bool = False
    below: str = ""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One system that is put somewhere, or into the tree of another.

    `location` is as written. `environment` is all that extensions get (UPGRADE, PYTHONPATH and the
    caller's own variables included), `configuration` the parameters alone, which the deployed
    system keeps unless they are secret. `components` are paths of definitions, for partial
    deployments. `prefix` is what lines about it begin with.
    """

    name: str
    system: str  # path of the system's definition
    type: str
    location: str
    upgrade: bool
    partial: bool
    prefix: str
    components: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    configuration: Mapping[str, str] = field(default_factory=dict, repr=False)
    subsystems: tuple[Deployment, ...] = ()

    def walk(self) -> Iterator[Deployment]:
        """This one and all that are deployed inside of it, in the order in which they are made."""
        yield self
        for subsystem in self.subsystems:
            yield from subsystem.walk()


@dataclass(frozen=True, slots=True)
class DeployPlan:
    """The deployments of a run, in the order of the file."""

    cluster: str  # path of its definition
    deployments: tuple[Deployment, ...]
    warnings: tuple[str, ...] = ()

    def walk(self) -> Iterator[Deployment]:
        for deployment in self.deployments:
            yield from deployment.walk()

    @property
    def systems(self) -> tuple[str, ...]:
        """The paths of all systems, each once."""
        return tuple(dict.fromkeys(deployment.system for deployment in self.walk()))


def make_plan(
    cluster: Cluster, arguments: Sequence[str], circumstances: Circumstances
) -> DeployPlan:
    """Work out what to do. Raises MorphError: all that is wrong, at once."""
    request = parse_arguments(cluster, arguments)
    planning = _Planning(cluster, request, circumstances)
    deployments = planning.plan()
    raise_all(planning.errors)
    return DeployPlan(cluster.path, deployments, tuple(dict.fromkeys(planning.warnings)))


class _Planning:
    def __init__(self, cluster: Cluster, request: Request, circumstances: Circumstances) -> None:
        self.cluster = cluster
        self.request = request
        self.circumstances = circumstances
        self.caller = inherited(circumstances.environment)
        self.errors = list(request.errors)
        self.warnings: list[str] = []

    def plan(self) -> tuple[Deployment, ...]:
        found = [
            self._deployment(entry, name, "", nested=False)
            for entry in self.cluster.systems
            for name in is_selected(self.request, entry.deploy)
        ]
        if not found and not self.errors:
            self._wrong(f"{self.cluster.path} has no deployments")
        if not self.errors:
            for problem in find_clashes(self.circumstances.root, found):
                self._wrong(problem)
        planned = {deployment.name for each in found for deployment in each.walk()}
        for name in self.request.variables:
            if name not in planned:
                self.warnings.append(f"Variables of {name} are ignored: it is not deployed now")
        return tuple(found)

    def _deployment(
        self, entry: ClusterSystem, name: str, prefix: str, *, nested: bool
    ) -> Deployment:
        raw = {**entry.deploy_defaults, **entry.deploy[name]}
        given = self.request.variables.get(name, {})
        merged, own = self._merge(name, raw, given)
        upgrade = self._is_upgrade(merged, nested=nested)
        merged["UPGRADE"] = own["UPGRADE"] = "yes" if upgrade else "no"
        kind, location = self._target(name, merged, upgrade=upgrade)
        self._check_target(name, kind, location, nested=nested)
        self._check_time(merged)
        environment = with_python_path(
            merged, posixpath.join(self.circumstances.root, posixpath.dirname(kind)).rstrip("/")
        )
        prefix = f"{prefix}[{entry.morph}][{name}]"
        partial = self.circumstances.partial
        return Deployment(
            name=name,
            system=entry.morph,
            type=kind,
            location=location,
            upgrade=upgrade,
            partial=partial,
            prefix=prefix,
            components=self._components(name, entry, kind, raw, given) if partial else (),
            environment=environment,
            configuration=own,
            subsystems=tuple(self._subsystems(entry.subsystems, prefix)),
        )

    def _subsystems(self, entries: Iterable[ClusterSystem], prefix: str) -> Iterator[Deployment]:
        for entry in entries:
            for name in entry.deploy:
                yield self._deployment(entry, name, prefix, nested=True)

    def _merge(
        self, name: str, raw: Mapping[str, Any], given: Mapping[str, str]
    ) -> tuple[dict[str, str], dict[str, str]]:
        """The whole environment of a deployment, and of it the deployment's own parameters."""
        unnamed = [key for key in raw if not isinstance(key, str)]
        for key in unnamed:
            self._wrong(f'{key!r} can\'t be the name of a variable of deployment "{name}"')
        written = sanitise_values({k: v for k, v in raw.items() if isinstance(k, str)})
        for key, value in written.items():
            if key not in given and self.caller.get(key, value) != value:
                self.warnings.append(
                    f"{key} from the environment overrides {key} of deployment {name} in "
                    f"{self.cluster.path}"
                )
        merged = {**written, **self.caller, **given}
        own = {key: merged[key] for key in (*written, *given)}
        for problem in problems_of_names(own):
            self._wrong(f'{problem} (deployment "{name}")')
        return merged, own

    def _is_upgrade(self, merged: Mapping[str, str], *, nested: bool) -> bool:
        if "UPGRADE" in merged:
            return is_yes(merged["UPGRADE"])
        return self.circumstances.upgrade and not nested

    def _target(self, name: str, merged: Mapping[str, str], *, upgrade: bool) -> tuple[str, str]:
        """Type and location; "" for what is missing, which is told."""
        names = ("type", "location")
        if upgrade:
            present = [each for each in names if merged.get(f"upgrade-{each}")]
            if len(present) == 1:
                missing = "location" if present == ["type"] else "type"
                self._wrong(
                    f'"upgrade-{present[0]}" was set for system {name}, but not "upgrade-{missing}"'
                )
                return "", ""
            if present:
                return merged["upgrade-type"], merged["upgrade-location"]
            self.warnings.append(
                f'"upgrade-type" and "upgrade-location" were not specified for system {name}, '
                'using "type" and "location"'
            )
        for each in names:
            if not merged.get(each):
                self._wrong(f'"{each}" is undefined for system "{name}"')
        return merged.get("type", ""), merged.get("location", "")

    def _check_target(self, name: str, kind: str, location: str, *, nested: bool) -> None:
        if kind and not is_extension_name(kind):
            self._wrong(f'"{kind}", the type of deployment "{name}", can\'t name an extension')
        if nested and ".." in location.split("/"):
            self._wrong(
                f'the location "{location}" of subsystem "{name}" leads out of the system that it '
                "is deployed into"
            )

    def _check_time(self, merged: Mapping[str, str]) -> None:
        try:
            newest_time(merged)
        except MorphError as error:
            if error.message not in (each.message for each in self.errors):
                self.errors.append(error)

    def _components(
        self,
        name: str,
        entry: ClusterSystem,
        kind: str,
        raw: Mapping[str, Any],
        given: Mapping[str, str],
    ) -> tuple[str, ...]:
        if kind and posixpath.basename(kind) not in PARTIAL_TYPES:
            self._wrong(
                f"Not deploying {entry.morph}, --partial was set and partial deployment only "
                f"supports {', '.join(PARTIAL_TYPES)} deployments."
            )
            return ()
        key = "partial-deploy-components"
        found = components_of(given.get(key, raw.get(key)))
        for problem in partial_problems(found, name):
            self._wrong(problem)
        return found or ()

    def _wrong(self, message: str) -> None:
        self.errors.append(MorphError(message, reason=Reason.DEPLOY))


def is_extension_name(name: str) -> bool:
    """Can it name an extension, in the definitions or built in, and nothing outside of them?"""
    parts = name.split("/")
    return "\0" not in name and all(part not in ("", ".", "..", ".git") for part in parts)
