"""The application's end of a stream."""

import pytest
from hypothesis import given, settings, strategies as st
from node_pair import Pair, make_node

from anyp2p_core import (
    ConnectionLost,
    Limits,
    LocalError,
    StreamDrained,
    StreamReadable,
    StreamReset,
    StreamWritable,
)
from anyp2p_core.muxer import RESOURCE_LIMIT
from anyp2p_core.stream import COALESCE, require_bytes, shed

WINDOW = 256 * 1024
CHUNK = bytes(range(256)) * 256
AGREED = b"\x13/multistream/1.0.0\n\x05/app\n"
"""What of the window went into the negotiation."""


@pytest.fixture
def pair():
    return Ends()


class Ends(Pair):
    """A stream between two applications; ``ours`` opened it."""

    def __init__(self, a=None, b=None, **options):
        super().__init__(a, b, **options)
        self.ours, self.theirs = self.opened()
        self.forget()

    def forget(self):
        self.a.events.clear()
        self.b.events.clear()

    def write(self, data):
        """From us to them, as much as goes."""
        sent = 0
        while sent < len(data):
            taken = self.a.node.stream_write(self.ours, data[sent:])
            self.run()
            sent += taken
            if not taken:
                break
        return sent

    def read(self, size=1 << 30):
        return self.b.node.stream_read(self.theirs, size, self.now)

    def read_all(self):
        parts = []
        while data := self.read():
            parts.append(data)
            self.run()
        return b"".join(parts)


def unread(pair):
    """What the node and the muxer of the reading side believe to hold."""
    connection = pair.b.node.connections()[0]
    return pair.b.node.unread, connection.muxer.unread


def test_what_is_written_is_read(pair):
    assert not pair.a.node.stream(pair.ours).inbound
    assert pair.b.node.stream(pair.theirs).inbound
    assert pair.read() is None
    assert pair.write(b"hello ") == 6
    assert pair.b.of(StreamReadable) == [StreamReadable(pair.theirs)]
    pair.write(b"world")
    assert pair.b.of(StreamReadable) == [StreamReadable(pair.theirs)]  # it has not been read
    assert unread(pair) == (11, 11)
    assert pair.read(0) == b""
    assert pair.read(4) == b"hell"
    assert pair.read(1) == b"o"
    assert pair.read() == b" "
    assert pair.read() == b"world"
    assert pair.read() is None
    assert unread(pair) == (0, 0)
    pair.write(b"again")
    assert len(pair.b.of(StreamReadable)) == 2


def test_the_end_comes_after_the_bytes_and_stays(pair):
    pair.write(b"last words")
    pair.a.node.stream_write_eof(pair.ours)
    pair.a.node.stream_write_eof(pair.ours)
    pair.run()
    assert pair.read() == b"last words"
    assert pair.read() == b"" == pair.read()
    with pytest.raises(LocalError, match="closed for writing"):
        pair.a.node.stream_write(pair.ours, b"more")
    # The other direction is open.
    pair.b.node.stream_write(pair.theirs, b"answer")
    pair.run()
    assert pair.a.node.stream_read(pair.ours, 10, pair.now) == b"answer"


@given(
    st.lists(st.integers(1, 3 * COALESCE), min_size=1, max_size=30),
    st.lists(st.integers(1, 2 * COALESCE), min_size=1, max_size=30),
)
@settings(deadline=None, max_examples=60)
def test_any_sizes_of_writes_and_reads(writes, reads):
    pair = Ends()
    whole = b"".join(CHUNK[:size] for size in writes)[:WINDOW]
    got = bytearray()
    sent = 0
    for size in writes:
        sent += pair.write(whole[sent : sent + size])
        got += pair.read(reads[len(got) % len(reads)]) or b""
    while data := pair.read(reads[len(got) % len(reads)]):
        got += data
        assert unread(pair) == (sent - len(got),) * 2
    assert got == whole[:sent]


