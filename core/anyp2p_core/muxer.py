"""What a stream multiplexer must offer to a connection: yamux, mplex, and QUIC's own streams.

bytes of the secure channel -> receive -> on_stream (streams of the peer), and each stream's on_data
open, and each stream's write   -> data_to_send -> bytes for the secure channel
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .limits import Limits

RESOURCE_LIMIT = 0x1002
"""Reset code, as go peers number those of streams: one above the draft's connection codes."""


class Stream(Protocol):
    """One stream. Set the callbacks at once: in ``on_stream``, or right after ``open``.

    ``on_data(data, now)``: bytes from the peer, in order. Give them back with ``credit``.
    ``on_eof(now)``: nothing more comes; we may still write.
    ``on_reset(code, now)``: both directions are over: by the peer (its error code, 0 where there is
    none), because the connection is lost (0), or because we shed the stream. Not called for our own
    ``reset``.
    ``on_writable(now)``: after a short ``write``, more than half of the buffer is free.
    ``on_drained(now)``: nothing is unsent any more. Set it while something is; called once.

    They may call any method of streams, and the muxer's ``open``, and must not raise.
    """

    id: int
    inbound: bool
    on_data: Callable[[bytes, float], object]
    on_eof: Callable[[float], object]
    on_reset: Callable[[int, float], object]
    on_writable: Callable[[float], object]
    on_drained: Callable[[float], object] | None
    eof_received: bool
    eof_sent: bool
    is_reset: bool
    shed: bool
    """We reset it, because the connection held more unread bytes than ``Limits.max_unread``."""
    unsent: int
    """Bytes written and not yet handed out."""
    unread: int
    """Bytes delivered and not yet credited."""

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Queue data; bytes taken, fewer than all: wait for ``on_writable``."""
        ...

    def writable(self) -> bool:
        """Whether ``write`` would take something; if not, ``on_writable`` follows."""
        ...

    def write_eof(self) -> None:
        """Close our direction once everything written is sent."""
        ...

    def reset(self, code: int = 0) -> None:
        """End both directions now; no callback is called."""
        ...

    def credit(self, size: int, now: float) -> None:
        """The application consumed ``size`` bytes of ``on_data``."""
        ...

    def stop_reading(self) -> None:
        """Discard and credit what still comes, instead of calling ``on_data``."""
        ...


class Muxer(Protocol):
    """Both sides of one session. Raises ``MuxerError`` for whatever the peer does wrong."""

    @property
    def streams(self) -> "Mapping[int, Stream]": ...
    @property
    def peer_gone_away(self) -> int | None:
        """The code with which the peer said that it takes no more streams."""
        ...

    @property
    def wants_write(self) -> bool: ...
    @property
    def queued_control(self) -> int:
        """Bytes of answers that wait to be sent."""
        ...

    @property
    def rtt(self) -> float | None:
        """Seconds, None until it was measured, or if this muxer cannot."""
        ...

    def open(self, now: float) -> Stream: ...
    def receive(self, data: bytes, now: float) -> None: ...
    def data_to_send(self, budget: int, now: float) -> list[bytes]: ...
    def next_timeout(self) -> float | None: ...
    def handle_timeout(self, now: float) -> None: ...
    def go_away(self, code: int = 0) -> None: ...
    def close(self, now: float) -> None:
        """The connection is over: every stream is told once."""
        ...


class MuxerMaker(Protocol):
    """What a muxer's class is called with."""

    def __call__(
        self,
        *,
        initiator: bool,
        limits: "Limits",
        on_stream: Callable[[Stream, float], object],
    ) -> Muxer: ...
