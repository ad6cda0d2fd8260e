"""/tls/1.0.0: TLS 1.3 in which both sides show a certificate made by their identity key.

Specs: https://github.com/libp2p/specs/blob/master/tls/tls.md
       https://github.com/libp2p/specs/blob/master/connections/inlined-muxer-negotiation.md
       https://www.rfc-editor.org/rfc/rfc8446 (TLS 1.3)

    client    hello, ALPN: muxers, "libp2p"      ->
                                                 <-    hello, ALPN: the first of them that it has,
                                                       certificate, finished            server
              (checks the certificate)
              certificate, finished              ->
                                                       (checks the certificate)
              records                           <->    records
              close_notify                      <->    close_notify

A TLS library makes and reads the records; it is told to believe any certificate, and what is
believed is decided here. The client is done before the server has seen its certificate, so that a
refusal comes where the first data would.
"""

from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

from .certificate import Certificate, check_certificate
from .channel import Channel
from .crypto import Crypto
from .errors import HandshakeError, LocalError
from .keys import PrivateKey
from .peer_id import PeerId
from .varint import Data

PROTOCOL = "/tls/1.0.0"
ALPN = "libp2p"
"""Chosen by ALPN: the muxer is to be negotiated by multistream-select."""

MAX_HELLO = 16 * 1024
"""What a client may send before the server's first answer, headers of records included."""
MAX_HANDSHAKE = 64 * 1024
"""What a peer may send before the channel is open."""
MAX_ASIDES = 4 * 1024
"""What the library may say of itself (answers to key updates) between two calls of ``seal``."""


class TlsSession(Protocol):
    """One connection of a TLS library. Whatever the peer does wrong raises HandshakeError.

    TLS 1.3 and nothing older, no resumption, no server name; a certificate is demanded of the peer
    and any is accepted. Both directions raise LocalError in a forked child.
    """

    complete: bool
    """The handshake is over; the peer's certificate has not been judged."""
    ended: bool
    """The peer sent close_notify."""
    alpn: str | None
    """What ALPN chose, None if nothing; once complete. A server without a common protocol fails
    with the alert no_application_protocol."""

    def receive(self, records: Data, count: int, into: list[bytes]) -> None:
        """Take ``count`` whole records, one only while the handshake goes on.

        What they hold is appended to ``into``, also before an exception. Nothing is read after
        close_notify.
        """
        ...

    def output(self) -> bytes:
        """What the library itself has to say: handshake messages, alerts. Once each."""
        ...

    def chain(self) -> list[bytes]:
        """The certificates that the peer sent, its own first, in DER."""
        ...

    def seal(self, data: Data) -> bytes:
        """``data`` as records, behind what ``output`` would return."""
        ...

    def close(self) -> bytes:
        """close_notify, behind what ``output`` would return."""
        ...


class TlsCredentials(Protocol):
    """A certificate and its key: for any number of sessions in both roles."""

    def session(self, *, initiator: bool, alpn: Sequence[str]) -> TlsSession:
        """A new session; a client's first message is in its ``output`` at once.

        ``alpn``: what a client offers, in its order, or what a server accepts, which chooses the
        first of the client's list.
        """
        ...


class TlsProvider(Protocol):
    """A TLS library as the machines see it."""

    def credentials(self, key: PrivateKey, wall: float) -> TlsCredentials:
        """A new certificate vouched for by ``key``, valid from an hour before ``wall``."""
        ...

    def parse_certificate(self, data: bytes) -> Certificate:
        """The certificate in DER. Raises HandshakeError, and nothing else."""
        ...