def test_a_reader_that_waits_stops_its_writer(pair):
    window = WINDOW - len(AGREED)
    limit = Limits().max_unsent
    assert pair.write(bytes(window + limit)) == window + limit
    pair.forget()
    assert not pair.a.node.stream_writable(pair.ours)
    assert pair.write(b"more") == 0
    assert unread(pair) == (window, window)
    assert not pair.a.of(StreamWritable)
    assert len(pair.read_all()) == window + limit
    assert pair.a.of(StreamWritable) == [StreamWritable(pair.ours)]
    assert pair.a.node.stream_writable(pair.ours)


def test_drained_tells_once_when_all_was_handed_out(pair):
    node = pair.a.node
    assert node.stream_drained(pair.ours)
    node.stream_write(pair.ours, b"x")
    assert not node.stream_drained(pair.ours)
    assert not node.stream_drained(pair.ours)
    pair.run()
    assert pair.a.of(StreamDrained) == [StreamDrained(pair.ours)]
    assert node.stream_drained(pair.ours)


def test_row_52_tiny_pieces_are_joined_while_they_wait(pair):
    sent = b""
    for n in range(3000):
        piece = CHUNK[n % 250 : n % 250 + 6]
        sent += piece
        pair.a.node.stream_write(pair.ours, piece)
        pair.run()
    first, second, third = (pair.read() for _ in range(3))
    assert first + second + third == sent
    assert len(first) == 6 and type(second) is bytes and len(second) >= 4 * COALESCE


def test_large_pieces_are_not_copied_together(pair):
    pair.write(CHUNK[:10])
    pair.write(CHUNK[:COALESCE])
    pair.write(CHUNK[: COALESCE - 1])
    assert [len(pair.read()) for _ in range(3)] == [10, COALESCE, COALESCE - 1]


@pytest.mark.parametrize("code", [0, 0x1234])
def test_a_reset_by_the_peer_comes_after_what_arrived(pair, code):
    pair.write(b"before")
    pair.a.node.stream_reset(pair.ours, code, pair.now)
    pair.run()
    assert pair.read() == b"before"
    for call in (
        pair.read,
        lambda: pair.b.node.stream_write(pair.theirs, b"x"),
        lambda: pair.b.node.stream_writable(pair.theirs),
        lambda: pair.b.node.stream_drained(pair.theirs),
    ):
        with pytest.raises(StreamReset, match="reset by peer") as caught:
            call()
        assert caught.value.code == code
    pair.b.node.stream_write_eof(pair.theirs)  # nothing to close any more
    kinds = [type(event) for event in pair.b.events[-3:]]
    assert kinds == [StreamReadable, StreamWritable, StreamDrained]  # whoever waits is told
    assert unread(pair) == (0, 0)


def test_reset_by_us_is_silent_and_final(pair):
    pair.write(b"never read")
    stream = pair.b.node.stream(pair.theirs)
    pair.b.events.clear()
    pair.b.node.stream_reset(pair.theirs, 5, pair.now)
    pair.b.node.stream_reset(pair.theirs, 5, pair.now)
    with pytest.raises(LocalError, match="was closed"):
        pair.read()
    with pytest.raises(StreamReset, match="reset by us") as caught:
        stream.read(1, pair.now)
    assert caught.value.code == 5
    with pytest.raises(StreamReset):
        stream.write(b"x")
    stream.reset(6, pair.now)
    assert stream.error.code == 5
    pair.run()
    assert pair.b.events == []
    assert unread(pair) == (0, 0)
    with pytest.raises(StreamReset, match="code 0x5"):
        pair.a.node.stream_read(pair.ours, 1, pair.now)


@pytest.mark.parametrize("discard", [True, False])
def test_close_delivers_and_is_silent(pair, discard):
    pair.a.node.stream_write(pair.ours, b"all of this")
    pair.a.node.stream_close(pair.ours, pair.now, discard=discard)
    pair.a.node.stream_close(pair.ours, pair.now, discard=discard)
    pair.run()
    assert pair.read_all() == b"all of this"
    assert pair.read() == b""
    pair.b.node.stream_write_eof(pair.theirs)
    pair.run()
    assert pair.a.events == []
    assert not pair.a.node.connections()[0].muxer.streams


