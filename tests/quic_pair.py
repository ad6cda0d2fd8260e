"""QUIC endpoints joined in memory, on a clock that the test turns and a network that may be bad."""

from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random

from node_pair import CRYPTO, make_key

from anyp2p.providers.quic import Aioquic
from anyp2p_core.errors import LocalError
from anyp2p_core.limits import Limits
from anyp2p_core.quic import QuicEndpoint, quic_address
from anyp2p_core.quic_connection import QuicConnection
from anyp2p_core.timers import Timers

WALL = 1_800_000_000.0
START = 100.0
ECHO = "/echo"


@dataclass(eq=False)
class Log:
    """What happened to one stream. With ``reads`` it credits what it gets, at once."""

    stream: object
    reads: bool = True
    data: bytearray = field(default_factory=bytearray)
    events: list = field(default_factory=list)

    def __post_init__(self):
        stream = self.stream
        stream.on_data = self.on_data
        stream.on_eof = lambda now: self.events.append("eof")
        stream.on_reset = lambda code, now: self.events.append(("reset", code))
        stream.on_writable = lambda now: self.events.append("writable")

    def on_data(self, data, now):
        self.data += data
        if self.reads:
            self.stream.credit(len(data), now)


class Place:
    """An endpoint, and as much of a node as it needs."""

    def __init__(self, port, *, key=None, provider=None, host="192.0.2.1", reads=True, **limits):
        self.key = key or make_key()
        self.address = (host, port)
        self.sock = port
        self.limits = Limits(**limits)
        self.timers = Timers()
        self.security = {}
        self.muxers = {}
        self.unread = 0
        self.now = START
        self.connections = {}
        self.opened = []
        self.closed = []
        self.logs = {}
        self.streams = []
        self.reads = reads
        self.admits = True
        self.refusal = None
        self.raw = True
        self._next = 0
        self.endpoint = QuicEndpoint(provider or Aioquic(self.key, WALL), self)
        self.endpoint.listening[self.sock] = None

    @property
    def peer_id(self):
        return self.key.peer_id

    # Owner of the endpoint.

    def call_at(self, when, reason, callback):
        return self.timers.call_at(when, reason, callback)

    def cancel(self, handle):
        self.timers.cancel(handle)

    def accept_quic(self, sock, source, now):
        return self.make(False, source, None) if self.admits else None

    def fail(self, conn, error, now):
        connection = self.connections.get(conn)
        if connection is not None and connection.error is None:
            connection.fail(error, now)
            self.endpoint.close(conn, now)

    def disconnected(self, conn, error, now):
        connection = self.connections.pop(conn)
        connection.lost(error, now)
        self.closed.append((connection, connection.reason))

    def flushed(self, connection, now):
        if not connection.unsent():
            self.endpoint.close(connection.id, now)

    # Owner of connections.

    def supports(self, protocol):
        return protocol == ECHO

    def wall(self, now):
        return now - START + WALL

    def touch(self, connection):
        pass

    def shed(self, now):
        raise AssertionError("max_unread_total")

    def on_upgraded(self, connection, now):
        self.opened.append(connection)
        if self.refusal is not None:
            raise self.refusal
        if self.raw:
            connection.streams._on_stream = self.on_raw_stream

    def on_raw_stream(self, stream, now):
        self.streams.append(stream)
        self.logs[stream.id] = Log(stream, self.reads)

    def on_stream(self, connection, stream, protocol, now):
        self.on_raw_stream(stream, now)

    # What a test does.

    def make(self, initiator, target, expected):
        self._next += 1
        connection = self.connections[self._next] = QuicConnection(
            self._next,
            initiator=initiator,
            owner=self,
            crypto=CRYPTO,
            local=None,
            remote=quic_address(target),
            expected=expected,
        )
        return connection

    def dial(self, target, expected=None):
        connection = self.make(True, target, expected)
        self.endpoint.dial(connection, self.sock, target, self.now)
        return connection


class Net:
    """Carries datagrams with a delay, and loses, repeats and reorders some."""

    def __init__(self, *places, seed=1, loss=0.0, twice=0.0, jitter=0.0, delay=0.01):
        self.now = START
        self.places = {place.address: place for place in places}
        self.random = Random(seed)
        self.loss, self.twice, self.jitter, self.delay = loss, twice, jitter, delay
        self.queue = []
        self.order = 0
        self.sent = []
        self.sent_bytes = 0
        self.lost = 0

    def flush(self):
        for place in self.places.values():
            while place.endpoint.busy:
                for sock, target, data in place.endpoint.datagrams(self.now):
                    assert sock == place.sock
                    self.carry(place.address, target, data)

    def carry(self, source, target, data):
        self.sent.append((source, target, data))
        self.sent_bytes += len(data)
        for _ in range(2 if self.random.random() < self.twice else 1):
            if self.random.random() < self.loss:
                self.lost += 1
                continue
            self.order += 1
            when = self.now + self.delay + self.jitter * self.random.random()
            heappush(self.queue, (when, self.order, source, target, data))

    def step(self, end=float("inf")):
        """Go on to the next thing that happens; whether there is any before ``end``."""
        self.flush()
        times = [place.timers.next_timeout() for place in self.places.values()]
        times += [entry[0] for entry in self.queue[:1]]
        when = min((time for time in times if time is not None), default=None)
        if when is None or when > end:
            self.now = max(self.now, min(end, 1e9))
            return False
        self.now = max(self.now, when)
        for place in self.places.values():
            place.now = self.now
        while self.queue and self.queue[0][0] <= self.now:
            _, _, source, target, data = heappop(self.queue)
            place = self.places.get(target)
            if place is not None:
                place.endpoint.receive(place.sock, data, source, self.now)
        for place in self.places.values():
            place.timers.run(self.now)
        self.flush()
        return True

    def run(self, seconds=1.0, until=lambda: False):
        """Let time pass, or stop as soon as ``until``; whether it came true."""
        end = self.now + seconds
        while not until():
            if not self.step(end):
                return until()
        return True


class Pair(Net):
    """Two places and a connection between them, dialed by ``a``."""

    def __init__(self, *, a=None, b=None, connect=True, raw=True, **network):
        self.a = a or Place(1)
        self.b = b or Place(2)
        self.a.raw = self.b.raw = raw
        super().__init__(self.a, self.b, **network)
        if connect:
            self.connect()

    def connect(self, expected=None):
        self.ours = self.a.dial(self.b.address, expected or self.b.peer_id)
        assert self.run(20.0, lambda: self.ours.peer and self.b.opened), (
            self.a.closed,
            self.b.closed,
        )
        self.theirs = self.b.opened[-1]
        return self.ours

    def opened(self, first=b"!"):
        """A stream that ``a`` opened, its log, and the log of ``b``'s side."""
        stream = self.ours.muxer.open(self.now)
        log = Log(stream, self.a.reads)
        if first:
            stream.write(first)
            assert self.run(5.0, lambda: stream.id in self.b.logs)
        return stream, log, self.b.logs.get(stream.id)

    def write_all(self, stream, data, seconds=60.0):
        view = memoryview(data)
        end = self.now + seconds
        while view and self.now < end:
            view = view[stream.write(view) :]
            if view:
                assert self.step()
        return len(data) - len(view)


__all__ = ["ECHO", "START", "WALL", "LocalError", "Log", "Net", "Pair", "Place"]
