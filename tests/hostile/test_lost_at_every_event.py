"""The connection ends at each moment of a session, in each way: both sides finish (promise 6)."""

import pytest
from hostile.session import KEYS, REMEMBERED
from node_pair import LOCAL, REMOTE

from anyp2p.sim.keyed import SeededChoice, SeededEntropy, key as seed
from anyp2p_core import (
    CloseConnection,
    ConnectionClosed,
    ConnectionLost,
    ConnectionOpened,
    Dial,
    DialFailed,
    Node,
    PeerConnected,
    PingFailed,
    PingSucceeded,
    StreamFailed,
    StreamOpened,
)
from anyp2p_core.echo import Echo

SEGMENT = 200
PATIENCE = 60.0
"""More than any timeout of a connection."""


class Side:
    """A node and an application that opens streams and reads those of the other side."""

    def __init__(self, number, reads):
        self.node = Node(
            KEYS[number],
            crypto=REMEMBERED,
            entropy=SeededEntropy(seed(2, "entropy", number)),
            choice=SeededChoice(seed(2, "choice", number)),
            services=[Echo()],
        )
        self.reads = reads
        self.events = []
        self.wants = {}
        """What of which event we wait for: request or stream to its name."""
        self.got = {}
        self.ends = {}
        self.closed = False
        self.node.handle("/app", 0.0)


class Session:
    """Both sides, moved segment by segment. ``stop`` is called before the segment ``at``."""

    def __init__(self, *, reads=True, at=None, stop=None):
        self.now = 100.0
        self.sides = Side(0, reads), Side(1, reads)
        self.count = 0
        self.at, self.stop = at, stop
        self.open = True
        a, b = self.sides
        peer = b.node.peer_id
        a.wants[a.node.dial(peer, [LOCAL], self.now)] = "dial"
        (dial,) = (item for item in a.node.poll() if isinstance(item, Dial))
        a.conn = a.node.connected(dial.conn, REMOTE, LOCAL, self.now)
        b.conn = b.node.connected(None, LOCAL, REMOTE, self.now)
        self.run()

    def run(self):
        busy = True
        while busy:
            busy = False
            for here, there in (self.sides, self.sides[::-1]):
                while here.node.writable():
                    data = here.node.data_to_send(here.conn, self.now)
                    for pos in range(0, len(data), SEGMENT):
                        busy = True
                        if self.count == self.at:
                            self.stop(self)
                        self.count += 1
                        if self.open:
                            there.node.receive(there.conn, data[pos : pos + SEGMENT], self.now)
                            self.look(there)
                self.look(here)

    def look(self, side):
        """Poll, do what the application does, read."""
        node = side.node
        for item in node.poll():
            side.events.append(item)
            if isinstance(item, CloseConnection) and not side.closed:
                self.hang_up(side)
            elif isinstance(item, ConnectionOpened):
                self.use(side, item.peer)
            elif isinstance(item, StreamOpened):
                if item.inbound and item.protocol == "/app":
                    side.got[item.stream] = bytearray()
                    if side.reads:
                        node.stream_write(item.stream, b"an answer" * 50)
                        node.stream_write_eof(item.stream)
            elif isinstance(item, PingSucceeded | PingFailed):
                side.ends[side.wants.pop(item.request)] = type(item).__name__
            elif isinstance(item, PeerConnected | DialFailed):
                side.ends[side.wants.pop(item.dial)] = type(item).__name__
            elif isinstance(item, StreamFailed):
                side.ends[side.wants.pop(item.stream)] = type(item.error).__name__
        if side.reads:
            self.read(side)

    def use(self, side, peer):
        node = side.node
        side.wants[node.ping(peer, self.now)] = "ping"
        for size in (0, 100, 3000):
            stream = node.open_stream(peer, ["/app"], self.now)
            side.got[stream] = bytearray()
            node.stream_write(stream, bytes(size))
            if size:
                node.stream_write_eof(stream)
        side.wants[node.open_stream(peer, ["/none", "/neither"], self.now)] = "refused"
        echo = node.open_stream(peer, ["/echo/1.0.0"], self.now)
        side.got[echo] = bytearray()
        node.stream_write(echo, bytes(1500))

    def read(self, side):
        for stream, got in side.got.items():
            if stream in side.ends:
                continue
            try:
                while data := side.node.stream_read(stream, 1 << 20, self.now):
                    got += data
                if data == b"":
                    side.ends[stream] = "end"
            except Exception as error:
                side.ends[stream] = type(error)

    def hang_up(self, side):
        """What a transport does when one side wants it closed."""
        self.open = False
        for one in self.sides:
            if not one.closed:
                one.closed = True
                if one is not side:
                    one.node.receive_eof(one.conn, self.now)
                one.node.disconnected(one.conn, None, self.now)
        for one in self.sides:
            self.look(one)

    def wait(self, seconds):
        end = self.now + seconds
        while True:
            due = [when for one in self.sides if (when := one.node.next_timeout()) is not None]
            if not due or min(due) > end:
                break
            self.now = max(self.now, min(due))
            for one in self.sides:
                one.node.handle_timeout(self.now)
                self.look(one)
            self.run()
        self.now = end

    def check(self):
        """Both sides have finished, and nothing is left."""
        for side in self.sides:
            node = side.node
            assert side.closed
            assert sum(isinstance(item, ConnectionClosed) for item in side.events) == 1
            held = node.unread
            before = sum(map(len, side.got.values()))
            self.read(side)
            assert sum(map(len, side.got.values())) - before == held  # what arrived is delivered
            assert not side.wants, side.wants
            for stream in side.got:
                assert side.ends[stream] in ("end", ConnectionLost), side.ends[stream]
                node.stream_close(stream, self.now)
            assert node.unread == 0
            assert node.connections() == [] == node.writable()
        self.wait(1)
        for side in self.sides:
            assert len(side.node.timers) == 0, side.node.timers.reasons()