def test_what_comes_after_close_is_dropped_and_the_window_goes_on(pair):
    pair.write(b"unread when it closes")
    pair.b.node.stream_close(pair.theirs, pair.now)
    assert unread(pair) == (0, 0)
    pair.b.events.clear()
    assert pair.write(bytes(4 * WINDOW)) == 4 * WINDOW
    assert unread(pair) == (0, 0)
    pair.a.node.stream_close(pair.ours, pair.now)
    pair.run()
    assert pair.b.events == []
    assert not pair.b.node.connections()[0].muxer.streams


def test_without_discard_unread_bytes_make_it_a_reset(pair):
    pair.write(b"unread when it closes")
    pair.b.node.stream_write(pair.theirs, b"never sent")
    pair.b.node.stream_close(pair.theirs, pair.now, discard=False)
    pair.run()
    with pytest.raises(StreamReset):
        pair.a.node.stream_read(pair.ours, 100, pair.now)
    assert unread(pair) == (0, 0)


def test_without_discard_late_bytes_are_answered_with_a_reset(pair):
    pair.b.node.stream_write(pair.theirs, b"answer")
    pair.b.node.stream_close(pair.theirs, pair.now, discard=False)
    pair.run()
    assert pair.a.node.stream_read(pair.ours, 100, pair.now) == b"answer"
    pair.write(b"more")
    with pytest.raises(StreamReset):
        pair.a.node.stream_write(pair.ours, b"even more")
    assert unread(pair) == (0, 0)


@pytest.mark.parametrize("discard", [True, False])
@pytest.mark.parametrize("late", [b"", b"nobody reads this"])
def test_a_stream_closed_before_the_peer_agreed_is_delivered(discard, late):
    pair = Pair(connect=False)
    pair.b.node.handle("/app", pair.now)
    pair.connect()
    node = pair.a.node
    ours = node.open_stream(pair.b.node.peer_id, ["/app"], pair.now)
    node.stream_write(ours, b"fire and forget")
    node.stream_close(ours, pair.now, discard=discard)
    pair.a.poll()
    pair.a.events.clear()
    pair.run()
    theirs = pair.b.events[-2].stream if late else pair.b.events[-1].stream
    assert pair.b.node.stream_read(theirs, 100, pair.now) == b"fire and forget"
    assert pair.b.node.stream_read(theirs, 100, pair.now) == b""
    if late:
        pair.b.node.stream_write(theirs, late)
    pair.b.node.stream_write_eof(theirs)
    pair.run()
    pair.wait(15)
    assert pair.a.events == []
    assert node.unread == node.connections()[0].muxer.unread == 0
    assert not node.connections()[0].muxer.streams


def test_closing_a_broken_stream_does_nothing_more(pair):
    pair.write(b"left")
    pair.a.node.stream_reset(pair.ours, 0, pair.now)
    pair.run()
    pair.b.node.stream_close(pair.theirs, pair.now)
    assert unread(pair) == (0, 0)


def test_the_first_error_stays(pair):
    stream = pair.a.node.stream(pair.ours)
    stream.fail(StreamReset("first"), pair.now)
    stream.fail(StreamReset("second"), pair.now)
    with pytest.raises(StreamReset, match="first"):
        stream.read(1, pair.now)


def test_a_lost_connection_is_told_after_what_arrived(pair):
    pair.write(b"just in time")
    pair.hang_up(pair.a, pair.b, ConnectionResetError("cable"))
    assert pair.read() == b"just in time"
    with pytest.raises(ConnectionLost):
        pair.read()
    with pytest.raises(ConnectionLost, match="cable"):
        pair.a.node.stream_read(pair.ours, 1, pair.now)
    assert pair.b.node.unread == 0


def test_an_end_that_arrived_is_not_an_error_when_the_connection_is_lost(pair):
    pair.write(b"complete")
    pair.a.node.stream_write_eof(pair.ours)
    pair.run()
    pair.hang_up(pair.a, pair.b)
    assert pair.read_all() == b"complete"
    assert pair.read() == b""


# Too much unread.


