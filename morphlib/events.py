"""What happens, told to whoever wants to show it.

The stages emit these values to a `Listener`; a console, JSON lines and silence implement it. As
JSON each event is an object with its class in snake case as `event`, so the stream has a schema:
the fields below. Times are seconds since the epoch, durations seconds, sizes bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """Anything that is told."""


class Status(Event, frozen=True, tag="status"):
    """A line for people. `chatty` ones are shown with --debug only, errors always."""

    text: str
    level: Literal["normal", "chatty", "error", "warning"] = "normal"
    source: str = ""  # name of the source that is built, where it is about one


class BuildStarted(Event, frozen=True, tag="build_started"):
    target: str  # name of the system
    total: int  # sources reachable from what is being built
    cached: int  # of these, how many need no work
    slots: int
    estimate: float | None = None  # seconds until done, from earlier builds
    fetch: int = 0  # of those that need work, how many are to come from a cache server
    remote: bool = False  # other machines build; slots are not known then
    built: int = 0  # how many were built before we came to look


class PlanRevised(Event, frozen=True, tag="plan_revised"):
    """What was to be fetched can't be, so there is more to do than BuildStarted told."""

    total: int
    cached: int  # of these, how many need no work, and did not from the beginning


class SourceStarted(Event, frozen=True, tag="source_started"):
    """A source begins to be built. `index` counts from 1 in build order."""

    name: str
    kind: str
    key: str
    index: int
    total: int
    slot: int
    estimate: float | None = None
    worker: str = ""  # the machine that builds it, where that is another
    joined: bool = False  # it was begun for somebody else, or before we came to look
    elapsed: float = 0.0  # for how long it has been built


class StepStarted(Event, frozen=True, tag="step_started"):
    name: str  # of the source
    key: str
    step: str  # "fetch", "stage", one of STEPS, "split", "store", "integrate", "transfer", ...
    slot: int
    worker: str = ""  # the machine where it is done, if that is another


class BuildOutput(Event, frozen=True, tag="build_output"):
    """What a source's build printed, as it prints it; told with build-log-on-stdout only."""

    name: str  # of the source
    key: str
    text: str  # whole lines; bytes that are no UTF-8 as backslash escapes


class SourceFinished(Event, frozen=True, tag="source_finished"):
    """A source ended: built, fetched from a cache server, found in a cache, or failed.

    One that is lost may be built again: its worker is gone, or we don't hear of it any more.
    """

    name: str
    kind: str
    key: str
    index: int
    total: int
    outcome: Literal["built", "cached", "failed", "waited", "fetched", "lost"]
    duration: float = 0.0
    cpu: float = 0.0
    peak_memory: int = 0
    slot: int | None = None
    worker: str = ""  # the machine that built it, where that is another


class SourceFailed(Event, frozen=True, tag="source_failed"):
    """Why a build failed, with all that helps to mend it."""

    name: str
    key: str
    step: str
    exit_code: int | None
    log: str  # path of the build log
    tail: tuple[str, ...]  # the log's last lines
    staging: str  # path of the staging area that was kept; "" where that is not known
    shell: str  # command that steps into it
    worker: str = ""  # the machine where it failed, if that is another


class ArtifactCached(Event, frozen=True, tag="artifact_cached"):
    """Where an artifact that was asked for is now: on this machine, or else on a cache server."""

    kind: str
    name: str
    path: str = ""
    url: str = ""


class BuildFinished(Event, frozen=True, tag="build_finished"):
    target: str
    succeeded: bool
    built: int
    cached: int  # were here, or another morph built them meanwhile
    failed: int
    skipped: int
    duration: float
    fetched: int = 0


class DeploymentStarted(Event, frozen=True, tag="deployment_started"):
    """A deployment begins, or one that goes into the tree of another.

    `prefix` is what lines about it begin with: `[SYSTEM][NAME]`, after that of the one around it.
    """

    name: str
    system: str  # path of the system's definition
    prefix: str
    type: str
    location: str
    upgrade: bool


class DeploymentStep(Event, frozen=True, tag="deployment_step"):
    """A step of a deployment begins, or (`unpacked`) was done: `detail` says more."""

    name: str
    prefix: str
    step: Literal["check", "unpack", "unpacked", "metadata", "configure", "write"]
    detail: str = ""


class DeploymentOutput(Event, frozen=True, tag="deployment_output"):
    """A line that an extension wrote: on standard output or error, or for the log alone."""

    name: str
    prefix: str
    extension: str  # with its kind
    stream: Literal["stdout", "stderr", "log"]
    text: str  # bytes that are no UTF-8 as backslash escapes


class DeploymentFinished(Event, frozen=True, tag="deployment_finished"):
    name: str
    system: str
    prefix: str
    succeeded: bool
    duration: float


AnyEvent = (
    Status
    | BuildStarted
    | PlanRevised
    | SourceStarted
    | StepStarted
    | BuildOutput
    | SourceFinished
    | SourceFailed
    | ArtifactCached
    | BuildFinished
    | DeploymentStarted
    | DeploymentStep
    | DeploymentOutput
    | DeploymentFinished
)

#: Everything that tells takes one of these.
Listener = Callable[[AnyEvent], None]


def silence(event: AnyEvent) -> None:
    """The listener that shows nothing."""
