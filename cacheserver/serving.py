"""The HTTP server: cheroot, with what it lacks for large files and for unfriendly clients.

Why cheroot: it is one process with threads, so that counts, staged uploads and handles of
repositories are shared; it hands out client certificates, streams bodies in and out, times out, and
leaves room for what follows. Here files go out by sendfile, whatever their size; TLS handshakes
happen in the threads that work, not in the one that accepts; connections that say nothing take no
thread; bodies that nobody reads are not read; and every request is reported when it is over.
"""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from cheroot import server, wsgi

from cacheserver.crowd import MOST_IDLE, limit_connections
from cacheserver.filebody import BLOCK, FileBody
from cacheserver.watch import Watch

_log = logging.getLogger("morph.cacheserver")

_MAX_HEADERS = 1 << 16
_LINGER = 2.0  # seconds that a client may go on sending after it was refused
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\r\n\0]*)\r\n")
_ONCE = (b"Content-Length", b"Transfer-Encoding", b"Host", b"Authorization")
_DISCARD = 1 << 16  # bytes of a body that are read only to keep the connection


@dataclass(frozen=True, slots=True)
class Finished:
    """A request that is over. `sent` counts bytes of the body, `seconds` from the first byte of the
    request to the last of the answer. Not `complete`: the client went away or took too long."""

    environ: dict[str, Any]
    status: int
    sent: int
    seconds: float
    complete: bool


class _Gateway(wsgi.Gateway_10):
    """Between cheroot's request and the WSGI application."""

    sent = 0

    def get_environ(self) -> Any:
        # cheroot itself reads what nobody wanted, to keep the connection.
        self.req.rfile = _Body(self.req, self.req.rfile)
        environ: dict[str, Any] = super().get_environ()  # type: ignore[no-untyped-call]
        environ["wsgi.file_wrapper"] = _keep
        return environ

    def respond(self) -> None:
        began = time.monotonic()
        complete = False
        try:
            complete = self._answer()
        except OSError as error:
            self.req.close_connection = True
            _log.info("request of %s ended early: %s", self.env["REMOTE_ADDR"], error)
        finally:
            self.req.server.watch.end(self.req.conn)
            status = int(self.req.status[:3]) if self.req.status else 0
            seconds = time.monotonic() - began
            self.req.server.report(Finished(self.env, status, self.sent, seconds, complete))

    def _answer(self) -> bool:
        """Was all of the answer sent? Raises OSError if the client is gone, or a disk is broken."""
        response = self.req.server.wsgi_app(self.env, self.start_response)
        try:
            if self.req.rfile_remaining() > _DISCARD:
                # cheroot would read what is left into memory, only to keep the connection.
                self.req.close_connection = True
                self.req.conn.is_unread = True
            if isinstance(response, FileBody):
                return self._send_file(response)
            for block in filter(None, response):
                self.write(block)
                self.sent += len(block)
            self.req.ensure_headers_sent()
            return True
        finally:
            if hasattr(response, "close"):
                response.close()

    def _send_file(self, body: FileBody) -> bool:
        sock = self.req.conn.socket
        self.req.ensure_headers_sent()
        if self.req.server.ssl_adapter is None:
            for count in body.send(sock):
                self.sent += count
        else:
            for block in body:
                sock.sendall(block)
                self.sent += len(block)
        if body.length:
            self.req.close_connection = True
            _log.error("a file got shorter while it was sent")
        return body.length == 0


class _Body(server.KnownLengthRFile):
    """The body of a request, all of which has to come in the time that its length allows."""

    def __init__(self, request: _Request, given: Any) -> None:
        super().__init__(given.rfile, given.remaining)
        self._request = request

    def read(self, size: int | None = None) -> bytes:
        watch, connection = self._request.server.watch, self._request.conn
        watch.begin(connection, self.remaining)
        data: bytes = super().read(size)
        if not self.remaining:
            watch.end(connection)
        return data


def _keep(body: FileBody, size: int = BLOCK) -> FileBody:
    return body


