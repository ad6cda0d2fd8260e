"""yamux: many streams over one ordered byte stream.

Spec: https://github.com/hashicorp/yamux/blob/master/spec.md

    opener                                     acceptor
      | DATA SYN, or WINDOW_UPDATE SYN  ------->  |  on_stream, on_data
      | <-------  DATA ACK, or WINDOW_UPDATE ACK  |
      | DATA ...  --------------------------->    |  on_data; credit
      | <---------------  WINDOW_UPDATE +consumed |  once half a window is consumed
      | DATA FIN  --------------------------->    |  on_eof
      | <---------------------------------  ...   |  RST instead of FIN: on_reset
      | PING SYN  ---------- PING ACK --------    |  either side, stream id 0

What a frame does. "unknown" is a stream that never was or is finished; "-" is: ignored.

    frame           unknown              known, open          known, their side closed
    DATA            - (drained)          on_data              MuxerError, or - if it is empty
    WINDOW_UPDATE   -                    window grows         window grows
    ... | SYN       on_stream            MuxerError           MuxerError
    ... | ACK       -                    acknowledged         acknowledged
    ... | FIN       -                    on_eof               -
    ... | RST       - (drained)          on_reset             on_reset
    ... | SYN | FIN on_stream, on_eof    MuxerError           MuxerError
    ... | SYN | RST -                    MuxerError           MuxerError

Flags of one frame apply in the order SYN, ACK, RST or else payload or credit, FIN. A frame is
checked as a whole before any of it applies. MuxerError as well: another version or type; stream
id 0, or with SYN an id of our own parity; DATA longer than the window that is left (for an unknown
stream: than the largest window); SYN with more than 262144 bytes or as much extra credit; a send
window above 2^32-1. PING and GO_AWAY are taken with any stream id.
"""

from collections.abc import Callable

from .errors import LimitReached, LocalError, MuxerError
from .growth import Growth
from .limits import Limits
from .muxed_session import MuxedSession
from .muxed_stream import check_code
from .muxer import RESOURCE_LIMIT
from .yamux_frame import (
    ACK,
    FIN,
    FLAGS,
    GO_AWAY,
    HEADER_SIZE,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    decode,
    encode,
)
from .yamux_keepalive import Keepalive
from .yamux_outbox import Outbox
from .yamux_stream import INITIAL_WINDOW, Stream

PROTOCOL = "/yamux/1.0.0"

MAX_UNACKNOWLEDGED = 256
"""Streams we may open ahead of the peer's ACKs; go and rust peers stop accepting there."""
MAX_QUEUED_PONGS = 4
MAX_WINDOW = 2**32 - 1
LAST_ID = 2**32 - 2
"""Stream ids from here on are not used: the session is exhausted."""

SHUTDOWN = 0x1007
"""Reset code, numbered like ``RESOURCE_LIMIT``."""


def _nothing() -> None:
    pass


