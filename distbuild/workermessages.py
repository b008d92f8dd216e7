"""What controllers say to workers, daemons to their helpers, and what comes back."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from distbuild.messages import Bytes, Count, Id, Key, Message, Name, Ping, Refused, Text


class Fault(StrEnum):
    """Whose failure it is that a step was not built."""

    BUILD = "build"  # the step's own: it would fail anywhere
    SPACE = "space"  # this worker has no room
    MACHINE = "machine"  # something else is wrong with this worker
    CANCELLED = "cancelled"  # it was told to stop


class Step(Message, frozen=True):
    """What to build: one source of a system at a commit, found again by its key."""

    repo: Name
    ref: Name
    morphology: Name
    key: Key
    name: Name
    original_ref: Name | None = None


class RunStep(Message, frozen=True):
    """Controller to worker. `job` names this attempt, and no other ever."""

    job: Id
    step: Step


class CancelStep(Message, frozen=True):
    job: Id


class Offer(Message, frozen=True):
    """Worker to controller, after its hello: what it can do, and what it still does.

    `worker` names this run of it, and is hard to guess.
    """

    architectures: Annotated[tuple[Name, ...], Meta(max_length=100)]
    capacity: Annotated[int, Meta(ge=1, le=10_000)]
    running: tuple[RunStep, ...] = ()
    worker: Id | None = None


class JobOutput(Message, frozen=True):
    """A piece of what a job printed. `offset`: so many bytes of it went before, of both kinds."""

    job: Id
    offset: Count = 0
    stdout: Bytes = b""
    stderr: Bytes = b""


class JobPhase(Message, frozen=True):
    """What a job does now: the steps of a local build ("build", "store", ...)."""

    job: Id
    phase: Name


class JobBuilt(Message, frozen=True):
    """It is in the worker's cache."""

    job: Id


class JobFailed(Message, frozen=True):
    """`phase` and `exit_code` are those of a command that failed."""

    job: Id
    fault: Fault
    reason: Text
    phase: Name | None = None
    exit_code: int | None = None


# ---- Daemons and their helpers ---------------------------------------------------------------


class ExecRequest(Message, frozen=True):
    """Run a program: helpers do so for the daemon that they are started beside.

    Its standard input is `stdin`; with `keeps_input` more may follow.
    """

    id: Id
    argv: Annotated[tuple[Text, ...], Meta(min_length=1, max_length=1000)]
    stdin: Bytes = b""
    keeps_input: bool = False


class ExecInput(Message, frozen=True):
    """More input for a program that runs. After the last of it there is no more."""

    id: Id
    data: Bytes = b""
    is_last: bool = False


class ExecCancel(Message, frozen=True):
    id: Id


class ExecOutput(Message, frozen=True):
    id: Id
    stdout: Bytes = b""
    stderr: Bytes = b""


class ExecResponse(Message, frozen=True):
    """The program ended: its exit status, negative for the signal that killed it."""

    id: Id
    exit: int


ToWorker = RunStep | CancelStep | Refused | Ping
FromWorker = Offer | JobOutput | JobPhase | JobBuilt | JobFailed | Refused | Ping
ToHelper = ExecRequest | ExecInput | ExecCancel | Refused | Ping
#: Between a worker and a program that builds for it, through a helper.
ToBuilder = RunStep | CancelStep
FromBuilder = JobOutput | JobPhase | JobBuilt | JobFailed | Ping
FromHelper = ExecOutput | ExecResponse | Ping
