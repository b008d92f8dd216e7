"""Deploy the systems of a cluster, or some of them.

CLUSTER is the file of a cluster in the definitions around the working directory. Without
DEPLOYMENTs all of it is deployed. NAME.KEY=VALUE sets a parameter of the deployment (or subsystem)
NAME for this time; NAME.location=PLACE, for example, deploys to another place.

The systems have to be built. Everything is checked before anything is done. Deployments go side by
side, as many as --builders says. With --plan it is only shown what would be done. With --partial
only the components that the cluster names for it are deployed, to a tar or sysroot.

See docs/deploying.md, `morph help-extensions` for the types of deployments that there are, and
`morph help TYPE.write` for what each takes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePath

from morphlib.cache.ownership import refuse_planted
from morphlib.commands.resolving import Workshop
from morphlib.commands.session import Session
from morphlib.definitions import DirectoryReader, load_morphology
from morphlib.definitions.models import Cluster, System
from morphlib.deploy.plan import Circumstances, DeployPlan, make_plan
from morphlib.errors import MorphError, Reason
from morphlib.sources.checkout import DefinitionsSource


def run(session: Session, arguments: Sequence[str]) -> None:
    if session.settings.upgrade:
        session.warn("morph deploy --upgrade is deprecated: use morph upgrade")
    deploy(session, arguments, "deploy", upgrade=session.settings.upgrade)


def deploy(session: Session, arguments: Sequence[str], command: str, *, upgrade: bool) -> None:
    """Carry out the command `deploy` or `upgrade`. Raises MorphError."""
    if not arguments:
        raise MorphError(
            f"Too few arguments to {command} command",
            reason=Reason.USAGE,
            hint=f"usage: morph {command} CLUSTER [DEPLOYMENT...] [NAME.KEY=VALUE...]",
        )
    from morphlib.deploy.descriptors import reserved_descriptor

    with ExitStack() as stack:
        log = stack.enter_context(reserved_descriptor())
        task = _Task.of(session, arguments, stack, upgrade=upgrade)
        for warning in task.plan.warnings:
            session.warn(warning)
        if session.settings.plan:
            from morphlib.deploy.planview import plan_as_data, plan_as_text

            secret = _secrets(task)
            if session.settings.json:
                session.print_json(plan_as_data(task.plan, secret))
            else:
                session.print(plan_as_text(task.plan, secret))
            return
        _carry_out(session, task, stack, log)


@dataclass(frozen=True, slots=True)
class _Task:
    """What is to be done, and from which definitions."""

    workshop: Workshop
    source: DefinitionsSource
    plan: DeployPlan
    root: Path
    below: str

    @classmethod
    def of(
        cls, session: Session, arguments: Sequence[str], stack: ExitStack, *, upgrade: bool
    ) -> _Task:
        settings = session.settings
        workshop = Workshop.of(session)
        source, (path,) = workshop.open_definitions(arguments[:1])
        root, below = source.root or Path.cwd(), ""
        reader = source.reader
        if source.root is not None:
            below = _below(source.root)
            if settings.local_changes != "include":
                reader = DirectoryReader(source.root)
        cluster = load_morphology(reader, path)
        if not isinstance(cluster, Cluster):
            raise MorphError(
                f"{path} is no cluster: morph deployment commands are only supported for cluster "
                "morphologies.",
                reason=Reason.DEFINITION,
                hint="A cluster says which systems to deploy, and where to.",
            )
        circumstances = Circumstances(
            root=str(root),
            environment=dict(os.environ),
            upgrade=upgrade,
            partial=settings.partial,
            below=below,
        )
        plan = make_plan(cluster, arguments[1:], circumstances)
        return cls(workshop, source, plan, root, below)


def _below(root: Path) -> str:
    here, top = Path.cwd().resolve(), root.resolve()
    relative = here.relative_to(top) if here.is_relative_to(top) else PurePath()
    return "" if relative == PurePath() else relative.as_posix()


def _carry_out(session: Session, task: _Task, stack: ExitStack, log: int) -> None:
    from morphlib.cache.inuse import InUse
    from morphlib.cache.space import check_space
    from morphlib.commands.build import build_context
    from morphlib.deploy.metadata import Versions, describe_definitions
    from morphlib.deploy.model import DeployContext
    from morphlib.deploy.prepare import Supplies, needed_keys, prepare
    from morphlib.deploy.run import run_deployments, run_directory
    from morphlib.version import version_details

    settings, plan, workshop = session.settings, task.plan, task.workshop
    check_space((settings.tempdir, settings.tempdir_min_space))
    refuse_planted(settings.tempdir)
    graphs = dict(zip(plan.systems, workshop.resolve(task.source, plan.systems), strict=True))
    builds = {path: build_context(workshop, graph) for path, graph in graphs.items()}
    supplies = Supplies(
        root=task.root,
        below=task.below,
        systems={path: _load_system(task.source, path) for path in plan.systems},
        builds=builds,
        build_command=[*session.call, "build"],
        server=settings.artifact_cache_server or "",
        listener=session.listener,
    )
    keys = needed_keys(plan, supplies)
    for directory in (settings.cachedir, settings.tempdir):
        stack.enter_context(InUse(directory / "in-use", keys))
    prepared = prepare(plan, supplies)
    for build in builds.values():
        build.store.touch([build.graph.system.key])
    context = DeployContext(
        root=task.root,
        run=stack.enter_context(run_directory(settings.tempdir)),
        versions=Versions(describe_definitions(task.root), version_details()),
        deployments=prepared,
        slots=max(1, min(settings.builders, len(prepared))),
        log=log,
    )
    run_deployments(context, session.listener)
    session.status("Finished deployment")
    if settings.partial:
        session.warn("This was a partial deployment. Configuration extensions have not been run.")


def _secrets(task: _Task) -> frozenset[str]:
    """The parameters that extensions of a plan call secret."""
    from morphlib.deploy.help import secret_parameters
    from morphlib.deploy.prepare import extension_names

    systems = {path: _load_system(task.source, path) for path in task.plan.systems}
    names = {
        name
        for deployment in task.plan.walk()
        for name in extension_names(deployment, systems[deployment.system])
    }
    return frozenset[str]().union(*(secret_parameters(task.root, name) for name in names))


def _load_system(source: DefinitionsSource, path: str) -> System:
    system = load_morphology(source.reader, path)
    if not isinstance(system, System):
        raise MorphError(f"{path} is no system", reason=Reason.DEFINITION)
    return system