def clean(session):
    session.hang_up(None)


def error(session):
    session.open = False
    for side in session.sides:
        side.closed = True
        side.node.disconnected(side.conn, ConnectionResetError("reset"), session.now)
        session.look(side)


def one_sided(number):
    """One side learns of a reset; the other one gets the end of the bytes."""

    def stop(session):
        session.open = False
        first, second = session.sides[number], session.sides[1 - number]
        first.closed = True
        first.node.disconnected(first.conn, ConnectionResetError("reset"), session.now)
        session.look(first)
        second.node.receive_eof(second.conn, session.now)
        session.look(second)  # it wants to close, and hang_up does the rest

    return stop


def half_close(number):
    """The transport tells one side that the other one has ended, and that side answers."""

    def stop(session):
        side = session.sides[number]
        if not side.closed:
            side.node.receive_eof(side.conn, session.now)
            session.look(side)

    return stop


def black_hole(session):
    session.open = False


WAYS = {
    "clean": clean,
    "error": error,
    "reset here": one_sided(0),
    "reset there": one_sided(1),
    "half-closed here": half_close(0),
    "half-closed there": half_close(1),
    "black hole": black_hole,
}


def test_without_a_loss_everything_arrives():
    session = Session()
    for side in session.sides:
        assert side.ends.pop("ping") == "PingSucceeded"
        assert side.ends.pop("refused") == "NegotiationError"
        sizes = sorted(len(data) for data in side.got.values())
        assert sizes == [0, 100, 450, 450, 450, 1500, 3000]
    assert session.count > 15
    clean(session)
    session.check()


@pytest.mark.parametrize("reads", [True, False], ids=["reading", "not reading"])
@pytest.mark.parametrize("way", WAYS)
def test_promise_6_lost_at_every_event(way, reads):
    total = Session(reads=reads).count
    for at in range(total):
        session = Session(reads=reads, at=at, stop=WAYS[way])
        if way == "black hole":
            session.wait(PATIENCE)
        session.check()
