"""One stream: writing, windows, closing. The peer is played by hand or by a second session."""

import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given, settings, strategies as st
from yamux_pair import BUDGET, Pair, Session, data_frame, parse, quiet

from anyp2p_core.errors import LocalError
from anyp2p_core.yamux_frame import ACK, DATA, FIN, RST, SYN, WINDOW_UPDATE, encode
from anyp2p_core.yamux_stream import INITIAL_WINDOW, MAX_PAYLOAD, Stream

KIB = 1024
UNLIMITED = 1 << 30


def opened(**limits: float) -> tuple[Session, Stream]:
    """A session with one stream of ours, known to the peer, and with nothing left to send."""
    session = quiet(**limits)
    stream = session.open()
    session.wire()
    session.receive(encode(WINDOW_UPDATE | ACK, stream.id, 0))
    return session, stream


def accepted(reads: bool = True, **limits: float) -> tuple[Session, Stream]:
    """A session with one stream of the peer's, and with nothing left to send."""
    session = quiet(reads=reads, **limits)
    session.receive(encode(WINDOW_UPDATE | SYN, 1, 0))
    session.wire()
    return session, session.logs[1].stream


# Writing.


def test_what_is_written_leaves_in_one_frame() -> None:
    session, stream = opened()
    assert [stream.write(data) for data in (b"one", b"", b"two", b"three")] == [3, 0, 3, 5]
    assert stream.unsent == 11
    assert session.wire() == data_frame(DATA, 2, b"onetwothree")
    assert stream.unsent == 0
    assert not session.mux.wants_write


def test_large_writes_become_frames_of_one_noise_message() -> None:
    session, stream = opened()
    data = bytes(range(256)) * 800
    assert stream.write(data) == 204_800
    pieces = session.mux.data_to_send(UNLIMITED, 0.0)
    assert len(pieces[0]) + len(pieces[1]) == 65519
    wire = b"".join(pieces)
    assert parse(wire) == [("DATA", 2, MAX_PAYLOAD)] * 3 + [("DATA", 2, 204_800 - 3 * MAX_PAYLOAD)]
    assert b"".join(pieces[1::2]) == data


def test_bytes_are_not_copied() -> None:
    session, stream = opened(max_unsent=64 << 20)
    data = bytes(32 << 20)
    session.receive(encode(WINDOW_UPDATE, 2, 64 << 20))
    tracemalloc.start()
    stream.write(data)
    frames = 0
    while session.mux.wants_write:
        pieces = session.mux.data_to_send(BUDGET, 0.0)
        assert sum(map(len, pieces)) <= BUDGET
        frames += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert frames == 513  # every one of them about as cheap as the first
    assert peak < 64 * KIB


@pytest.mark.parametrize("kind", [bytearray, memoryview, lambda data: memoryview(bytearray(data))])
def test_what_may_change_is_copied(kind: Callable[[bytes], bytearray | memoryview]) -> None:
    session, stream = opened()
    data = kind(b"0123456789")
    assert stream.write(data) == 10
    if not (isinstance(data, memoryview) and data.readonly):
        data[0:1] = b"X"
    if isinstance(data, memoryview):
        data.release()
    assert session.wire() == data_frame(DATA, 2, b"0123456789")


def test_views_of_larger_items_are_counted_in_bytes() -> None:
    session, stream = opened()
    assert stream.write(memoryview(b"12345678").cast("I")) == 8
    assert session.wire() == data_frame(DATA, 2, b"12345678")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_short_write_waits_for_on_writable(
    kind: Callable[[bytes], bytes | bytearray | memoryview],
) -> None:
    session, stream = opened(max_unsent=200_000)
    log = session.logs[2]
    data = bytes(range(250)) * 1000
    assert stream.write(kind(data)) == 200_000
    assert stream.write(kind(b"more")) == 0
    sent = bytearray()
    while stream.unsent >= 100_000:
        assert log.events == []
        sent += b"".join(session.mux.data_to_send(1, 0.0))
    assert log.events == ["writable"]
    assert stream.write(kind(data[200_000:])) == 50_000
    sent += session.wire()
    assert log.events == ["writable"]  # this write was not short
    frames = parse(bytes(sent))
    assert sum(length for _, _, length in frames) == 250_000
    assert (
        bytes(sent).replace(encode(DATA, 2, MAX_PAYLOAD), b"").startswith(data[: 2 * MAX_PAYLOAD])
    )


