"""One stream: turns, closing, what is unread. The peer is played by hand."""

from collections.abc import Callable

import pytest
from mplex_pair import BUDGET, Session, frame, inbound, outbound, parse

from anyp2p_core.errors import LocalError
from anyp2p_core.mplex_frame import MAX_NUMBER
from anyp2p_core.mplex_stream import MAX_MESSAGE, SHARE, Stream


def sizes(wire: bytes) -> list[tuple[str, int, int]]:
    return [(name, number, len(payload)) for name, number, payload in parse(wire)]


# Sending.


def test_the_first_turn_announces_the_stream() -> None:
    session = Session()
    session.open()
    assert session.wire() == bytes.fromhex("000130")
    stream = session.open()
    stream.write(b"hi")
    stream.write_eof()
    assert session.sent() == [
        ("NewStream", 1, b"1"),
        ("MessageInitiator", 1, b"hi"),
        ("CloseInitiator", 1, b""),
    ]
    session.open().write_eof()
    assert session.sent() == [("NewStream", 2, b"2"), ("CloseInitiator", 2, b"")]


def test_a_stream_of_the_peers_is_not_announced() -> None:
    session = Session()
    stream = session.accepted(300)
    assert not session.mux.wants_write
    stream.write(b"hello")
    stream.write_eof()
    assert session.sent() == [("MessageReceiver", 300, b"hello"), ("CloseReceiver", 300, b"")]


@pytest.mark.parametrize("number", [0, 15, 16, MAX_NUMBER])
def test_a_stream_alone_fills_noise_messages(number: int) -> None:
    session = Session()
    stream = session.accepted(number)
    data = bytes(range(256)) * 800
    assert stream.write(data) == 204_800
    rest = 204_800 - 3 * MAX_MESSAGE
    got = b""
    for size in (MAX_MESSAGE, MAX_MESSAGE, MAX_MESSAGE, rest):
        wire = b"".join(session.mux.data_to_send(BUDGET, 0.0))
        assert len(wire) <= BUDGET
        assert sizes(wire) == [("MessageReceiver", number, size)]
        got += parse(wire)[0][2]
    assert got == data and not session.mux.wants_write


def test_streams_take_turns_of_a_share() -> None:
    session = Session()
    a, b, c = (session.opened() for _ in range(3))
    a.write(bytes(3 * SHARE))
    b.write(b"b" * (SHARE + 1))
    c.write(b"c" * SHARE)
    name = "MessageInitiator"
    assert sizes(session.wire()) == [
        (name, 0, SHARE),
        (name, 1, SHARE),
        (name, 2, SHARE),
        (name, 0, SHARE),
        (name, 1, 1),
        (name, 0, SHARE),
    ]


def test_frames_may_end_where_a_write_ended() -> None:
    session = Session()
    stream = session.opened()
    stream.write(bytes(MAX_MESSAGE))
    stream.write(b"1234")
    stream.write(b"5678")
    name = "MessageInitiator"
    assert sizes(session.wire()) == [(name, 0, MAX_MESSAGE), (name, 0, 8)]


def test_on_drained_is_called_when_the_last_frame_finishes_the_stream() -> None:
    session = Session()
    stream = session.opened()
    calls: list[float] = []
    session.receive(frame("CloseReceiver", 0))
    stream.write(b"bye")
    stream.write_eof()
    stream.on_drained = calls.append
    assert session.sent() == [("MessageInitiator", 0, b"bye"), ("CloseInitiator", 0, b"")]
    assert calls == [session.now]
    assert session.mux.streams == {} and not stream.is_reset


# Closing and resetting.


def test_we_may_read_after_our_end_and_write_after_theirs() -> None:
    session = Session()
    stream = session.opened()
    stream.write_eof()
    session.wire()
    session.receive(frame("MessageReceiver", 0, b"still"))
    assert session.logs[stream.id].data == b"still"
    session.receive(frame("CloseReceiver", 0))
    assert session.logs[stream.id].events == ["data", "eof"] and session.mux.streams == {}
    other = session.accepted()
    session.receive(frame("CloseInitiator", 0))
    other.write(b"still")
    assert session.sent() == [("MessageReceiver", 0, b"still")]
    assert list(session.mux.streams) == [inbound(0)]


def test_the_stream_stays_until_our_own_close_is_sent() -> None:
    session = Session()
    stream = session.accepted()
    stream.write(b"x")
    stream.write_eof()
    session.receive(frame("CloseInitiator", 0))
    assert list(session.mux.streams.values()) == [stream]
    session.wire()
    assert session.mux.streams == {}


def test_reset_drops_what_is_unsent_and_tells_no_code() -> None:
    session = Session()
    ours, theirs = session.opened(), session.accepted()
    for stream in (ours, theirs):
        stream.write(b"never")
        stream.reset(0x1001)
        assert stream.is_reset and stream.unsent == 0 and not stream.shed
        assert session.logs[stream.id].events == []
    assert session.wire() == bytes.fromhex("0600 0500")
    for stream in (ours, theirs):
        stream.reset()
        stream.credit(5, 0.0)
        stream.stop_reading()
        stream.write_eof()
    assert not session.mux.wants_write and session.mux.streams == {}


