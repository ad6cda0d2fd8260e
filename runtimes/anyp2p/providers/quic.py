"""The ``QuicProvider`` interface on aioquic, which is a machine without sockets itself.

Specs: https://github.com/libp2p/specs/blob/master/quic/README.md
       https://www.rfc-editor.org/rfc/rfc9000 (version 1 alone)

    datagrams -> QuicConnection -> events   -> callbacks
    datagrams <- QuicConnection <- commands

Nothing of aioquic leaves this file and quic_hooks: whatever it raises ends that one session.
"""

from collections.abc import Callable
from ssl import CERT_NONE
from typing import Any

from anyp2p.forks import fork_check
from anyp2p_core.certificate import Certificate
from anyp2p_core.errors import HandshakeError, LocalError, MuxerError, RemoteError, TimedOut
from anyp2p_core.keys import PrivateKey
from anyp2p_core.quic_muxer import CONNECTION_WINDOW
from anyp2p_core.quic_packet import MIN_INITIAL, VERSION_1
from anyp2p_core.quic_session import ID_LENGTH, QuicProvider, QuicSession
from anyp2p_core.quic_stream import INITIAL_WINDOW

from .certificates import make_certificate, parse_certificate
from .entropy import OsEntropy
from .quic_hooks import (
    PEER,
    CertificateRefused,
    Connection,
    QuicConfiguration,
    QuicErrorCode,
    QuicRetryTokenHandler,
    encode_quic_retry,
    events,
    load_der_x509_certificate,
)

ALPN = "libp2p"
IDLE_TIMEOUT = 30.0
"""Seconds of silence after which a connection is over."""
AHEAD = 64 * 1024
"""Bytes of a stream that aioquic may hold and not have sent."""
MAX_IN_FLIGHT = 8 * 1024 * 1024
"""Bytes that may be on the way, per connection: aioquic's congestion window has no bound."""
MAX_STREAMS = 256
"""Streams that a peer may have open at a time."""

_CRYPTO_ERRORS = range(0x100, 0x200)


class Aioquic(QuicProvider):
    """QUIC by aioquic: one per node, made with its identity."""

    def __init__(
        self,
        key: PrivateKey,
        wall: float,
        *,
        max_streams: int = MAX_STREAMS,
        datagram_size: int = MIN_INITIAL,
    ) -> None:
        """``wall``: seconds since 1970, for the certificate.

        ``datagram_size``: bytes of the largest datagram we send. aioquic does not look for what a
        path can carry; 1200 bytes pass everywhere.
        """
        der, own = make_certificate(key, wall)
        certificate = load_der_x509_certificate(der)
        self._client, self._server = (
            QuicConfiguration(
                is_client=is_client,
                alpn_protocols=[ALPN],
                connection_id_length=ID_LENGTH,
                idle_timeout=IDLE_TIMEOUT,
                max_data=CONNECTION_WINDOW,
                max_datagram_size=datagram_size,
                max_stream_data=INITIAL_WINDOW,
                certificate=certificate,
                private_key=own,
                supported_versions=[VERSION_1],
                verify_mode=CERT_NONE,  # the core judges
            )
            for is_client in (True, False)
        )
        self._entropy = OsEntropy()
        self._forked = fork_check()
        self._max_streams = max_streams
        self._tokens = QuicRetryTokenHandler()

    def connect(self, now: float) -> "Session":
        session = Session(self._client, self._max_streams, None, None, self._forked, now)
        session.connect(now)
        return session

    def accept(self, destination: bytes, original: bytes | None, now: float) -> "Session":
        retried = None if original is None else destination
        first = destination if original is None else original
        return Session(self._server, self._max_streams, first, retried, self._forked, now)

    def parse_certificate(self, data: bytes) -> Certificate:
        return parse_certificate(data)

    def retry(
        self, source: tuple[str, int], destination: bytes, client: bytes, now: float
    ) -> bytes:
        name = self._entropy(ID_LENGTH)
        token = self._tokens.create_token(
            address=source,
            original_destination_connection_id=destination,
            retry_source_connection_id=name,
            now=now,
        )
        return encode_quic_retry(
            version=VERSION_1,
            source_cid=name,
            destination_cid=client,
            original_destination_cid=destination,
            retry_token=token,
        )

    def check_token(
        self, token: bytes, source: tuple[str, int], destination: bytes, now: float
    ) -> bytes | None:
        try:
            return self._tokens.validate_token(
                address=source, destination_cid=destination, token=token, now=now
            )
        except ValueError:
            return None


