"""mplex: many streams over one ordered byte stream, without flow control.

Spec: https://github.com/libp2p/specs/blob/master/mplex/README.md

    opener                                     acceptor
      | NewStream, Message  ----------------->  |  on_stream, on_data
      | <-----------------------------  Message |  on_data
      | Close  ------------------------------>  |  on_eof; the other direction goes on
      | <-------------------------------  Close |  or Reset: on_reset

What a frame does. "unknown" is a stream that never was or is finished; "-" is: ignored.

    frame       unknown         known, open     known, their side closed
    NewStream   on_stream       MuxerError      MuxerError
    Message     -               on_data         -
    Close       -               on_eof          -
    Reset       -               on_reset        on_reset

Whatever a frame has as a payload is skipped as it comes, unless it is a Message that somebody gets;
frames take effect with their header. MuxerError as well: a payload of more than 1 MiB, which the
header tells; what is no varint of at most 9 bytes; flag 7.

A peer cannot be told to wait, so what is not read has bounds, and a stream that exceeds them is
reset: ``MAX_STREAM_UNREAD``, and ``MAX_UNREAD`` of all together, which costs the largest.
"""

from collections.abc import Callable

from .errors import DecodeError, LimitReached, LocalError, MuxerError
from .limits import MIB, Limits
from .mplex_frame import CLOSE, FLAGS, MAX_HEADER, MAX_NUMBER, NEW_STREAM, RESET, decode, encode
from .mplex_stream import Stream
from .muxed_session import MuxedSession
from .muxed_stream import check_code
from .yamux_outbox import Outbox

PROTOCOL = "/mplex/6.7.0"

MAX_STREAM_UNREAD = 1 * MIB
MAX_UNREAD = 4 * MIB
"""Of all streams of a connection; ``Limits.max_unread`` can only lower it."""
MAX_INBOUND_STREAMS = 128
"""Open streams that the peer opened; ``Limits.max_inbound_streams`` can only lower it."""


def _nothing() -> None:
    pass