def test_on_writable_waits_until_less_than_half_is_unsent() -> None:
    session, stream = opened(max_unsent=2 * MAX_PAYLOAD)
    stream.write(bytes(2 * MAX_PAYLOAD + 1))
    session.mux.data_to_send(1, 0.0)
    assert stream.unsent == MAX_PAYLOAD and session.logs[2].events == []
    session.mux.data_to_send(1, 0.0)
    assert session.logs[2].events == ["writable"]


def test_lowered_limits_let_nothing_more_in() -> None:
    session, stream = opened()
    stream.write(bytes(1000))
    session.mux.limits.max_unsent = 500
    assert stream.write(b"x") == 0
    session.wire()
    assert session.logs[2].events == ["writable"]


def test_on_writable_may_write_and_reset() -> None:
    session, stream = opened(max_unsent=1000)
    other = session.open()
    session.wire()
    taken = []

    def refill(now: float) -> None:
        taken.append(stream.write(bytes(1500)))
        other.reset()

    stream.on_writable = refill
    stream.write(bytes(1001))
    other.write(bytes(1001))
    frames = parse(b"".join(session.mux.data_to_send(BUDGET, 0.0)))
    assert frames == [("DATA", 2, 1000), ("DATA", 4, 1000)]
    assert taken == [1000]
    assert session.logs[4].events == []  # reset before its turn to be told
    stream.on_writable = lambda now: None
    assert session.sent() == [("WINDOW_UPDATE RST", 4, 0), ("DATA", 2, 1000)]


def test_writable_says_whether_a_write_would_take_something() -> None:
    session, stream = opened(max_unsent=1000)
    stream.write(bytes(999))
    assert stream.writable()
    stream.write(b"x")
    assert not stream.writable()
    session.wire()
    assert session.logs[2].events == ["writable"]
    assert stream.writable()
    stream.reset()
    with pytest.raises(LocalError):
        stream.writable()


def test_on_drained_is_called_once_when_everything_is_sent() -> None:
    session, stream = opened()
    calls: list[float] = []
    stream.write(bytes(100_000))
    stream.on_drained = calls.append
    session.mux.data_to_send(1, 5.0)
    assert calls == []
    session.mux.data_to_send(1, 6.0)
    assert calls == [6.0]
    stream.write(b"more")
    session.mux.data_to_send(1, 7.0)
    assert calls == [6.0]


def test_on_drained_is_called_when_the_last_frame_finishes_the_stream() -> None:
    session, stream = opened()
    calls: list[float] = []
    session.receive(data_frame(FIN, 2, b""))
    stream.write(b"bye")
    stream.write_eof()
    stream.on_drained = calls.append
    assert session.sent() == [("DATA", 2, 3), ("DATA FIN", 2, 0)]
    assert calls == [session.now]
    assert session.mux.streams == {}


def test_on_drained_is_not_called_after_a_reset() -> None:
    session, stream = opened()
    calls: list[float] = []
    stream.write(b"never")
    stream.on_drained = calls.append
    session.receive(encode(WINDOW_UPDATE | RST, 2, 0))
    session.wire()
    assert calls == [] and stream.unsent == 0


