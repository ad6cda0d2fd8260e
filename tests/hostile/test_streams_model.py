"""Streams between two nodes against a model: a string of bytes for each direction (promise 16)."""

from contextlib import suppress

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from node_pair import LOCAL, REMOTE, make_node

from anyp2p_core import (
    ConnectionLost,
    Dial,
    IdentifyFailed,
    Limits,
    LocalError,
    StreamOpened,
    StreamReset,
)

SMALL = Limits(max_unsent=300_000, max_stream_window=600_000)
NOISE = bytes(range(251)) * 4000


class Way:
    """One direction of one stream."""

    def __init__(self):
        self.written = bytearray()
        self.read = bytearray()
        self.eof_written = False
        self.eof_read = False
        self.broken = False  # reset by a side, or its reader has closed


class Streams(RuleBasedStateMachine):
    @initialize(piece=st.sampled_from([700, 9000, 70_000]))
    def start(self, piece):
        self.now = 5.0
        self.piece = piece
        self.nodes = [make_node(limits=SMALL), make_node(limits=SMALL)]
        self.flying = [bytearray(), bytearray()]  # towards node 0, towards node 1
        self.ids = []  # of each stream at its two ends, None: not there yet, or not any more
        self.ways = []  # from node 0 to node 1, and back
        self.lost = False
        for node in self.nodes:
            node.handle("/app", self.now)
        first, second = self.nodes
        first.dial(second.peer_id, [LOCAL], self.now)
        (dial,) = (item for item in first.poll() if isinstance(item, Dial))
        self.conns = [
            first.connected(dial.conn, REMOTE, LOCAL, self.now),
            second.connected(None, LOCAL, REMOTE, self.now),
        ]
        self.settle()

    def flush(self, number):
        node = self.nodes[number]
        while node.writable() and not self.lost:
            self.flying[1 - number] += node.data_to_send(self.conns[number], self.now)
        for item in node.poll():
            assert not isinstance(item, IdentifyFailed)
            if isinstance(item, StreamOpened) and item.inbound:
                # They open in the order in which the other side asked for them.
                waiting = (ids for ids in self.ids if ids[number] == "coming")
                next(waiting)[number] = item.stream

    def deliver(self, number, size):
        if self.lost:
            return
        data = bytes(self.flying[number][:size])
        del self.flying[number][:size]
        self.nodes[number].receive(self.conns[number], data, self.now)
        self.flush(number)

    def settle(self):
        """Let everything that was sent arrive."""
        while any(self.flying) or self.nodes[0].writable() or self.nodes[1].writable():
            for number in (0, 1):
                self.flush(number)
                if self.flying[number]:
                    self.deliver(number, self.piece)

    def pick(self, data):
        """A stream and one of its ends, if it is held there."""
        index = data.draw(st.integers(0, len(self.ids) - 1))
        number = data.draw(st.integers(0, 1))
        stream = self.ids[index][number]
        return index, number, stream if isinstance(stream, int) else None

    has_streams = precondition(lambda self: self.ids)
    connected = precondition(lambda self: not self.lost)

    @connected
    @rule(number=st.integers(0, 1))
    def open(self, number):
        peer = self.nodes[1 - number].peer_id
        with suppress(LocalError):
            stream = self.nodes[number].open_stream(peer, ["/app"], self.now)
            ids = [stream, "coming"] if number == 0 else ["coming", stream]
            self.ids.append(ids)
            self.ways.append((Way(), Way()))
            self.flush(number)  # the other side would never hear of it if it were reset now

    @has_streams
    @rule(data=st.data(), size=st.sampled_from([0, 1, 100, 5000, 65_507, 400_000]))
    def write(self, data, size):
        index, number, stream = self.pick(data)
        way = self.ways[index][number]
        if stream is not None:
            start = len(way.written)
            with suppress(LocalError, StreamReset, ConnectionLost):
                taken = self.nodes[number].stream_write(
                    stream, NOISE[start % 251 : start % 251 + size]
                )
                way.written += NOISE[start % 251 : start % 251 + taken]

    @has_streams
    @rule(data=st.data(), size=st.sampled_from([1, 1000, 1 << 20]), times=st.integers(1, 10))
    def read(self, data, size, times):
        for _ in range(times):
            index, number, stream = self.pick(data)
            if stream is not None:
                self.take(index, number, stream, size)

    def take(self, index, number, stream, size):
        way = self.ways[index][1 - number]
        try:
            found = self.nodes[number].stream_read(stream, size, self.now)
        except StreamReset:
            assert way.broken
            return False
        except ConnectionLost:
            assert self.lost
            return False
        if found == b"":
            assert way.eof_written and way.read == way.written
            way.eof_read = True
        elif found:
            assert not way.eof_read
            way.read += found
            assert way.written.startswith(way.read)
        return bool(found)

    @has_streams
    @rule(data=st.data())
    def write_eof(self, data):
        index, number, stream = self.pick(data)
        if stream is not None:
            self.nodes[number].stream_write_eof(stream)
            self.ways[index][number].eof_written = True

    @has_streams
    @rule(data=st.data(), how=st.sampled_from(["close", "refuse", "reset"]))
    def leave(self, data, how):
        index, number, stream = self.pick(data)
        if stream is None:
            return
        node = self.nodes[number]
        ours, theirs = self.ways[index][number], self.ways[index][1 - number]
        self.ids[index][number] = None
        theirs.broken = True
        if how == "reset":
            ours.broken = True
            node.stream_reset(stream, 3, self.now)
        else:
            ours.eof_written = True
            ours.broken |= how == "refuse"  # what comes may turn it into a reset
            node.stream_close(stream, self.now, discard=how == "close")

    @rule(number=st.integers(0, 1), size=st.sampled_from([1, 17, 3000, 1 << 20]))
    def move(self, number, size):
        self.flush(1 - number)
        if self.flying[number]:
            self.deliver(number, size)

    @rule(seconds=st.sampled_from([0.001, 0.1, 5.0]))
    def time_passes(self, seconds):
        self.settle()  # else the timers are right to complain
        self.now += seconds
        for number in (0, 1):
            self.nodes[number].handle_timeout(self.now)
            self.flush(number)

    @connected
    @precondition(lambda self: len(self.ids) > 3)
    @rule(close=st.booleans())
    def lose(self, close):
        if close:
            self.settle()
        self.lost = True
        self.flying = [bytearray(), bytearray()]
        for number in (0, 1):
            self.nodes[number].disconnected(self.conns[number], None, self.now)
            self.flush(number)

    def teardown(self):
        if not hasattr(self, "nodes"):
            return
        moved = True
        while moved:  # everybody reads all there is
            moved = False
            self.settle()
            for index, ids in enumerate(self.ids):
                for number, stream in enumerate(ids):
                    while isinstance(stream, int) and self.take(index, number, stream, 1 << 20):
                        moved = True
        for ids, ways in zip(self.ids, self.ways, strict=True):
            for number, way in enumerate(ways):
                if not (self.lost or way.broken or ids[1 - number] is None):
                    assert way.read == way.written
                    assert way.eof_read == way.eof_written
        for number, node in enumerate(self.nodes):
            for ids in self.ids:
                if isinstance(ids[number], int):
                    node.stream_reset(ids[number], 0, self.now)
        self.settle()
        for node in self.nodes:
            assert node.unread == 0
            for connection in node.connections():
                assert connection.muxer.unread == 0 and not connection.muxer.streams


TestStreams = Streams.TestCase
TestStreams.settings = settings(
    max_examples=40, stateful_step_count=50, deadline=None, derandomize=True
)