class _HeaderReader(server.HeaderReader):
    """Reads headers as the standard has them, and takes nothing that proxies may read otherwise.

    Those with underscores are left out: WSGI can't tell them from those with dashes.
    """

    def __call__(self, rfile: Any, hdict: Any = None) -> Any:
        """Raises ValueError, which is answered with 400."""
        found: dict[bytes, bytes] = {} if hdict is None else hdict
        while (line := rfile.readline()) != b"\r\n":
            match = _HEADER.fullmatch(line)
            if match is None:
                raise ValueError("Illegal header line.")
            name, value = match[1].title(), match[2].strip()
            if b"_" in name:
                continue
            if name in found:
                if name in _ONCE:
                    raise ValueError("A header is there twice.")
                value = found[name] + b", " + value
            found[name] = value
        return found


class _Request(server.HTTPRequest):
    """Refuses what proxies and servers read in different ways."""

    header_reader = _HeaderReader()

    def parse_request(self) -> None:
        self.server.watch.begin(self.conn)
        try:
            super().parse_request()
        finally:
            self.server.watch.end(self.conn)

    def read_request_headers(self) -> bool:
        if not super().read_request_headers():  # type: ignore[no-untyped-call]
            return False
        if b"Transfer-Encoding" in self.inheaders:
            return self._refuse("411 Length Required")
        if not self.inheaders.get(b"Content-Length", b"0").isdigit():
            return self._refuse("400 Bad Request")
        return True

    def _refuse(self, status: str) -> bool:
        self.close_connection = True
        self.simple_response(status)
        return False

    def rfile_remaining(self) -> int:
        return int(getattr(self.rfile, "remaining", 0))


class _Connection(server.HTTPConnection):
    RequestHandlerClass = _Request
    is_new = True
    is_unread = False  # is the client still sending what nobody wants?

    def communicate(self) -> bool:
        adapter = self.server.ssl_adapter
        if adapter is not None and not self.ssl_env:
            try:
                self.socket.do_handshake()
                self.ssl_env = adapter.get_environ(self.socket)
            except OSError as error:
                _log.info("no TLS connection with %s: %s", self.remote_addr, error)
                return False
        return bool(super().communicate())  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Let the client read its answer before it is told that the connection is gone."""
        if self.is_unread:
            try:
                self.socket.shutdown(socket.SHUT_WR)
                self.socket.settimeout(_LINGER)
                end = time.monotonic() + _LINGER
                while self.socket.recv(BLOCK) and time.monotonic() < end:
                    pass
            except OSError:
                pass  # it is gone already
        super().close()


class Server(wsgi.Server):
    """An HTTP server for a WSGI application, `report` being told of every request."""

    ConnectionClass = _Connection
    max_request_header_size = _MAX_HEADERS
    keep_alive_conn_limit = MOST_IDLE

    def __init__(
        self,
        address: tuple[str, int],
        application: Callable[..., Any],
        report: Callable[[Finished], None],
        *,
        threads: int,
        timeout: int,
        adapter: Any = None,
    ) -> None:
        super().__init__(
            address,
            application,
            numthreads=threads,
            server_name="morph-cache-server",
            request_queue_size=1024,
            timeout=timeout,
            shutdown_timeout=2,
        )
        self.gateway = _Gateway
        self.report = report
        self.ssl_adapter = adapter
        self.watch = Watch(timeout)

    def prepare(self) -> None:
        """Listen. Raises OSError."""
        super().prepare()
        limit_connections(self)

    def process_conn(self, conn: _Connection) -> None:
        """Give a connection to a thread, or wait until there is something to read from it."""
        if conn.is_new:
            conn.is_new = False
            self.put_conn(conn)
        else:
            super().process_conn(conn)

    def serve(self) -> None:
        """Serve until `stop` is called."""
        threading.Thread(target=self._watch_clients, daemon=True).start()
        super().serve()

    def _watch_clients(self) -> None:
        while self.ready:
            time.sleep(1)
            self.watch.look()

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        _log.log(level, "%s", msg, exc_info=traceback)

    @property
    def port(self) -> int:
        """The port that it listens at, once `prepare` was called."""
        return int(self.bind_addr[1])

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
