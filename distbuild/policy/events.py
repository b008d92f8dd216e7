"""What a controller's policy is told, and what it answers: frozen values.

Requests, workers and jobs are named by ids that their maker never uses twice. Keys are cache keys:
a key is built once, however many requests want it. A job is one attempt to build a key on a worker.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from distbuild.workermessages import Fault
from morphlib.build.schedule import Task

# ---- Events ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RequestAdded:
    """A request with all that has to be built for it.

    The ids of its tasks are keys, their pools are architectures, and each stands after all that it
    needs. One that may be detached from goes on when nobody follows it.
    """

    request: str
    tasks: tuple[Task, ...]
    priority: int = 0
    allow_detach: bool = False
    followers: int = 1


@dataclass(frozen=True, slots=True)
class RequestCancelled:
    request: str


@dataclass(frozen=True, slots=True)
class FollowerJoined:
    request: str


@dataclass(frozen=True, slots=True)
class FollowerLeft:
    request: str


@dataclass(frozen=True, slots=True)
class WorkerJoined:
    """A worker connected. `running`: the (job, key) that it does from before."""

    worker: str
    architectures: frozenset[str]
    capacity: int = 1
    running: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerLost:
    worker: str


@dataclass(frozen=True, slots=True)
class WorkerRested:
    """Time enough went by since `Rest`: the worker may have room again."""

    worker: str


@dataclass(frozen=True, slots=True)
class JobBuilt:
    """What a job made lies in the worker's cache."""

    job: str


@dataclass(frozen=True, slots=True)
class JobFailed:
    job: str
    fault: Fault
    reason: str


@dataclass(frozen=True, slots=True)
class JobStored:
    """What a job made is in the shared cache: now its key counts as built."""

    job: str


@dataclass(frozen=True, slots=True)
class TransferFailed:
    """`hopeless`: what the worker has is not what it said, so asking again is no use."""

    job: str
    reason: str
    hopeless: bool = False


@dataclass(frozen=True, slots=True)
class Settled:
    """All requests from before a restart were added: what workers do for nobody can be stopped."""


Event = (
    RequestAdded
    | RequestCancelled
    | FollowerJoined
    | FollowerLeft
    | WorkerJoined
    | WorkerLost
    | WorkerRested
    | JobBuilt
    | JobFailed
    | JobStored
    | TransferFailed
    | Settled
)

# ---- Commands --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    job: str
    worker: str
    key: str


@dataclass(frozen=True, slots=True)
class Stop:
    job: str
    worker: str


@dataclass(frozen=True, slots=True)
class Transfer:
    """Bring what a job made into the shared cache."""

    job: str
    worker: str
    key: str


@dataclass(frozen=True, slots=True)
class Rest:
    """Leave a worker alone for a while, then say `WorkerRested`."""

    worker: str
    reason: str


@dataclass(frozen=True, slots=True)
class TellStarted:
    """`already`: it had been started for somebody else."""

    request: str
    key: str
    worker: str
    already: bool = False


@dataclass(frozen=True, slots=True)
class TellRetried:
    """It has to be built again, through no fault of its own."""

    request: str
    key: str
    worker: str
    reason: str


@dataclass(frozen=True, slots=True)
class TellFinished:
    request: str
    key: str
    worker: str


@dataclass(frozen=True, slots=True)
class TellFailed:
    request: str
    key: str


class Outcome(Enum):
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class EndRequest:
    """The last that is said of a request. Of a failed one, `key` and `reason` say what failed."""

    request: str
    outcome: Outcome
    key: str = ""
    reason: str = ""


Command = (
    Start
    | Stop
    | Transfer
    | Rest
    | TellStarted
    | TellRetried
    | TellFinished
    | TellFailed
    | EndRequest
)
