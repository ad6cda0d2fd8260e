"""The ``TlsProvider`` interface on pyOpenSSL.

Specs: https://github.com/libp2p/specs/blob/master/tls/tls.md
       https://www.rfc-editor.org/rfc/rfc8446 (TLS 1.3)

    records -> memory BIO -> OpenSSL -> plaintext
    records <- memory BIO <- OpenSSL <- plaintext

OpenSSL never sees a socket. It demands a certificate and believes any single one; anyp2p_core.tls
judges it. Nothing of OpenSSL leaves this file: its errors become HandshakeError.
"""

from collections.abc import Sequence
from typing import Any

from anyp2p.extras import MissingExtra
from anyp2p.forks import fork_check
from anyp2p_core.certificate import Certificate
from anyp2p_core.errors import HandshakeError, LocalError
from anyp2p_core.keys import PrivateKey
from anyp2p_core.secret import Secret
from anyp2p_core.tls import TlsProvider
from anyp2p_core.varint import Data

from .certificates import is_usual_key, make_certificate, parse_certificate

try:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from OpenSSL import SSL, crypto
except ImportError as error:
    raise MissingExtra(
        "TLS needs the package 'pyOpenSSL': pip install 'anyp2p[tls]'", name="OpenSSL"
    ) from error


class OpenSsl(TlsProvider):
    """TLS by OpenSSL. It has no state: share one or make many."""

    def credentials(self, key: PrivateKey, wall: float) -> "Credentials":
        return Credentials(*make_certificate(key, wall))

    def parse_certificate(self, data: bytes) -> Certificate:
        return parse_certificate(data)


class Credentials(Secret):
    """A certificate and its key, ready for use in either role."""

    __slots__ = ("_client", "_server")

    def __init__(self, certificate: bytes, key: ec.EllipticCurvePrivateKey) -> None:
        self._client = _context(SSL.TLS_CLIENT_METHOD, certificate, key)
        self._server = _context(SSL.TLS_SERVER_METHOD, certificate, key)
        self._server.set_alpn_select_callback(_choose)

    def session(self, *, initiator: bool, alpn: Sequence[str]) -> "Session":
        return Session(self._client if initiator else self._server, initiator, alpn)


class Session(Secret):
    """One connection of OpenSSL."""

    __slots__ = ("_connection", "_forked", "_initiator", "alpn", "complete", "ended")

    def __init__(self, context: Any, initiator: bool, alpn: Sequence[str]) -> None:
        self.complete = False
        self.ended = False
        self.alpn: str | None = None
        self._forked = fork_check()
        self._initiator = initiator
        connection = self._connection = SSL.Connection(context, None)
        protocols = [protocol.encode() for protocol in alpn]
        if initiator:
            connection.set_alpn_protos(protocols)
            connection.set_connect_state()
            self._shake_hands()
        else:
            connection.set_app_data(protocols)
            connection.set_accept_state()

    def receive(self, records: Data, count: int, into: list[bytes]) -> None:
        self._check_fork()
        if not self.complete:
            self._connection.bio_write(records)
            self._shake_hands()
            return
        end = len(records)
        if end <= _PORTION:
            self._read(records, count, into)
            return
        view = memoryview(records)
        start = pos = count = 0
        while pos < end and not self.ended:
            pos += 5 + (view[pos + 3] << 8 | view[pos + 4])
            count += 1
            if pos - start >= _PORTION - _RECORD or pos == end:
                self._read(view[start:pos], count, into)
                start, count = pos, 0

    def output(self) -> bytes:
        self._check_fork()
        return self._drain(_CHUNK)

    def chain(self) -> list[bytes]:
        connection = self._connection
        first = connection.get_peer_certificate()
        if first is None:
            return []
        chain = connection.get_peer_cert_chain() or []
        if not self._initiator:  # OpenSSL leaves the client's own certificate out of its chain
            chain = [first, *chain]
        return [crypto.dump_certificate(crypto.FILETYPE_ASN1, one) for one in chain]

    def seal(self, data: Data) -> bytes:
        self._check_fork()
        send = self._connection.send
        size = len(data)
        whole = data if size <= _PORTION else memoryview(data)
        parts: list[bytes] = []
        try:
            for start in range(0, size, _PORTION):
                portion = whole[start : start + _PORTION]
                sent = send(portion)
                while sent < len(portion):  # it stopped at the end of a record
                    sent += send(memoryview(portion)[sent:])
                parts.append(self._drain(len(portion) + 1024))
        except SSL.Error as error:
            raise LocalError(f"nothing can be sealed: {_reason(error)}") from None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> bytes:
        self._check_fork()
        try:
            self._connection.shutdown()
        except SSL.Error:
            return b""
        return self._drain(_CHUNK)

    def _read(self, records: Data, count: int, into: list[bytes]) -> None:
        connection = self._connection
        connection.bio_write(records)
        read = connection.recv
        try:
            for _ in range(count):  # a call never reads more than one
                into.append(read(_RECORD))
        except SSL.WantReadError:
            pass  # a key update or a ticket
        except SSL.ZeroReturnError:
            self.ended = True
        except SSL.Error as error:
            raise _failure(error) from None

    def _shake_hands(self) -> None:
        connection = self._connection
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            return
        except _NoCommonProtocol:
            raise HandshakeError("the peer offers no protocol of ours by ALPN") from None
        except SSL.ZeroReturnError:
            raise HandshakeError("the peer said close_notify during the handshake") from None
        except SSL.Error as error:
            raise _failure(error) from None
        self.complete = True
        chosen = connection.get_alpn_proto_negotiated()
        self.alpn = chosen.decode("utf-8", "replace") if chosen else None

    def _drain(self, size: int) -> bytes:
        """All that OpenSSL wants sent; ``size`` is more than what to expect."""
        read = self._connection.bio_read
        parts: list[bytes] = []
        try:
            parts.append(read(size))
            while len(parts[-1]) == size:
                parts.append(read(size))
        except SSL.WantReadError:
            pass
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _check_fork(self) -> None:
        if self._forked():
            raise LocalError(
                "this process was forked after the connection was made: open a new connection"
            )


