"""What the parameters DISTBUILD_* say of a distbuild network, and what its machines are told.

A machine reads `KEY: VALUE` lines, YAML, from /etc/distbuild/distbuild.conf when it boots for the
first time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from morphlib.writeexts.nfsserver import parse_host
from morphlib.writeexts.parameters import Parameter, Parameters, parameter_error, text

_ADDRESS = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _parse_hosts(value: str) -> tuple[str, ...]:
    return tuple(parse_host(word) for word in value.split())


def _address(name: str, help_text: str) -> Parameter[str]:
    return Parameter(name, help_text, lambda value: _parse(name, value, _ADDRESS), "")


def _parse(name: str, value: str, pattern: re.Pattern[str]) -> str:
    word = value.strip()
    if not pattern.fullmatch(word):
        raise ValueError(f"{name}: {value!r} has characters that are not expected there")
    return word


def _parse_map(value: str) -> Mapping[str, str]:
    addresses = {}
    for word in value.split():
        name, equals, address = word.partition("=")
        if not (name and equals):
            raise ValueError(f"HOST_MAP: {word!r} is not NAME=ADDRESS")
        addresses[name] = _parse("HOST_MAP", address, _ADDRESS)
    return addresses


CONTROLLER: Parameter[tuple[str, ...]] = Parameter(
    "DISTBUILD_CONTROLLER",
    "The name of the machine that is the controller. Required.",
    _parse_hosts,
    (),
)
WORKERS: Parameter[tuple[str, ...]] = Parameter(
    "DISTBUILD_WORKERS",
    """The names of the machines that build, with blanks between them; the controller may be one.
    Required.""",
    _parse_hosts,
    (),
)
GIT_SERVER = _address("DISTBUILD_GIT_SERVER", "The trove that sources come from. Required.")
CACHE = _address(
    "DISTBUILD_SHARED_ARTIFACT_CACHE", "The host where all artifacts are kept. Required."
)
TROVE_ID = Parameter(
    "DISTBUILD_TROVE_ID",
    "The ID of that trove. Required.",
    lambda value: _parse("DISTBUILD_TROVE_ID", value, _ID),
    "",
)
SSH_KEY = text(
    "DISTBUILD_WORKER_SSH_KEY",
    """Path of the private key with which the machines get sources from the trove, relative to the
    definitions. Required.""",
)
HOST_MAP: Parameter[Mapping[str, str]] = Parameter(
    "HOST_MAP",
    """NAME=ADDRESS, with blanks between them: what the machines are told instead of host names that
    they can't look up.""",
    _parse_map,
    {},
)

NAMES = (CONTROLLER, WORKERS, GIT_SERVER, CACHE, TROVE_ID, SSH_KEY, HOST_MAP)
_HOSTS = (CONTROLLER, WORKERS)
_TEXTS = (GIT_SERVER, CACHE, TROVE_ID, SSH_KEY)


@dataclass(frozen=True, slots=True)
class Network:
    """A controller and its workers. `key` is the content of the private key."""

    controller: str
    workers: tuple[str, ...]
    git_server: str
    cache: str
    trove_id: str
    addresses: Mapping[str, str]
    key: bytes = field(repr=False)

    @property
    def nodes(self) -> tuple[str, ...]:
        """All machines, each once."""
        return tuple(dict.fromkeys((self.controller, *self.workers)))

    def configuration(self, node: str, key: str) -> str:
        """The text that tells a machine who it is; `key` is where it has the private key."""
        workers = ", ".join(self._address(worker) for worker in self.workers)
        values = {
            "ARTIFACT_CACHE_SERVER": self._address(self.cache),
            "CONTROLLERHOST": self._address(self.controller),
            "TROVE_HOST": self._address(self.git_server),
            "TROVE_ID": self.trove_id,
            "DISTBUILD_CONTROLLER": node == self.controller,
            "DISTBUILD_WORKER": node in self.workers,
            "WORKERS": workers,
            "WORKER_SSH_KEY": key,
        }
        return "".join(f"{name}: {value}\n" for name, value in values.items())

    def _address(self, host: str) -> str:
        return self.addresses.get(host, host)


def read_network(given: Parameters) -> Network:
    """The network that `NAMES` tell of. Raises MorphError for what is missing."""
    missing = [each.name for each in _HOSTS if each.name not in given.environment]
    missing += [each.name for each in _TEXTS if not given[each]]
    if missing:
        raise parameter_error(f"Please set: {', '.join(missing)}")
    if len(given[CONTROLLER]) != 1:
        raise parameter_error("Please specify exactly one controller.")
    if not given[WORKERS]:
        raise parameter_error("Please specify at least one worker.")
    try:
        key = Path(given[SSH_KEY]).read_bytes()
    except OSError as error:
        raise parameter_error(
            f"{SSH_KEY.name}: can't read {given[SSH_KEY]}: {error.strerror}"
        ) from error
    return Network(
        controller=given[CONTROLLER][0],
        workers=given[WORKERS],
        git_server=given[GIT_SERVER],
        cache=given[CACHE],
        trove_id=given[TROVE_ID],
        addresses=given[HOST_MAP],
        key=key,
    )
