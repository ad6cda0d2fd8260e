"""anyp2p_core.quic_stream: both directions, on a library that does nothing by itself."""

import pytest
from quic_fake import Streams

from anyp2p_core.errors import LocalError
from anyp2p_core.quic_stream import CODE_OUT_OF_RANGE, INITIAL_WINDOW


def test_writing():
    side = Streams()
    stream = side.open()
    assert stream.id == 0 and not stream.inbound and side.session.take() == []
    assert repr(stream) == "<QUIC stream 0 outbound unsent=0 unread=0>"
    assert stream.write(b"hello") == 5 and stream.unsent == 5
    assert side.readied == 1 and side.mux.wants_write
    assert side.mux.feed(side.now) == 5
    assert side.session.take() == [("send", 0, 5, False)]
    stream.write(b"one")
    stream.write(b"two")
    stream.write_eof()
    stream.write_eof()
    assert side.mux.feed(side.now) == 7
    assert side.session.take() == [("send", 0, 6, True)]
    assert side.session.sent[0] == b"helloonetwo"
    with pytest.raises(LocalError):
        stream.write(b"more")


def test_an_end_alone():
    side = Streams()
    stream = side.open()
    stream.write_eof()
    assert side.mux.queued == 1
    assert side.mux.feed(side.now) == 1
    assert side.session.take() == [("send", 0, 0, True)]
    assert stream.eof_sent and side.mux.streams == {0: stream}


def test_only_as_much_as_there_is_room_for():
    side = Streams(max_unsent=100)
    stream = side.open()
    assert stream.write(bytes(150)) == 100
    side.session.rooms = 30
    drained = []
    stream.on_drained = drained.append
    assert side.mux.feed(side.now) == 30 and stream.unsent == 70 and side.take() == []
    assert side.mux.feed(side.now) == 30 and side.take() == [(0, "writable")]
    side.session.rooms = 0
    assert side.mux.feed(side.now) == 0 and side.mux.wants_write and not drained
    side.session.rooms = 100
    stream.write_eof()
    assert side.mux.feed(side.now) == 41 and drained == [1.0] and not side.mux.wants_write
    assert side.session.take()[-1] == ("send", 0, 40, True)


@pytest.mark.parametrize("ours_first", [True, False])
def test_both_directions_end(ours_first):
    side = Streams()
    stream = side.open()
    stream.write(b"x")
    if ours_first:
        stream.write_eof()
        side.mux.feed(side.now)
        side.data(0, b"bye", fin=True)
    else:
        side.data(0, b"bye", fin=True)
        stream.write_eof()
        assert side.mux.streams
        side.mux.feed(side.now)
    assert side.take() == [(0, b"bye"), (0, "eof")]
    assert not side.mux.streams and not stream.is_reset
    side.data(0, b"late", fin=True)
    side.reset(0)
    side.stop(0)
    assert side.take() == []
    stream.credit(3, side.now)
    assert side.mux.unread == 0


def test_an_end_that_comes_twice():
    side = Streams()
    side.open()
    side.data(0, b"", fin=True)
    side.data(0, b"", fin=True)
    side.reset(0, 5)
    assert side.take() == [(0, "eof")]


def test_reading():
    side = Streams()
    stream = side.open()
    half = INITIAL_WINDOW // 2
    side.data(0, bytes(half))
    assert (stream.unread, side.mux.unread) == (half, half)
    side.session.take()
    for wrong in (-1, half + 1):
        with pytest.raises(LocalError):
            stream.credit(wrong, side.now)
    stream.credit(half - 1, 100.0)
    assert side.session.take() == []
    before = side.readied
    stream.credit(1, 100.0)
    assert side.session.take() == [("grant_stream", 0, INITIAL_WINDOW + half)]
    assert side.readied == before + 1 and side.mux.unread == stream.unread == 0
    side.data(0, bytes(half), fin=True)
    side.session.take()
    stream.credit(half, 100.0)  # nothing more comes: nothing is granted
    assert side.session.take() == []


def test_more_than_is_held_unread():
    side = Streams(max_unread=10)
    stream = side.open()
    side.data(0, bytes(11))
    assert stream.shed and stream.is_reset and side.mux.unread == 0
    assert side.take() == [(0, "reset", 0x1002)]


def test_reset_by_us():
    side = Streams()
    stream = side.open()
    side.data(0, b"unread")
    stream.write(b"unsent")
    for wrong in (-1, 2**32):
        with pytest.raises(LocalError):
            stream.reset(wrong)
    side.session.take()
    stream.reset(7)
    assert side.session.take() == [("reset", 0, 7), ("stop", 0, 7)]
    assert stream.is_reset and not side.mux.streams and not side.mux.wants_write
    assert side.mux.unread == stream.unread == stream.unsent == 0
    stream.reset(8)
    stream.credit(5, side.now)
    stream.stop_reading()
    side.data(0, b"late")
    side.reset(0, 7)
    assert side.session.take() == [] and side.take() == [(0, b"unread")]
    with pytest.raises(LocalError):
        stream.write(b"x")


