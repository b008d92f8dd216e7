"""The environment of a chunk's commands: made from nothing, so only what stands here exists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from morphlib.definitions.models import PARALLEL_STEPS, BuildMode
from morphlib.graph.model import ChunkRecipe

#: Where a bootstrap or test chunk finds its staging area. Such a chunk runs with the host's files
#: as its root; the place is the same on every machine, since builds record the paths they see.
HOST_STAGING = "/staging"

#: What a bootstrap or test chunk is given as the host's own search path. Fixed: the caller's PATH
#: differs between people, and between root and others on one machine.
HOST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: Where the compiler cache is seen, relative to /tmp's parent.
CCACHE_DIR = "/tmp/ccache"

#: Copied from the caller where set: distributed compiling, and pretending to be root.
PASSED_ON = (
    "DISTCC_HOSTS",
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "FAKEROOTKEY",
    "FAKED_MODE",
    "FAKEROOT_FD_BASE",
)


@dataclass(frozen=True, slots=True)
class Places:
    """Where a build finds its directories, as its commands see them."""

    staging: str  # root of the dependencies: "" for the root itself
    build: str
    install: str

    @classmethod
    def of(cls, name: str, mode: BuildMode) -> Places:
        staging = "" if mode is BuildMode.STAGING else HOST_STAGING
        return cls(staging, f"{staging}/{name}.build", f"{staging}/{name}.inst")


def build_environment(
    recipe: ChunkRecipe,
    places: Places,
    variables: Mapping[str, str],
    *,
    prefixes: Iterable[str],
    commit_time: int,
    ccache: bool,
    distcc: bool,
    extra_files: Iterable[str] = (),
    caller: Mapping[str, str],
) -> dict[str, str]:
    """The environment of every step but for MAKEFLAGS.

    `variables` are those that count for the key; `prefixes` are the prefixes of all recursive chunk
    dependencies in dependency order; `extra_files` those files of the staging area by which a
    compiler is told from another.
    """
    environment = dict(variables)
    environment.update(
        PREFIX=recipe.prefix,
        DESTDIR=places.install,
        PATH=search_path(places, prefixes, ccache=ccache),
        TERM="dumb",
        SHELL="/bin/sh",
        LC_ALL="C",
        HOME="/tmp",
        SOURCE_DATE_EPOCH=str(commit_time),
    )
    if ccache:
        environment["CCACHE_DIR"] = CCACHE_DIR
        environment["CCACHE_EXTRAFILES"] = ":".join(extra_files)
        if distcc:
            environment["CCACHE_PREFIX"] = "distcc"
    environment.update({name: caller[name] for name in PASSED_ON if name in caller})
    return environment


def search_path(places: Places, prefixes: Iterable[str], *, ccache: bool) -> str:
    """PATH: the prefixes of the dependencies, the compiler cache, then the usual places.

    With the host as root the first two groups are looked for in the staging area, and the usual
    places are the host's.
    """
    groups = [str(PurePosixPath("/", prefix.lstrip("/"), "bin")) for prefix in prefixes]
    if ccache:
        groups.append("/usr/lib/ccache")
    groups = [places.staging + group for group in dict.fromkeys(groups)]
    usual = HOST_PATH if places.staging else "/sbin:/usr/sbin:/bin:/usr/bin"
    return ":".join([*groups, usual])


def make_flags(recipe: ChunkRecipe, step: str, *, max_jobs: int, busy: int) -> str:
    """MAKEFLAGS of one step.

    `max_jobs` make jobs are shared by the `busy` chunks that build at this moment. A chunk's own
    `max-jobs` is an upper bound that its author set because more would break it or the machine.
    """
    if step not in PARALLEL_STEPS:
        return "-j1"
    jobs = max(1, max_jobs // max(1, busy))
    if recipe.max_jobs is not None:
        jobs = max(1, recipe.max_jobs)
    return f"-j{jobs}"
