"""Views of a controller, made in a thread of their own, and no more often than it is worth.

Each view has a stamp, by which a page says which one it shows when it asks for what changed since.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from distbuild.connection import reactor
from distbuild.status.overview import Watched
from distbuild.status.targets import Target

#: Views that are remembered, for pages that show them.
_KEPT = 64
#: Seconds for which a view of what did not change is good: estimates change by themselves.
FRESH_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Look:
    """A view of a target, how it was when it was made, and when that was."""

    stamp: int
    target: Target
    view: Any
    pulse: Any
    at: float


class Looker:
    def __init__(self, watched: Watched) -> None:
        self.watched = watched
        self._looks: OrderedDict[int, Look] = OrderedDict()
        self._latest: dict[Target, Look] = {}
        self._made = 0
        self._asking: dict[Target, list[Deferred[Any]]] = {}
        self._pool = ThreadPool(0, 1, "status")
        reactor.callWhenRunning(self._pool.start)
        reactor.addSystemEventTrigger("during", "shutdown", self._pool.stop)

    @property
    def now(self) -> float:
        return self.watched.history.now()

    def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call what takes a while. Gives a Deferred."""
        return deferToThreadPool(reactor, self._pool, function, *arguments)

    def find(self, stamp: int, target: Target) -> Look | None:
        """The look that a page of the target shows."""
        look = self._looks.get(stamp)
        return look if look is not None and look.target == target else None

    def look(self, target: Target, least: float = 0.0) -> Any:
        """A `Look` at a target: one that is `least` seconds old is good enough, whatever changed.

        Gives a Deferred: of None if there is nothing to look at.
        """
        known = self._latest.get(target)
        pulse = target.pulse(self.watched)
        if known is not None:
            age = reactor.seconds() - known.at
            if age < least or (known.pulse == pulse and age < FRESH_SECONDS):
                return succeed(known)
        answer: Deferred[Any] = Deferred()
        waiting = self._asking.get(target)
        if waiting is not None:
            waiting.append(answer)
            return answer
        facts = target.gather(self.watched)
        if facts is None:
            return succeed(None)
        self._asking[target] = [answer]
        making = self.in_thread(target.view, facts)
        making.addCallback(lambda view: self._keep(target, view, pulse))
        making.addBoth(self._tell, target)
        return answer

    def _tell(self, result: Any, target: Target) -> None:
        """Give all who asked for it a look, or a failure."""
        for answer in self._asking.pop(target):
            answer.callback(result)

    def _keep(self, target: Target, view: Any, pulse: Any) -> Look:
        self._made += 1
        look = Look(self._made, target, view, pulse, reactor.seconds())
        self._looks[look.stamp] = self._latest[target] = look
        while len(self._looks) > _KEPT:
            _, gone = self._looks.popitem(last=False)
            if self._latest.get(gone.target) is gone:
                del self._latest[gone.target]
        return look
