"""What the parties of a distributed build say to each other, as frozen typed values.

A connection begins with a `Hello` from each side. After that each side says only what its role may
say: the unions at the end of this module, and those of `distbuild.workermessages`. Times are
seconds, sizes bytes. Fields that a message does not have are refused, so that a misspelt one is
noticed.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

#: Of what is said here. Versions up to 4 were JSON strings of YAML (`distbuild.oldprotocol`).
PROTOCOL_VERSION = 5

Id = Annotated[str, Meta(pattern=r"\A[0-9A-Za-z][0-9A-Za-z._:-]{0,99}\Z")]
Key = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
#: One line of text that names something. No control characters: names end up in logs and paths.
Name = Annotated[str, Meta(pattern=r"\A[^\x00-\x1f\x7f]{1,1000}\Z")]
Text = Annotated[str, Meta(max_length=65_536)]
#: A piece of output. In JSON its bytes are in base64.
Bytes = Annotated[bytes, Meta(max_length=65_536)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Seconds = Annotated[float, Meta(ge=0, le=10**9)]
Port = Annotated[int, Meta(ge=1, le=65_535)]


class Role(StrEnum):
    INITIATOR = "initiator"
    CONTROLLER = "controller"
    WORKER = "worker"
    HELPER = "helper"


def _tag(name: str) -> str:
    """`BuildRequest` as `build-request`."""
    return "".join("-" + c.lower() if c.isupper() else c for c in name).lstrip("-")


class Message(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    tag=_tag,
):
    """What one line holds."""


class Hello(Message, frozen=True):
    """The first line of each side. `protocol` alone decides whether the two understand each other.

    `nonce` is random; the other side proves with it that it knows the secret (`Proof`).
    """

    role: Role
    protocol: int
    program: Name
    nonce: Annotated[str, Meta(min_length=16, max_length=100)]


class Proof(Message, frozen=True):
    """The second line of each side, where a secret is shared: an HMAC over both hellos."""

    value: Key


class Refused(Message, frozen=True):
    """The last line of a connection that one side does not want. `reason` is for people."""

    reason: Text


class Ping(Message, frozen=True):
    """Said when there was nothing else to say for a while."""


# ---- Initiator to controller -----------------------------------------------------------------


class BuildRequest(Message, frozen=True):
    """Build a system, or components of it. `ref` is a commit, `original_ref` what it came from.

    A build that may be detached from goes on when its initiator leaves. Of several, those with the
    higher priority go first.
    """

    id: Id
    repo: Name
    ref: Name
    morphology: Name
    original_ref: Name | None = None
    components: Annotated[tuple[Name, ...], Meta(max_length=10_000)] = ()
    allow_detach: bool = False
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0


class BuildAttach(Message, frozen=True):
    """Follow a build that was asked for earlier. `build` is its public id, as people type it."""

    id: Id
    build: Text


class BuildCancel(Message, frozen=True):
    id: Id
    build: Text


class BuildStatus(Message, frozen=True):
    id: Id
    build: Text


class ListRequests(Message, frozen=True):
    id: Id


# ---- Controller to initiator: `build` is the public id of a build ------------------------------


class GraphingStarted(Message, frozen=True):
    build: Id


class GraphingFinished(Message, frozen=True):
    build: Id


class BuildStarted(Message, frozen=True):
    build: Id


class CacheState(Message, frozen=True):
    """`built`: how many of those that were unbuilt are built by now. `estimate`: of what is left,
    where earlier builds tell."""

    build: Id
    unbuilt: Count
    total: Count
    built: Count = 0
    system: Name | None = None
    estimate: Seconds | None = None


class BuildProgress(Message, frozen=True):
    """A line for people. Where it is about one step, `step_name` and `doing` say so to programs."""

    build: Id
    message: Text
    step_name: Name | None = None
    doing: Literal["transfer", "retry"] | None = None


class StepStarted(Message, frozen=True):
    """`elapsed`: since when it runs. `estimate`: how long it takes, where earlier builds tell."""

    build: Id
    step_name: Name
    worker_name: Name
    kind: Name | None = None
    key: Key | None = None
    elapsed: Seconds = 0.0
    estimate: Seconds | None = None


class StepAlreadyStarted(Message, frozen=True):
    """As StepStarted, of one that was begun for somebody else, or before its follower came."""

    build: Id
    step_name: Name
    worker_name: Name
    kind: Name | None = None
    key: Key | None = None
    elapsed: Seconds = 0.0
    estimate: Seconds | None = None


class StepOutput(Message, frozen=True):
    """A piece of what a step printed, at byte `offset` of what `job`, an attempt at it, printed.
    What is said again after something was lost is known by that."""

    build: Id
    step_name: Name
    job: Id | None = None
    offset: Count = 0
    stdout: Bytes = b""
    stderr: Bytes = b""


class StepPhase(Message, frozen=True):
    """What is done for a step now: what a local build calls its steps."""

    build: Id
    step_name: Name
    phase: Name


class StepFinished(Message, frozen=True):
    build: Id
    step_name: Name
    worker_name: Name


class StepFailed(Message, frozen=True):
    """`phase` and `exit_code` are those of the command that failed."""

    build: Id
    step_name: Name
    phase: Name | None = None
    exit_code: int | None = None


class BuildFinished(Message, frozen=True):
    build: Id
    urls: tuple[Name, ...]


class BuildFailed(Message, frozen=True):
    build: Id
    reason: Text


class BuildCancelled(Message, frozen=True):
    build: Id


class RequestOutput(Message, frozen=True):
    """Answer to a question. `found` is false where there is no such build."""

    id: Id
    message: Text
    found: bool = True


FromInitiator = BuildRequest | BuildAttach | BuildCancel | BuildStatus | ListRequests | Ping
ToInitiator = (
    GraphingStarted
    | GraphingFinished
    | BuildStarted
    | CacheState
    | BuildProgress
    | StepStarted
    | StepAlreadyStarted
    | StepPhase
    | StepOutput
    | StepFinished
    | StepFailed
    | BuildFinished
    | BuildFailed
    | BuildCancelled
    | RequestOutput
    | Refused
    | Ping
)
