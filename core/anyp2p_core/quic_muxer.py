"""The streams of one QUIC connection, behind the interface that yamux has.

Spec: https://www.rfc-editor.org/rfc/rfc9000#section-2

    open, write  -> ready --(in turns, as far as the session has room)--> session
    on_data, on_reset, on_stop  <-- session
    credit       -> MAX_STREAM_DATA     what arrived, in order -> MAX_DATA

What waits to be sent stays here, where it can still be dropped. The limit of the whole connection
counts what has not arrived in order; what an application leaves unread counts against its stream,
and all of it together against ``Limits.max_unread``, as in yamux.
"""

from collections import deque
from collections.abc import Callable
from typing import cast

from .errors import LimitReached, LocalError
from .growth import Growth
from .limits import Limits
from .muxed_session import MuxedSession
from .muxer import RESOURCE_LIMIT, Stream
from .quic_session import QuicSession
from .quic_stream import INITIAL_WINDOW, QuicStream
from .quic_window import Window

PROTOCOL = "/quic-v1"

MAX_STREAM_WINDOW = 10_000_000
CONNECTION_WINDOW = 512 * 1024
"""Bytes not yet in order that a new connection may hold; a gap costs as much as data."""
MAX_CONNECTION_WINDOW = 15_000_000
KEEPALIVE = 15.0
"""Seconds of silence after which we ping: half of the idle timeout."""


def _nothing() -> None:
    pass


