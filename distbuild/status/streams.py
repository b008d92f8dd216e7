"""Telling pages what changes, as server-sent events, each as fast as it listens."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from twisted.internet.task import LoopingCall

from distbuild.connection import reactor
from distbuild.status.looking import Look, Looker
from distbuild.status.pages import Update
from distbuild.status.targets import Target

_log = logging.getLogger("morph.distbuild")

#: So many pages are told at a time.
MOST_LISTENERS = 64
#: Tells a page that it has to be asked for again.
_RELOAD = b"event: reload\ndata: \n\n"
#: Seconds between looks; after which a page is told that there is nothing to tell; and after which
#: one that does not take what it is told is let go.
_INTERVAL, _QUIET_SECONDS, SLOW_SECONDS = 1.0, 15.0, 30.0


class Listener:
    """One page. What changes while it does not listen, it is told at once afterwards.

    It is a push producer of Twisted, which pauses it while the other side does not read.
    """

    def __init__(self, request: Any, target: Target, look: Look) -> None:
        self.request = request
        self.target = target
        self.look = look
        self.is_gone = False
        self.is_busy = False
        self.paused_at: float | None = None
        self.told_at = reactor.seconds()
        request.notifyFinish().addBoth(self._gone)
        request.registerProducer(self, True)

    def _gone(self, _: object) -> None:
        self.is_gone = True

    def pauseProducing(self) -> None:
        self.paused_at = reactor.seconds()

    def resumeProducing(self) -> None:
        self.paused_at = None

    def stopProducing(self) -> None:
        self.is_gone = True

    def write(self, data: bytes) -> None:
        if not self.is_gone:
            self.told_at = reactor.seconds()
            self.request.write(data)

    def end(self) -> None:
        """All is said."""
        if not self.is_gone:
            self.is_gone = True
            self.request.unregisterProducer()
            self.request.finish()

    def abort(self) -> None:
        if not self.is_gone:
            self.is_gone = True
            self.request.channel.forceAbortClient()


class Streams:
    def __init__(self, looker: Looker) -> None:
        self._looker = looker
        self._listeners: list[Listener] = []
        self._clock = LoopingCall(self._tick)

    @property
    def is_full(self) -> bool:
        return len(self._listeners) >= MOST_LISTENERS

    def add(self, request: Any, target: Target, stamp: int) -> None:
        """Tell a request what changes since the page with that stamp, for as long as it listens."""
        look = self._looker.find(stamp, target)
        request.setHeader("content-type", "text/event-stream; charset=utf-8")
        if request.method == b"HEAD":
            request.finish()
            return
        if look is None:
            request.write(_RELOAD)
            request.finish()
            return
        request.write(b"retry: 2000\n\n")
        self._listeners.append(Listener(request, target, look))
        if not self._clock.running:
            self._clock.start(_INTERVAL, now=False)

    def _tick(self) -> None:
        now = reactor.seconds()
        for listener in self._listeners:
            if listener.paused_at is not None and now - listener.paused_at > SLOW_SECONDS:
                listener.abort()
            elif listener.paused_at is None and now - listener.told_at > _QUIET_SECONDS:
                listener.write(b":\n\n")
        self._listeners = [each for each in self._listeners if not each.is_gone]
        if not self._listeners:
            self._clock.stop()
        for listener in self._listeners:
            if listener.paused_at is None and not listener.is_busy:
                listener.is_busy = True
                self._tell(listener)

    def _tell(self, listener: Listener) -> None:
        def told(_: object) -> None:
            listener.is_busy = False

        def failed(failure: Any) -> None:
            _log.critical("internal error\n%s", failure.getTraceback())
            listener.abort()

        looked = self._looker.look(listener.target, is_patient=True)
        looked.addCallback(lambda look: self._looked(listener, look))
        looked.addCallbacks(told, failed)

    def _looked(self, listener: Listener, look: Look | None) -> Any:
        if look is None:  # it is so old that it was forgotten
            listener.end()
            return None
        if look is listener.look:
            return None
        before, listener.look = listener.look, look

        def write(update: Update) -> None:
            if update.reload:
                listener.write(_RELOAD)
                listener.end()
            elif not update.is_empty:
                data = msgspec.json.encode(update)
                listener.write(b"id: %d\ndata: %b\n\n" % (look.stamp, data))
            if update.over:
                listener.end()

        making = self._looker.in_thread(
            listener.target.update, before.view, look.view, self._looker.now
        )
        return making.addCallback(write)
