"""Threads for what may wait for other machines, perhaps for long."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any

from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from distbuild.connection import reactor


class _Thread(Thread):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named, daemon=True)


class _Pool(ThreadPool):
    threadFactory = _Thread


class Waiters:
    """At most `most` of them. A daemon that ends does not wait for what they still wait for."""

    def __init__(self, name: str, most: int) -> None:
        self._pool = _Pool(0, most, name)
        self._pool.start()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call what waits. Gives a Deferred."""
        return deferToThreadPool(reactor, self._pool, function, *arguments)
