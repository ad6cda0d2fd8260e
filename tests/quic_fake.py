"""A QUIC library that does nothing by itself: sessions that a test drives and looks into."""

from dataclasses import dataclass, field
from typing import Any

from anyp2p_core.certificate import Certificate
from anyp2p_core.errors import HandshakeError
from anyp2p_core.limits import Limits
from anyp2p_core.quic_muxer import QuicMuxer

SOURCE = ("192.0.2.9", 9)


@dataclass(eq=False)
class FakeSession:
    """Writes down what it is told; ``calls`` in order."""

    id: bytes = b"session0"
    started: bool = True
    heard_at: float = 0.0
    rtt: float | None = 0.1
    undelivered: int = 0
    next_stream: int = 0
    max_streams: int = 1000
    rooms: int = 1 << 20
    timeout: float | None = None
    outgoing: list[bytes] = field(default_factory=list)
    calls: list[Any] = field(default_factory=list)
    sent: dict[int, bytearray] = field(default_factory=dict)
    received: list[bytes] = field(default_factory=list)
    on_receive: Any = None
    on_timeout: Any = None

    def receive(self, data, now):
        self.heard_at = now
        self.received.append(data)
        if self.on_receive is not None:
            self.on_receive(data, now)

    def datagrams_to_send(self, now):
        out = self.outgoing[:]
        self.outgoing.clear()
        return out

    def next_timeout(self):
        return self.timeout

    def handle_timeout(self, now):
        self.calls.append(("timeout", now))
        if self.on_timeout is not None:
            self.on_timeout(now)

    def open_stream(self):
        stream = self.next_stream
        if stream // 4 >= self.max_streams:
            return None
        self.next_stream += 4
        return stream

    def room(self, stream):
        return self.rooms

    def send(self, stream, data, fin):
        self.sent.setdefault(stream, bytearray()).extend(data)
        self.calls.append(("send", stream, len(data), fin))
        self.outgoing.append(b"packet")

    def reset(self, stream, code):
        self.calls.append(("reset", stream, code))

    def stop(self, stream, code):
        self.calls.append(("stop", stream, code))

    def grant_stream(self, stream, limit):
        self.calls.append(("grant_stream", stream, limit))

    def grant(self, limit):
        self.calls.append(("grant", limit))

    def ping(self):
        self.calls.append("ping")

    def close(self, code):
        self.calls.append(("close", code))

    def take(self):
        calls, self.calls = self.calls, []
        return calls


class Streams:
    """A muxer on a fake session, and what happened to its streams."""

    def __init__(self, *, initiator=True, **limits):
        self.session = FakeSession(next_stream=0 if initiator else 1)
        self.readied = 0
        self.events = []
        self.accepted = {}
        self.now = 1.0
        self.mux = QuicMuxer(
            self.session,
            initiator=initiator,
            limits=Limits(**limits),
            on_stream=self.on_stream,
            on_ready=self.on_ready,
            now=0.0,
        )

    def on_ready(self):
        self.readied += 1

    def on_stream(self, stream, now):
        assert now == self.now
        self.accepted[stream.id] = self.watch(stream)

    def watch(self, stream):
        def tell(*what):
            self.events.append((stream.id, *what))

        stream.on_data = lambda data, now: tell(data)
        stream.on_eof = lambda now: tell("eof")
        stream.on_reset = lambda code, now: tell("reset", code)
        stream.on_writable = lambda now: tell("writable")
        return stream

    def open(self):
        return self.watch(self.mux.open(self.now))

    def data(self, stream, data, fin=False):
        self.session.on_data(stream, data, fin, self.now)

    def reset(self, stream, code=0, missing=0):
        self.session.on_reset(stream, code, missing, self.now)

    def stop(self, stream, code=0):
        self.session.on_stop(stream, code, self.now)

    def take(self):
        events, self.events = self.events, []
        return events


class FakeProvider:
    """Makes fake sessions; tokens are ``b"token"``, certificates ``b"good"``."""

    def __init__(self):
        self.sessions = []
        self.accepted = []
        self.prepare = lambda session: None
        self.certificate: Certificate | None = None

    def connect(self, now):
        return self._make()

    def accept(self, destination, original, now):
        self.accepted.append((destination, original))
        return self._make()

    def _make(self):
        session = FakeSession(id=b"ours%04d" % len(self.sessions))
        self.sessions.append(session)
        self.prepare(session)
        return session

    def parse_certificate(self, data):
        if self.certificate is None:
            raise HandshakeError("the peer's certificate is malformed")
        return self.certificate

    def retry(self, source, destination, client, now):
        return b"retry for " + client

    def check_token(self, token, source, destination, now):
        return b"original" if token == b"token" else None
