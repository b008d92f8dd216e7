"""What goes to a builder process and what comes back from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from morphlib.cache.remote import RemoteArtifacts
from morphlib.cache.store import ArtifactStore, Sign
from morphlib.events import AnyEvent
from morphlib.graph.model import BuildGraph
from morphlib.sources.aliases import Aliases
from morphlib.sources.mirrors import MirrorCache
from morphlib.text import make_valid

if TYPE_CHECKING:
    from morphlib.cache.signing import SigningKey


class OnError(StrEnum):
    STOP = "stop"  # start nothing new, let what runs come to its end
    CONTINUE = "continue"  # go on with all that does not need what failed


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How to build: none of it changes what is built.

    `max_jobs` make jobs are shared by all of `builders`. `caller` is the environment of whoever
    builds; of it only what is meant to pass reaches a build. `version` describes the program, and
    `program` is how to call it with the same directories.
    """

    tempdir: Path
    locks: Path
    builders: int
    max_jobs: int
    on_error: OnError = OnError.STOP
    ccache: Path | None = None
    distcc: bool = False
    log_on_stdout: bool = False
    program: tuple[str, ...] = ("morph",)
    caller: Mapping[str, str] = field(default_factory=dict)
    version: Mapping[str, str] = field(default_factory=dict)

    @property
    def layers(self) -> Path:
        return self.tempdir / "chunks"

    @property
    def staging(self) -> Path:
        return self.tempdir / "staging"


@dataclass(frozen=True, slots=True)
class BuildContext:
    """All that a builder works with. Builders are forked, so it needs no form on the wire."""

    graph: BuildGraph
    store: ArtifactStore
    mirrors: MirrorCache
    aliases: Aliases
    options: BuildOptions
    remote: RemoteArtifacts | None = None
    push: RemoteArtifacts | None = None
    signing: SigningKey | None = None

    @property
    def sign(self) -> Sign | None:
        """What signs what is built, if anything does."""
        return self.signing.sign if self.signing is not None else None


class Job(msgspec.Struct, frozen=True, tag=True):
    """Parent to builder: build this source in this slot."""

    source: str
    slot: int
    index: int
    total: int


class Told(msgspec.Struct, frozen=True, tag=True):
    """Builder to parent: something happened."""

    event: AnyEvent


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Builder to parent: the sandbox stands. `problems` are weaker fall-backs, to be told."""

    problems: tuple[str, ...]


class Built(msgspec.Struct, frozen=True, tag=True):
    """Builder to parent: it is built and stored. Times in seconds, memory in bytes."""

    source: str
    duration: float
    cpu: float
    peak_memory: int
    steps: dict[str, float]


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Builder to parent: it could not be built. `message` is for people.

    `fatal` failures would befall any other source as well (a full disk, no sandbox).
    """

    source: str
    message: str
    reason: str
    hint: str | None
    duration: float
    fatal: bool


class Unusable(msgspec.Struct, frozen=True, tag=True):
    """Builder to parent: no sandbox can be had here."""

    message: str
    hint: str | None


FromBuilder = Told | Ready | Built | Failed | Unusable


def encode(message: msgspec.Struct) -> bytes:
    """A message as bytes. What is no UTF-8 in its texts, of a file's name say, as escapes."""
    try:
        return msgspec.msgpack.encode(message)
    except UnicodeEncodeError:
        return msgspec.msgpack.encode(make_valid(msgspec.to_builtins(message)))


decode_job = msgspec.msgpack.Decoder(Job).decode
decode_message = msgspec.msgpack.Decoder(FromBuilder).decode
