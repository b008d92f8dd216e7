"""Clusters for tests of plans."""

from __future__ import annotations

from typing import Any

import yaml

from morphlib.definitions import MappingReader, load_morphology
from morphlib.definitions.models import Cluster
from morphlib.deploy.plan import Circumstances, DeployPlan, make_plan

PATH = "clusters/c.morph"


def load_cluster(*systems: dict[str, Any]) -> Cluster:
    document = {"name": "c", "kind": "cluster", "systems": list(systems)}
    files = {"VERSION": b"version: 8\n", PATH: yaml.safe_dump(document, sort_keys=False).encode()}
    cluster = load_morphology(MappingReader(files), PATH)
    assert isinstance(cluster, Cluster)
    return cluster


def entry(
    system: str, deploy: dict[str, Any], *subsystems: dict[str, Any], **defaults: Any
) -> dict[str, Any]:
    """An entry of a cluster. `defaults` are deploy-defaults."""
    result: dict[str, Any] = {"morph": f"systems/{system}.morph", "deploy": deploy}
    if defaults:
        result["deploy-defaults"] = defaults
    if subsystems:
        result["subsystems"] = list(subsystems)
    return result


def tar(location: str = "x.tar", **parameters: Any) -> dict[str, Any]:
    """A deployment by `tar`; underscores of lower-case names are hyphens."""
    named = {k.replace("_", "-") if k.islower() else k: v for k, v in parameters.items()}
    return {"type": "tar", "location": location, **named}


def plan(cluster: Cluster, *arguments: str, **circumstances: Any) -> DeployPlan:
    circumstances.setdefault("root", "/defs")
    circumstances.setdefault("environment", {})
    return make_plan(cluster, arguments, Circumstances(**circumstances))
