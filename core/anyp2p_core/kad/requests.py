"""Requests of ours: connections, streams and deadlines for them.

    send --connected--> a free stream, or a new one --answer--> done
      |                 as many as allowed are busy: queued       ^
      '--not connected--> dial, within the budget --connected-----'
    silent until the deadline, refused, disconnected, malformed answer: done, with the error

A stream is kept for the next request. A peer may close it meanwhile; a request that meets such a
stream is sent once more, on a new one. ADD_PROVIDER has no answer: it is done when it was sent on a
stream whose protocol the peer has confirmed.
"""

from collections import deque
from collections.abc import Callable, Sequence

from ..connection import Connection
from ..errors import DialError, Error, LimitReached, LocalError, RemoteError, TimedOut
from ..events import DialFailed, Event, PeerConnected
from ..multiaddr import Multiaddr
from ..peer_id import PeerId
from ..service import Context
from ..yamux_stream import Stream
from . import messages
from .budget import DialBudget, is_counted
from .config import KadConfig
from .framing import Framing, Held
from .messages import MAX_RESPONSE, Message, Type

Done = Callable[[Message | None, Exception | None, float], object]
"""Called with the answer (None if the request has none), or with the error."""


class Request:
    """One request under way. Cancel it with ``Requests.cancel``."""

    __slots__ = ("channel", "data", "done", "fresh", "peer", "timer", "type")

    def __init__(self, peer: PeerId, kind: int, data: bytes, done: Done) -> None:
        self.peer = peer
        self.type = kind
        self.data = data
        self.done: Done | None = done
        self.timer = 0
        self.channel: _Channel | None = None
        self.fresh = True
        """Not sent a second time yet."""

    @property
    def has_answer(self) -> bool:
        return self.type != Type.ADD_PROVIDER


