"""Events as lines of text: what they are called when people read them one below the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from morphlib.credentials import hide_credentials
from morphlib.events import (
    AnyEvent,
    ArtifactCached,
    BuildFinished,
    BuildStarted,
    DeploymentFinished,
    DeploymentOutput,
    DeploymentStarted,
    DeploymentStep,
    PlanRevised,
    SourceFailed,
    SourceFinished,
    SourceStarted,
    Status,
    StepStarted,
)

Level = Literal["normal", "chatty", "error", "warning"]


@dataclass(frozen=True, slots=True)
class Line:
    """`source` is the name of the source that the line is about, "" for none."""

    text: str
    level: Level = "normal"
    source: str = ""


#: Steps around the commands of a definition.
_STEP_TEXTS = {
    "fetch": "Fetching sources",
    "stage": "Creating staging area",
    "extract": "Extracting sources",
    "determine-splits": "Splitting",
    "create-chunks": "Creating artifacts",
    "unpack-strata": "Unpacking strata",
    "store": "Storing artifacts",
    "integrate": "Running system integration commands",
    "ldconfig": "Running ldconfig",
    "transfer": "Transferring to shared artifact cache",
}


#: Steps of which builders tell more, by statuses of their own.
_TOLD_BY_STATUS = frozenset({"extract", "determine-splits", "create-chunks", "store"})


def describe(event: AnyEvent) -> Iterator[Line]:
    """The lines that tell of an event; none where there is nothing to say."""
    match event:
        case Status():
            yield Line(hide_credentials(event.text), event.level, event.source)
        case BuildStarted(remote=True):
            yield Line(f"Need to build {event.total - event.cached}/{event.total} artifacts")
        case BuildStarted():
            todo = event.total - event.cached - event.fetch
            text = f"{event.cached} of {event.total} sources are cached"
            if event.fetch:
                text += f", {event.fetch} to fetch"
            text += f", {todo} to build"
            if event.estimate is not None and todo:
                text += f", about {format_duration(event.estimate)}"
            yield Line(text)
        case PlanRevised():
            pass  # why was told
        case SourceStarted(worker=worker) if worker:
            text = f"Started building {event.name} on {worker}"
            yield Line(f"{event.name} is already building on {worker}" if event.joined else text)
        case SourceStarted():
            yield Line(f"Building {event.kind} {event.name}", source=event.name)
        case StepStarted(worker=worker) if worker:
            pass  # of all steps of all machines, these would be too many lines
        case StepStarted():
            if event.step not in _TOLD_BY_STATUS:
                yield Line(describe_step(event.step), source=event.name)
        case SourceFinished():
            yield from _describe_finish(event)
        case SourceFailed():
            yield from _describe_failure(event)
        case ArtifactCached(url=url) if url:
            yield Line(f"Artifact: {url}")
        case ArtifactCached():
            yield Line(f"{event.kind} {event.name} is cached at {event.path}")
        case BuildFinished():
            yield _describe_end(event)
        case DeploymentStarted() | DeploymentStep() | DeploymentOutput() | DeploymentFinished():
            yield from _describe_deployment(event)


#: Steps of a deployment.
_DEPLOYMENT_TEXTS = {
    "check": "Checking",
    "unpack": "Unpacking system for configuration",
    "unpacked": "System unpacked at {detail}",
    "metadata": "Writing deployment metadata file",
    "configure": "Configure system",
    "write": "Writing to device",
}


def _describe_deployment(
    event: DeploymentStarted | DeploymentStep | DeploymentOutput | DeploymentFinished,
) -> Iterator[Line]:
    """What extensions write on standard error is copied elsewhere, and their log is for no eyes."""
    match event:
        case DeploymentStarted():
            doing = "Upgrading" if event.upgrade else "Deploying"
            text = f"{doing} with {event.type} to {event.location}"
            yield Line(event.prefix + hide_credentials(text))
        case DeploymentStep():
            text = _DEPLOYMENT_TEXTS[event.step].replace("{detail}", event.detail)
            yield Line(event.prefix + text, "chatty" if event.step == "check" else "normal")
        case DeploymentOutput(stream="stdout"):
            yield Line(event.prefix + event.text)
        case DeploymentOutput():
            pass
        case DeploymentFinished():
            outcome = "Deployed" if event.succeeded else "Failed"
            text = f"{outcome} in {format_duration(event.duration)}"
            yield Line(event.prefix + text, "normal" if event.succeeded else "error")


def is_command_step(step: str) -> bool:
    """Whether it is one of the steps whose commands a definition gives."""
    # Imported when a build tells of steps: then it is loaded already, and else it is never needed.
    from morphlib.definitions.models import STEPS

    return step in STEPS


def describe_step(step: str) -> str:
    if is_command_step(step):
        return f"Running {step}-commands"
    return _STEP_TEXTS.get(step, f"Running {step}")


def _describe_finish(event: SourceFinished) -> Iterator[Line]:
    match event.outcome:
        case "built" if event.worker:
            yield Line(f"Finished building {event.name} on {event.worker}")
        case "built":
            text = f"Elapsed time {format_duration(event.duration)}"
            yield Line(text, source=event.name)
        case "cached":
            yield Line(f"{event.kind} {event.name} is cached", "chatty", event.name)
        case "waited":
            text = f"{event.kind} {event.name} was built by another morph meanwhile"
            yield Line(text, source=event.name)
        case "fetched":
            pass  # that it begins was told
        case "failed" | "lost":
            pass


def _describe_failure(event: SourceFailed) -> Iterator[Line]:
    if event.worker:
        yield Line(f"Build of {event.name} failed.", "error")
    if event.step:
        doing = describe_step(event.step)
        code = "" if event.exit_code is None else f" (exit code {event.exit_code})"
        where = f" on {event.worker}" if event.worker else ""
        yield Line(f"Error when {doing[0].lower()}{doing[1:]}{where}{code}", "error", event.name)
    if event.log:
        yield Line(f"Build log: {event.log}", "error", event.name)
    if event.staging:
        yield Line(f"Staging area kept: {event.staging}", "error", event.name)
    if event.shell:
        yield Line(f"To step into it: {event.shell}", "error", event.name)


def _describe_end(event: BuildFinished) -> Line:
    counts = f"{event.built} built, {event.cached} cached"
    if event.fetched:
        counts += f", {event.fetched} fetched"
    if event.failed:
        counts += f", {event.failed} failed"
    if event.skipped:
        counts += f", {event.skipped} not built"
    outcome = "Finished" if event.succeeded else "Failed"
    duration = format_duration(event.duration)
    level: Level = "normal" if event.succeeded else "error"
    return Line(f"{outcome} build of {event.target} in {duration}: {counts}", level)


def format_duration(seconds: float) -> str:
    """Seconds as HH:MM:SS."""
    whole = max(0, int(seconds))
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"