def test_the_send_window_stops_and_a_window_update_resumes() -> None:
    session, stream = opened(max_unsent=1 << 20)
    data = bytes(range(251)) * 1200
    stream.write(data)
    sent = session.wire()
    assert sum(length for _, _, length in parse(sent)) == INITIAL_WINDOW
    assert stream.send_window == 0 and not session.mux.wants_write
    stream.write(b"more")
    assert not session.mux.wants_write
    session.receive(encode(WINDOW_UPDATE, 2, 0))
    assert not session.mux.wants_write
    session.receive(encode(WINDOW_UPDATE, 2, 1))
    session.receive(encode(WINDOW_UPDATE, 2, 9))
    assert session.wire() == data_frame(DATA, 2, data[INITIAL_WINDOW : INITIAL_WINDOW + 10])
    session.receive(encode(WINDOW_UPDATE, 2, 1 << 20))
    assert session.wire() == data_frame(DATA, 2, data[INITIAL_WINDOW + 10 :] + b"more")


def test_frames_may_end_where_a_write_ended() -> None:
    session, stream = opened()
    stream.write(bytes(MAX_PAYLOAD))
    stream.write(b"1234")
    stream.write(b"5678")
    assert session.sent() == [("DATA", 2, MAX_PAYLOAD), ("DATA", 2, 8)]


def test_one_stream_without_window_does_not_stop_the_others() -> None:
    session, stream = opened(max_unsent=1 << 20)
    stream.write(bytes(INITIAL_WINDOW + 1))
    session.wire()
    other = session.open()
    other.write(b"hello")
    assert session.sent() == [("DATA SYN", 4, 5)]


def test_many_small_writes_cost_about_their_bytes() -> None:
    session, stream = opened()
    small = [bytes([i, i ^ 0x5A]) for i in range(256)] * 512
    stream.write(b"first")
    session.receive(encode(WINDOW_UPDATE, 2, 0))
    tracemalloc.start()
    for data in small:
        stream.write(data)
    retained = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert retained < 2 * stream.unsent + 64 * KIB
    frames = session.wire()
    head = data_frame(DATA, 2, b"first" + b"".join(small)[: MAX_PAYLOAD - 5])
    assert frames.startswith(head)


def test_small_writes_behind_a_partly_sent_one() -> None:
    session, stream = opened(max_unsent=1 << 20)
    stream.write(bytes(INITIAL_WINDOW - 5))
    session.wire()
    text = b"0123456789"
    stream.write(text)
    assert session.wire() == data_frame(DATA, 2, text[:5])
    for i in range(600):
        stream.write(b"%d" % (i % 10))
    session.receive(encode(WINDOW_UPDATE, 2, 1 << 20))
    assert session.wire() == data_frame(DATA, 2, text[5:] + text * 60)


@given(st.lists(st.integers(0, 400), max_size=600), st.integers(1, 3000))
@settings(deadline=None, max_examples=30)
def test_small_and_large_writes_keep_their_order(sizes: list[int], grant: int) -> None:
    session, stream = opened(max_unsent=1 << 20)
    stream.write(bytes(INITIAL_WINDOW))
    session.wire()
    source = bytes(i * 7 & 0xFF for i in range(1024))
    written = bytearray()
    got = bytearray()

    def granted(size: int) -> None:
        session.receive(encode(WINDOW_UPDATE, 2, size))
        while session.mux.wants_write:
            header, *pieces = session.mux.data_to_send(1, 0.0)
            assert parse(header + b"".join(pieces)) == [("DATA", 2, sum(map(len, pieces)))]
            got.extend(b"".join(pieces))

    for i, size in enumerate(sizes):
        data = source[i : i + size]
        assert stream.write(data) == size
        written += data
        if i % 50 == 49:
            granted(grant)  # cuts the chunks in odd places
    granted(1 << 20)
    assert got == written
    assert stream.unsent == 0


# Closing and resetting.


def test_fin_follows_the_data_in_a_frame_of_its_own() -> None:
    """js peers close a stream before they take the payload of the frame that carries its FIN."""
    session, stream = opened()
    stream.write(bytes(MAX_PAYLOAD + 1))
    stream.write_eof()
    assert stream.eof_sent
    assert session.sent() == [("DATA", 2, MAX_PAYLOAD), ("DATA", 2, 1), ("DATA FIN", 2, 0)]
    stream.write_eof()
    assert session.sent() == []