def test_reset_before_the_peer_heard_of_the_stream_says_nothing() -> None:
    session = Session()
    stream = session.open()
    stream.write(b"never")
    stream.reset()
    assert session.sent() == []
    assert session.open().number == 1  # numbers are not used again


@pytest.mark.parametrize("code", [-1, 1 << 32])
def test_reset_with_an_impossible_code(code: int) -> None:
    stream = Session().open()
    with pytest.raises(LocalError):
        stream.reset(code)
    assert not stream.is_reset


def test_reset_on_a_finished_stream_only_settles_what_is_unread() -> None:
    session = Session(reads=False)
    stream = session.accepted()
    session.receive(frame("MessageInitiator", 0, b"12345"), frame("CloseInitiator", 0))
    stream.write_eof()
    assert session.sent() == [("CloseReceiver", 0, b"")]
    assert session.mux.unread == stream.unread == 5
    again = session.accepted()  # the number is free
    stream.reset()
    assert session.sent() == [] and not stream.is_reset and not again.is_reset
    assert session.mux.unread == stream.unread == 0


def test_a_finished_stream_lets_go_of_its_callbacks() -> None:
    session = Session()
    stream = session.accepted()
    session.receive(frame("ResetInitiator", 0))
    for callback in (stream.on_data, stream.on_eof, stream.on_reset, stream.on_writable):
        assert getattr(callback, "__self__", None) is None
    stream.on_data(b"", 0.0)
    stream.on_eof(0.0)
    stream.on_reset(0, 0.0)
    assert session.logs[inbound(0)].events == ["reset"]


def test_streams_need_no_callbacks() -> None:
    session = Session()
    stream = session.mux.open(0.0)
    stream.on_data(b"", 0.0)
    session.wire()
    session.receive(frame("MessageReceiver", 0, b"x"), frame("CloseReceiver", 0))
    session.receive(frame("ResetReceiver", 0))
    assert stream.eof_received and stream.is_reset


# What is unread.


def test_credit() -> None:
    session = Session(reads=False)
    stream = session.accepted()
    session.receive(frame("MessageInitiator", 0, b"12345"))
    for wrong in (-1, 6):
        with pytest.raises(LocalError):
            stream.credit(wrong, 0.0)
    assert stream.unread == session.mux.unread == 5
    stream.credit(0, 0.0)
    stream.credit(2, 0.0)
    assert stream.unread == session.mux.unread == 3
    stream.credit(3, 0.0)
    assert stream.unread == session.mux.unread == 0
    assert not session.mux.wants_write


@pytest.mark.parametrize("end", ["CloseInitiator", "ResetInitiator", "close"])
def test_row_62_what_came_before_the_end_may_be_read_after_it(end: str) -> None:
    session = Session(reads=False)
    stream = session.accepted()
    session.receive(frame("MessageInitiator", 0, b"12345"))
    if end == "close":
        session.mux.close(0.0)
    else:
        session.receive(frame(end, 0))
    log = session.logs[stream.id]
    assert log.events == ["data", "eof" if end == "CloseInitiator" else "reset"]
    assert stream.unread == session.mux.unread == 5 and not stream.shed
    stream.credit(5, 0.0)
    assert stream.unread == session.mux.unread == 0


def test_stop_reading() -> None:
    session = Session(reads=False)
    stream = session.accepted()
    session.receive(frame("MessageInitiator", 0, b"12345"))
    stream.stop_reading()
    stream.stop_reading()
    assert stream.unread == session.mux.unread == 0
    wire = frame("MessageInitiator", 0, bytes(1 << 20)) * 2
    for i in range(0, len(wire), 70_000):
        session.receive(wire[i : i + 70_000])
    stream.credit(1, 0.0)
    session.receive(frame("CloseInitiator", 0))
    log = session.logs[stream.id]
    assert log.data == b"12345" and log.events == ["data", "eof"]
    assert stream.unread == session.mux.unread == 0 and not stream.shed


@pytest.mark.parametrize("end", ["CloseInitiator", "ResetInitiator"])
def test_stop_reading_after_the_end(end: str) -> None:
    session = Session(reads=False)
    stream = session.accepted()
    session.receive(frame("MessageInitiator", 0, b"12345"), frame(end, 0))
    stream.stop_reading()
    assert stream.unread == session.mux.unread == 0


@pytest.mark.parametrize(
    ("make", "whose"), [(Session.opened, "outbound"), (Session.accepted, "inbound")]
)
def test_repr(make: Callable[[Session], Stream], whose: str) -> None:
    stream = make(Session())
    stream.write(b"123")
    assert repr(stream) == f"<mplex stream 0 {whose} unsent=3 unread=0>"
    assert stream.inbound == (whose == "inbound")
    assert stream.id == (inbound(0) if stream.inbound else outbound(0))
