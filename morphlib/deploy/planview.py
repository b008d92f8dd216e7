"""A plan as people and programs read it, secrets hidden."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from morphlib.credentials import hide_credentials, hide_passwords
from morphlib.deploy.plan import Deployment, DeployPlan
from morphlib.text import make_printable


def plan_as_data(plan: DeployPlan, secret: Collection[str] = ()) -> Mapping[str, object]:
    """`secret` are names of parameters that extensions call secret."""
    return {
        "cluster": plan.cluster,
        "deployments": [_as_data(deployment, secret) for deployment in plan.deployments],
        "warnings": list(plan.warnings),
    }


def _as_data(deployment: Deployment, secret: Collection[str]) -> dict[str, object]:
    return {
        "name": deployment.name,
        "system": deployment.system,
        "type": deployment.type,
        "location": hide_credentials(deployment.location),
        "upgrade": deployment.upgrade,
        "partial": deployment.partial,
        "components": list(deployment.components),
        "parameters": _shown(deployment, secret),
        "subsystems": [_as_data(subsystem, secret) for subsystem in deployment.subsystems],
    }


def plan_as_text(plan: DeployPlan, secret: Collection[str] = ()) -> str:
    """See `plan_as_data`."""
    lines = (line for each in plan.deployments for line in _lines(each, secret, ""))
    return make_printable("\n".join(lines))


def _lines(deployment: Deployment, secret: Collection[str], indent: str) -> Iterator[str]:
    doing = "upgrade" if deployment.upgrade else "deploy"
    place = hide_credentials(deployment.location)
    yield f"{indent}{deployment.name}: {doing} {deployment.system}"
    yield f"{indent}    with {deployment.type} to {place}"
    for component in deployment.components:
        yield f"{indent}    only {component}"
    for name, value in sorted(_shown(deployment, secret).items()):
        if name not in ("type", "location", "upgrade-type", "upgrade-location", "UPGRADE"):
            yield f"{indent}    {name}={value}"
    for subsystem in deployment.subsystems:
        yield from _lines(subsystem, secret, indent + "    ")


def _shown(deployment: Deployment, secret: Collection[str]) -> dict[str, str]:
    shown = hide_passwords(deployment.configuration, secret)
    return {name: hide_credentials(value) for name, value in shown.items()}