def test_fin_waits_for_the_window() -> None:
    session, stream = opened(max_unsent=1 << 20)
    stream.write(bytes(INITIAL_WINDOW + 1))
    stream.write_eof()
    assert sum(length for _, _, length in session.sent()) == INITIAL_WINDOW
    session.receive(encode(WINDOW_UPDATE, 2, 1))
    assert session.sent() == [("DATA", 2, 1), ("DATA FIN", 2, 0)]


def test_write_eof_without_window_has_nothing_to_send() -> None:
    session, stream = opened(max_unsent=1 << 20)
    stream.write(bytes(INITIAL_WINDOW + 1))
    session.wire()
    stream.write_eof()
    assert not session.mux.wants_write


def test_fin_alone_is_an_empty_data_frame() -> None:
    session, stream = opened()
    stream.write(b"x")
    session.wire()
    stream.write_eof()
    assert session.sent() == [("DATA FIN", 2, 0)]
    with pytest.raises(LocalError):
        stream.write(b"more")


def test_write_eof_cancels_on_writable() -> None:
    session, stream = opened(max_unsent=10)
    assert stream.write(bytes(11)) == 10
    stream.write_eof()
    session.wire()
    assert session.logs[2].events == []


def test_the_first_frame_can_be_the_last() -> None:
    session = quiet()
    stream = session.open()
    stream.write(b"all")
    stream.write_eof()
    assert session.sent() == [("DATA SYN", 2, 3), ("DATA FIN", 2, 0)]
    stream = session.open()
    stream.write_eof()
    assert session.sent() == [("DATA SYN FIN", 4, 0)]


def test_reset_drops_what_is_unsent_and_tells_the_code() -> None:
    session, stream = opened()
    stream.write(b"never")
    stream.reset(0x1001)
    assert stream.is_reset and stream.unsent == 0
    assert session.wire() == bytes.fromhex("000100080000000200001001")
    assert session.logs[2].events == []
    with pytest.raises(LocalError):
        stream.write(b"x")
    stream.write_eof()
    stream.reset()
    stream.credit(5, 0.0)
    stream.stop_reading()
    assert not session.mux.wants_write and session.mux.streams == {}


def test_reset_before_the_peer_heard_of_the_stream_says_nothing() -> None:
    session = quiet()
    stream = session.open()
    stream.write(b"never")
    stream.reset()
    assert session.sent() == []
    assert session.open().id == 4


@pytest.mark.parametrize("code", [-1, 1 << 32])
def test_reset_with_an_impossible_code(code: int) -> None:
    _, stream = opened()
    with pytest.raises(LocalError):
        stream.reset(code)
    assert not stream.is_reset


def test_reset_on_a_finished_stream_only_settles_what_is_unread() -> None:
    session, stream = accepted(reads=False)
    session.receive(data_frame(FIN, 1, b"12345"))
    stream.write_eof()
    assert session.sent() == [("DATA FIN", 1, 0)]
    assert session.mux.unread == stream.unread == 5
    stream.reset()
    assert session.sent() == [] and not stream.is_reset
    assert session.mux.unread == stream.unread == 0


def test_repr() -> None:
    _, stream = accepted()
    assert repr(stream) == "<yamux stream 1 inbound unsent=0 unread=0>"
    _, stream = opened()
    assert repr(stream) == "<yamux stream 2 outbound unsent=0 unread=0>"


# Reading.


def test_half_a_window_of_consumed_bytes_is_granted_again() -> None:
    session, stream = accepted(reads=False)
    session.now = 100.0  # slow: the window does not grow
    session.receive(*[data_frame(DATA, 1, bytes(64 * KIB))] * 4)
    assert stream.receive_window == 0 and stream.unread == INITIAL_WINDOW
    stream.credit(128 * KIB - 1, session.now)
    assert not session.mux.wants_write
    stream.credit(0, session.now)
    stream.credit(1, session.now)
    assert session.sent() == [("WINDOW_UPDATE", 1, 128 * KIB)]
    assert stream.receive_window == 128 * KIB == stream.unread == session.mux.unread


