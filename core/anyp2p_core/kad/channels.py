"""Streams of ours on one connection: each carries one request after the other.

    submit --> an idle stream, or a new one  --answer--> done, and the stream is idle
          `--> as many as allowed are busy: queued until one is free
    idle for too long: closed, and reset if the peer does not close it too

A peer may close an idle stream; a request that meets such a stream is sent once more, on a new
one. ADD_PROVIDER has no answer: it is done when it was sent on a stream whose protocol the peer has
confirmed.
"""

from collections import deque
from typing import TYPE_CHECKING

from ..connection import Connection
from ..errors import LimitReached, LocalError, RemoteError
from ..muxer import Stream
from . import messages
from .framing import Framing
from .messages import MAX_RESPONSE, Message

if TYPE_CHECKING:
    from .requests import Request, Requests


class Link:
    """Our streams on one connection."""

    __slots__ = ("_filling", "busy", "connection", "held", "idle", "owner", "queue")

    def __init__(self, owner: "Requests", connection: Connection) -> None:
        self.owner = owner
        self.connection = connection
        self.busy = 0
        """Streams that carry a request."""
        self.held = owner.held.share()
        self.idle: Channel | None = None
        self.queue: deque[Request] = deque()
        self._filling = False

    def submit(self, request: "Request", now: float) -> None:
        """Send a request as soon as a stream is free. Raises LocalError if that will never be."""
        config = self.owner.config
        if self.idle is not None:
            channel, self.idle = self.idle, None
            self.busy += 1
            channel.start(request, now)
        elif self.busy < config.max_streams_per_peer:
            self.open(request, now)
        elif len(self.queue) < config.max_queued_per_peer:
            self.queue.append(request)
            request.queue = self.queue
        else:
            raise LimitReached(
                f"max_queued_per_peer: {len(self.queue)} requests wait for {request.peer}"
            )

    def open(self, request: "Request", now: float) -> None:
        """Send a request on a new stream. Raises LocalError if there can be none."""
        channel = Channel(self)
        channel.open(request, now)
        self.busy += 1

    def release(self, channel: "Channel | None", now: float) -> None:
        """A stream has done its work; it can be used again unless it is None."""
        self.busy -= 1
        if channel is None:
            self._fill(now)
        elif self.queue:
            self.busy += 1
            channel.start(self._next(), now)
        elif self.idle is None:
            self.idle = channel
            channel.park(now)
        else:
            channel.close(now)

    def fail(self, error: Exception, now: float) -> None:
        """Nothing more can be sent."""
        while self.queue:
            self.owner.finish(self._next(), None, error, now)

    def _next(self) -> "Request":
        request = self.queue.popleft()
        request.queue = None
        return request

    def _fill(self, now: float) -> None:
        """Open streams for what is queued."""
        # What is told of a failure may release another stream: then this loop here goes on. The
        # queue of a lost connection fails when that is told.
        if self._filling or self.connection.error is not None:
            return
        self._filling = True
        while self.queue and self.busy < self.owner.config.max_streams_per_peer:
            request = self._next()
            try:
                self.open(request, now)
            except LocalError as error:
                self.owner.finish(request, None, error, now)
        self._filling = False