_RECORD = 16 * 1024
"""The most that one record holds."""
_PORTION = 64 * 1024
"""About how much goes into OpenSSL at once: its buffers keep the size that they once needed."""
_CHUNK = 16 * 1024
"""How much is read from OpenSSL at once of what it says by itself."""
_PARTIAL_WRITE = 1  # SSL_MODE_ENABLE_PARTIAL_WRITE, which pyOpenSSL sets and does not name


def _context(method: int, certificate: bytes, key: ec.EllipticCurvePrivateKey) -> SSL.Context:
    context = SSL.Context(method)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_options(SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    if hasattr(context, "set_tls13_ciphersuites"):  # since pyOpenSSL 25.2
        # The fastest first: each is strong enough.
        context.set_tls13_ciphersuites(
            b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
        )
    # The search for issuers ends at the first one, before any signature is checked.
    context.set_verify_depth(0)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _believe)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # while nothing moves
    if hasattr(context, "clear_mode"):  # since pyOpenSSL 25.3
        context.clear_mode(_PARTIAL_WRITE)  # one call, as many records as it takes
    context.use_certificate(x509.load_der_x509_certificate(certificate))
    context.use_privatekey(key)
    return context


class _NoCommonProtocol(Exception):
    """Raised through OpenSSL, which then sends the alert for it."""


def _choose(connection: SSL.Connection, offered: list[bytes]) -> bytes:
    """The ALPN protocol of a server: the client's order counts."""
    ours: list[bytes] = connection.get_app_data()
    for protocol in offered:
        if protocol in ours:
            return protocol
    raise _NoCommonProtocol


def _believe(
    connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int
) -> bool:
    """Let any certificate pass that stands alone and whose key is cheap to verify with.

    Must not raise: the exception would come out of another connection of this context.
    """
    if depth:
        return False
    if not ok:
        return True  # it is called again for a certificate that stands alone
    try:
        return is_usual_key(certificate.to_cryptography().public_key())
    except Exception:
        return False


def _failure(error: SSL.Error) -> HandshakeError:
    return HandshakeError(f"TLS failed: {_reason(error)}")


def _reason(error: SSL.Error) -> str:
    """What OpenSSL says, without where in its code it says so."""
    reason = error.args[-1] if error.args else ""
    if isinstance(reason, list):
        reason = reason[-1][-1] if reason else ""
    return str(reason) or "the library gives no reason"
