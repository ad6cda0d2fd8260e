"""Web TLS, the lower half of wss, on the standard library's `ssl` without its sockets.

Specs: https://www.rfc-editor.org/rfc/rfc8446
       https://github.com/libp2p/specs/blob/master/websockets/README.md

This TLS proves the name of a web server to browsers and to whoever dials /tls/ws. Who the peer is
comes out of the security protocol inside of it. TLS 1.2 or 1.3, ALPN ``http/1.1``; the environment
(SSL_CERT_FILE, SSLKEYLOGFILE) has no say.
"""

import ipaddress
import os
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from anyp2p_core.errors import HandshakeError, LocalError
from anyp2p_core.layer import Write
from anyp2p_core.route import Route

MAX_HANDSHAKE = 256 * 1024
"""Bytes that a peer may send before its handshake is complete; a long chain has 20 KiB."""

Path = str | os.PathLike[str]


class WebTls:
    """Makes the web TLS layers of a node.

    ``certificate`` is the PEM files of our chain, leaf first, and of its key, for those who dial
    us. ``trust`` is a PEM file of the authorities that vouch for those whom we dial; by default
    those of the system. LocalError if a file cannot be used.
    """

    def __init__(
        self, certificate: tuple[Path, Path] | None = None, trust: Path | None = None
    ) -> None:
        self._server = None if certificate is None else _server_context(*certificate)
        self._client: ssl.SSLContext | None = None
        if trust is not None:
            self._client = _client_context(trust)

    def check(self, route: Route) -> None:
        """LocalError if no certificate can be for the name of a route."""
        WebTlsLayer(self._dialing(), _ignore, name=route.sni)

    def start(self, *, initiator: bool, route: Route | None, write: Write) -> "WebTlsLayer":
        """LocalError without a certificate, or without a name that a certificate could be for."""
        if initiator:
            return WebTlsLayer(self._dialing(), write, name=route.sni if route is not None else "")
        if self._server is None:
            raise LocalError("web TLS needs a certificate to listen: pass web_certificate=...")
        return WebTlsLayer(self._server, write)

    def _dialing(self) -> ssl.SSLContext:
        if self._client is None:  # the system's authorities are many: read when needed
            self._client = _client_context(None)
        return self._client