def test_reset_by_us_after_their_end():
    side = Streams()
    stream = side.open()
    side.data(0, b"", fin=True)
    stream.reset(7)
    assert side.session.take() == [("reset", 0, 7)]


@pytest.mark.parametrize("code", [0, 5, 2**32 - 1, 2**32, 2**62 - 1])
def test_reset_by_the_peer(code):
    side = Streams()
    stream = side.open()
    stream.write(b"unsent")
    stream.on_drained = side.events.append
    side.data(0, b"unread")
    side.session.take()
    side.reset(0, code)
    told = code if code < 2**32 else CODE_OUT_OF_RANGE
    assert side.take() == [(0, b"unread"), (0, "reset", told)]
    assert side.session.take() == [("reset", 0, 0)]  # our direction ends, too
    assert stream.is_reset and stream.unsent == 0 and not side.mux.streams
    assert stream.unread == 6  # may still be read
    stream.credit(6, side.now)
    assert side.mux.unread == 0 and side.session.take() == []


def test_reset_by_the_peer_after_our_end():
    side = Streams()
    stream = side.open()
    stream.write_eof()
    side.mux.feed(side.now)
    side.session.take()
    side.reset(0, 5)
    assert side.session.take() == [] and side.take() == [(0, "reset", 5)]
    other = side.open()
    other.write_eof()  # not sent yet: the reset takes its place
    side.reset(4, 5)
    assert side.session.take() == [("reset", 4, 0)] and not side.mux.wants_write


def test_stop_reading():
    side = Streams()
    stream = side.open()
    side.data(0, b"unread")
    side.session.take()
    stream.stop_reading()
    stream.stop_reading()
    assert side.session.take() == [("stop", 0, 0)] and side.mux.unread == 0
    side.take()
    side.data(0, b"dropped")
    assert side.take() == [] and stream.unread == 0
    stream.write_eof()
    side.mux.feed(side.now)
    side.reset(0, 0)  # what peers answer
    assert side.take() == [(0, "eof")] and not side.mux.streams and not stream.is_reset


def test_stop_reading_after_the_end():
    side = Streams()
    stream = side.open()
    side.data(0, b"unread", fin=True)
    side.session.take()
    stream.stop_reading()
    assert side.session.take() == [] and side.mux.unread == 0


def test_the_peer_reads_no_more():
    side = Streams(max_unsent=10)
    stream = side.open()
    assert stream.write(bytes(20)) == 10
    drained = []
    stream.on_drained = drained.append
    side.stop(0, 5)
    side.stop(0, 6)
    assert stream.unsent == 0 and not side.mux.wants_write and drained == [1.0]
    assert side.take() == [(0, "writable")]
    assert stream.write(memoryview(bytes(12)).cast("I")) == 12 and stream.writable()
    assert side.session.take() == []
    side.data(0, b"an answer", fin=True)
    assert side.take() == [(0, b"an answer"), (0, "eof")] and side.mux.streams
    stream.write_eof()
    stream.write_eof()
    assert not side.mux.streams and not stream.is_reset
    with pytest.raises(LocalError):
        stream.write(b"x")


def test_the_peer_reads_no_more_and_we_had_finished():
    side = Streams()
    stream = side.open()
    stream.write(b"x")
    stream.write_eof()
    side.stop(0, 5)
    assert side.mux.queued == 0 and side.mux.streams
    side.data(0, b"", fin=True)
    assert side.take() == [(0, "eof")] and not side.mux.streams


def test_the_peer_stops_before_our_write_eof_and_its_own_end():
    side = Streams()
    stream = side.open()
    side.stop(0, 5)
    stream.write_eof()
    assert side.mux.streams
    side.data(0, b"", fin=True)
    assert not side.mux.streams


@pytest.mark.parametrize("code", [5, 2**40])
def test_the_peer_reads_no_more_after_its_end(code):
    side = Streams()
    stream = side.open()
    side.data(0, b"", fin=True)
    side.stop(0, code)
    told = code if code < 2**32 else CODE_OUT_OF_RANGE
    assert side.take() == [(0, "eof"), (0, "reset", told)]
    assert stream.is_reset and not side.mux.streams
    stream.write_eof()


def test_the_peer_reads_no_more_after_its_end_and_our_write_eof():
    side = Streams()
    stream = side.open()
    side.data(0, b"", fin=True)
    stream.write(b"x")
    stream.write_eof()
    side.stop(0, 5)
    assert side.take() == [(0, "eof")] and not side.mux.streams and not stream.is_reset


def test_reset_after_the_peer_stopped():
    side = Streams()
    stream = side.open()
    side.stop(0, 5)
    stream.reset(6)
    assert side.session.take() == [("reset", 0, 6), ("stop", 0, 6)]
    stream.write_eof()
    assert side.take() == []


def test_defaults_ignore_everything():
    side = Streams()
    stream = side.mux.open(side.now)
    side.data(0, b"x")
    side.data(0, b"", fin=True)
    side.stop(0)
    assert repr(stream) and not side.mux.streams
