"""The commands, one module each: parse, call the stage, print.

A command's module has `run(session, arguments)`, which returns an exit status or None for 0, and a
docstring that is its help. Modules are imported when their command runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from importlib import import_module

from morphlib.errors import MorphError, Reason


class Needs(Enum):
    """What a command needs before it can run."""

    NOTHING = "nothing"
    DIRECTORIES = "directories"  # the cache and the work directories exist


@dataclass(frozen=True, slots=True)
class Command:
    """What is known of a command without importing its module.

    `arguments` is shown in its usage line; hidden commands are shown by --help-all only.
    """

    name: str
    arguments: str
    summary: str
    needs: Needs = Needs.DIRECTORIES
    hidden: bool = False

    @property
    def module(self) -> str:
        return "morphlib.commands." + self.name.replace("-", "_")


_COMMANDS = (
    Command("build", "SYSTEM [COMPONENT...]", "Build a system, or components of it"),
    Command(
        "calculate-build-graph",
        "REPO REF MORPHOLOGY [REF_NAME]",
        "Print a system's graph for a controller",
        hidden=True,
    ),
    Command("completion", "bash|zsh|fish", "Print a shell's completion script", Needs.NOTHING),
    Command("controller-daemon", "", "Run the controller of distributed builds"),
    Command(
        "deploy",
        "CLUSTER [DEPLOYMENT...] [NAME.KEY=VALUE...]",
        "Deploy the systems of a cluster",
    ),
    Command("distbuild", "SYSTEM [COMPONENT...]", "Let other machines build a system"),
    Command("distbuild-attach", "ID", "Follow a distributed build", Needs.NOTHING),
    Command("distbuild-cancel", "ID", "Cancel a distributed build", Needs.NOTHING),
    Command("distbuild-list-jobs", "", "List distributed builds", Needs.NOTHING),
    Command(
        "distbuild-start", "SYSTEM [COMPONENT...]", "Begin a distributed build, and leave it alone"
    ),
    Command("distbuild-status", "ID", "Show how far a distributed build is", Needs.NOTHING),
    Command("doctor", "", "Say whether this machine can build", Needs.NOTHING),
    Command("expand-repo", "[REPOURL...]", "Show what repository aliases stand for", Needs.NOTHING),
    Command(
        "explain-key", "[OLD..NEW] SYSTEM [COMPONENT] | KEY [KEY]", "Show the inputs of cache keys"
    ),
    Command("gc", "", "Make room in the cache and among temporary files"),
    Command(
        "generate-signing-key", "FILE [NAME]", "Make a key to sign artifacts with", Needs.NOTHING
    ),
    Command(
        "graph-state-machines",
        "",
        "Draw what controllers make of jobs, workers and requests",
        Needs.NOTHING,
        hidden=True,
    ),
    Command("help", "[TOPIC]", "Show help for a command or an extension", Needs.NOTHING),
    Command("help-all", "[TOPIC]", "Show help with all options and commands", Needs.NOTHING),
    Command("help-extensions", "", "List extensions for deployment", Needs.NOTHING),
    Command("list-artifacts", "MORPH [MORPH]...", "List the files that systems have in the cache"),
    Command("print-architecture", "", "Show the architecture of this machine", Needs.NOTHING),
    Command("push-artifacts", "SYSTEM [COMPONENT...]", "Send what was built to a cache server"),
    Command(
        "shell", "SYSTEM CHUNK | AREA [-- COMMAND...]", "Step into the place where a chunk is built"
    ),
    Command("show-build-log", "SYSTEM CHUNK", "Print the build log of a chunk"),
    Command("show-dependencies", "(REPO REF MORPHOLOGY)...", "Show what artifacts depend on"),
    Command(
        "upgrade",
        "CLUSTER [DEPLOYMENT...] [NAME.KEY=VALUE...]",
        "Upgrade what was deployed from a cluster",
    ),
    Command("validate", "[FILE...]", "Check definitions and tell all mistakes", Needs.NOTHING),
    Command("worker-build", "[NAME]", "Build a step for a worker", hidden=True),
    Command("worker-builder", "", "Build steps for a worker, one after another", hidden=True),
    Command("worker-daemon", "", "Run a worker of distributed builds"),
)

COMMANDS: Mapping[str, Command] = {command.name: command for command in _COMMANDS}


def find_command(name: str) -> Command:
    """Raises MorphError for a name that is no command's."""
    if name in COMMANDS:
        return COMMANDS[name]
    from difflib import get_close_matches

    near = get_close_matches(name, COMMANDS, n=1)
    raise MorphError(
        f"unknown subcommand {name}",
        reason=Reason.NOT_FOUND,
        hint=f"Did you mean {near[0]}?" if near else "See morph --help for those that there are.",
    )


def command_help(command: Command) -> str:
    """The long help text of a command: its module's docstring."""
    return (import_module(command.module).__doc__ or "").strip()
