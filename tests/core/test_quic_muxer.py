"""anyp2p_core.quic_muxer: which streams there are, and what all of them may hold."""

import pytest
from quic_fake import FakeSession, Streams

from anyp2p_core.errors import LimitReached, LocalError, MuxerError
from anyp2p_core.limits import Limits
from anyp2p_core.quic_muxer import (
    CONNECTION_WINDOW,
    KEEPALIVE,
    MAX_CONNECTION_WINDOW,
    MAX_STREAM_WINDOW,
    QuicMuxer,
)
from anyp2p_core.quic_stream import INITIAL_WINDOW


def test_opening():
    side = Streams(initiator=False, max_outbound_streams=3)
    assert [side.open().id for _ in range(3)] == [1, 5, 9]
    with pytest.raises(LimitReached, match="max_outbound_streams: 3"):
        side.open()
    side.mux.streams[5].reset()
    side.session.max_streams = 3
    with pytest.raises(LimitReached, match="2 are open"):
        side.open()
    assert side.mux.rtt == side.session.rtt and side.mux.queued_control == 0


def test_streams_of_the_peer():
    side = Streams()
    side.data(1, b"a")
    side.data(13, b"d")  # opens 5 and 9 as well
    side.data(5, b"b", fin=True)
    side.data(1, b"A")
    assert side.take() == [(1, b"a"), (13, b"d"), (5, b"b"), (5, "eof"), (1, b"A")]
    assert [s.inbound for s in side.mux.streams.values()] == [True] * 3
    assert repr(side.accepted[1]).startswith("<QUIC stream 1 inbound")
    side.accepted[5].write_eof()
    side.mux.feed(side.now)
    side.data(5, b"late")  # it was there before
    side.stop(5)
    side.data(0, b"ours, which was never opened")
    side.reset(4)
    assert side.take() == [] and list(side.mux.streams) == [1, 13]
    side.reset(9, 3)
    assert side.take() == [(9, "reset", 3)]
    side.stop(17, 3)
    assert side.mux.streams[17].write(b"dropped") == 7 and not side.mux.wants_write


def test_a_stream_that_is_refused():
    side = Streams(max_inbound_streams=1)
    side.data(1, b"a")
    side.data(5, b"b")
    assert side.take() == [(1, b"a")] and list(side.mux.streams) == [1]
    assert side.session.take() == [("reset", 5, 0x1002), ("stop", 5, 0x1002)]
    side.reset(9, 1)
    side.stop(13, 1)
    assert side.take() == []
    side.accepted[1].reset()
    side.data(17, b"c")
    assert side.take() == [(17, b"c")]


def test_a_stream_that_on_stream_resets():
    side = Streams()
    side.mux._on_stream = lambda stream, now: stream.reset(9)
    side.data(1, b"a", fin=True)
    assert not side.mux.streams and side.mux.unread == 0


def test_a_stream_reset_by_its_own_data():
    side = Streams()
    stream = side.open()
    stream.on_data = lambda data, now: stream.reset()
    side.data(0, b"a", fin=True)
    assert side.take() == []


def test_ends_and_stops_that_come_late():
    side = Streams()
    stream = side.open()
    side.data(0, b"", fin=True)
    side.data(0, b"late")
    side.reset(0, 3)
    assert side.take() == [(0, "eof")] and not stream.is_reset
    side.stop(4, 3)  # one of ours that was never opened
    stream.reset()
    side.stop(0, 3)
    known = side.open()
    side.stop(known.id, 3)
    assert known.write(b"dropped") == 7 and not side.mux.wants_write
    stream = side.open()
    assert side.take() == []
    stream.write(b"x")
    side.session.rooms = 0
    assert side.mux.queued == 1 and side.mux.feed(side.now) == 0


def test_turns():
    side = Streams()
    streams = [side.open() for _ in range(3)]
    side.session.rooms = 2
    for stream in streams:
        stream.write(b"1234")
    assert side.mux.data_to_send(0, side.now) == []
    assert [call[1] for call in side.session.take()] == [0, 4, 8]
    streams[1].reset()
    side.session.take()
    assert side.mux.feed(side.now) == 4
    assert [call[1] for call in side.session.take()] == [0, 8]
    with pytest.raises(LocalError):
        side.mux.receive(b"", side.now)


def test_a_writer_that_goes_on_when_it_may():
    side = Streams(max_unsent=10)
    stream = side.open()
    stream.on_writable = lambda now: stream.write(bytes(20))
    stream.write(bytes(20))
    for _ in range(5):
        assert side.mux.feed(side.now) == 10
        assert side.mux.wants_write