class Tls(Channel):
    """One secure channel. The client's hello is written at construction.

    ``on_open()`` is called once, when the peer is authenticated and ``peer``, ``public_key`` and
    ``muxer`` are set; after it ``on_data(plaintext, now)``, and ``on_end(now)`` when the peer said
    close_notify: it sends no more, while the transport may stay open. ``ended`` tells the same.
    ``expected`` is the only peer accepted, None for any. ``wall``: seconds since 1970.
    """

    __slots__ = (
        "ended",
        "_answered", "_asides", "_broken", "_closed", "_initiator", "_muxers", "_provider",
        "_quiet", "_received", "_session", "_size", "_tail", "_wall",
    )  # fmt: skip

    def __init__(
        self,
        *,
        initiator: bool,
        credentials: TlsCredentials,
        provider: TlsProvider,
        crypto: Crypto,
        write: Callable[[bytes], object],
        wall: float,
        muxers: Sequence[str] = (),
        expected: PeerId | None = None,
    ) -> None:
        super().__init__(crypto, expected, write)
        self.ended = False
        self._initiator = initiator
        self._provider = provider
        self._wall = wall
        self._muxers = tuple(muxers)
        # The library refused something: it can say nothing more, not even good-bye.
        self._broken = False
        self._closed = False
        # A client that has read nothing does not know yet whether it was accepted.
        self._quiet = initiator
        # A record that came in part, and its size: five bytes until these tell it.
        self._tail = bytearray()
        self._size = _HEADER
        self._received = 0
        self._answered = initiator
        self._asides = 0
        self._session = credentials.session(initiator=initiator, alpn=(*self._muxers, ALPN))
        if initiator:
            write(self._session.output())

    def __repr__(self) -> str:
        role = "initiator" if self._initiator else "responder"
        return f"<Tls {role}, {self._state}>"

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes from the transport.

        Raises HandshakeError or PeerIdMismatch, and then again at every call. What follows
        close_notify is ignored.
        """
        if self._failure is not None:
            self._raise_again()
        try:
            self._receive(data, now)
        except BaseException as error:
            self._remember(error)
            raise

    def receive_eof(self) -> None:
        """The transport will deliver no more; HandshakeError if that is too early.

        It is during the handshake, in the middle of a record, and for a client that has received
        nothing: the server did not like its certificate. An end between two records is accepted
        without close_notify, which not every peer sends.
        """
        if not self.open:
            raise HandshakeError("the connection ended in the middle of the TLS handshake")
        if self.ended:
            return
        if self._tail:
            raise HandshakeError("the connection ended in the middle of a TLS record")
        if self._quiet:
            raise HandshakeError("the peer ended the connection instead of accepting us")

    def seal(self, chunks: list[bytes]) -> bytes:
        """The join of ``chunks`` for the transport, in records of up to 16 KiB.

        LocalError before the channel is open. Nothing once the library has failed: its alert was
        the last word.
        """
        if not self.open:
            raise LocalError("the secure channel is not open")
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        if not data or self._broken:
            return b""
        if self._closed:
            raise LocalError("nothing can be sealed after the last words")
        self._asides = 0
        return self._session.seal(data)

    def finish(self) -> bytes:
        """close_notify, once; nothing unless the channel is open."""
        if not self.open or self._broken or self._closed:
            return b""
        self._closed = True
        return self._session.close()

    # Records.

    def _receive(self, data: bytes, now: float) -> None:
        pos, end = 0, len(data)
        if self._tail:
            pos = self._resume(data, now)
        start, count = pos, 0
        while end - pos >= _HEADER and not self.ended:
            size = _record_size(data, pos)
            if not 0 < size <= end - pos:
                break  # what is wrong is judged after what came before it
            pos += size
            count += 1
            if not self.open:  # one by one: which of them is the last of the handshake?
                self._on_records(data[start:pos], 1, now)
                start, count = pos, 0
        if count:
            whole = start == 0 and pos == end
            self._on_records(data if whole else memoryview(data)[start:pos], count, now)
        if pos < end and not self.ended:
            self._size = _expect(data, pos) if end - pos >= _HEADER else _HEADER
            self._tail = bytearray(memoryview(data)[pos:])

    def _resume(self, data: bytes, now: float) -> int:
        """Complete the record that earlier chunks began; returns where ``data`` goes on."""
        tail = self._tail
        pos = 0
        if len(tail) < _HEADER:
            pos = min(_HEADER - len(tail), len(data))
            tail += data[:pos]
            if len(tail) < _HEADER:
                return pos
            self._size = _expect(tail, 0)
        stop = min(pos + self._size - len(tail), len(data))
        tail += memoryview(data)[pos:stop]
        if len(tail) == self._size:
            self._tail = bytearray()
            self._on_records(tail, 1, now)
        return stop

    def _on_records(self, records: Data, count: int, now: float) -> None:
        session = self._session
        if not self.open:
            self._on_handshake(records, now)
            return
        pieces: list[bytes] = []
        try:
            session.receive(records, count, pieces)
        except HandshakeError as error:
            self._deliver(pieces, now)
            self._fail(error)
        self._deliver(pieces, now)
        if len(pieces) < count:
            # Some records were the library's own business.
            if aside := session.output():
                self._asides += len(aside)
                if self._asides > MAX_ASIDES:
                    raise HandshakeError("the peer renews its keys over and over")
                self._write(aside)
            if session.ended:
                self._on_close(now)

    def _deliver(self, pieces: list[bytes], now: float) -> None:
        if pieces:
            self._quiet = False
            self.on_data(pieces[0] if len(pieces) == 1 else b"".join(pieces), now)

    def _on_close(self, now: float) -> None:
        self.ended = True
        self.on_end(now)

    def _fail(self, error: HandshakeError) -> NoReturn:
        self._broken = True
        if alert := self._session.output():
            self._write(alert)
        if self._quiet and self.open:
            raise HandshakeError(f"the peer did not accept us: {error}") from None
        raise error

    # The handshake.

    def _on_handshake(self, record: Data, now: float) -> None:
        session = self._session
        self._received += len(record)
        limit = MAX_HANDSHAKE if self._answered else MAX_HELLO
        if self._received > limit:
            raise HandshakeError(f"more than {limit} bytes of a TLS handshake")
        try:
            session.receive(record, 1, [])
        except HandshakeError as error:
            self._fail(error)
        if not session.complete:
            if said := session.output():
                self._answered = True
                self._write(said)
            return
        self._check()
        # Only now: the peer learns who we are after we know who it is.
        if said := session.output():
            self._write(said)
        self.open = True
        self.on_open()

    def _check(self) -> None:
        """Judge the peer; it is known afterwards."""
        chain = self._session.chain()
        if len(chain) != 1:
            raise HandshakeError(f"the peer shows {len(chain)} certificates instead of one")
        certificate = self._provider.parse_certificate(chain[0])
        key = check_certificate(certificate, self._crypto, expected=self._expected, wall=self._wall)
        muxer = self._session.alpn
        if muxer is not None and muxer != ALPN:
            if muxer not in self._muxers:
                raise HandshakeError(f"the peer chose the protocol {muxer!r}, not offered")
            self.muxer = muxer
        self.peer = key.peer_id
        self.public_key = key


class TlsSecurity:
    """Offers TLS 1.3. One certificate serves all connections of a node."""

    protocol = PROTOCOL

    def __init__(self, key: PrivateKey, crypto: Crypto, provider: TlsProvider) -> None:
        self._key = key
        self._crypto = crypto
        self._provider = provider
        self._credentials: TlsCredentials | None = None

    def start(
        self,
        *,
        initiator: bool,
        expected: PeerId | None,
        muxers: Sequence[str],
        write: Callable[[bytes], object],
        wall: float,
    ) -> Tls:
        if self._credentials is None:
            self._credentials = self._provider.credentials(self._key, wall)
        return Tls(
            initiator=initiator,
            credentials=self._credentials,
            provider=self._provider,
            crypto=self._crypto,
            write=write,
            wall=wall,
            muxers=muxers,
            expected=expected,
        )


_HEADER = 5
_MAX_RECORD = 16 * 1024 + 256


def _record_size(data: Data, pos: int) -> int:
    """The size of the record at ``pos``, its header of five bytes included; 0 if it is none."""
    size = data[pos + 3] << 8 | data[pos + 4]
    if not 20 <= data[pos] <= 23 or data[pos + 1] != 3 or size > _MAX_RECORD:
        return 0
    return _HEADER + size


def _expect(data: Data, pos: int) -> int:
    """The same before the record is complete: judged before anything is kept."""
    size = _record_size(data, pos)
    if not size:
        raise HandshakeError("these bytes are no TLS record")
    return size
