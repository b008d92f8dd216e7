"""TLS for the server: its certificate, and those that clients show."""

from __future__ import annotations

import socket
import ssl
from typing import Any

from cheroot.ssl.builtin import BuiltinSSLAdapter

from cacheserver.settings import ServerSettings
from morphlib.errors import MorphError, Reason


class TlsAdapter(BuiltinSSLAdapter):
    """Wraps accepted sockets; the handshake is left to the thread that handles the connection."""

    def wrap(self, sock: socket.socket) -> tuple[ssl.SSLSocket, dict[str, Any]]:
        wrapped = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return wrapped, {}


def make_adapter(settings: ServerSettings) -> TlsAdapter | None:
    """None unless the settings ask for TLS. Raises MorphError (CONFIG) for files of no use."""
    if settings.tls_certificate is None:
        return None
    certificate = settings.tls_certificate
    try:
        adapter = TlsAdapter(str(certificate), str(settings.tls_key or certificate))
        context = adapter.context
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.tls_client_ca is not None:
            context.load_verify_locations(str(settings.tls_client_ca))
            only = settings.tls_clients_only
            context.verify_mode = ssl.CERT_REQUIRED if only else ssl.CERT_OPTIONAL
    except OSError as error:  # ssl.SSLError among them
        files = (certificate, settings.tls_key, settings.tls_client_ca)
        raise MorphError(
            f"can't use TLS with {', '.join(str(path) for path in files if path)}: {error}",
            reason=Reason.CONFIG,
            hint="These have to be PEM files, the key without a passphrase and belonging to the"
            " certificate.",
        ) from error
    return adapter