class Requests:
    """All requests to all peers of one network."""

    def __init__(self, context: Context, config: KadConfig, held: Held, budget: DialBudget) -> None:
        self.context = context
        self.config = config
        self.held = held
        self.refused = 0
        """Dials that the budget did not allow."""
        self._budget = budget
        self._dials: dict[int, PeerId] = {}
        self._early: DialFailed | None = None
        self._links: dict[int, _Link] = {}
        self._starting: deque[tuple[PeerId, list[Multiaddr]]] = deque()
        self._start_timer = 0
        self._waiting: dict[PeerId, list[Request]] = {}

    def send(
        self,
        peer: PeerId,
        addresses: Sequence[Multiaddr],
        message: Message,
        timeout: float,
        done: Done,
        now: float,
    ) -> Request:
        """Send a request; ``done`` is called once, later, unless it is cancelled.

        ``addresses`` are tried besides those that are known. Raises Error, and calls nothing, when
        it cannot even be tried.
        """
        return self.send_encoded(
            peer, addresses, message.type, messages.encode(message), timeout, done, now
        )

    def send_encoded(
        self,
        peer: PeerId,
        addresses: Sequence[Multiaddr],
        kind: int,
        data: bytes,
        timeout: float,
        done: Done,
        now: float,
    ) -> Request:
        """The same for a message that is sent to many."""
        request = Request(peer, kind, data, done)
        connections = self.context.connections(peer)
        if connections:
            self._link(connections[0]).submit(request, now)
        else:
            self._dial(request, addresses, now)
        request.timer = self.context.call_at(
            now + timeout, "kad answer", lambda now: self._expire(request, timeout, now)
        )
        return request

    def cancel(self, request: Request, now: float) -> None:
        """Forget a request; its ``done`` is not called any more. Harmless when it is over."""
        if request.done is not None:
            request.done = None
            self._abandon(request, now)

    # Notices from the service.

    def on_connected(self, connection: Connection, now: float) -> None:
        """Send what waits for this peer."""
        assert connection.peer is not None
        for request in self._waiting.pop(connection.peer, ()):
            try:
                self._link(connection).submit(request, now)
            except Error as error:
                self.finish(request, None, error, now)

    def on_disconnected(self, connection: Connection, now: float) -> None:
        """Its streams were reset before; what was queued behind them fails now."""
        link = self._links.pop(connection.id, None)
        if link is not None:
            link.fail(connection.error or RemoteError("the connection is lost"), now)

    def on_event(self, event: Event, now: float) -> None:
        """Learn how dials end."""
        if isinstance(event, PeerConnected):
            self._dials.pop(event.dial, None)
        elif isinstance(event, DialFailed):
            peer = self._dials.pop(event.dial, None)
            if peer is None:
                self._early = event
            else:
                self._fail_waiting(peer, event.error, now)

    # For links and channels.

    def finish(
        self, request: Request, answer: Message | None, error: Exception | None, now: float
    ) -> None:
        """A request is over: tell whoever made it, once."""
        self.context.cancel(request.timer)
        request.channel = None
        done, request.done = request.done, None
        if done is not None:
            done(answer, error, now)

    # Inside.

    def _link(self, connection: Connection) -> "_Link":
        link = self._links.get(connection.id)
        if link is None:
            link = self._links[connection.id] = _Link(self, connection)
        return link

    def _expire(self, request: Request, timeout: float, now: float) -> None:
        self._abandon(request, now)
        self.finish(request, None, TimedOut(f"no answer within {timeout:g} s"), now)

    def _abandon(self, request: Request, now: float) -> None:
        """Take a request from wherever it is."""
        self.context.cancel(request.timer)
        channel, request.channel = request.channel, None
        if channel is not None:
            channel.abort(now)
            return
        waiting = self._waiting.get(request.peer)
        if waiting is not None and request in waiting:
            waiting.remove(request)
            if not waiting:
                del self._waiting[request.peer]
            return
        for connection in self.context.connections(request.peer):
            link = self._links.get(connection.id)
            if link is not None and request in link.queue:
                link.queue.remove(request)

    def _dial(self, request: Request, addresses: Sequence[Multiaddr], now: float) -> None:
        peer, context = request.peer, self.context
        if peer == context.peer_id:
            raise LocalError("a node does not ask itself")
        waiting = self._waiting.get(peer)
        if waiting is not None:
            if len(waiting) >= self.config.max_queued_per_peer:
                raise LimitReached(f"max_queued_per_peer: {len(waiting)} requests wait for {peer}")
            waiting.append(request)
            return
        known = [*context.peers.addresses(peer, now), *addresses]
        if not known:
            raise DialError(f"cannot dial {peer}: no address is known")
        allowed = self._budget.allowed(dict.fromkeys(known), now)
        if not allowed:
            self.refused += 1
            raise LimitReached(
                f"dial_interval: every address of {peer} was dialed within the last "
                f"{self.config.dial_interval:g} s"
            )
        self._waiting[peer] = [request]
        if self._starting or (is_counted(allowed) and self._budget.wait(now)):
            self._starting.append((peer, allowed))
            self._arm(now)
            return
        error = self._start(peer, allowed, now)
        if error is not None:
            del self._waiting[peer]
            raise error

    def _start(self, peer: PeerId, addresses: list[Multiaddr], now: float) -> Exception | None:
        """Dial now; returns the error if that failed at once."""
        self._early = None
        try:
            dial = self.context.dial(peer, addresses, now)
        except LocalError as error:
            return error
        early = self._early
        if early is not None and early.dial == dial:
            return early.error
        if peer in self._waiting:  # else it is connected already
            self._dials[dial] = peer
        return None

    def _arm(self, now: float) -> None:
        if not self._start_timer:
            delay = 1 / self.config.dial_rate
            self._start_timer = self.context.call_at(now + delay, "kad dial", self._start_next)

    def _start_next(self, now: float) -> None:
        """Start dials for which the budget has tokens again."""
        self._start_timer = 0
        starting = self._starting
        while starting:
            peer, addresses = starting[0]
            if peer in self._waiting and not self.context.connections(peer):
                if self._budget.wait(now):
                    self._arm(now)
                    return
                error = self._start(peer, addresses, now)
                if error is not None:
                    self._fail_waiting(peer, error, now)
            starting.popleft()

    def _fail_waiting(self, peer: PeerId, error: Exception, now: float) -> None:
        for request in self._waiting.pop(peer, ()):
            self.finish(request, None, error, now)


class _Link:
    """Our streams on one connection."""

    __slots__ = ("busy", "connection", "idle", "owner", "queue")

    def __init__(self, owner: Requests, connection: Connection) -> None:
        self.owner = owner
        self.connection = connection
        self.busy = 0
        """Streams that carry a request."""
        self.idle: _Channel | None = None
        self.queue: deque[Request] = deque()

    def submit(self, request: Request, now: float) -> None:
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
        else:
            raise LimitReached(
                f"max_queued_per_peer: {len(self.queue)} requests wait for {request.peer}"
            )

    def open(self, request: Request, now: float) -> None:
        """Send a request on a new stream."""
        channel = _Channel(self)
        self.busy += 1
        try:
            channel.open(request, now)
        except LocalError:
            self.busy -= 1
            raise

    def release(self, channel: "_Channel | None", now: float) -> None:
        """A stream has done its work; it can be used again unless it is None."""
        self.busy -= 1
        while self.queue:
            request = self.queue.popleft()
            if channel is not None:
                self.busy += 1
                channel.start(request, now)
                return
            try:
                self.open(request, now)
                return
            except LocalError as error:
                self.owner.finish(request, None, error, now)
        if channel is not None:
            if self.idle is None:
                self.idle = channel
                channel.park(now)
            else:
                channel.close()

    def fail(self, error: Exception, now: float) -> None:
        """Nothing more can be sent."""
        while self.queue:
            self.owner.finish(self.queue.popleft(), None, error, now)


