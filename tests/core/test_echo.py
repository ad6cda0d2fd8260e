"""anyp2p_core.echo"""

import random
import tracemalloc

import pytest
from hypothesis import given, settings, strategies as st
from node_pair import make_node
from stranger import KEYS, meet, one_by_one

from anyp2p_core import CloseConnection, Limits
from anyp2p_core.echo import COALESCE, PROTOCOL, Echo


def start(cut=None, **limits):
    """A stranger with an echo stream to a node."""
    node = make_node(KEYS[0], services=[Echo()], limits=Limits(**limits))
    pair = meet(node=node, cut=cut)
    pair.wire = pair.them.open(PROTOCOL, pair.now)
    pair.run()
    return pair


def send(pair, data):
    """Send everything, as the window lets it."""
    data = memoryview(data)
    while data:
        taken = pair.wire.send(data)
        data = data[taken:]
        pair.run()


def streams(pair):
    (connection,) = pair.node.connections()
    return [one for one in connection.muxer.streams.values() if one.inbound]


@pytest.mark.parametrize("cut", [None, one_by_one])
@pytest.mark.parametrize("size", [0, 1, 5, 300])
def test_every_byte_comes_back_and_then_the_end(size, cut):
    pair = start(cut)
    data = random.Random(size).randbytes(size)
    send(pair, data)
    assert pair.wire.received == data and not pair.wire.ended
    pair.wire.finish()
    pair.run()
    assert pair.wire.received == data and pair.wire.ended and not streams(pair)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 100_000), st.booleans()), max_size=10), st.integers(0, 9))
def test_any_pieces_read_or_not(pieces, late):
    pair = start(max_unsent=4096)
    expected = bytearray()
    for number, (size, reading) in enumerate(pieces):
        data = bytes((number,)) * size
        taken = pair.wire.send(data)
        expected += data[:taken]
        pair.wire.reading = reading
        if reading:
            pair.wire.catch_up(pair.now)
        pair.run()
    pair.wire.stream.write_eof()
    pair.wire.catch_up(pair.now)
    pair.run()
    assert pair.wire.received == expected and pair.wire.ended and not streams(pair)


def test_backpressure():
    """Who does not read gets to send no more than our buffer and its own window."""
    pair = start()
    pair.wire.reading = False
    sent = 0
    for _ in range(100):
        sent += pair.wire.send(bytes(32 * 1024))
        pair.run()
    (stream,) = streams(pair)
    window, limits = 256 * 1024, pair.node.limits
    assert window - 100 < len(pair.wire.received) <= window  # the negotiation took some
    assert stream.unsent <= limits.max_unsent
    assert stream.unread <= min(limits.max_stream_window, limits.max_unread)
    assert sent <= len(pair.wire.received) + stream.unsent + stream.unread + limits.max_unsent
    pair.wire.catch_up(pair.now)
    pair.run()
    assert len(pair.wire.received) == sent
    pair.wire.finish()
    pair.run()
    assert pair.wire.ended


def test_the_end_while_we_wait_for_room():
    pair = start(max_unsent=1000)
    pair.wire.reading = False
    for _ in range(9):
        pair.wire.send(bytes(60_000))
        pair.run()
    (stream,) = streams(pair)
    assert stream.unread
    before = pair.wire.stream.unsent
    pair.wire.stream.write_eof()
    pair.wire.catch_up(pair.now)
    pair.run()
    assert len(pair.wire.received) > 256 * 1024 + before and pair.wire.ended and not streams(pair)


def test_a_reset_while_we_wait_for_room():
    pair = start(max_unsent=1000)
    pair.wire.reading = False
    for _ in range(9):
        pair.wire.send(bytes(60_000))
        pair.run()
    (connection,) = pair.node.connections()
    assert connection.muxer.unread
    pair.wire.abort()
    pair.run()
    assert not streams(pair) and pair.node.connections() and connection.muxer.unread == 0


def test_tiny_pieces_do_not_cost_an_object_each():
    """Given to the stream by hand: the layers below join what comes in one frame."""
    pair = start(max_unsent=1000)
    pair.wire.reading = False
    for _ in range(6):
        pair.wire.send(bytes(50_000))
        pair.run()
    (stream,) = streams(pair)
    assert stream.unread  # our buffer is full
    muxer = pair.node.connections()[0].muxer

    def arrive(piece):
        stream.unread += len(piece)
        stream.receive_window -= len(piece)
        muxer.unread += len(piece)
        stream.on_data(piece, pair.now)

    pieces = [bytes((n & 0xFF, n >> 8)) for n in range(20_000)]
    tracemalloc.start()
    try:
        for piece in pieces:
            arrive(piece)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 3 * 2 * len(pieces)
    large = bytes(range(256)) * (COALESCE // 256)
    for piece in (large, b"x", large):
        arrive(piece)
    pair.wire.catch_up(pair.now)
    pair.run()
    assert pair.wire.received.endswith(b"".join(pieces) + large + b"x" + large)


def test_row_13_we_close_while_the_peer_does_not_read():
    pair = start()
    pair.wire.reading = False
    for _ in range(20):
        pair.wire.send(bytes(60_000))
        pair.run()
    pair.node.close(pair.ours.conn, pair.now)
    pair.run()
    pair.wait(1.1)
    assert pair.ours.of(CloseConnection) and not pair.open
    assert pair.node.timers.reasons() == []