def test_the_muxer_sheds_the_fullest_stream_of_a_connection():
    pair = Ends(b=make_node(limits=Limits(max_unread=WINDOW, max_stream_window=WINDOW)))
    assert pair.write(bytes(WINDOW - 100)) == WINDOW - 100
    small, at_b = pair.opened()
    pair.a.node.stream_write(small, bytes(101))
    pair.run()
    with pytest.raises(StreamReset, match="max_unread") as caught:
        pair.read()
    assert caught.value.code == RESOURCE_LIMIT
    assert pair.b.node.stream_read(at_b, 1000, pair.now) == bytes(101)
    with pytest.raises(StreamReset):
        pair.a.node.stream_write(pair.ours, b"x")
    assert unread(pair) == (0, 0)


def test_a_shed_stream_does_not_end_as_if_it_were_complete():
    pair = Ends(b=make_node(limits=Limits(max_unread_total=1000)))
    pair.write(bytes(900))
    pair.a.node.stream_write_eof(pair.ours)
    pair.run()
    other, _ = pair.opened()
    pair.a.node.stream_write(other, bytes(101))
    pair.run()
    for _ in range(2):
        with pytest.raises(StreamReset, match="max_unread_total"):
            pair.read()


def test_the_node_sheds_at_its_limit_and_not_before():
    pair = Ends(b=make_node(limits=Limits(max_unread_total=8000)))
    pair.write(bytes(8000))
    assert unread(pair) == (8000, 8000)
    assert pair.read(3000) == bytes(3000)
    small, at_b = pair.opened()
    pair.a.node.stream_write(small, bytes(3000))
    pair.run()
    assert unread(pair) == (8000, 8000)
    pair.a.node.stream_write(small, b"!")
    pair.run()
    with pytest.raises(StreamReset, match="max_unread_total"):
        pair.read()
    assert unread(pair) == (3001, 3001)
    assert len(pair.b.node.stream_read(at_b, 5000, pair.now)) > 0


class Held:
    """What ``shed`` looks at."""

    def __init__(self, conn, unread):
        self.connection = self
        self.id = conn
        self.unread = self.held = unread

    def overflow(self, now):
        self.unread = 0


@pytest.mark.parametrize(
    "held, limit, shed_ones",
    [
        ([(1, 10)], 10, [(1, 10)]),
        ([(1, 10), (2, 91)], 100, [(2, 91)]),
        # Whose connection holds most pays first, its fullest stream before the others.
        ([(1, 40), (2, 21), (2, 22), (2, 20)], 100, [(2, 22)]),
        ([(1, 40), (2, 21), (2, 22), (2, 20)], 80, [(2, 22), (2, 21)]),
        ([(1, 40), (2, 21), (2, 22), (2, 20)], 50, [(2, 22), (2, 21), (1, 40)]),
        ([(1, 60), (2, 40)], 20, [(1, 60), (2, 40)]),
        ([(1, 87)], 100, []),
        ([(1, 88)], 100, []),
        ([(1, 89)], 100, [(1, 89)]),
    ],
)
def test_who_is_shed(held, limit, shed_ones):
    streams = [Held(conn, size) for conn, size in held]
    found = shed(streams, limit, 0.0)
    assert [(one.id, one.held) for one in found] == shed_ones
    assert sum(one.unread for one in streams) <= limit - limit // 8


def test_a_closed_connection_keeps_what_its_reader_has_not_read_accountable():
    limits = Limits(max_unread_total=1000)
    pair = Ends(b=make_node(limits=limits))
    pair.write(bytes(900))
    pair.hang_up(pair.a, pair.b)
    assert pair.b.node.unread == 900
    node = pair.b.node
    other = Ends(b=node)
    other.write(bytes(101))
    assert node.unread == 101  # the leftovers of the dead connection made room
    with pytest.raises(StreamReset):
        pair.read()
    assert other.read() == bytes(101)


@pytest.mark.parametrize("data", [b"", bytearray(b"x"), memoryview(b"y")])
def test_streams_carry_bytes(data):
    require_bytes(data)


@pytest.mark.parametrize("data", ["text", 5, None, [1]])
def test_and_nothing_else(data):
    with pytest.raises(LocalError, match="carries bytes, not"):
        require_bytes(data)