class QuicMuxer(MuxedSession[QuicStream]):
    """Both sides of the streams of a session that is open.

    ``on_stream(stream, now)`` is called with each stream the peer opens and sets its callbacks.
    ``on_ready()`` is called whenever the session may have something to send.
    """

    __slots__ = (
        "growth", "max_unread", "on_ready", "peer_gone_away", "session",
        "_due", "_highest", "_on_stream", "_parity", "_ready", "_skipped", "_window",
    )  # fmt: skip

    def __init__(
        self,
        session: QuicSession,
        *,
        initiator: bool,
        limits: Limits,
        on_stream: Callable[[Stream, float], object],
        on_ready: Callable[[], object] = _nothing,
        now: float,
    ) -> None:
        super().__init__(limits)
        self.session = session
        self.growth = Growth(limits, MAX_STREAM_WINDOW)
        self.max_unread = limits.max_unread
        self.on_ready = on_ready
        self.peer_gone_away: int | None = None
        self._due = now + KEEPALIVE
        self._on_stream = on_stream
        self._parity = 0 if initiator else 1  # of the ids of our streams
        self._highest = (self._parity ^ 1) - 4  # id of the peer's last stream
        self._ready: deque[QuicStream] = deque()  # each once, those that have something to send
        self._skipped: dict[int, None] = {}  # ids that the peer opened by using a higher one
        self._window = Window(CONNECTION_WINDOW, now)
        session.on_data = self._on_data
        session.on_reset = self._on_reset
        session.on_stop = self._on_stop

    @property
    def wants_write(self) -> bool:
        """Whether a stream has something for the session."""
        return bool(self._ready)

    @property
    def queued(self) -> int:
        """Streams that have something for the session, be it only their end."""
        return len(self._ready)

    @property
    def queued_control(self) -> int:
        """Nothing: the session bounds its answers itself."""
        return 0

    @property
    def rtt(self) -> float | None:
        """Smoothed round-trip time in seconds, None before the first sample."""
        return self.session.rtt

    def open(self, now: float) -> QuicStream:
        """Open a stream. The peer learns of it with its first data.

        Raises LimitReached, or LocalError when the session takes no new streams any more.
        """
        if self._closed:
            raise LocalError("the session is closing: no new streams")
        limit = self.limits.max_outbound_streams
        if self._outbound >= limit:
            raise LimitReached(f"max_outbound_streams: {limit} streams are open; close some")
        stream_id = self.session.open_stream()
        if stream_id is None:
            raise LimitReached(
                f"the peer takes no more streams at once ({self._outbound} are open); close some"
            )
        self._outbound += 1
        stream = self.streams[stream_id] = QuicStream(self, stream_id, False, now)
        return stream

    def receive(self, data: bytes, now: float) -> None:
        """Not for QUIC: the endpoint feeds the session."""
        raise LocalError("a QUIC connection takes datagrams, from its endpoint")

    def data_to_send(self, budget: int, now: float) -> list[bytes]:
        """Hand what streams hold to the session, which makes datagrams of it. Returns nothing."""
        self.feed(now)
        return []

    def feed(self, now: float) -> int:
        """Hand what streams hold to the session as far as it has room; return how much."""
        ready = self._ready
        room = self.session.room
        fed = 0
        sent = []
        for _ in range(len(ready)):
            stream = ready.popleft()
            stream._queued = False
            size = stream._send(room(stream.id))
            if stream.unsent or stream._fin_queued:
                stream._queued = True
                ready.append(stream)
            if size:
                fed += size
                if stream._want_write or stream.on_drained is not None:
                    sent.append(stream)
        for stream in sent:
            stream._notify(now)
        return fed

    def next_timeout(self) -> float | None:
        """When ``handle_timeout`` wants to be called."""
        return None if self._closed else self._due

    def handle_timeout(self, now: float) -> None:
        """Ping a peer that has been silent; the session itself gives up on one that stays so."""
        interval = min(KEEPALIVE, self.limits.keepalive_interval)
        quiet = now - self.session.heard_at
        if self._closed or quiet < interval:
            self._due = self.session.heard_at + interval
        else:
            self.session.ping()
            self._due = now + interval
            self.on_ready()

    def go_away(self, code: int = 0) -> None:
        """End the session with ``code``: QUIC has no gentler way."""
        if not self._closed:
            self.session.close(code)
            self.on_ready()

    def close(self, now: float) -> None:
        for stream in self._ready:
            stream._queued = False
        self._ready.clear()
        super().close(now)

    # Inside, for QuicStream too.

    def wake(self, stream: QuicStream) -> None:
        """The stream has something to send from now on."""
        stream._queued = True
        self._ready.append(stream)
        self.on_ready()

    def remove(self, stream: QuicStream) -> None:
        """It has nothing to send any more. Linear in ``_ready``."""
        stream._queued = False
        self._ready.remove(stream)

    def shed(self, now: float) -> None:
        """All streams together hold more unread bytes than we do."""
        self._shed(self._largest(), RESOURCE_LIMIT, now)

    def _forget(self, stream: QuicStream) -> None:
        super()._forget(stream)
        self.growth.release(stream._window.size - INITIAL_WINDOW)

    # What the session tells.

    def _on_data(self, stream_id: int, data: bytes, fin: bool, now: float) -> None:
        window = self._window
        window.consumed += len(data)
        if (window.limit - window.consumed) * 2 <= window.size:  # as in ``Window.due``
            self._grant(now)
        stream = self.streams.get(stream_id)
        if stream is None:
            stream = self._accept(stream_id, now)
            if stream is None:
                return
        if stream.eof_received:
            return
        if data:
            stream._on_data(data, now)
        if fin and not stream.is_reset:
            stream._on_end(now)

    def _on_reset(self, stream_id: int, code: int, missing: int, now: float) -> None:
        self._window.consumed += missing
        if self._window.due:
            self._grant(now)
        stream = self.streams.get(stream_id)
        if stream is None:
            stream = self._accept(stream_id, now)
        if stream is None or stream.eof_received:
            return
        if stream.inbound and not stream._settled:
            self._count_reset(now)
        stream._on_reset(code, now)

    def _on_stop(self, stream_id: int, code: int, now: float) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            stream = self._accept(stream_id, now)
        if stream is not None:
            stream._on_stop(code, now)

    def _accept(self, stream_id: int, now: float) -> QuicStream | None:
        """Make the stream that the peer opens. None if it is refused, or was there before."""
        if self._closed or stream_id & 1 == self._parity:
            return None
        if stream_id > self._highest:
            for skipped in range(self._highest + 4, stream_id, 4):  # the session bounds how many
                self._skipped[skipped] = None
            self._highest = stream_id
        elif stream_id in self._skipped:
            del self._skipped[stream_id]
        else:
            return None
        stream = QuicStream(self, stream_id, True, now)
        self.streams[stream_id] = stream
        self._inbound += 1
        if self._inbound > self.limits.max_inbound_streams:
            stream._abort(RESOURCE_LIMIT)
            return None
        self._on_stream(cast("Stream", stream), now)  # pyright takes slots for methods
        return None if stream.is_reset else stream

    def _grant(self, now: float) -> None:
        """Half a window has arrived."""
        self.session.grant(self._window.grant(self.session.rtt, self._grow_window, now))
        self.on_ready()

    def _grow_window(self, size: int) -> int:
        return min(size, MAX_CONNECTION_WINDOW - size)
