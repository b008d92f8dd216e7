"""The values that pass between the processes of a deployment, and what they work with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from morphlib.build.model import BuildContext
from morphlib.deploy.extensions import Extension
from morphlib.deploy.metadata import Versions
from morphlib.deploy.partial import PartialContent
from morphlib.deploy.plan import Deployment
from morphlib.events import AnyEvent
from morphlib.text import make_valid


@dataclass(frozen=True, slots=True)
class Prepared:
    """A deployment with all that was found for it before anything is done.

    `number` is unique in a run and names its directories. `content` is there for partial
    deployments only. `secret` are names of parameters that extensions call secret. `wants_layers`
    says that the write extension makes use of the system's layers.
    """

    number: int
    deployment: Deployment
    build: BuildContext  # the graph of its system, and where that is stored
    check: Extension | None
    configure: tuple[Extension, ...]
    write: Extension
    secret: frozenset[str]
    content: PartialContent | None
    subsystems: tuple[Prepared, ...] = ()
    wants_layers: bool = False

    def walk(self) -> Iterator[Prepared]:
        yield self
        for subsystem in self.subsystems:
            yield from subsystem.walk()

    @property
    def artifact(self) -> str:
        return self.build.graph.system.artifacts[0]


@dataclass(frozen=True, slots=True)
class DeployContext:
    """One run. `root` is the root of the definitions, `run` the run's own directory.

    `slots` deployments go side by side. `log` is a descriptor reserved for what extensions log.
    """

    root: Path
    run: Path
    versions: Versions
    deployments: tuple[Prepared, ...]
    slots: int
    log: int

    @property
    def python(self) -> Path:
        """A directory in which extensions find Morph's library and nothing else of Morph."""
        return self.run / "python"

    def work(self, prepared: Prepared) -> Path:
        """The directory in which the tree of a deployment is put together, as `root`."""
        return self.run / str(prepared.number)


class Job(msgspec.Struct, frozen=True, tag=True):
    """Parent to worker: check this deployment, or carry it out."""

    index: int
    checking: bool


class Told(msgspec.Struct, frozen=True, tag=True):
    """Worker to parent: something happened."""

    event: AnyEvent


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Worker to parent: its namespaces stand. `problems` are weaker ways, to be told."""

    problems: tuple[str, ...]


class Done(msgspec.Struct, frozen=True, tag=True):
    """Worker to parent: the job is done. `errors` are what was wrong: (message, reason, hint)."""

    index: int
    errors: tuple[tuple[str, str, str | None], ...] = ()


class Unusable(msgspec.Struct, frozen=True, tag=True):
    """Worker to parent: no namespaces can be had here."""

    message: str
    hint: str | None


FromWorker = Told | Ready | Done | Unusable


def encode(message: msgspec.Struct) -> bytes:
    """A message as bytes. What is no UTF-8 in its texts as escapes."""
    try:
        return msgspec.msgpack.encode(message)
    except UnicodeEncodeError:
        return msgspec.msgpack.encode(make_valid(msgspec.to_builtins(message)))


decode_job = msgspec.msgpack.Decoder(Job).decode
decode_message = msgspec.msgpack.Decoder(FromWorker).decode