@pytest.mark.parametrize("size", [-1, 6])
def test_credit_for_what_was_not_received(size: int) -> None:
    session, stream = accepted(reads=False)
    session.receive(data_frame(DATA, 1, b"12345"))
    with pytest.raises(LocalError):
        stream.credit(size, 0.0)
    assert stream.unread == 5


def test_credit_in_the_middle_of_a_frame_counts_what_came() -> None:
    session, stream = accepted(reads=False)
    session.receive(data_frame(DATA, 1, b"12345")[:-3])
    with pytest.raises(LocalError):
        stream.credit(3, 0.0)
    stream.credit(2, 0.0)
    session.receive(b"345")
    assert stream.unread == 3


def test_the_first_window_update_carries_the_ack() -> None:
    session = quiet()
    session.receive(*[data_frame(SYN, 1, bytes(64 * KIB)), data_frame(DATA, 1, bytes(64 * KIB))])
    assert [frame[:2] for frame in session.sent()] == [("WINDOW_UPDATE ACK", 1)]
    assert not session.mux.wants_write


def test_a_stream_with_data_keeps_its_turn_when_a_window_update_took_the_ack() -> None:
    session = quiet()
    session.receive(data_frame(SYN, 1, bytes(64 * KIB)))
    session.logs[1].stream.write(b"hello")
    session.receive(data_frame(DATA, 1, bytes(64 * KIB)))
    kinds = [frame[:2] for frame in session.sent()]
    assert kinds == [("WINDOW_UPDATE ACK", 1), ("DATA", 1)]


def test_nothing_is_granted_after_the_end() -> None:
    session, stream = accepted(reads=False)
    session.receive(*[data_frame(DATA, 1, bytes(64 * KIB))] * 3, data_frame(FIN, 1, b""))
    stream.credit(192 * KIB, session.now)
    assert session.sent() == []
    assert session.mux.unread == 0


def test_unread_bytes_stay_charged_after_the_peer_reset() -> None:
    session, stream = accepted(reads=False)
    session.receive(data_frame(DATA, 1, bytes(200 * KIB)), encode(WINDOW_UPDATE | RST, 1, 7))
    assert session.mux.unread == stream.unread == 200 * KIB
    stream.credit(199 * KIB, session.now)
    assert session.mux.unread == KIB
    stream.stop_reading()
    assert session.mux.unread == 0
    assert session.sent() == []


def test_stop_reading_discards_and_credits() -> None:
    session, stream = accepted(reads=False)
    session.receive(data_frame(DATA, 1, bytes(100 * KIB)))
    assert stream.unread == 100 * KIB
    partial = data_frame(DATA, 1, bytes(28 * KIB))
    session.receive(partial[:1000])
    stream.stop_reading()
    assert stream.unread == session.mux.unread == 0 and not session.mux.wants_write
    stream.credit(100 * KIB, 0.0)  # was settled: does nothing
    session.receive(partial[1000:])
    assert session.sent() == [("WINDOW_UPDATE", 1, 128 * KIB)]
    assert stream.receive_window == INITIAL_WINDOW
    stream.stop_reading()
    assert session.logs[1].data == bytes(100 * KIB + 988)
    session.receive(data_frame(FIN, 1, b"x"))
    assert session.logs[1].events == ["data", "eof"]


# Windows that grow.


def bulk(delay: float, total: int, **limits: float) -> tuple[Pair, Stream, Stream]:
    """Transfer ``total`` bytes over a connection with the given one-way delay."""
    pair = Pair(max_unsent=32 << 20, **limits)
    pair.run(delay=delay)
    stream, log = pair.opened()
    transfer(pair, stream, delay, total)
    return pair, stream, log.stream


def transfer(pair: Pair, stream: Stream, delay: float, total: int) -> None:
    reader = pair.b.logs[stream.id].stream
    reader.on_data = lambda data, now: reader.credit(len(data), now)
    while total > 0:
        total -= stream.write(bytes(min(1 << 20, total)))
        pair.run(delay=delay, budget=UNLIMITED)