class Mplex(MuxedSession[Stream]):
    """Both sides of an mplex session: used as Yamux is.

    ``on_stream(stream, now)`` is called with each stream the peer opens and sets its callbacks.
    ``on_ready()`` is called when ``wants_write`` turns true. Neither may raise. No callback may
    call ``receive`` or ``data_to_send``.
    """

    __slots__ = (
        "next_id", "peer_gone_away", "rtt",
        "_gone_away", "_max_control", "_max_inbound", "_max_unread", "_on_stream", "_outbox",
        "_remaining", "_tail", "_target",
    )  # fmt: skip

    def __init__(
        self,
        *,
        initiator: bool,
        limits: Limits,
        on_stream: Callable[[Stream, float], object],
        on_ready: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(limits)  # ids of streams are number << 1 | inbound
        self.next_id = 0  # the number of the next stream; both sides begin with 0
        self.peer_gone_away: int | None = None  # for ever: mplex cannot say it
        self.rtt: float | None = None  # for ever: there is no ping
        self._gone_away = False
        self._max_control = limits.max_queued_control // MAX_HEADER
        self._max_inbound = min(limits.max_inbound_streams, MAX_INBOUND_STREAMS)
        self._max_unread = min(limits.max_unread, MAX_UNREAD)
        self._on_stream = on_stream
        self._outbox = Outbox(on_ready or _nothing)
        self._remaining = 0  # payload bytes of the frame being received still to come
        self._tail = b""  # an incomplete header
        self._target: Stream | None = None  # whose payload it is; None drains it

    @property
    def wants_write(self) -> bool:
        """Whether ``data_to_send`` would return something."""
        outbox = self._outbox
        return bool(outbox.ready or outbox.control)

    @property
    def queued_control(self) -> int:
        """Bytes of resets that wait to be sent, each counted as the longest."""
        return len(self._outbox.control) * MAX_HEADER

    def open(self, now: float) -> Stream:
        """Open a stream. The next ``data_to_send`` tells the peer, with data if there is some.

        Raises LimitReached, or LocalError when the session takes no new streams any more.
        """
        if self._closed or self._gone_away:
            raise LocalError("the session is closing: no new streams")
        number = self.next_id
        if number > MAX_NUMBER:
            raise LocalError("all stream ids of this session are used: connect again")
        limit = self.limits.max_outbound_streams
        if self._outbound >= limit:
            raise LimitReached(f"max_outbound_streams: {limit} streams are open; close some")
        self.next_id = number + 1
        self._outbound += 1
        stream = self._add(number << 1, number, False)
        stream._outbox.wake(stream)
        return stream

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes from the layer below.

        Raises MuxerError on a broken rule. The session is over then: ``close`` it.
        """
        if self._failed:
            raise MuxerError(self._failed)
        if self._closed:
            return
        if len(self._outbox.control) >= self._max_control:
            raise self._unread_answers()
        pos = 0
        if self._remaining:
            pos = self._receive_payload(data, 0, now)
        elif self._tail:
            data = self._tail + data
            self._tail = b""
        size = len(data)
        streams = self.streams
        max_unread = self._max_unread
        while pos < size:
            try:
                frame = decode(data, pos)
            except DecodeError as error:
                if self._closed:  # by a callback
                    return
                raise self._fail(f"the header of a frame: {error}") from None
            if frame is None:
                self._tail = data[pos:]
                return
            head, length, pos = frame
            if 0 < head & FLAGS < CLOSE:
                # The short way of the usual case: Message, known stream, allowed, all of it here.
                stream = streams.get((head >> 2 | 1) ^ (head & 1))
                end = pos + length
                if stream is not None and length and end <= size:
                    of_stream = stream.unread + length
                    unread = self.unread + length
                    if (
                        of_stream <= MAX_STREAM_UNREAD
                        and unread <= max_unread
                        and not stream.eof_received
                    ):
                        stream.unread = of_stream
                        self.unread = unread
                        stream.on_data(data[pos:end], now)
                        pos = end
                        continue
            pos = self._on_frame(head, length, data, pos, now)

    def data_to_send(self, budget: int, now: float) -> list[bytes]:
        """Return frames for the layer below, about ``budget`` bytes, in pieces to be joined.

        Some pieces may be memoryviews of what was written. Streams take turns, a frame each.
        """
        return self._outbox.take(budget, now)

    def next_timeout(self) -> float | None:
        """None: there is no ping, so nothing ever is due."""
        return None

    def handle_timeout(self, now: float) -> None:
        """Nothing to do."""

    def go_away(self, code: int = 0) -> None:
        """Refuse new streams from now on. The peer cannot be told, and ``code`` goes nowhere."""
        check_code(code)
        self._gone_away = True

    def close(self, now: float) -> None:
        self._outbox.clear()
        super().close(now)

    # Inside, for Stream too.

    def _on_frame(self, head: int, length: int, data: bytes, pos: int, now: float) -> int:
        """Handle the frame whose header ended at ``pos``; return where the next one starts."""
        if self._closed:  # by a callback
            return len(data)
        flag = head & FLAGS
        stream_id = (head >> 2 | 1) ^ (flag & 1)  # an even flag: the peer opened it
        stream = self.streams.get(stream_id)
        target = None
        if flag == NEW_STREAM:
            if stream is not None:
                raise self._fail(f"the peer opens stream {head >> 3}, which is open")
            self._accept(stream_id, head >> 3, now)
        elif flag < CLOSE:
            if stream is not None and not stream.eof_received:
                target = stream
        elif flag < RESET:
            if stream is not None:
                stream._on_end(now)
        elif flag < FLAGS:
            if stream is not None:
                self._on_reset(stream, now)
        else:
            raise self._fail("a frame has flag 7, which does not exist")
        self._target = target
        self._remaining = length
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
            if stream.unread > MAX_STREAM_UNREAD:
                self._shed(stream, 0, now)
            elif self.unread > self._max_unread:
                self._shed(self._largest(), 0, now)
            stream.on_data(data[pos:end], now)  # if it was shed, nobody listens any more
        return end

    def _accept(self, stream_id: int, number: int, now: float) -> None:
        """Make the stream that the peer opens, or refuse it."""
        if len(self._outbox.control) >= self._max_control:  # on_stream may reset it
            raise self._unread_answers()
        if self._gone_away or self._inbound >= self._max_inbound:
            self._count_reset(now)
            self._outbox.add(encode(number << 3 | RESET))
        else:
            self._inbound += 1
            self._on_stream(self._add(stream_id, number, True), now)

    def _add(self, stream_id: int, number: int, inbound: bool) -> Stream:
        stream = Stream(self, self._outbox, stream_id, number, inbound)
        self.streams[stream_id] = stream
        return stream

    def _on_reset(self, stream: Stream, now: float) -> None:
        if stream.inbound:
            self._count_reset(now)
        stream._on_abort(0, now)

    def _forget(self, stream: Stream) -> None:
        MuxedSession._forget(self, stream)  # half of what super costs
        if self._target is stream:
            self._target = None

    def _unread_answers(self) -> MuxerError:
        return self._fail("the peer does not read our answers: max_queued_control is reached")
