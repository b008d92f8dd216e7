"""The tree of a system that is being deployed: there in an instant, and changed at will.

It is an overlay of the system's layers with a directory for what changes, so it costs what the
deployment changes. What is in it is what unpacking the system's artifact would give. Where no
overlay can be had, the system is copied.

Hard links: writing to one name of a file that has several changes that name alone, as it does when
systems are put together.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from morphlib.build.layers import Layer, discard_layer, layer_from_tar, layer_name, load_layer
from morphlib.build.members import MTIME_NS, Member
from morphlib.build.metadata import stratum_metadata
from morphlib.build.removal import remove_tree
from morphlib.build.slots import BusySlots
from morphlib.build.staging import stage_writable
from morphlib.build.workbench import Workbench
from morphlib.cache.locks import KeyLocks
from morphlib.deploy.metadata import write_timeless
from morphlib.deploy.model import Prepared
from morphlib.errors import MorphError, Reason
from morphlib.events import AnyEvent


@dataclass(frozen=True, slots=True)
class SystemTree:
    """A tree that is there. `devices` are nodes for which it has empty files only; `changed` has,
    at the same paths, at least what was changed; `fallback` says why it is a copy, if it is one.
    `base` is what MORPH_BASE tells: see `writeexts.base`."""

    root: Path
    devices: tuple[Member, ...]
    layers: tuple[Layer, ...]
    changed: Path
    fallback: str | None
    base: Mapping[str, str] | None


@contextmanager
def system_tree(
    prepared: Prepared, work: Path, tell: Callable[[AnyEvent], None]
) -> Iterator[SystemTree]:
    """The tree of a deployment's system, or of some of its components, at `work`/root.

    `work` is made, and nothing is left of it. Raises MorphError.
    """
    layers = _partial_layers(prepared, tell) if prepared.content else [system_layer(prepared)]
    work.mkdir(mode=0o700)
    try:
        with stage_writable(layers, work) as staged:
            devices = make_devices(staged.root, staged.devices)
            if prepared.content:
                _add_stratum_metadata(prepared, staged.root)
            base = None
            if staged.fallback is None and prepared.content is None:
                base = {
                    "artifact": str(_artifact(prepared)),
                    "tree": str(layers[0].root),
                    "changes": str(staged.changed),
                }
            yield SystemTree(
                staged.root, devices, tuple(layers), staged.changed, staged.fallback, base
            )
    finally:
        remove_tree(work)


def _artifact(prepared: Prepared) -> Path:
    source = prepared.build.graph.system
    return prepared.build.store.path(source.filename(source.artifacts[0]))


def system_layer(prepared: Prepared) -> Layer:
    """The layer of a system's artifact, made of that if it is not there. Raises MorphError."""
    options, store = prepared.build.options, prepared.build.store
    source = prepared.build.graph.system
    name = source.filename(source.artifacts[0])
    directory = options.layers / layer_name(name)
    with KeyLocks(options.locks).acquire(f"{source.key}-layer"):
        layer = load_layer(directory, may_fork=True)
        if layer is not None:
            return layer
        discard_layer(directory)
        if not store.check(source.key, [name]):
            raise MorphError(
                f"The artifact of {source.name} vanished or was damaged while it was needed",
                reason=Reason.CACHE,
                hint="Build it again.",
            )
        options.layers.mkdir(parents=True, exist_ok=True)
        return layer_from_tar(store.path(name), directory)


def _partial_layers(prepared: Prepared, tell: Callable[[AnyEvent], None]) -> Sequence[Layer]:
    assert prepared.content is not None
    bench = Workbench(prepared.build, 0, BusySlots(1), tell)
    return bench.fold(bench.layers_of(prepared.content.chunks))


def _add_stratum_metadata(prepared: Prepared, root: Path) -> None:
    assert prepared.content is not None
    build = prepared.build
    for stratum in prepared.content.strata:
        content = stratum_metadata(build.graph, stratum, build.options.version)
        write_timeless(root, f"baserock/{stratum.name}.meta", content)


def make_devices(root: Path, devices: Sequence[Member]) -> tuple[Member, ...]:
    """Put device nodes in the place of the empty files that stand for them, where that is allowed.

    Returns those for which it is not.
    """
    left = []
    for device in devices:
        path = root / device.path
        aside = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
        try:
            os.mknod(aside, device.mode, device.device)
        except PermissionError:
            left.append(device)
            continue
        os.chown(aside, device.uid, device.gid)
        aside.chmod(device.mode & 0o7777)
        os.utime(aside, ns=MTIME_NS)
        aside.rename(path)
        os.utime(path.parent, ns=MTIME_NS)
    return tuple(left)


def describe_devices(devices: Iterable[Member]) -> dict[str, dict[str, int]]:
    """Path -> what the empty file there stands for, as numbers."""
    return {
        device.path: {
            "mode": device.mode,
            "uid": device.uid,
            "gid": device.gid,
            "major": os.major(device.device),
            "minor": os.minor(device.device),
        }
        for device in devices
    }


def device_table(devices: Sequence[Member]) -> bytes:
    """The JSON that MORPH_DEVICE_TABLE names."""
    return json.dumps(describe_devices(devices), indent=2).encode()
