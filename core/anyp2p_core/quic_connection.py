"""A connection over QUIC: the secure channel and the muxer are one library's, the judgement ours.

Specs: https://github.com/libp2p/specs/blob/master/quic/README.md
       https://github.com/libp2p/specs/blob/master/tls/tls.md

    dialer                                        listener
      Initial: ClientHello                ->
                                          <-      ServerHello ... certificate
      on_certificates: is it the peer?
      certificate, Finished               ->      on_certificates: who is it?
      on_open                                     on_open
      streams, each with multistream     <->      streams

Its bytes do not pass through here: the endpoint carries datagrams between session and sockets.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from .certificate import check_certificate
from .connection import Connection, Owner
from .crypto import Crypto
from .errors import HandshakeError, LocalError, MuxerError
from .quic_muxer import PROTOCOL, QuicMuxer
from .quic_session import QuicProvider, QuicSession

if TYPE_CHECKING:
    from .keys import PublicKey
    from .multiaddr import Multiaddr
    from .muxer import Muxer
    from .peer_id import PeerId

SECURITY = "/tls/1.0.0"
NO_ERROR = 0
PROTOCOL_VIOLATION = 0x1003
"""Connection code of the protocols draft on error codes."""


class QuicConnection(Connection):
    """A connection whose session the endpoint has made.

    ``on_ready`` tells the endpoint that the session may have something to send.
    """

    __slots__ = ("on_ready", "session", "streams", "_crypto", "_key", "_provider")

    def __init__(
        self,
        conn: int,
        *,
        initiator: bool,
        owner: Owner,
        crypto: Crypto,
        local: "Multiaddr | None",
        remote: "Multiaddr | None",
        expected: "PeerId | None",
    ) -> None:
        super().__init__(
            conn, initiator=initiator, owner=owner, local=local, remote=remote, expected=expected
        )
        self.session: QuicSession | None = None
        self.streams: QuicMuxer | None = None
        """``muxer``, as what it is."""
        self.on_ready: Callable[[], object] = _nothing
        self._crypto = crypto
        self._key: PublicKey | None = None
        self._provider: QuicProvider | None = None

    def attach(
        self, session: QuicSession, provider: QuicProvider, on_ready: Callable[[], object]
    ) -> None:
        """The endpoint made ``session`` for this connection."""
        self.session = session
        self.on_ready = on_ready
        self._provider = provider
        session.on_certificates = self._on_certificates
        session.on_open = self._on_open

    # What Connection asks for.

    def receive(self, data: bytes, now: float) -> None:
        raise LocalError("a QUIC connection takes datagrams, from its endpoint")

    def receive_eof(self) -> None:
        raise LocalError("a QUIC connection has no end of file")

    @property
    def wants_write(self) -> bool:
        """Never: the endpoint sends."""
        return False

    def data_to_send(self, now: float) -> bytes:
        return b""

    def take_leave(self) -> None:
        """Nothing: closing the session says it all."""

    def _say_why(self, error: MuxerError, now: float) -> None:
        """Nothing: ``fail`` closes the session with a code."""

    def unsent(self) -> int:
        """Bytes and ends of streams that are not acknowledged yet: a datagram may be lost."""
        streams = self.streams
        if streams is None:
            return 0
        return super().unsent() + streams.queued + streams.session.undelivered

    def fail(self, error: Exception, now: float) -> None:
        if self.session is not None:
            code = error.code if isinstance(error, MuxerError) else PROTOCOL_VIOLATION
            self.session.close(code)
        super().fail(error, now)
        self.on_ready()

    # What the session tells.

    def _on_certificates(self, chain: list[bytes], now: float) -> None:
        assert self._provider is not None
        if len(chain) != 1:
            raise HandshakeError(f"the peer showed {len(chain)} certificates instead of one")
        certificate = self._provider.parse_certificate(chain[0])
        self._key = check_certificate(
            certificate, self._crypto, expected=self._expected, wall=self._owner.wall(now)
        )

    def _on_open(self, now: float) -> None:
        key = self._key
        if key is None:
            raise HandshakeError("the peer showed no certificate")
        assert self.session is not None
        self.public_key = key
        self.peer = key.peer_id
        self.negotiated.security = SECURITY
        self.negotiated.muxer = PROTOCOL
        self.streams = QuicMuxer(
            self.session,
            initiator=self.initiator,
            limits=self._owner.limits,
            on_stream=self._on_stream,
            on_ready=self.on_ready,
            now=now,
        )
        self.muxer = cast("Muxer", self.streams)  # pyright takes slots for methods
        self._owner.on_upgraded(self, now)


def _nothing() -> None:
    pass