class Session(QuicSession):
    """One connection of aioquic."""

    __slots__ = (
        "heard_at", "on_certificates", "on_closed", "on_data", "on_issued", "on_open", "on_reset",
        "on_retired", "on_stop",
        "_error", "_forked", "_now", "_open", "_over", "_quic", "_useless",
    )  # fmt: skip

    def __init__(
        self,
        configuration: QuicConfiguration,
        max_streams: int,
        original: bytes | None,
        retried: bytes | None,
        forked: Callable[[], bool],
        now: float,
    ) -> None:
        self.heard_at = now
        self.on_certificates: Callable[[list[bytes], float], object] = _ignore
        self.on_open: Callable[[float], object] = _ignore
        self.on_data: Callable[[int, bytes, bool, float], object] = _ignore
        self.on_reset: Callable[[int, int, int, float], object] = _ignore
        self.on_stop: Callable[[int, int, float], object] = _ignore
        self.on_issued: Callable[[bytes], object] = _ignore
        self.on_retired: Callable[[bytes], object] = _ignore
        self.on_closed: Callable[[Exception | None, float], object] = _ignore
        self._error: Exception | None = None  # what we found wrong with the peer
        self._forked = forked
        self._now = now
        self._open = False
        self._over = False
        self._useless = False  # aioquic broke down: nothing more is asked of it
        self._quic = Connection(
            self._judge, max_streams, configuration=configuration, original=original,
            retried=retried,
        )  # fmt: skip

    def connect(self, now: float) -> None:
        """Speak first."""
        self._quic.connect(PEER, now)

    @property
    def id(self) -> bytes:
        return self._quic.host_cid

    @property
    def started(self) -> bool:
        return self._quic.started

    @property
    def rtt(self) -> float | None:
        return self._quic.smoothed_rtt

    @property
    def undelivered(self) -> int:
        return self._quic.undelivered()

    def receive(self, data: bytes, now: float) -> None:
        if self._over:
            return
        self._now = self.heard_at = now
        try:
            self._quic.receive_datagram(data, PEER, now)
        except Exception as error:
            self._break(error)
        self._dispatch(now)

    def datagrams_to_send(self, now: float) -> list[bytes]:
        quic = self._quic
        if self._useless or not quic.started:
            return []
        if self._forked():
            raise LocalError(
                "this process was forked after the connection was made: open a new connection"
            )
        try:
            packets = [packet for packet, _ in quic.datagrams_to_send(now)]
        except Exception as error:
            self._break(error)
            self._useless = True
            packets = []
        if quic.pending or quic.ended is not None:
            self._dispatch(now)
        return packets

    def next_timeout(self) -> float | None:
        return None if self._over else self._quic.timer()

    def handle_timeout(self, now: float) -> None:
        if self._over:
            return
        self._now = now
        try:
            self._quic.handle_timer(now)
        except Exception as error:
            self._break(error)
        if self._quic.ended is not None and self._error is None:
            self._error = TimedOut("the peer has been silent for too long")
        self._dispatch(now)

    def open_stream(self) -> int | None:
        return self._quic.new_stream()

    def room(self, stream: int) -> int:
        return self._quic.room(stream, AHEAD, MAX_IN_FLIGHT)

    def send(self, stream: int, data: bytes | memoryview, fin: bool) -> None:
        if self._quic.has_stream(stream):
            self._quic.send_stream_data(stream, data, fin)  # type: ignore[arg-type]

    def reset(self, stream: int, code: int) -> None:
        if self._quic.has_stream(stream):
            self._quic.reset_stream(stream, code)

    def stop(self, stream: int, code: int) -> None:
        if self._quic.has_stream(stream):
            self._quic.stop_stream(stream, code)

    def grant_stream(self, stream: int, limit: int) -> None:
        self._quic.grant_stream(stream, limit)

    def grant(self, limit: int) -> None:
        self._quic.grant(limit)

    def ping(self) -> None:
        self._quic.send_ping(0)

    def close(self, code: int) -> None:
        if not self._over:
            self._over = True
            self._quic.close(code)
            self._quic.pending.clear()

    def _judge(self, chain: list[bytes]) -> None:
        try:
            self.on_certificates(chain, self._now)
        except RemoteError as error:
            self._error = error
            raise CertificateRefused from None

    def _break(self, error: Exception) -> None:
        """aioquic raised: this session is over, the others go on."""
        text = f"the QUIC library failed: {type(error).__name__}"
        self._error = MuxerError(text, 2) if self._open else HandshakeError(text)
        self._error.__cause__ = error
        self._quic.close(QuicErrorCode.INTERNAL_ERROR, 0)

    def _dispatch(self, now: float) -> None:
        """Pass on what happened, and then the end if that is what happened."""
        quic = self._quic
        pending = quic.pending
        while pending and not self._over:
            event = pending.popleft()
            kind = type(event)
            if kind is events.StreamDataReceived:
                self.on_data(event.stream_id, event.data, event.end_stream, now)
            elif kind is events.StreamReset:
                missing = quic.missing(event.stream_id)
                self.on_reset(event.stream_id, event.error_code, missing, now)
            elif kind is events.StopSendingReceived:
                self.on_stop(event.stream_id, event.error_code, now)
            elif kind is events.HandshakeCompleted:
                self._open = True
                self.on_open(now)
            elif kind is events.ConnectionIdIssued:
                self.on_issued(event.connection_id)
            elif kind is events.ConnectionIdRetired:
                self.on_retired(event.connection_id)
        if quic.ended is not None and not self._over:
            self._over = True
            pending.clear()
            self.on_closed(self._reason(quic.ended), now)

    def _reason(self, ended: Any) -> Exception | None:
        """What to tell of the end; None: the peer closed in order."""
        code = ended.error_code
        if self._error is not None:
            return self._error
        if self._quic.ended_by_us:
            text = ended.reason_phrase or f"code {code:#x}"
            if self._open:
                return MuxerError(f"the peer broke the rules of QUIC: {text}")
            return HandshakeError(f"the QUIC handshake failed: {text}")
        if ended.frame_type is not None and code in _CRYPTO_ERRORS:
            return HandshakeError(f"the peer refused the handshake (TLS alert {code & 0xFF})")
        if not self._open:
            return HandshakeError(f"the peer ended the QUIC handshake with code {code:#x}")
        if code:
            return MuxerError(f"the peer ended the session with code {code:#x}")
        return None


def _ignore(*_: object) -> None:
    pass
