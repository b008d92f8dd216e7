"""Views of a controller, made in a thread of their own, and no more often than it is worth.

Each view has a stamp, by which a page says which one it shows when it asks for what changed since.
"""

from __future__ import annotations

import time
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
#: How old a view may be for who is patient: in seconds, and as a multiple of what it took.
_LEAST_SECONDS, _SHARE = 0.5, 10


@dataclass(frozen=True, slots=True)
class Look:
    """A view of a target, how that was when it was made, and when. It took `cost` seconds."""

    stamp: int
    target: Target
    view: Any
    pulse: Any
    at: float
    cost: float


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

    def look(self, target: Target, *, is_patient: bool = False) -> Any:
        """A `Look` at a target. Gives a Deferred: of None if there is nothing to look at.

        Who is patient gets an older one, whatever changed: so that however much there is to look
        at, and to change, most of the time is left for the builds.
        """
        known = self._latest.get(target)
        pulse = target.pulse(self.watched)
        if known is not None:
            age = reactor.seconds() - known.at
            least = max(_LEAST_SECONDS, _SHARE * known.cost) if is_patient else 0.0
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
        making = self.in_thread(_timed, target.view, facts)
        making.addCallback(lambda made: self._keep(target, pulse, *made))
        making.addBoth(self._tell, target)
        return answer

    def _tell(self, result: Any, target: Target) -> None:
        """Give all who asked for it a look, or a failure."""
        for answer in self._asking.pop(target):
            answer.callback(result)

    def _keep(self, target: Target, pulse: Any, view: Any, cost: float) -> Look:
        self._made += 1
        look = Look(self._made, target, view, pulse, reactor.seconds(), cost)
        self._looks[look.stamp] = self._latest[target] = look
        while len(self._looks) > _KEPT:
            _, gone = self._looks.popitem(last=False)
            if self._latest.get(gone.target) is gone:
                del self._latest[gone.target]
        return look


def _timed(view: Callable[[Any], Any], facts: Any) -> tuple[Any, float]:
    before = time.perf_counter()
    return view(facts), time.perf_counter() - before
