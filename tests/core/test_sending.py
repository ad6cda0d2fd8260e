"""The buffer between an application's writes and a stream's turns, seen through an mplex stream."""

import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given, settings, strategies as st
from mplex_pair import BUDGET, Session, parse

from anyp2p_core.errors import LocalError
from anyp2p_core.mplex_stream import MAX_MESSAGE, SHARE, Stream

KIB = 1024


def opened(**limits: float) -> tuple[Session, Stream]:
    session = Session(**limits)
    return session, session.opened()


def payload(wire: bytes) -> bytes:
    """What the messages carry."""
    frames = parse(wire)
    assert all(name == "MessageInitiator" for name, _, _ in frames)
    return b"".join(data for _, _, data in frames)


def test_what_is_written_leaves_in_one_frame() -> None:
    session, stream = opened()
    assert [stream.write(data) for data in (b"one", b"", b"two", b"three")] == [3, 0, 3, 5]
    assert stream.unsent == 11
    assert session.sent() == [("MessageInitiator", 0, b"onetwothree")]
    assert stream.unsent == 0 and not session.mux.wants_write


def test_an_empty_write_has_no_frame() -> None:
    session, stream = opened()
    assert stream.write(b"") == stream.write(bytearray()) == 0
    assert not session.mux.wants_write


def test_bytes_are_not_copied() -> None:
    session, stream = opened(max_unsent=64 << 20)
    data = bytes(32 << 20)
    tracemalloc.start()
    stream.write(data)
    frames = 0
    while session.mux.wants_write:
        pieces = session.mux.data_to_send(BUDGET, 0.0)
        assert sum(map(len, pieces)) <= BUDGET
        frames += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert frames == -(-len(data) // MAX_MESSAGE)
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
    assert payload(session.wire()) == b"0123456789"


def test_views_of_larger_items_are_counted_in_bytes() -> None:
    session, stream = opened()
    assert stream.write(memoryview(b"12345678").cast("I")) == 8
    assert payload(session.wire()) == b"12345678"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_short_write_waits_for_on_writable(
    kind: Callable[[bytes], bytes | bytearray | memoryview],
) -> None:
    session, stream = opened(max_unsent=200_000)
    log = session.logs[stream.id]
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
    assert payload(bytes(sent)) == data


def test_on_writable_waits_until_less_than_half_is_unsent() -> None:
    session, stream = opened(max_unsent=2 * MAX_MESSAGE)
    stream.write(bytes(2 * MAX_MESSAGE + 1))
    session.mux.data_to_send(1, 0.0)
    assert stream.unsent == MAX_MESSAGE and session.logs[stream.id].events == []
    session.mux.data_to_send(1, 0.0)
    assert session.logs[stream.id].events == ["writable"]


def test_nobody_has_to_wait_for_on_writable() -> None:
    session = Session(max_unsent=10)
    stream = session.mux.open(0.0)
    assert stream.write(bytes(20)) == 10
    session.wire()
    assert stream.write(bytes(20)) == 10


def test_lowered_limits_let_nothing_more_in() -> None:
    session, stream = opened()
    stream.write(bytes(1000))
    session.mux.limits.max_unsent = 500
    assert stream.write(b"x") == 0
    session.wire()
    assert session.logs[stream.id].events == ["writable"]


def test_on_writable_may_write_and_reset() -> None:
    session, stream = opened(max_unsent=1000)
    other = session.opened()
    taken = []

    def refill(now: float) -> None:
        taken.append(stream.write(bytes(1500)))
        other.reset()

    stream.on_writable = refill
    stream.write(bytes(1001))
    other.write(bytes(1001))
    frames = parse(b"".join(session.mux.data_to_send(BUDGET, 0.0)))
    assert [(number, len(data)) for _, number, data in frames] == [(0, 1000), (1, 1000)]
    assert taken == [1000]
    assert session.logs[other.id].events == []  # reset before its turn to be told
    stream.on_writable = lambda now: None
    names = [(name, number) for name, number, _ in session.sent()]
    assert names == [("ResetInitiator", 1), ("MessageInitiator", 0)]


def test_writable_says_whether_a_write_would_take_something() -> None:
    session, stream = opened(max_unsent=1000)
    stream.write(bytes(999))
    assert stream.writable()
    stream.write(b"x")
    assert not stream.writable()
    session.wire()
    assert session.logs[stream.id].events == ["writable"]
    assert stream.writable()
    stream.write_eof()
    with pytest.raises(LocalError):
        stream.writable()
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


def test_nothing_is_told_after_a_reset() -> None:
    session, stream = opened(max_unsent=5)
    calls: list[float] = []
    stream.write(b"never ever")
    stream.on_drained = calls.append
    stream.reset()
    session.wire()
    assert calls == [] and stream.unsent == 0 and session.logs[stream.id].events == []
    with pytest.raises(LocalError):
        stream.write(b"x")
    stream.write_eof()
    assert not stream.eof_sent and not session.mux.wants_write


def test_write_eof_ends_what_was_written_and_cancels_on_writable() -> None:
    session, stream = opened(max_unsent=10)
    assert stream.write(bytes(11)) == 10
    stream.write_eof()
    stream.write_eof()
    assert stream.eof_sent
    with pytest.raises(LocalError):
        stream.write(b"more")
    assert session.sent() == [("MessageInitiator", 0, bytes(10)), ("CloseInitiator", 0, b"")]
    assert session.logs[stream.id].events == []


def test_the_end_alone_has_a_turn_too() -> None:
    session, stream = opened()
    stream.write_eof()
    assert session.sent() == [("CloseInitiator", 0, b"")]


def test_a_stream_without_window_waits() -> None:
    """mplex has none, but who derives from this may."""
    session, stream = opened()
    stream.send_window = 0
    stream.write(b"x")
    assert not session.mux.wants_write


def test_a_turn_may_end_where_a_write_ended() -> None:
    session, stream = opened()
    other = session.opened()
    data = [bytes([i]) * (SHARE // 2) for i in range(5)]
    for one in data:
        stream.write(one)
        other.write(b"so that there are turns")
    frames = [payload for _, number, payload in session.sent() if number == stream.number]
    assert frames == [data[0] + data[1], b"".join(data[2:])]


def test_many_small_writes_cost_about_their_bytes() -> None:
    session, stream = opened(max_unsent=1 << 20)
    small = [bytes([i, i ^ 0x5A]) for i in range(256)] * 512
    stream.write(b"first")
    tracemalloc.start()
    for data in small:
        stream.write(data)
    retained = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert retained < 2 * stream.unsent + 64 * KIB
    assert payload(session.wire()) == b"first" + b"".join(small)


@given(st.lists(st.integers(0, 400), max_size=600), st.integers(0, 70_000))
@settings(deadline=None, max_examples=30)
def test_small_and_large_writes_keep_their_order(sizes: list[int], large: int) -> None:
    session, stream = opened(max_unsent=1 << 20)
    other = session.opened()
    source = bytes(i * 7 & 0xFF for i in range(1024)) * 70
    written = bytearray()
    got = bytearray()
    for i, size in enumerate(sizes):
        start = i
        if i % 150 == 149:
            size = large
        data = source[start : start + size]
        assert stream.write(data) == size
        written += data
        if i % 50 == 49:
            other.write(b"so that there are turns")
            for _ in range(2):
                pieces = session.mux.data_to_send(1, 0.0)
                got += b"".join(d for _, n, d in parse(b"".join(pieces)) if n == 0)
    got += b"".join(d for _, n, d in parse(session.wire()) if n == 0)
    assert got == written and stream.unsent == 0
