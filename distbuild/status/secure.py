"""TLS for the status page: its certificate. Who may look is told by the token, not by TLS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.protocols.tls import TLSMemoryBIOFactory

from morphlib.errors import MorphError, Reason


class Certificate:
    """The certificate in a PEM file, with its key and what leads to an authority."""

    def __init__(self, path: Path) -> None:
        """Raises MorphError (CONFIG) for a file that is of no use, or that others can read."""
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(SSL.OP_NO_RENEGOTIATION)
        context.set_passwd_cb(lambda *_: b"")  # nothing asks for one at a terminal
        try:
            mode = path.stat().st_mode
            context.use_certificate_chain_file(str(path))
            context.use_privatekey_file(str(path))
            context.check_privatekey()
        except (OSError, SSL.Error) as error:
            why = getattr(error, "strerror", None) or "it holds no certificate with its key"
            raise MorphError(
                f"can't use TLS with {path}: {why}",
                reason=Reason.CONFIG,
                hint="It has to be a PEM file with a certificate and its key without a passphrase.",
            ) from error
        if mode & 0o077:
            raise MorphError(
                f"others may read the key in {path}", reason=Reason.CONFIG, hint=f"chmod 600 {path}"
            )
        self._context = context

    def getContext(self) -> SSL.Context:
        """What Twisted asks for."""
        return self._context

    def secure(self, factory: Any) -> Any:
        """A factory that speaks TLS, as a server, for another."""
        make: Any = TLSMemoryBIOFactory
        return make(self, False, factory)