class WebTlsLayer:
    """One connection: a client of ``name``, or a server if that is None.

    The client speaks at construction. HandshakeError for whatever goes wrong, and then again at
    every call; the alert that tells the peer has been written by then.
    """

    def __init__(self, context: ssl.SSLContext, write: Write, *, name: str | None = None) -> None:
        self.open = False
        self.ended = False
        self.on_open: Callable[[float], object] = _ignore
        self.on_data: Callable[[bytes, float], object] = _ignore
        self.on_end: Callable[[float], object] = _ignore
        self._write = write
        self._name = name
        self._failure: str | None = None
        self._received = 0
        self._mute = False  # nothing can be sealed any more
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        try:
            self._tls = context.wrap_bio(
                self._incoming,
                self._outgoing,
                server_side=name is None,
                server_hostname=None if name is None else _ascii(name),
            )
        except (ValueError, TypeError, ssl.SSLError) as error:
            raise LocalError(f"no certificate can be for the name {name!r}: {error}") from None
        if name is not None:
            self._shake()

    def __repr__(self) -> str:
        role = "server" if self._name is None else f"client of {self._name}"
        if self._failure is not None:
            return f"<WebTlsLayer {role}, failed: {self._failure}>"
        state = "ended" if self.ended else "open" if self.open else "in the handshake"
        return f"<WebTlsLayer {role}, {state}>"

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes from the transport."""
        if self._failure is not None:
            raise HandshakeError(self._failure)
        if self.ended:
            return
        try:
            self._incoming.write(data)
            if not self.open:
                self._received += len(data)
                if not self._shake():
                    if self._received > MAX_HANDSHAKE:
                        raise HandshakeError(f"a TLS handshake of more than {MAX_HANDSHAKE} bytes")
                    return
                self.open = True
                self.on_open(now)
            self._read(now)
        except BaseException as error:
            # The rest is lost, whoever raised: what comes later makes no sense.
            self._failure = str(error)
            raise

    def receive_eof(self) -> None:
        """The transport ended; HandshakeError in the handshake.

        Later it is an end like a close_notify alert, which many peers forget: what is inside is
        sealed a second time, and the layers above tell whether something is missing.
        """
        if not self.open:
            raise HandshakeError(f"{self._who} closed the connection in the TLS handshake")

    def seal(self, chunks: list[bytes]) -> bytes:
        """The join of ``chunks`` as TLS records; LocalError before the handshake is complete.

        After close_notify, or when TLS itself has failed, it gives ``b""``: nothing may follow.
        """
        if not self.open:
            raise LocalError("the web TLS connection is not open")
        data = b"".join(chunks)
        if not data or self._mute:
            return b""
        self._tls.write(data)
        return self._outgoing.read()

    def finish(self) -> bytes:
        """The close_notify alert, once. Data of the peer still goes up after it."""
        if not self.open or self._mute:
            return b""
        self._mute = True
        with suppress(ssl.SSLError):  # the peer's alert is not here: no need to wait for it
            self._tls.unwrap()
        return self._outgoing.read()

    @property
    def _who(self) -> str:
        return self._name or "the peer"

    def _shake(self) -> bool:
        """Go on with the handshake; True when it is complete."""
        try:
            self._tls.do_handshake()
            return True
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            self._fail(error)
        finally:
            self._flush()

    def _read(self, now: float) -> None:
        tls = self._tls
        while True:
            try:
                data = tls.read(_RECORD)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                data = b""
            except ssl.SSLError as error:
                self._flush()  # the alert
                self._fail(error)
            if not data:
                self.ended = True
                self._flush()
                self.on_end(now)
                return
            self.on_data(data, now)
        self._flush()  # the answer to a key update

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._write(self._outgoing.read())

    def _fail(self, error: ssl.SSLError) -> NoReturn:
        self._mute = True
        raise HandshakeError(_sentence(error, self._who)) from None


def _sentence(error: ssl.SSLError, who: str) -> str:
    """What to tell a person."""
    if isinstance(error, ssl.SSLCertVerificationError):
        said = error.verify_message
        match error.verify_code:
            case 9:
                return f"the certificate of {who} is not valid yet: is the clock right?"
            case 10:
                return f"the certificate of {who} has expired, or the clock is wrong"
            case 62 | 64:
                return f"the certificate of {who} is for another name: {said}"
            case _:
                return (
                    f"the certificate of {who} is not trusted: {said}; "
                    "pass web_trust=... to trust your own authority"
                )
    reason = str(error.reason or error).replace("_", " ").lower()
    if "alert" in reason and ("certificate" in reason or "unknown ca" in reason):
        return f"{who} does not accept our certificate: {reason}"
    return f"TLS with {who} failed: {reason}"


def _client_context(trust: Path | None) -> ssl.SSLContext:
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.hostname_checks_common_name = False  # no browser does it any more
    try:
        if trust is not None:
            context.load_verify_locations(trust)
        elif sys.platform == "win32":
            context.load_default_certs()
        else:
            # What OpenSSL was built with: ``load_default_certs`` would ask the environment first.
            paths = ssl.get_default_verify_paths()
            file = paths.openssl_cafile if os.path.isfile(paths.openssl_cafile) else None
            folder = paths.openssl_capath if os.path.isdir(paths.openssl_capath) else None
            if file or folder:  # without either, nobody is trusted
                context.load_verify_locations(file, folder)
    except OSError as error:  # ssl.SSLError is one of them
        where = trust or "the system's store"
        raise LocalError(f"no certificates of authorities in {where}: {error}") from None
    return context


def _server_context(chain: Path, key: Path) -> ssl.SSLContext:
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0  # nobody resumes: libp2p connections last
    context.options |= ssl.OP_NO_TICKET
    try:
        # An encrypted key is refused instead of asking whoever sits at the terminal.
        context.load_cert_chain(chain, key, password=lambda: b"")
    except OSError as error:
        raise LocalError(f"no certificate and key in {chain} and {key}: {error}") from None
    return context


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context


def _ascii(name: str) -> str:
    """A name or address as `ssl` wants it: UnicodeError, a ValueError, for what cannot be one."""
    name = name.partition("%")[0]
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.encode("idna").decode()


_RECORD = 16 * 1024
"""The largest piece that one record holds."""


def _ignore(*_: object) -> None:
    """The callbacks' default."""
