"""What a QUIC library must offer: one provider per node, one session per connection.

Spec: https://www.rfc-editor.org/rfc/rfc9000 (QUIC), rfc9001 (QUIC and TLS)

    QuicEndpoint                 provider                            peer
      connect, accept       ->   session
      receive, send ...     ->   session  --datagrams_to_send-->       .
                            <-   on_certificates (judged by us)
                            <-   on_open: the peer has proved who it is
                            <-   on_data, on_reset, on_stop
                            <-   on_issued, on_retired: names it can be reached by
                            <-   on_closed: once

Packets, cipher, loss recovery and congestion are the library's. Windows, streams as applications
see them, and who may connect are the core's.
"""

from collections.abc import Callable
from typing import Protocol

from .certificate import Certificate

ID_LENGTH = 8
"""Bytes of every connection id that a session of ours answers to."""


class QuicSession(Protocol):
    """One connection. Nothing here raises because of the peer, but what the callbacks raise.

    ``on_certificates(chain, now)``: the peer's certificates in DER, before their key is proved.
    Raising HandshakeError refuses them.
    ``on_open(now)``: the handshake is complete, and the certificate's key is the peer's.
    ``on_data(stream, data, fin, now)``: bytes in order, and whether they are the last.
    ``on_reset(stream, code, missing, now)``: RESET_STREAM; ``missing`` bytes of what the peer sent
    will never be delivered.
    ``on_stop(stream, code, now)``: STOP_SENDING; the library has dropped what was to be sent.
    ``on_issued(id)``, ``on_retired(id)``: another connection id is, or is not, ours.
    ``on_closed(error, now)``: it is over; ``error`` is None when the peer closed it in order. What
    ``datagrams_to_send`` returns then is the last.
    """

    on_certificates: Callable[[list[bytes], float], object]
    on_open: Callable[[float], object]
    on_data: Callable[[int, bytes, bool, float], object]
    on_reset: Callable[[int, int, int, float], object]
    on_stop: Callable[[int, int, float], object]
    on_issued: Callable[[bytes], object]
    on_retired: Callable[[bytes], object]
    on_closed: Callable[[Exception | None, float], object]

    heard_at: float
    """When the last datagram arrived."""

    @property
    def id(self) -> bytes:
        """The first connection id, before any is issued."""
        ...

    @property
    def started(self) -> bool:
        """Whether a packet that the peer protected has arrived, or we speak first."""
        ...

    @property
    def rtt(self) -> float | None:
        """Smoothed round-trip time in seconds, None before the first sample."""
        ...

    @property
    def undelivered(self) -> int:
        """Bytes and ends of streams that the peer has not acknowledged."""
        ...

    def receive(self, data: bytes, now: float) -> None: ...
    def datagrams_to_send(self, now: float) -> list[bytes]: ...
    def next_timeout(self) -> float | None: ...
    def handle_timeout(self, now: float) -> None: ...

    def open_stream(self) -> int | None:
        """The id of a new bidirectional stream; None: the peer takes no more at present."""
        ...

    def room(self, stream: int) -> int:
        """Bytes that ``send`` may be given now, without being kept for long."""
        ...

    def send(self, stream: int, data: bytes | memoryview, fin: bool) -> None: ...
    def reset(self, stream: int, code: int) -> None: ...
    def stop(self, stream: int, code: int) -> None: ...
    def grant_stream(self, stream: int, limit: int) -> None:
        """The peer may send this many bytes on a stream, counted from its start."""
        ...

    def grant(self, limit: int) -> None:
        """The same for all streams together."""
        ...

    def ping(self) -> None: ...
    def close(self, code: int) -> None:
        """End it; the next ``datagrams_to_send`` tells the peer. ``on_closed`` is not called."""
        ...


class QuicProvider(Protocol):
    """A QUIC library, with the certificate of this node."""

    def connect(self, now: float) -> QuicSession: ...
    def accept(self, destination: bytes, original: bytes | None, now: float) -> QuicSession:
        """A session for a first Initial packet to ``destination``.

        ``original``: what the client had called us before our Retry packet; None if there was none.
        """
        ...

    def parse_certificate(self, data: bytes) -> Certificate:
        """Raises HandshakeError."""
        ...

    def retry(
        self, source: tuple[str, int], destination: bytes, client: bytes, now: float
    ) -> bytes:
        """A Retry packet for a client called ``client`` that called us ``destination``."""
        ...

    def check_token(
        self, token: bytes, source: tuple[str, int], destination: bytes, now: float
    ) -> bytes | None:
        """What the client had called us before the Retry packet with this token.

        None if we made no such token for ``source`` and ``destination`` lately.
        """
        ...