def test_the_limit_of_the_connection_follows_what_arrives():
    side = Streams()
    side.open()
    half = CONNECTION_WINDOW // 2
    side.now = 100.0
    side.session.rtt = None
    side.data(0, bytes(half - 1))
    assert side.session.take() == []
    side.data(0, b"x")
    assert side.session.take() == [("grant", CONNECTION_WINDOW + half)]
    side.reset(1, 0, missing=half)
    assert ("grant", CONNECTION_WINDOW + 2 * half) in side.session.take()
    side.session.rtt = 1000.0
    side.data(0, bytes(half))  # of a stream or not, as long as it arrived
    assert side.session.take() == [("grant", 2 * CONNECTION_WINDOW + 3 * half)]
    for _ in range(10):
        side.data(3, bytes(side.mux._window.size))
    assert side.mux._window.size == MAX_CONNECTION_WINDOW


def test_windows_of_streams_grow_within_bounds():
    side = Streams(max_unread=16 << 20)
    side.session.rtt = 1000.0
    first, second = side.open(), side.open()
    for stream in (first, second):
        for _ in range(12):
            size = stream._window.size
            side.data(stream.id, bytes(size))
            stream.credit(size, side.now)
    total = first._window.size + second._window.size
    assert first._window.size == INITIAL_WINDOW + (8 << 20) < MAX_STREAM_WINDOW
    assert second._window.size == INITIAL_WINDOW and total < 16 << 20
    first.reset()
    side.data(second.id, bytes(INITIAL_WINDOW))
    second.credit(INITIAL_WINDOW, side.now)
    assert second._window.size == 2 * INITIAL_WINDOW
    wide = Streams(max_unread=1 << 30, max_stream_window=1 << 30)
    wide.session.rtt = 1000.0
    stream = wide.open()
    for _ in range(12):
        size = stream._window.size
        wide.data(0, bytes(size))
        stream.credit(size, wide.now)
    assert stream._window.size == MAX_STREAM_WINDOW


def test_unread_bytes_are_shed():
    side = Streams(max_unread=100)
    small, large = side.open(), side.open()
    side.data(small.id, bytes(40))
    side.data(large.id, bytes(55))
    side.session.take()
    side.take()
    side.data(small.id, bytes(11))
    assert large.shed and large.is_reset and not small.shed
    assert side.session.take() == [("reset", 4, 0x1002), ("stop", 4, 0x1002)]
    assert side.take() == [(4, "reset", 0x1002), (0, bytes(11))]
    assert side.mux.unread == small.unread == 51
    side.data(small.id, bytes(50))
    assert small.shed and side.take() == [(0, "reset", 0x1002)] and side.mux.unread == 0


def test_resets_are_counted():
    side = Streams(max_resets=3)
    for n in range(3):
        side.reset(1 + 4 * n)
    side.now = 100.0
    for n in range(3, 6):
        side.reset(1 + 4 * n)
    ours = side.open()
    side.reset(ours.id)  # ours cost the peer nothing to open
    side.data(25, b"x")
    side.accepted[25].stop_reading()
    side.reset(25)  # an answer
    with pytest.raises(MuxerError, match="4 streams"):
        side.reset(29)


def test_keepalive():
    side = Streams()
    assert side.mux.next_timeout() == KEEPALIVE
    side.session.heard_at = 10.0
    side.mux.handle_timeout(15.0)
    assert side.session.take() == [] and side.mux.next_timeout() == 25.0
    side.mux.handle_timeout(25.0)
    assert side.session.take() == ["ping"] and side.readied == 1
    assert side.mux.next_timeout() == 40.0
    quick = Streams(keepalive_interval=3.0)
    quick.mux.handle_timeout(3.0)
    assert quick.session.take() == ["ping"] and quick.mux.next_timeout() == 6.0


def test_go_away_ends_it():
    side = Streams()
    side.mux.go_away(5)
    assert side.session.take() == [("close", 5)] and side.readied == 1


def test_close():
    side = Streams()
    first, second = side.open(), side.open()
    side.data(1, b"x")
    first.write(b"unsent")
    side.take()
    second.on_reset = lambda code, now: side.events.append("second")
    side.mux.close(side.now)
    side.mux.close(side.now)
    assert side.take() == [(0, "reset", 0), "second", (1, "reset", 0)]
    assert first.is_reset and first.unsent == 0 and not side.mux.wants_write
    assert side.mux.next_timeout() is None and not side.mux.streams
    side.session.take()
    side.mux.go_away()
    side.mux.handle_timeout(100.0)
    side.data(5, b"late")
    with pytest.raises(LocalError):
        side.open()
    assert side.session.take() == [] and side.take() == []
    side.accepted[1].credit(1, side.now)
    assert side.mux.unread == 0


def test_nobody_has_to_listen():
    mux = QuicMuxer(
        FakeSession(), initiator=True, limits=Limits(), on_stream=lambda *_: None, now=0.0
    )
    mux.open(0.0).write(b"x")
    assert mux.feed(0.0) == 1
