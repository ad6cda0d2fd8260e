"""/ipfs/ping/1.0.0: send 32 random bytes, the peer echoes them.

Spec: https://github.com/libp2p/specs/blob/master/ping/ping.md

    opener    32 bytes  ->
                        <-  the same 32 bytes      repeated on one stream

    no stream --send--> WAITING --echo--> IDLE --send--> WAITING
                        WAITING --other bytes, end, or late--> failed, the stream is reset
"""

from collections import deque

from .connection import Connection
from .errors import LimitReached, LocalError, RemoteError, TimedOut
from .events import PingFailed, PingSucceeded
from .muxer import Stream
from .service import Service

PROTOCOL = "/ipfs/ping/1.0.0"
SIZE = 32
MAX_IN_FLIGHT = 256
"""Our pings on one connection that may wait for an answer."""


class Pending:
    """One ping under way."""

    __slots__ = ("payload", "request", "sent_at")

    def __init__(self, request: int, payload: bytes, sent_at: float) -> None:
        self.request = request
        self.payload = payload
        self.sent_at = sent_at


class Pinger:
    """Our ping stream to one connection; pings on it are answered in order."""

    __slots__ = ("connection", "pending", "_received", "_service", "_stream", "_timer")

    def __init__(self, service: "Ping", connection: Connection, now: float) -> None:
        self.connection = connection
        self.pending: deque[Pending] = deque()
        self._received = b""
        self._service = service
        self._timer = 0  # one for all, that looks at the oldest: most are answered long before
        self._stream = connection.open_stream((PROTOCOL,), self._on_open, self.fail, now)

    def send(self, request: int, now: float) -> None:
        """Send one ping."""
        context = self._service.context
        if not self._timer:
            self._watch(now + context.limits.ping_timeout)
        payload = context.entropy(SIZE)
        self.pending.append(Pending(request, payload, now))
        if self._stream.write(payload) < SIZE:
            self._stream.reset()
            self.fail(LocalError("max_unsent is too small for a ping"), now)

    def fail(self, error: Exception, now: float) -> None:
        """Every ping under way failed; the next one opens a new stream."""
        service, connection = self._service, self.connection
        context = service.context
        context.touch(connection)
        context.cancel(self._timer)
        if service.pingers.get(connection.id) is self:
            del service.pingers[connection.id]
        while self.pending:
            ping = self.pending.popleft()
            assert connection.peer is not None
            context.emit(PingFailed(ping.request, connection.id, connection.peer, error))

    def _on_open(self, stream: Stream, protocol: str, now: float) -> None:
        stream.on_data = self._on_data
        stream.on_eof = self._on_eof
        stream.on_reset = self._on_reset

    def _on_data(self, data: bytes, now: float) -> None:
        self._stream.credit(len(data), now)
        pending = self.pending
        received = self._received + data if self._received else data
        pos = 0
        while pending and received.startswith(pending[0].payload, pos):
            ping = pending.popleft()
            pos += SIZE
            connection = self.connection
            assert connection.peer is not None
            event = PingSucceeded(ping.request, connection.id, connection.peer, now - ping.sent_at)
            self._service.context.emit(event)
        rest = self._received = received[pos : pos + SIZE]
        if rest and not (pending and pending[0].payload.startswith(rest)):
            self._stream.reset()
            self.fail(RemoteError("the peer's echo differs from the ping that was sent"), now)

    def _on_eof(self, now: float) -> None:
        self._stream.write_eof()
        self.fail(RemoteError("the peer closed the ping stream"), now)

    def _on_reset(self, code: int, now: float) -> None:
        reason = self.connection.error or RemoteError(
            f"the peer reset the ping stream (code {code:#x})"
        )
        self.fail(reason, now)

    def _watch(self, when: float) -> None:
        self._timer = self._service.context.call_at(when, "ping", self._due)

    def _due(self, now: float) -> None:
        self._timer = 0
        if not self.pending:
            return
        limit = self._service.context.limits.ping_timeout
        deadline = self.pending[0].sent_at + limit
        if now < deadline:
            self._watch(deadline)
            return
        self._stream.reset()
        self.fail(TimedOut(f"no answer to a ping within {limit:g} s"), now)


class Ponger:
    """A ping stream that the peer opened; it counts until its answers were taken."""

    __slots__ = ("_conn", "_held", "_pending", "_service", "_stream")

    def __init__(self, service: "Ping", conn: int, stream: Stream) -> None:
        self._conn = conn
        self._held = True
        self._pending = b""
        self._service = service
        self._stream = stream
        stream.on_data = self._on_data
        stream.on_eof = self._on_eof
        stream.on_reset = self._on_reset

    def _on_data(self, data: bytes, now: float) -> None:
        stream = self._stream
        stream.credit(len(data), now)
        pending = self._pending + data if self._pending else data
        whole = len(pending) // SIZE * SIZE
        if whole:
            if stream.write(pending[:whole]) < whole:  # it sends pings and reads no answers
                self._release(now)
                stream.reset()
                return
            pending = pending[whole:]
        self._pending = pending

    def _on_eof(self, now: float) -> None:
        if self._stream.unsent:
            self._stream.on_drained = self._release
        else:
            self._release(now)
        self._stream.write_eof()

    def _on_reset(self, code: int, now: float) -> None:
        self._release(now)

    def _release(self, now: float) -> None:
        if self._held:
            self._held = False
            self._service.released(self._conn)


class Ping(Service):
    """Answers pings, and measures round trips."""

    protocols = (PROTOCOL,)

    def __init__(self) -> None:
        self.pingers: dict[int, Pinger] = {}
        self._serving: dict[int, int] = {}

    def ping(self, connection: Connection, now: float) -> int:
        """Send one ping; ``PingSucceeded`` or ``PingFailed`` carries the returned number.

        Raises LimitReached when ``MAX_IN_FLIGHT`` pings wait for their answer.
        """
        pinger = self.pingers.get(connection.id)
        if pinger is None:
            pinger = self.pingers[connection.id] = Pinger(self, connection, now)
        elif len(pinger.pending) >= MAX_IN_FLIGHT:
            raise LimitReached(f"{MAX_IN_FLIGHT} pings wait for their answer already; wait too")
        request = self.context.next_id()
        pinger.send(request, now)
        return request

    def on_stream(self, connection: Connection, stream: Stream, protocol: str, now: float) -> None:
        held = self._serving.get(connection.id, 0)
        if held >= self.context.limits.max_inbound_pings:
            stream.reset()
            return
        self._serving[connection.id] = held + 1
        Ponger(self, connection.id, stream)

    def on_disconnected(self, connection: Connection, now: float) -> None:
        self._serving.pop(connection.id, None)

    def released(self, conn: int) -> None:
        """A stream that the peer opened is gone."""
        held = self._serving.get(conn, 0)
        if held > 1:
            self._serving[conn] = held - 1
        else:
            self._serving.pop(conn, None)