class Channel:
    """One stream of ours: carries one request at a time."""

    __slots__ = ("_frames", "_link", "_request", "_stream", "_timer", "_used")

    def __init__(self, link: Link) -> None:
        self._link = link
        self._frames = Framing(MAX_RESPONSE, link.held)
        self._request: Request | None = None
        self._stream: Stream | None = None
        self._timer = 0
        self._used = False
        """A request was carried to its end before this one."""

    def open(self, request: "Request", now: float) -> None:
        """Open the stream for its first request."""
        link = self._link
        config = link.owner.config
        self._request = request
        # Without an answer only the negotiation tells whether the peer takes the request.
        self._stream = link.connection.open_stream(
            (config.protocol,), self._on_open, self._on_fail, now, optimistic=request.has_answer
        )
        request.channel = self
        self._touch()

    def start(self, request: "Request", now: float) -> None:
        """Carry another request."""
        self._link.owner.context.cancel(self._timer)
        self._request = request
        request.channel = self
        self._send()

    def park(self, now: float) -> None:
        """Wait for another request."""
        owner = self._link.owner
        self._timer = owner.context.call_at(
            now + owner.config.idle_timeout, "kad idle", self._on_idle
        )

    def abort(self, now: float) -> None:
        """The request is not wanted any more, and the stream is of no use without its answer."""
        self._request = None
        self._reset()
        self._link.release(None, now)

    def close(self, now: float) -> None:
        """End the stream in order, as far as the peer does too."""
        stream, owner = self._stream, self._link.owner
        assert stream is not None
        self._frames.close()
        stream.write_eof()
        stream.stop_reading()
        self._timer = owner.context.call_at(
            now + owner.config.request_timeout, "kad close", self._on_not_closed
        )
        self._touch()

    def _send(self) -> None:
        stream, request = self._stream, self._request
        assert stream is not None and request is not None
        stream.write(request.data)  # it fits: 16 KiB into an empty buffer
        if not request.has_answer:
            stream.on_drained = self._on_drained
        self._touch()

    # What happens to the stream.

    def _on_open(self, stream: Stream, protocol: str, now: float) -> None:
        self._stream = stream
        stream.on_data = self._on_data
        stream.on_eof = self._on_eof
        stream.on_reset = self._on_reset
        self._send()

    def _on_fail(self, error: Exception, now: float) -> None:
        self._broken(error, now)

    def _on_drained(self, now: float) -> None:
        self._succeed(None, now)

    def _on_data(self, data: bytes, now: float) -> None:
        stream, request = self._stream, self._request
        assert stream is not None
        stream.credit(len(data), now)
        try:
            frames = self._frames.receive(data)
            if request is None or not request.has_answer:
                raise RemoteError("the peer sent something that nobody asked for")
            if not frames:
                return
            if len(frames) > 1 or self._frames.pending:
                raise RemoteError("the peer sent more than an answer")
            answer = messages.decode(frames[0])
            if answer.type != request.type:
                raise RemoteError(f"the answer to {request.type} is of type {answer.type}")
        except RemoteError as error:
            self._used = False  # its answer was wrong: another one would be too
            self._reset()
            self._broken(error, now)
        else:
            self._succeed(answer, now)

    def _on_eof(self, now: float) -> None:
        assert self._stream is not None
        self._stream.write_eof()
        self._touch()
        self._broken(RemoteError("the peer closed the stream without an answer"), now)

    def _on_reset(self, code: int, now: float) -> None:
        self._broken(RemoteError(f"the peer reset the stream (code {code:#x})"), now)

    def _on_idle(self, now: float) -> None:
        self._link.idle = None
        self.close(now)

    def _on_not_closed(self, now: float) -> None:
        self._reset()

    # What becomes of the request.

    def _succeed(self, answer: Message | None, now: float) -> None:
        request, self._request = self._request, None
        assert request is not None
        self._used = True
        request.channel = None
        # First the stream, so that what follows from the answer can use it.
        if answer is None:  # some peers answer all the same, which would pass for the next answer
            self.close(now)
            self._link.release(None, now)
        else:
            self._link.release(self, now)
        self._link.owner.finish(request, answer, None, now)

    def _broken(self, error: Exception, now: float) -> None:
        """The stream is of no use any more."""
        link = self._link
        lost = link.connection.error
        again = self._used and not self._frames.pending and lost is None
        self._frames.close()
        link.owner.context.cancel(self._timer)
        request, self._request = self._request, None
        if link.idle is self:
            link.idle = None
        if request is None:
            return
        request.channel = None
        link.busy -= 1
        if again and request.fresh:
            request.fresh = False
            try:
                link.open(request, now)
                return
            except LocalError as cause:
                error = cause
        link.busy += 1
        link.release(None, now)
        link.owner.finish(request, None, lost or error, now)

    def _reset(self) -> None:
        assert self._stream is not None
        self._frames.close()
        self._stream.reset()
        self._touch()

    def _touch(self) -> None:
        self._link.owner.context.touch(self._link.connection)
