"""Builder processes that stay when a build ends, for the next one of the same graph.

A builder that is started anew has to enter its namespaces, and look at every layer that it builds
on. Where many small builds follow one another, as on a worker, that would be done for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from morphlib.build.builders import Builder, start_builders, stop_builders
from morphlib.build.model import BuildContext
from morphlib.build.worker import work


class Crew:
    """The builders of one graph and one store. Whoever keeps them keeps what they use, too: claims
    what they built on for as long (`morphlib.cache.inuse`)."""

    def __init__(self) -> None:
        self._context: BuildContext | None = None
        self._count = 0
        self._builders: list[Builder] = []

    def fits(self, context: BuildContext, count: int) -> bool:
        """Whether `take` has no need of forking new ones."""
        before = self._context
        return (
            before is not None
            and before.graph is context.graph
            and before.store is context.store
            and before.options == context.options
            and self._count == count == len(self._builders)
        )

    def take(self, context: BuildContext, count: int) -> list[Builder]:
        """`count` builders, of those that are here or new ones. The process has a single thread."""
        if not self.fits(context, count):
            self.dismiss()
            self._context, self._count = context, count
            self._builders = start_builders(context, count, work)
        return self._builders

    def give_back(self) -> None:
        """The build is over. Those that still do something for it end."""
        if any(builder.job is not None for builder in self._builders):
            self.dismiss()

    def dismiss(self) -> None:
        """End all builders."""
        builders, self._builders = self._builders, []
        self._context = None
        stop_builders(builders)

    def are_stopped(self) -> bool:
        """Whether somebody stopped a builder (SIGSTOP), or what it starts commands with.

        Those commands themselves do as they like.
        """
        inner: list[int] = []
        for builder in self._builders:
            launchers = _children(builder.pid)
            runners = [pid for launcher in launchers for pid in _children(launcher)]
            inner += [builder.pid, *launchers, *runners]
        return any(_is_stopped(pid) for pid in inner)


def _children(pid: int) -> Sequence[int]:
    try:
        return [int(name) for name in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return ()


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] in (b"T", b"t")
    except (OSError, IndexError):
        return False
