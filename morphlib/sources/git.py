"""Running the git program: for the network, and for the state of a checkout.

Objects are read in process (`objects`). Every git that is started gets the same surroundings: no
hook, file system monitor or background maintenance of any repository runs, nothing is asked on the
terminal, replace refs count for nothing, messages are in English, and only known transports work.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from morphlib.process import Arg, Completed, run
from morphlib.sources.names import PROTOCOLS

# What of the caller's GIT_* variables is kept: how to reach servers, not which repository to use.
_KEPT = (
    "GIT_ASKPASS",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_CONFIG_SYSTEM",
    "GIT_EXEC_PATH",
    "GIT_HTTP_USER_AGENT",
    "GIT_PROXY_COMMAND",
    "GIT_PROXY_SSL_CAINFO",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_SSH_VARIANT",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "GIT_SSL_CERT",
    "GIT_SSL_KEY",
    "GIT_SSL_NO_VERIFY",
)

_FIXED = {
    "GIT_ALLOW_PROTOCOL": ":".join(PROTOCOLS),
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "LANGUAGE": "C",
    "LC_ALL": "C",
}

_CONFIG = (
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.untrackedCache", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("submodule.recurse", "false"),
    ("status.submoduleSummary", "false"),
    ("http.lowSpeedLimit", "100"),
    ("http.lowSpeedTime", "120"),
)


def git_environment(
    config: Sequence[tuple[str, str]] = (), extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The whole environment for git. `config` are settings that win over every file's."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name in _KEPT
    }
    environment |= _FIXED
    if "GIT_SSH" not in environment:
        # ssh asks on the terminal, past git: nobody would see the question in a build's output.
        environment.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
    settings = [*_inherited_config(), *_CONFIG, *config]
    environment["GIT_CONFIG_COUNT"] = str(len(settings))
    for index, (key, value) in enumerate(settings):
        environment[f"GIT_CONFIG_KEY_{index}"] = key
        environment[f"GIT_CONFIG_VALUE_{index}"] = value
    environment |= extra or {}
    return environment


def run_git(
    arguments: Sequence[Arg],
    *,
    git_dir: Path | None = None,
    check: bool = True,
    timeout: float | None = None,
) -> Completed:
    """Run git on a repository of Morph's own (`git_dir`), or on none. Raises ProcessError.

    The repository's owner does not matter: a cache may be shared, and what could run through its
    configuration is switched off.
    """
    argv: list[Arg] = ["git"]
    if git_dir is not None:
        argv.append(f"--git-dir={git_dir}")
    environment = git_environment([("safe.directory", "*")])
    return run([*argv, *arguments], env=environment, check=check, timeout=timeout)


def allows_local_submodules() -> bool:
    """Whether the user lets repositories from elsewhere have submodules in this machine's files.

    That is git's own switch, which is off unless somebody turns it on: protocol.file.allow in the
    user's or the system's configuration, or GIT_ALLOW_PROTOCOL.
    """
    protocols = os.environ.get("GIT_ALLOW_PROTOCOL")
    if protocols is not None:
        return "file" in protocols.split(":")
    argv = ["git", "config", "--get", "protocol.file.allow"]
    # No repository is asked, whatever the working directory: its configuration may be a stranger's.
    answer = run(argv, env=git_environment(extra={"GIT_DIR": os.devnull}), check=False)
    return answer.stdout.strip().lower() == b"always"


def _inherited_config() -> list[tuple[str, str]]:
    """Settings that the caller gives through the environment, as CI systems do."""
    count = os.environ.get("GIT_CONFIG_COUNT", "0")
    if not count.isdigit():
        return []
    pairs = (
        (os.environ.get(f"GIT_CONFIG_KEY_{n}"), os.environ.get(f"GIT_CONFIG_VALUE_{n}"))
        for n in range(min(int(count), 1000))
    )
    return [(key, value) for key, value in pairs if key and value is not None]