class Yamux(MuxedSession[Stream]):
    """Both sides of a yamux session.

    ``on_stream(stream, now)`` is called with each stream the peer opens and sets its callbacks.
    ``on_ready()`` is called when ``wants_write`` turns true; it is true from the start, for the
    first ping. Neither may raise. No callback may call ``receive`` or ``data_to_send``.
    """

    __slots__ = (
        "next_id", "peer_gone_away",
        "_fin", "_gone_away", "_growth", "_heard_at", "_keepalive", "_max_control", "_max_unread",
        "_on_stream", "_outbox", "_parity", "_pongs", "_remaining", "_tail", "_target", "_unacked",
    )  # fmt: skip

    def __init__(
        self,
        *,
        initiator: bool,
        limits: Limits,
        on_stream: Callable[[Stream, float], object],
        on_ready: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(limits)
        self.next_id = 1 if initiator else 2
        self.peer_gone_away: int | None = None
        self._fin = 0  # the frame being received ends the peer's direction
        self._gone_away = False
        self._growth = Growth(limits, MAX_WINDOW)
        self._heard_at = float("-inf")
        self._keepalive = Keepalive(limits.keepalive_interval, limits.keepalive_timeout)
        self._max_control = limits.max_queued_control // HEADER_SIZE
        self._max_unread = limits.max_unread
        self._on_stream = on_stream
        self._outbox = Outbox(on_ready or _nothing)
        self._outbox.control.append(self._keepalive.request())
        self._parity = self.next_id & 1
        self._pongs = 0  # queued
        self._remaining = 0  # payload bytes of the frame being received still to come
        self._tail = b""  # an incomplete header
        self._target: Stream | None = None  # whose payload it is; None drains it
        self._unacked = 0

    @property
    def wants_write(self) -> bool:
        """Whether ``data_to_send`` would return something."""
        outbox = self._outbox
        return bool(outbox.ready or outbox.control)

    @property
    def queued_control(self) -> int:
        """Bytes of pongs, resets and window updates that wait to be sent."""
        return len(self._outbox.control) * HEADER_SIZE

    @property
    def rtt(self) -> float | None:
        """Round-trip time in seconds by our pings, None before the first pong."""
        return self._keepalive.rtt

    def open(self, now: float) -> Stream:
        """Open a stream. The next ``data_to_send`` tells the peer, with data if there is some.

        Raises LimitReached, or LocalError when the session takes no new streams any more.
        """
        if self._closed or self._gone_away or self.peer_gone_away is not None:
            raise LocalError("the session is closing: no new streams")
        stream_id = self.next_id
        if stream_id >= LAST_ID:
            raise LocalError("all stream ids of this session are used: connect again")
        limit = self.limits.max_outbound_streams
        if self._outbound >= limit:
            raise LimitReached(f"max_outbound_streams: {limit} streams are open; close some")
        if self._unacked >= MAX_UNACKNOWLEDGED:
            raise LimitReached(f"the peer has not accepted {self._unacked} streams yet; wait")
        stream = Stream(self, self._outbox, stream_id, False, SYN, INITIAL_WINDOW, now)
        self.next_id = stream_id + 2
        self._outbound += 1
        self._unacked += 1
        self.streams[stream_id] = stream
        self._outbox.wake(stream)
        return stream

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes from the layer below.

        Raises MuxerError on a broken rule. The session is over then: send the error's code with
        ``go_away`` and ``close``.
        """
        if self._failed:
            raise MuxerError(self._failed)
        if len(self._outbox.control) >= self._max_control:
            raise self._unread_answers()
        self._heard_at = now
        pos, size = 0, len(data)
        if self._remaining:
            pos = self._receive_payload(data, 0, now)
        elif self._tail:
            pos = HEADER_SIZE - len(self._tail)
            header = self._tail + data[:pos]
            if len(header) < HEADER_SIZE:
                self._tail = header
                return
            self._tail = b""
            head, stream_id, length = decode(header)
            on_frame = self._on_data if head <= FLAGS else self._on_other
            pos = on_frame(head, stream_id, length, data, pos, now)
        streams = self.streams
        max_unread = self._max_unread
        while size - pos >= HEADER_SIZE:
            head, stream_id, length = decode(data, pos)
            pos += HEADER_SIZE
            if not head:
                # The short way of the usual case: DATA, known stream, allowed, all of it here.
                stream = streams.get(stream_id)
                end = pos + length
                unread = self.unread + length
                if (
                    stream is not None
                    and 0 < length <= stream.receive_window
                    and end <= size
                    and unread <= max_unread
                ):
                    self.unread = unread
                    stream.unread += length
                    stream.receive_window -= length
                    stream.on_data(data[pos:end], now)
                    pos = end
                    continue
            if head <= FLAGS:
                pos = self._on_data(head, stream_id, length, data, pos, now)
            else:
                pos = self._on_other(head, stream_id, length, data, pos, now)
        if pos < size:
            self._tail = data[pos:]

    def data_to_send(self, budget: int, now: float) -> list[bytes]:
        """Return frames for the layer below, about ``budget`` bytes, in pieces to be joined.

        Some pieces may be memoryviews of what was written. Streams take turns, a frame each.
        """
        if self._keepalive.queued:
            self._keepalive.sent(now)
        self._pongs = 0
        return self._outbox.take(budget, now)

    def next_timeout(self) -> float | None:
        """When ``handle_timeout`` wants to be called. None before anything was sent."""
        return None if self._closed else self._keepalive.due

    def handle_timeout(self, now: float) -> None:
        """Queue the keepalive ping when it is due. Raises TimedOut when the peer is silent."""
        if not self._closed and self._keepalive.handle_timeout(now, self._heard_at):
            self._outbox.add(self._keepalive.request())

    def go_away(self, code: int = 0) -> None:
        """Refuse new streams and tell the peer; 0 normal, 1 protocol error, 2 internal error.

        Many peers close the connection at once on it: first send what they should still get.
        """
        check_code(code)
        if not self._gone_away and not self._closed:
            self._gone_away = True
            self._outbox.add(encode(GO_AWAY, 0, code))

    def close(self, now: float) -> None:
        self._outbox.clear()
        super().close(now)

    # Inside, for Stream too.

    def _on_data(
        self, flags: int, stream_id: int, length: int, data: bytes, pos: int, now: float
    ) -> int:
        """Handle the DATA frame whose header ended at ``pos``; return where the next one starts."""
        if self._closed:  # by a callback
            return len(data)
        stream = self.streams.get(stream_id)
        if flags & SYN:
            if stream is not None or not stream_id or stream_id & 1 == self._parity:
                raise self._fail(f"the peer may not open stream {stream_id}")
            if length > INITIAL_WINDOW:
                raise self._fail(f"stream {stream_id} starts with {length} bytes")
            stream = self._accept(stream_id, flags, INITIAL_WINDOW, now)
        elif stream is None:
            if length > max(INITIAL_WINDOW, self.limits.max_stream_window) or not stream_id:
                raise self._fail(f"{length} bytes for stream {stream_id}, which is not open")
        elif length > stream.receive_window:
            problem = "end" if stream.eof_received else "window"
            raise self._fail(f"stream {stream_id}: {length} bytes beyond its {problem}")
        if stream is not None:
            if flags & ACK and not stream._acked:
                self._acknowledged(stream)
            if flags & RST:
                self._on_reset(stream, 0, now)
                stream = None
            else:
                stream.receive_window -= length
                if not length:
                    if flags & FIN:
                        self._on_fin(stream, now)
                    return pos
        self._target = stream
        self._remaining = length
        self._fin = flags & FIN
        return self._receive_payload(data, pos, now)

    def _receive_payload(self, data: bytes, pos: int, now: float) -> int:
        """Pass on what has come of the payload, whole or not; return where it ends."""
        end = pos + self._remaining
        if end > len(data):
            end = len(data)
        size = end - pos
        self._remaining -= size
        stream = self._target
        if stream is not None and size:
            stream.unread += size
            self.unread += size
            if self.unread > self._max_unread:
                # Perhaps this one: then nobody listens any more.
                self._shed(self._largest(), RESOURCE_LIMIT, now)
            stream.on_data(data[pos:end], now)
        if self._fin and not self._remaining and self._target is not None:
            self._on_fin(self._target, now)
        return end

    def _on_other(
        self, head: int, stream_id: int, length: int, data: bytes, pos: int, now: float
    ) -> int:
        """The same for a frame that is its header."""
        if self._closed:
            return len(data)
        kind = head & ~FLAGS
        flags = head & FLAGS
        if kind == WINDOW_UPDATE:
            self._on_window_update(stream_id, flags, length, now)
        elif kind == PING:
            self._on_ping(flags, length, now)
        elif kind == GO_AWAY:
            self.peer_gone_away = length
        else:
            raise self._fail(f"a frame starts with {head >> 16:04x}: not yamux version 0")
        return pos

    def _on_window_update(self, stream_id: int, flags: int, length: int, now: float) -> None:
        stream = self.streams.get(stream_id)
        if flags & SYN:
            if stream is not None or not stream_id or stream_id & 1 == self._parity:
                raise self._fail(f"the peer may not open stream {stream_id}")
            if length > INITIAL_WINDOW and not flags & RST:
                raise self._fail(f"stream {stream_id} starts with a window of {length} more bytes")
            stream = self._accept(stream_id, flags, INITIAL_WINDOW + length, now)
        elif not stream_id:
            raise self._fail("a window update for stream 0")
        elif stream is not None and not flags & RST:
            window = stream.send_window + length
            if window > MAX_WINDOW:
                raise self._fail(f"stream {stream_id}: a send window of {window} bytes")
            stream.send_window = window
            if stream.unsent and window and not stream._queued:
                self._outbox.wake(stream)
        if stream is None:
            return
        if flags & ACK and not stream._acked:
            self._acknowledged(stream)
        if flags & RST:
            self._on_reset(stream, length, now)
        elif flags & FIN:
            self._on_fin(stream, now)

    def _on_ping(self, flags: int, value: int, now: float) -> None:
        if flags & SYN:
            if self._pongs < MAX_QUEUED_PONGS:
                self._pongs += 1
                self._outbox.add(encode(PING | ACK, 0, value))
        elif flags & ACK:
            self._keepalive.pong(value, now)

    def _accept(self, stream_id: int, flags: int, send_window: int, now: float) -> Stream | None:
        """Make the stream that the peer opens. None if it is refused or over already."""
        if flags & RST:
            self._count_reset(now)
            return None
        if len(self._outbox.control) >= self._max_control:  # on_stream may reset it
            raise self._unread_answers()
        full = self._inbound >= self.limits.max_inbound_streams
        if full or self._gone_away:
            code = RESOURCE_LIMIT if full else SHUTDOWN
            self._outbox.add(encode(WINDOW_UPDATE | RST, stream_id, code))
            return None
        stream = Stream(self, self._outbox, stream_id, True, ACK, send_window, now)
        self._inbound += 1
        self.streams[stream_id] = stream
        self._outbox.wake(stream)
        self._on_stream(stream, now)
        return None if stream.is_reset else stream

    def _acknowledged(self, stream: Stream) -> None:
        stream._acked = True
        self._unacked -= 1

    def _on_fin(self, stream: Stream, now: float) -> None:
        stream.receive_window = 0  # so that data after the end is data above the window
        stream._on_end(now)

    def _on_reset(self, stream: Stream, code: int, now: float) -> None:
        if stream.inbound:
            self._count_reset(now)
        stream._on_abort(code, now)

    def _forget(self, stream: Stream) -> None:
        MuxedSession._forget(self, stream)  # half of what super costs
        if not stream._acked:
            self._unacked -= 1
        if stream._window_size != INITIAL_WINDOW:
            self._growth.release(stream._window_size - INITIAL_WINDOW)
        if self._target is stream:
            self._target = None

    def _unread_answers(self) -> MuxerError:
        return self._fail("the peer does not read our answers: max_queued_control is reached")