class _Channel:
    """One stream of ours: carries one request at a time."""

    __slots__ = ("_frames", "_link", "_request", "_stream", "_timer", "_used")

    def __init__(self, link: _Link) -> None:
        self._link = link
        self._frames = Framing(MAX_RESPONSE, link.owner.held)
        self._request: Request | None = None
        self._stream: Stream | None = None
        self._timer = 0
        self._used = False
        """A request was carried to its end before this one."""

    def open(self, request: Request, now: float) -> None:
        """Open the stream for its first request."""
        link = self._link
        config = link.owner.config
        self._request = request
        request.channel = self
        # Without an answer only the negotiation tells whether the peer takes the request.
        try:
            self._stream = link.connection.open_stream(
                (config.protocol,), self._on_open, self._on_fail, now, optimistic=request.has_answer
            )
        except LocalError:
            request.channel = None
            raise
        link.owner.context.touch(link.connection)

    def start(self, request: Request, now: float) -> None:
        """Carry another request."""
        self._link.owner.context.cancel(self._timer)
        self._request = request
        request.channel = self
        self._send(now)

    def park(self, now: float) -> None:
        """Wait for another request."""
        owner = self._link.owner
        self._timer = owner.context.call_at(
            now + owner.config.idle_timeout, "kad idle", self._expire
        )

    def abort(self, now: float) -> None:
        """The request is not wanted any more, and the stream is of no use without its answer."""
        self._request = None
        self._reset()
        self._link.release(None, now)

    def close(self) -> None:
        """End the stream in order."""
        assert self._stream is not None
        self._frames.close()
        self._stream.write_eof()
        self._stream.stop_reading()
        self._touch()

    def _send(self, now: float) -> None:
        stream, request = self._stream, self._request
        assert stream is not None and request is not None
        stream.write(request.data)  # it fits: 16 KiB into an empty buffer
        if not request.has_answer:
            stream.on_drained = self._on_drained
        self._touch()

    def _on_open(self, stream: Stream, protocol: str, now: float) -> None:
        self._stream = stream
        stream.on_data = self._on_data
        stream.on_eof = self._on_eof
        stream.on_reset = self._on_reset
        self._send(now)

    def _on_fail(self, error: Exception, now: float) -> None:
        self._broken(self._link.connection.error or error, now)

    def _on_drained(self, now: float) -> None:
        self._succeed(None, now)

    def _on_data(self, data: bytes, now: float) -> None:
        stream, request = self._stream, self._request
        assert stream is not None
        stream.credit(len(data), now)
        try:
            frames = self._frames.receive(data)
            if not frames:
                if request is None or not request.has_answer:
                    raise RemoteError("the peer sent something that nobody asked for")
                return
            if request is None or not request.has_answer or len(frames) > 1 or self._frames.pending:
                raise RemoteError("the peer sent more than an answer")
            answer = messages.decode(frames[0])
            if answer.type != request.type:
                raise RemoteError(f"the answer to {request.type} is of type {answer.type}")
        except RemoteError as error:
            self._reset()
            self._broken(error, now)
        else:
            self._succeed(answer, now)

    def _succeed(self, answer: Message | None, now: float) -> None:
        request, self._request = self._request, None
        assert request is not None
        self._used = True
        request.channel = None
        # First the stream, so that what follows from the answer can use it.
        self._link.release(self, now)
        self._link.owner.finish(request, answer, None, now)

    def _on_eof(self, now: float) -> None:
        assert self._stream is not None
        self._stream.write_eof()
        self._touch()
        self._broken(RemoteError("the peer closed the stream without an answer"), now)

    def _on_reset(self, code: int, now: float) -> None:
        error = self._link.connection.error
        self._broken(error or RemoteError(f"the peer reset the stream (code {code:#x})"), now)

    def _broken(self, error: Exception, now: float) -> None:
        """The stream is of no use any more."""
        link = self._link
        untouched = not self._frames.pending
        self._frames.close()
        link.owner.context.cancel(self._timer)
        request, self._request = self._request, None
        if link.idle is self:
            link.idle = None
            return
        if request is None:
            return
        request.channel = None
        if self._used and untouched and request.fresh and link.connection.error is None:
            request.fresh = False
            try:
                link.busy -= 1
                link.open(request, now)
                return
            except LocalError as cause:
                link.busy += 1
                error = cause
        link.release(None, now)
        link.owner.finish(request, None, error, now)

    def _expire(self, now: float) -> None:
        self._link.idle = None
        self.close()

    def _reset(self) -> None:
        self._frames.close()
        if self._stream is not None:
            self._stream.reset()
        self._touch()

    def _touch(self) -> None:
        self._link.owner.context.touch(self._link.connection)
