"""More connections than there can be: those go that said nothing for longest.

cheroot would try to accept the next one again at once, for ever, with a trace in the log each time.
"""

from __future__ import annotations

import errno
import logging
import resource
import socket
import time
from typing import Any

_log = logging.getLogger("morph.cacheserver")

MOST_IDLE = 4096  # connections that wait for requests
_LACK = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_LACK_SECONDS = 0.1  # before the next try
_TELL_SECONDS = 60.0


def limit_connections(server: Any) -> None:
    """Change how a server of cheroot that listens already accepts connections."""
    manager = server._connections
    manager._from_server_socket = _Crowd(server, manager).accept


class _Crowd:
    def __init__(self, server: Any, manager: Any) -> None:
        self._server = server
        self._manager = manager
        self._accept = manager._from_server_socket
        # The other half of files is for what is handed out, and for repositories.
        self._most = min(MOST_IDLE, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._told = float("-inf")

    def accept(self, listener: socket.socket) -> Any:
        """A new connection, None if there can't be one now."""
        if self._manager._num_connections >= self._most:
            self._drop_idle()
        try:
            return self._accept(listener)
        except OSError as error:
            if error.errno not in _LACK:
                raise
            if not self._drop_idle():
                time.sleep(_LACK_SECONDS)
            return None

    def _drop_idle(self) -> int:
        """End a tenth of the connections that wait for requests. Returns how many these are."""
        selector = self._manager._selector
        idle = [(fd, conn) for fd, conn in selector.connections if conn is not self._server]
        idle.sort(key=lambda pair: pair[1].last_used)
        oldest = idle[: -(-len(idle) // 10)]
        for descriptor, connection in oldest:
            selector.unregister(descriptor)
            connection.close()
        now = time.monotonic()
        if now - self._told > _TELL_SECONDS:
            self._told = now
            _log.warning("too many connections: %d that say nothing are closed", len(oldest))
        return len(oldest)
