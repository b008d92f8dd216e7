"""Everything that is found out about deployments before anything is done."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from morphlib.build.download import download_source
from morphlib.build.model import BuildContext
from morphlib.cache.trust import find_whole
from morphlib.definitions.models import System
from morphlib.deploy.extensions import (
    Extension,
    ExtensionKind,
    check_interpreter,
    find_extension,
    require_extension,
)
from morphlib.deploy.help import secret_parameters, wants_layers
from morphlib.deploy.model import Prepared
from morphlib.deploy.partial import PartialContent, select_components
from morphlib.deploy.plan import Deployment, DeployPlan
from morphlib.errors import MorphError, Reason, raise_all
from morphlib.events import Listener, Status, silence
from morphlib.graph.model import Source


@dataclass(frozen=True, slots=True)
class Supplies:
    """What a plan is prepared from.

    `root` is the root of the definitions with their extensions, `below` the path from there to the
    working directory. `systems` and `builds` are by path of the system. `build_command` begins a
    command line that builds, `server` is the URL of the artifact server or "". What has to be
    fetched from there is told to `listener`.
    """

    root: Path
    below: str
    systems: Mapping[str, System]
    builds: Mapping[str, BuildContext]
    build_command: Sequence[str]
    server: str
    listener: Listener = silence


def prepare(plan: DeployPlan, supplies: Supplies) -> tuple[Prepared, ...]:
    """Find extensions and artifacts, which are fetched if only a cache server has them.

    Raises MorphError: all that is missing, at once.

    The keys of the systems must be claimed before.
    """
    preparing = _Preparing(supplies)
    prepared = tuple(preparing.prepare(deployment) for deployment in plan.deployments)
    raise_all(preparing.errors.values())
    return tuple(each for each in prepared if each is not None)


def needed_keys(plan: DeployPlan, supplies: Supplies) -> set[str]:
    """The cache keys of all that a plan may read."""
    keys: set[str] = set()
    for path in plan.systems:
        keys.update(source.key for source in supplies.builds[path].graph.sources)
    return keys


def extension_names(deployment: Deployment, system: System) -> Iterator[str]:
    """NAME.KIND of the extensions that have parameters of a deployment of a system."""
    yield f"{deployment.type}.{ExtensionKind.WRITE}"
    for name in system.configuration_extensions:
        yield f"{name}.{ExtensionKind.CONFIGURE}"


@dataclass(slots=True)
class _Preparing:
    supplies: Supplies
    count: int = 0
    errors: dict[str, MorphError] = field(default_factory=dict)  # each told once

    def prepare(self, deployment: Deployment) -> Prepared | None:
        """None if something is missing, which is noted."""
        before = len(self.errors)
        self.count += 1
        number = self.count
        system = self.supplies.systems[deployment.system]
        build = self.supplies.builds[deployment.system]
        check = self._find(deployment, deployment.type, ExtensionKind.CHECK)
        write = self._find(deployment, deployment.type, ExtensionKind.WRITE)
        names = () if deployment.partial else system.configuration_extensions
        found = [self._find(deployment, name, ExtensionKind.CONFIGURE) for name in names]
        configure = tuple(extension for extension in found if extension is not None)
        content = self._select(deployment, build) if deployment.partial else None
        self._check_built(deployment, build, content)
        subsystems = [self.prepare(subsystem) for subsystem in deployment.subsystems]
        if write is None or len(self.errors) > before:
            return None
        return Prepared(
            number=number,
            deployment=deployment,
            build=build,
            check=check,
            configure=configure,
            write=write,
            secret=self._secret(deployment, system),
            content=content,
            subsystems=tuple(each for each in subsystems if each is not None),
            wants_layers=wants_layers(self.supplies.root, write.full_name),
        )

    def _find(self, deployment: Deployment, name: str, kind: ExtensionKind) -> Extension | None:
        try:
            if kind is ExtensionKind.CHECK:
                extension = find_extension(self.supplies.root, name, kind)
                if extension is None:
                    return None
            else:
                extension = require_extension(self.supplies.root, name, kind)
            check_interpreter(extension, deployment.environment)
        except MorphError as error:
            self._note(error)
            return None
        return extension

    def _secret(self, deployment: Deployment, system: System) -> frozenset[str]:
        """Configure extensions count also where they are not run: the parameters are there."""
        names: set[str] = set()
        for name in extension_names(deployment, system):
            try:
                names |= secret_parameters(self.supplies.root, name)
            except MorphError as error:
                self._note(error)
        return frozenset(names)

    def _select(self, deployment: Deployment, build: BuildContext) -> PartialContent | None:
        try:
            return select_components(build.graph, deployment.components, self.supplies.below)
        except MorphError as error:
            self._note(error)
            return None

    def _check_built(
        self, deployment: Deployment, build: BuildContext, content: PartialContent | None
    ) -> None:
        graph, store = build.graph, build.store
        wanted: dict[str, tuple[Source, list[str]]] = {}
        if content is not None:
            for ref in content.chunks:
                source = graph.source(ref)
                wanted.setdefault(source.id, (source, []))[1].append(source.filename(ref.name))
        elif not deployment.partial:
            system = graph.system
            wanted[system.id] = (system, [system.filename(system.artifacts[0])])
        present = store.check_many({source.key: names for source, names in wanted.values()})
        missing = [(s, names) for s, names in wanted.values() if s.key not in present]
        found = self._on_server(build, [source for source, _ in missing])
        for source, names in missing:
            if source.id not in found:
                self._note(self._not_built(deployment, source, names[0]))
                continue
            try:
                self._fetch(build, source)
            except MorphError as error:
                self._note(error)

    def _on_server(self, build: BuildContext, sources: Sequence[Source]) -> set[str]:
        """The ids of those sources that the cache server has, asked for with one request."""
        if build.remote is None:
            return set()
        found = find_whole(build.remote, {source.key: source.filenames() for source in sources})
        return {source.id for source in sources if source.key in found}

    def _fetch(self, build: BuildContext, source: Source) -> None:
        assert build.remote is not None
        for name in source.artifacts:
            text = f"Fetching to local cache: artifact {name}"
            self.supplies.listener(Status(text=text, source=source.name))
        download_source(build.store, build.remote, source)

    def _not_built(self, deployment: Deployment, source: Source, name: str) -> MorphError:
        server = self.supplies.server
        where = f" (nor on the cache server {server})" if server else ""
        command = shlex.join([*self.supplies.build_command, deployment.system])
        return MorphError(
            f"Deployment failed as {name} is not present in the artifact cache{where}. "
            f"Please ensure that {source.name} is built before deployment.",
            reason=Reason.NOT_FOUND,
            hint=f"To build it: {command}",
        )

    def _note(self, error: MorphError) -> None:
        self.errors.setdefault(str(error), error)