@pytest.mark.parametrize("delay", [0.0, 0.0001, 0.05])
def test_the_window_of_a_fast_transfer_grows_to_the_limit(delay: float) -> None:
    pair, stream, reader = bulk(delay, 32 << 20)
    assert pair.b.mux.rtt == pytest.approx(2 * delay)
    assert reader.receive_window > 4 << 20
    assert stream.send_window == reader.receive_window
    transfer(pair, stream, delay, 32 << 20)
    assert 4 << 20 < reader.receive_window <= INITIAL_WINDOW + (8 << 20)  # half of max_unread


def test_the_window_stays_within_max_stream_window() -> None:
    _, _, reader = bulk(0.01, 4 << 20, max_stream_window=1 << 20)
    assert (1 << 19) < reader.receive_window <= 1 << 20
    _, _, reader = bulk(0.01, 1 << 20, max_stream_window=1)
    assert reader.receive_window <= INITIAL_WINDOW


def test_a_finished_stream_gives_its_growth_back() -> None:
    pair, stream, reader = bulk(0.01, 8 << 20, max_unread=2 << 20)
    other, log = pair.opened()
    transfer(pair, other, 0.01, 2 << 20)
    assert log.stream.receive_window <= INITIAL_WINDOW  # all growth is taken
    stream.write_eof()
    reader.write_eof()
    pair.run(delay=0.01)
    transfer(pair, other, 0.01, 2 << 20)
    assert log.stream.receive_window > 512 * KIB


def test_a_slow_reader_does_not_grow_its_window() -> None:
    session, stream = accepted(reads=False)  # round-trip time 0.1 s
    for _ in range(5):
        session.now += 0.41
        session.receive(*[data_frame(DATA, 1, bytes(64 * KIB))] * 2)
        stream.credit(128 * KIB, session.now)
        assert session.sent() == [("WINDOW_UPDATE", 1, 128 * KIB)]
    session.now += 0.39
    session.receive(*[data_frame(DATA, 1, bytes(64 * KIB))] * 2)
    stream.credit(128 * KIB, session.now)
    assert session.sent() == [("WINDOW_UPDATE", 1, 384 * KIB)]
    assert stream.receive_window == 512 * KIB


def test_the_window_does_not_grow_before_the_round_trip_time_is_known() -> None:
    session = Session()
    session.wire()
    session.receive(data_frame(SYN, 1, bytes(128 * KIB)))
    assert session.sent() == [("WINDOW_UPDATE ACK", 1, 128 * KIB)]


def test_a_discarded_stream_does_not_grow_its_window() -> None:
    session, stream = accepted()
    stream.stop_reading()
    session.receive(*[data_frame(DATA, 1, bytes(64 * KIB))] * 2)
    assert session.sent() == [("WINDOW_UPDATE", 1, 128 * KIB)]


# A finished stream lets go.


def test_a_finished_stream_drops_its_callbacks() -> None:
    session, stream = accepted()
    log = session.logs[1]
    session.receive(data_frame(FIN, 1, b"x"))
    stream.write_eof()
    session.wire()
    assert stream.on_data != log.on_data and stream.on_eof != log.on_eof
    assert stream.on_reset != log.on_reset and stream.on_writable != log.on_writable
    nothing = stream.on_data
    stream.stop_reading()
    assert stream.on_data is nothing
    assert log.events == ["data", "eof"]


def test_callbacks_have_defaults_that_do_nothing() -> None:
    session = quiet(max_unsent=10)
    session.on_stream = lambda stream, now: None  # type: ignore[method-assign]
    session.mux._on_stream = session.on_stream
    session.receive(data_frame(SYN, 1, b"x"))
    stream = session.mux.streams[1]
    assert stream.write(bytes(11)) == 10
    session.wire()
    session.receive(data_frame(FIN, 1, b"y"))
    session.receive(encode(WINDOW_UPDATE | RST, 1, 3))
    assert stream.is_reset and stream.eof_received and stream.unread == 2
