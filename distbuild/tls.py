"""TLS for the connections of daemons: both sides show certificates of authorities they share."""

from __future__ import annotations

from typing import Any, cast

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
)
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from distbuild.certificates import Identity, describe_error, describe_problem, is_for_host
from distbuild.framing import encode
from distbuild.handshake import RefusedError
from distbuild.messages import Refused

#: With what a TLS client begins: a record of the handshake.
_HANDSHAKE = b"\x16"
_SPEAK_TLS = "here TLS is spoken: set distbuild-certificate and distbuild-authorities"


def secure(factory: Any, identity: Identity, host: str | None) -> IProtocolFactory:
    """A factory that speaks TLS for another: as the client of `host`, or else as a server."""
    creator: Any = _Creator(identity)
    secured = _SecuredFactory(creator, host is not None, factory)
    secured.host = host
    return cast("IProtocolFactory", secured)


class Secured(BufferingTLSTransport):
    """The transport of a connection. `problem` is what is wrong with the other side, if known."""

    factory: _SecuredFactory
    transport: Any
    problem = ""
    _is_begun = False

    def check_peer(self) -> bytes:
        """The other side's certificate as DER. It was signed by our authorities.

        Raises RefusedError if it is not that of the host that we connected to.
        """
        certificate = self.getPeerCertificate()  # type: ignore[no-untyped-call]
        if certificate is None:
            raise RefusedError("there is no certificate")
        shown = certificate.to_cryptography().public_bytes(Encoding.DER)
        host = self.factory.host
        if host is not None and not is_for_host(shown, host):
            raise RefusedError(f"the certificate does not name {host}: see its subjectAltName")
        return bytes(shown)

    def dataReceived(self, data: bytes) -> None:
        if not self._is_begun and self.factory.host is None and data[:1] != _HANDSHAKE:
            self.problem = "it does not speak TLS"
            self.transport.write(encode(Refused(reason=_SPEAK_TLS)))
            self.transport.loseConnection()
            return
        self._is_begun = True
        super().dataReceived(data)  # type: ignore[no-untyped-call]


def describe_loss(transport: Secured, reason: Failure) -> str:
    """Why a connection ended, said of the other side."""
    if transport.problem:
        return transport.problem
    error = reason.value
    if isinstance(error, SSL.Error) and error.args and isinstance(error.args[0], list):
        return describe_error(error.args[0][-1][-1])
    return str(reason.getErrorMessage())


class _SecuredFactory(TLSMemoryBIOFactory):
    protocol = Secured
    host: str | None


@implementer(IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator)
class _Creator:
    def __init__(self, identity: Identity) -> None:
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_TICKET)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.use_certificate_chain_file(str(identity.certificate))
        context.use_privatekey_file(str(identity.certificate))
        context.check_privatekey()
        context.load_verify_locations(str(identity.authorities))
        self._context = context

    def _create(self, protocol: Secured) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)

        def note(_: object, shown: object, code: int, depth: int, is_good: int) -> bool:
            if not is_good:
                protocol.problem = describe_problem(code)
            return bool(is_good)

        connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, note)
        return connection

    serverConnectionForTLS = clientConnectionForTLS = _create
