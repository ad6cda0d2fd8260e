"""The session: the frame table, parsing, bounds. The peer is played by hand or by a second one."""

import tracemalloc
from contextlib import suppress
from time import process_time

import pytest
from hypothesis import given, settings, strategies as st
from mplex_pair import BUDGET, FLAGS, Log, Pair, Session, frame, inbound, outbound, parse

from anyp2p_core import varint
from anyp2p_core.errors import LimitReached, LocalError, MuxerError, RemoteError
from anyp2p_core.limits import KIB, MIB, Limits
from anyp2p_core.mplex import (
    MAX_INBOUND_STREAMS,
    MAX_STREAM_UNREAD,
    MAX_UNREAD,
    PROTOCOL,
    Mplex,
)
from anyp2p_core.mplex_frame import MAX_HEADER, MAX_NUMBER, MAX_PAYLOAD

NEXT = frame("NewStream", 99) + frame("MessageInitiator", 99, b"behind")
"""Proof that the session goes on behind a frame."""


def test_protocol() -> None:
    assert PROTOCOL == "/mplex/6.7.0"


def test_the_session_starts_silent() -> None:
    mux = Mplex(initiator=True, limits=Limits(), on_stream=lambda stream, now: None)
    assert not mux.wants_write and mux.data_to_send(BUDGET, 0.0) == []
    assert mux.rtt is None and mux.peer_gone_away is None and mux.next_timeout() is None
    mux.open(0.0)
    assert mux.wants_write
    mux.handle_timeout(1e9)
    assert b"".join(mux.data_to_send(BUDGET, 0.0)) == frame("NewStream", 0, b"0")


def test_a_stream_there_and_back() -> None:
    pair = Pair()
    stream = pair.a.open()
    stream.write(b"hello")
    pair.run()
    other = pair.b.logs[inbound(0)]
    assert other.data == b"hello" and other.stream.inbound
    other.stream.write(b"hello yourself")
    other.stream.write_eof()
    pair.run()
    log = pair.a.logs[outbound(0)]
    assert log.data == b"hello yourself" and log.events == ["data", "eof"]
    stream.write(b", bye")
    stream.write_eof()
    pair.run()
    assert other.data == b"hello, bye" and other.events == ["data", "eof"]
    assert pair.a.mux.streams == pair.b.mux.streams == {}
    assert pair.a.mux.unread == pair.b.mux.unread == 0


def test_both_sides_use_the_same_numbers_for_different_streams() -> None:
    pair = Pair()
    for side in (pair.a, pair.b):
        for _ in range(3):
            side.open().write(b"from me")
    pair.run()
    for side in (pair.a, pair.b):
        assert sorted(side.mux.streams) == [0, 1, 2, 3, 4, 5]
        for i, stream in side.mux.streams.items():
            assert stream.id == i and stream.number == i // 2 and stream.inbound == i % 2
            assert side.logs[i].data == (b"from me" if stream.inbound else b"")
    pair.a.mux.streams[inbound(1)].reset()
    pair.run()
    assert sorted(pair.a.mux.streams) == [0, 1, 2, 4, 5]
    assert sorted(pair.b.mux.streams) == [0, 1, 3, 4, 5]


def test_callbacks_may_call_back() -> None:
    """An echo that writes, closes and opens from inside its callbacks."""
    pair = Pair()
    stream, log = pair.opened()
    answers: list[bytes] = []

    def on_data(data: bytes, now: float) -> None:
        log.stream.credit(len(data), now)
        log.stream.write(data)
        pair.b.open().write(b"by the way")

    def on_eof(now: float) -> None:
        log.stream.write_eof()

    def on_answer(data: bytes, now: float) -> None:
        answers.append(data)
        stream.reset()

    log.stream.on_data, log.stream.on_eof = on_data, on_eof
    stream.on_data = on_answer
    stream.write(b"x")
    stream.write_eof()
    pair.run()
    assert answers == [b"x"] and stream.is_reset
    assert pair.a.logs[inbound(0)].data == b"by the way"


def test_on_stream_may_refuse() -> None:
    session = Session()
    session.mux._on_stream = lambda stream, now: stream.reset(1)
    session.receive(frame("NewStream", 5, b"name"), frame("MessageInitiator", 5, b"data"))
    assert session.sent() == [("ResetReceiver", 5, b"")]
    assert session.mux.streams == {}


def test_on_data_may_reset_in_the_middle_of_a_frame() -> None:
    session = Session()
    stream = session.accepted()
    seen = []

    def on_data(data: bytes, now: float) -> None:
        seen.append(data)
        stream.reset()

    stream.on_data = on_data
    wire = frame("MessageInitiator", 0, b"123456") + NEXT
    session.receive(wire[:5])
    session.receive(wire[5:])
    assert seen == [b"123"] and session.mux.unread == 0
    assert session.logs[inbound(99)].data == b"behind"


def test_on_eof_may_reset() -> None:
    session = Session()
    stream = session.accepted()
    stream.on_eof = lambda now: stream.reset()
    session.receive(frame("CloseInitiator", 0, b"x"), NEXT)
    assert session.sent() == [("ResetReceiver", 0, b"")]
    assert session.logs[inbound(99)].data == b"behind"


@pytest.mark.parametrize("budget", [1, 5_000, BUDGET, 1 << 20])
def test_a_budget_is_kept_to_within_a_frame(budget: int) -> None:
    session = Session()
    for _ in range(20):
        session.open().write(bytes(200_000))
    while session.mux.wants_write:
        assert sum(map(len, session.mux.data_to_send(budget, 0.0))) <= budget + 65519


def test_writers_are_told_after_the_frames_are_made() -> None:
    session = Session(max_unsent=1000)
    for _ in range(2):
        session.open().write(bytes(1001))
    session.mux.data_to_send(1, 0.0)
    assert [log.events for log in session.logs.values()] == [["writable"], []]
    session.mux.data_to_send(1, 0.0)
    assert [log.events for log in session.logs.values()] == [["writable"], ["writable"]]


def test_resets_overtake_data() -> None:
    session = Session()
    session.opened().write(b"data")
    session.accepted(7).reset()
    assert [name for name, _, _ in session.sent()] == ["ResetReceiver", "MessageInitiator"]


def test_on_ready_is_called_when_there_is_something_to_send_again() -> None:
    session = Session()
    stream = session.open()
    stream.write(b"x")
    assert session.readied == 1
    session.wire()
    assert session.readied == 1
    stream.write(b"y")
    stream.write(b"z")
    assert session.readied == 2
    session.wire()
    stream.reset()
    assert session.readied == 3
    assert session.mux.queued_control == MAX_HEADER


@given(st.lists(st.binary(max_size=300), max_size=20), st.integers(1, 50))
@settings(deadline=None, max_examples=50)
def test_any_segments_deliver_the_same_bytes(messages: list[bytes], pieces: int) -> None:
    pair = Pair()
    streams = [pair.a.open() for _ in range(3)]
    for i, message in enumerate(messages):
        streams[i % 3].write(message)
        if i % 4 == 3:
            pair.run(pieces)
    for stream in streams:
        stream.write_eof()
    pair.run(pieces)
    for i, stream in enumerate(streams):
        log = pair.b.logs[inbound(stream.number)]
        assert bytes(log.data) == b"".join(messages[i::3])
        assert log.events[-1] == "eof"


# Opening.


def test_max_outbound_streams() -> None:
    session = Session(max_outbound_streams=2)
    first, _ = session.open(), session.open()
    with pytest.raises(LimitReached, match="max_outbound_streams"):
        session.open()
    first.reset()
    assert session.open().number == 2


def test_row_57_stream_numbers_run_out() -> None:
    session = Session()
    session.mux.next_id = MAX_NUMBER
    stream = session.open()
    with pytest.raises(LocalError, match="connect again"):
        session.open()
    stream.write(b"last")
    sent = session.sent()
    assert sent[0] == ("NewStream", MAX_NUMBER, b"%d" % MAX_NUMBER)
    session.receive(frame("MessageReceiver", MAX_NUMBER, b"answer"))
    assert session.logs[stream.id].data == b"answer"


def test_after_go_away_no_stream_opens() -> None:
    session = Session()
    stream = session.accepted()
    session.mux.go_away()
    session.mux.go_away(2)
    with pytest.raises(LocalError):
        session.open()
    session.receive(
        frame("NewStream", 1), frame("MessageInitiator", 1, b"late"),
        frame("MessageInitiator", 0, b"going on"),
    )  # fmt: skip
    stream.write(b"me too")
    assert session.sent() == [("ResetReceiver", 1, b""), ("MessageReceiver", 0, b"me too")]
    assert session.logs[stream.id].data == b"going on" and inbound(1) not in session.logs


@pytest.mark.parametrize("code", [-1, 1 << 32])
def test_go_away_with_an_impossible_code(code: int) -> None:
    session = Session()
    with pytest.raises(LocalError):
        session.mux.go_away(code)
    session.open()


# What each frame does in each state of its stream (the table in the module's docstring).

STATES = ("unknown", "open", "half", "theirs", "finished", "reset", "dropped")
"""Unknown; open; our side closed; theirs; both; reset by us; reset by the peer."""

EXPECTED = {
    # frame:     unknown    open    half    theirs  finished reset, dropped
    "NewStream": "open      error   error   error   open     open",
    "Message 5": "-         data    data    -       -        -",
    "Message 0": "-         -       -       -       -        -",
    "Close 0":   "-         eof     eof     -       -        -",
    "Close 5":   "-         eof     eof     -       -        -",
    "Reset 0":   "-         reset   reset   reset   -        -",
    "Reset 5":   "-         reset   reset   reset   -        -",
}  # fmt: skip
CASES = [
    (name, state, ours, result)
    for name, row in EXPECTED.items()
    for state, result in zip(STATES, [*row.split(), row.split()[-1]], strict=True)
    for ours in (False, True)
    if not (ours and name == "NewStream")  # the peer cannot name one of ours
]


def in_state(state: str, ours: bool) -> Session:
    """A session with stream 7 of one side in that state, and 7 of the other side open."""
    session = Session()
    session.mux.next_id = 7
    _ = session.accepted(7) if ours else session.opened()
    if state != "unknown":
        stream = session.opened() if ours else session.accepted(7)
        peer = "Receiver" if ours else "Initiator"
        if state in ("half", "finished"):
            stream.write_eof()
            session.wire()
        if state in ("theirs", "finished"):
            session.receive(frame("Close" + peer, 7))
        if state == "reset":
            stream.reset()
        if state == "dropped":
            session.receive(frame("Reset" + peer, 7))
        session.wire()
        session.logs.pop(stream.id).events.clear()
        if stream.id in session.mux.streams:
            log = session.logs[stream.id] = Log(stream)  # type: ignore[arg-type]
            assert log.events == []
    return session


@pytest.mark.parametrize("feed", ["whole", "bytes", "trailing"])
@pytest.mark.parametrize(("name", "state", "ours", "result"), CASES)
def test_each_frame_in_each_state(
    name: str, state: str, ours: bool, result: str, feed: str
) -> None:
    session = in_state(state, ours)
    stream_id = outbound(7) if ours else inbound(7)
    before = session.mux.streams.get(stream_id)
    kind, *number = name.split()
    if kind != "NewStream":
        kind += "Receiver" if ours else "Initiator"
    wire = frame(kind, 7, b"fives"[: int(number[0])] if number else b"7")
    if feed == "trailing":
        wire += NEXT
    step = 1 if feed == "bytes" else len(wire)
    try:
        for i in range(0, len(wire), step):
            session.receive(wire[i : i + step])
    except MuxerError as error:
        assert result == "error" and error.code == 1
        assert before is not None and session.mux.streams[stream_id] is before
        with pytest.raises(MuxerError, match=str(error)):
            session.receive(NEXT)
        return
    log = session.logs.get(stream_id)
    if result == "open":
        assert before is None and log is not None and log.events == []
        assert session.mux.streams[stream_id] is log.stream
    else:
        events = log.events if log is not None else []
        assert events == ([] if result == "-" else [result])
        if result == "data":
            assert log is not None and log.data == b"fives" and log.stream.unread == 0
        if result == "reset":
            assert log is not None and log.codes == [0] and log.stream.is_reset
        ended = result == "reset" or (state == "half" and result == "eof")
        assert (stream_id in session.mux.streams) == (before is not None and not ended)
    # The stream with the same number, and what follows, are not touched; nothing is answered.
    twin = session.logs[stream_id ^ 1]
    assert twin.events == [] and session.mux.streams[stream_id ^ 1] is twin.stream
    if feed != "trailing":
        session.receive(NEXT)
    assert session.logs[inbound(99)].data == b"behind"
    assert session.sent() == [] and session.mux.unread == 0


@pytest.mark.parametrize("number", [0, 7, MAX_NUMBER])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("step", [1, 100])
def test_flag_7_does_not_exist(number: int, known: bool, step: int) -> None:
    session = Session()
    if known:
        session.accepted(number)
    wire = varint.encode(number << 3 | 7) + b"\x00"
    with pytest.raises(MuxerError, match="flag 7"):
        for i in range(0, len(wire), step):
            session.receive(wire[i : i + step])
    assert session.mux.queued_control == 0


def test_a_peers_streams_may_have_any_numbers_in_any_order() -> None:
    session = Session()
    for number in (9, 3, MAX_NUMBER, 0):
        session.receive(frame("NewStream", number), frame("MessageInitiator", number, b"x"))
    assert [stream.number for stream in session.mux.streams.values()] == [9, 3, MAX_NUMBER, 0]
    assert all(log.data == b"x" for log in session.logs.values())


# Parsing: segments of any size, garbage.


def test_a_large_frame_is_passed_on_as_it_comes() -> None:
    session = Session()
    session.accepted()
    payload = bytes(range(250)) * 4000
    wire = frame("MessageInitiator", 0, payload)
    session.receive(wire[:2])
    log = session.logs[inbound(0)]
    assert log.events == []
    for i in range(2, len(wire), 9000):
        session.receive(wire[i : i + 9000])
    assert bytes(log.data) == payload and log.sizes[1] == 9000


def test_a_payload_in_a_segment_of_its_own_is_not_copied() -> None:
    session = Session()
    stream = session.accepted()
    payload = b"12345"
    session.receive(frame("MessageInitiator", 0, payload)[:2])
    seen: list[bytes] = []
    stream.on_data = lambda data, now: seen.append(data)
    session.receive(payload)
    assert seen[0] is payload


def test_one_byte_segments_cost_no_more_than_the_bytes() -> None:
    """Twice the bytes cost about twice the time, also within one frame; retried for noise."""

    def cost(size: int) -> float:
        session = Session()
        session.accepted()
        wire = frame("MessageInitiator", 0, bytes(size))
        best = float("inf")
        for _ in range(3):
            start = process_time()
            for i in range(len(wire)):
                session.receive(wire[i : i + 1])
            best = min(best, process_time() - start)
        return best

    ratios = []
    for _ in range(5):
        ratios.append(cost(40_000) / cost(5_000))
        if ratios[-1] < 14:  # linear is 8, quadratic is 64
            return
    pytest.fail(f"8 times the bytes cost {ratios} times as much")


def test_small_frames_in_one_segment_cost_no_more_than_the_frames() -> None:
    def cost(count: int) -> float:
        session = Session()
        session.accepted()
        wire = frame("MessageInitiator", 0, b"x") * count
        start = process_time()
        session.receive(wire)
        return process_time() - start

    assert any(cost(80_000) / cost(10_000) < 14 for _ in range(5))


@given(st.binary(max_size=200), st.booleans())
@settings(deadline=None, max_examples=300)
def test_garbage_raises_or_waits(data: bytes, initiator: bool) -> None:
    session = Session(initiator=initiator)
    with suppress(RemoteError):
        session.receive(data)
    session.wire()
    session.mux.close(0.0)


ANY_FRAME = st.builds(
    frame,
    st.sampled_from([*FLAGS, "MessageInitiator", "MessageReceiver"]),
    st.sampled_from([0, 1, 2, 300, MAX_NUMBER]),
    st.binary(max_size=20),
)
BROKEN = st.sampled_from([b"\x07\x00", b"\xff" * 9, b"\x80\x00\x00", b"\x02\x81\x80\x40"])


@given(st.lists(ANY_FRAME, max_size=30), st.binary(max_size=3) | BROKEN, st.data())
@settings(deadline=None, max_examples=200)
def test_any_frames_in_any_segments_have_one_outcome(
    frames: list[bytes], ending: bytes, data: st.DataObject
) -> None:
    wire = b"".join(frames) + ending
    cuts = data.draw(st.lists(st.integers(1, 40), max_size=40))
    results = []
    for sizes in ([len(wire)], cuts + [1] * len(wire)):
        session = Session()
        session.open()
        session.open()
        session.wire()
        error = ""
        pos = 0
        try:
            for size in sizes:
                session.receive(wire[pos : pos + size])
                pos += size
        except MuxerError as caught:
            error = str(caught)
        logs = {i: (log.events, bytes(log.data), log.codes) for i, log in session.logs.items()}
        results.append((error, logs, session.sent(), list(session.mux.streams)))
        session.mux.close(session.now)
        assert all(log.events.count("reset") <= 1 for log in session.logs.values())
    assert results[0] == results[1]


# Bounds.


@pytest.mark.parametrize("length", [MAX_PAYLOAD + 1, 1 << 32, 2**63 - 1])
@pytest.mark.parametrize("name", [*FLAGS, "flag 7"])
@pytest.mark.parametrize("step", [1, 100])
def test_row_59_a_frame_that_is_too_long(length: int, name: str, step: int) -> None:
    session = Session()
    session.accepted()
    wire = varint.encode(FLAGS.get(name, 7)) + varint.encode(length)
    with pytest.raises(MuxerError):
        for i in range(0, len(wire), step):
            session.receive(wire[i : i + step])
    assert session.logs[inbound(0)].events == [] and session.mux.unread == 0


@pytest.mark.parametrize("name", ["NewStream", "MessageInitiator", "CloseInitiator"])
def test_the_longest_frame_is_taken(name: str) -> None:
    session = Session()
    if name != "NewStream":
        session.accepted()
    wire = frame(name, 0, bytes(MAX_PAYLOAD)) + NEXT
    for i in range(0, len(wire), BUDGET):
        session.receive(wire[i : i + BUDGET])
    log = session.logs[inbound(0)]
    assert len(log.data) == (MAX_PAYLOAD if name == "MessageInitiator" else 0)
    assert session.logs[inbound(99)].data == b"behind"


def test_what_nobody_gets_is_not_kept() -> None:
    session = Session()
    session.accepted()
    session.receive(frame("CloseInitiator", 0))
    one = bytes(60_000)
    wires = [
        varint.encode(head) + varint.encode(MAX_PAYLOAD)
        for head in (2, 7 << 3 | 1, 7 << 3 | 2, 7 << 3, 7 << 3 | 4)
    ]
    tracemalloc.start()
    for wire in wires:
        session.receive(wire)
        for _ in range(MAX_PAYLOAD // len(one)):
            session.receive(one)
        session.receive(bytes(MAX_PAYLOAD % len(one)))
        assert tracemalloc.get_traced_memory()[0] < 16 * KIB
    tracemalloc.stop()
    session.receive(NEXT)
    assert session.logs[inbound(99)].data == b"behind"


@pytest.mark.parametrize("size", [1000, 65507, MAX_PAYLOAD])
@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_row_60_one_stream_that_nobody_reads(size: int, ours: bool, whole: bool) -> None:
    session = Session(reads=False)
    stream = session.opened() if ours else session.accepted()
    other = session.accepted(1)
    session.receive(frame("MessageInitiator", 1, b"kept"))
    log = session.logs[stream.id]
    one = frame("MessageReceiver" if ours else "MessageInitiator", 0, bytes(size))
    for _ in range(MAX_STREAM_UNREAD // size + 1):
        session.receive(one) if whole else [session.receive(one[:999]), session.receive(one[999:])]
        assert session.mux.unread <= MAX_STREAM_UNREAD + 4
    assert log.events == ["data", "reset"] and log.codes == [0]
    assert stream.shed and stream.is_reset and stream.unread == 0
    assert session.sent() == [("ResetInitiator" if ours else "ResetReceiver", 0, b"")]
    session.receive(one, NEXT)
    assert session.logs[inbound(99)].data == b"behind" and session.sent() == []
    assert session.mux.unread == 10 and other.unread == 4 and not other.is_reset


def test_row_60_exactly_the_cap_is_allowed_and_reading_makes_room() -> None:
    session = Session(reads=False)
    stream = session.accepted()
    one = frame("MessageInitiator", 0, bytes(MAX_STREAM_UNREAD))
    for _ in range(5):
        session.receive(one)
        assert stream.unread == MAX_STREAM_UNREAD and not stream.is_reset
        stream.credit(stream.unread, 0.0)
    session.receive(one)
    session.receive(frame("MessageInitiator", 0, b"x"))
    assert stream.shed


def test_row_60_all_streams_together_hold_four_mebibytes() -> None:
    session = Session(reads=False)
    chunk = bytes(100_000)
    for number in range(60):
        session.receive(frame("NewStream", number))
        session.receive(frame("MessageInitiator", number, chunk + bytes(number)))
        assert session.mux.unread <= MAX_UNREAD
        assert session.mux.unread == sum(s.unread for s in session.mux.streams.values())
    shed = [log for log in session.logs.values() if log.stream.shed]
    assert len(shed) == 19  # 41 of them fit
    assert all(log.codes == [0] and log.stream.unread == 0 for log in shed)
    assert session.sent() == [("ResetReceiver", log.stream.number, b"") for log in shed]  # type: ignore[attr-defined]


def test_row_60_the_largest_stream_pays() -> None:
    session = Session(reads=False, max_unread=1000)
    for number, size in ((1, 300), (3, 400), (5, 300)):
        session.accepted(number)
        session.receive(frame("MessageInitiator", number, bytes(size)))
    session.receive(frame("MessageInitiator", 5, b"x"), NEXT)
    assert session.logs[inbound(3)].stream.shed
    assert session.mux.unread == 607 and len(session.logs[inbound(5)].data) == 301
    # The stream that receives may be the largest itself, in the middle of a frame.
    one = frame("MessageInitiator", 5, bytes(500))
    session.receive(one[:100])
    session.receive(one[100:], frame("MessageInitiator", 99, b"behind"))
    assert session.logs[inbound(5)].events == ["data", "reset"]
    assert session.mux.unread == 312


def test_row_60_a_callback_may_reset_the_receiver_while_another_stream_is_shed() -> None:
    session = Session(reads=False, max_unread=1000)
    first, second = session.accepted(1), session.accepted(3)
    session.receive(frame("MessageInitiator", 1, bytes(900)))
    first.on_reset = lambda code, now: second.reset()
    session.receive(frame("MessageInitiator", 3, bytes(200)), NEXT)
    assert session.logs[second.id].events == [] and session.mux.unread == 6


def test_row_60_shedding_counts_as_resets() -> None:
    session = Session(reads=False, max_unread=1000)
    with pytest.raises(MuxerError, match="reset"):
        for number in range(500):
            session.receive(frame("NewStream", number))
            session.receive(frame("MessageInitiator", number, bytes(1001)))
    assert len(session.logs) == 201 and session.mux.queued_control == 200 * MAX_HEADER


def test_row_60_bytes_left_by_streams_that_ended_count_too() -> None:
    session = Session(reads=False)
    for number in range(5):
        session.receive(frame("NewStream", number))
        session.receive(frame("MessageInitiator", number, bytes(MAX_STREAM_UNREAD)))
        session.receive(frame("ResetInitiator", number))
        assert session.mux.unread <= MAX_UNREAD
    assert session.logs[inbound(4)].stream.shed
    assert not session.logs[inbound(3)].stream.shed


def test_row_61_too_many_streams_are_refused_one_by_one_and_then_all() -> None:
    session = Session()
    refused = 0
    with pytest.raises(MuxerError, match="reset"):
        for number in range(100_000):
            session.receive(frame("NewStream", number), frame("MessageInitiator", number, b"hi"))
            refused += number >= MAX_INBOUND_STREAMS
    limits = Limits()
    assert len(session.mux.streams) == len(session.logs) == MAX_INBOUND_STREAMS
    assert refused == limits.max_resets
    assert session.mux.queued_control == limits.max_resets * MAX_HEADER
    assert session.sent() == [
        ("ResetReceiver", number, b"")
        for number in range(MAX_INBOUND_STREAMS, MAX_INBOUND_STREAMS + refused)
    ]


def test_row_61_a_peer_that_asks_slowly_goes_on() -> None:
    session = Session()
    for number in range(1000):
        session.receive(frame("NewStream", number))
        session.now += 0.06
    assert len(session.mux.streams) == MAX_INBOUND_STREAMS
    session.mux.streams[inbound(5)].reset()
    session.receive(frame("NewStream", 1 << 20))
    assert inbound(1 << 20) in session.mux.streams


def test_row_61_our_own_limit_may_be_lower() -> None:
    session = Session(max_inbound_streams=2)
    session.receive(*(frame("NewStream", number) for number in range(3)))
    assert session.sent() == [("ResetReceiver", 2, b"")]


def test_row_49_streams_opened_and_reset() -> None:
    session = Session()

    def pair(number: int) -> bytes:
        return frame("NewStream", number) + frame("ResetInitiator", number)

    for _ in range(3):  # 200 within 10 s are allowed, again and again; numbers may come back
        for number in range(200):
            session.receive(pair(number))
        session.now += 10.0
    assert session.mux.streams == {} and session.sent() == []
    for number in range(200):
        session.receive(pair(number))
    with pytest.raises(MuxerError, match="reset"):
        session.receive(pair(0))


def test_row_49_resets_of_our_own_streams_do_not_count() -> None:
    session = Session()
    for _ in range(500):
        stream = session.opened()
        session.receive(frame("ResetReceiver", stream.number))
    assert session.mux.streams == {}


def test_row_50_resets_we_are_made_to_send_are_bounded() -> None:
    session = Session(max_queued_control=1200)
    session.mux._on_stream = lambda stream, now: stream.reset()
    with pytest.raises(MuxerError, match="max_queued_control"):
        session.receive(*(frame("NewStream", number) for number in range(1000)))
    assert session.mux.queued_control == 1200
    # By segments, too.
    session = Session(max_queued_control=MAX_HEADER)
    session.accepted().reset()
    with pytest.raises(MuxerError, match="max_queued_control"):
        session.receive(frame("MessageInitiator", 0, b"x"))


def test_row_52_small_frames_are_not_kept_here() -> None:
    session = Session(reads=False)
    stream = session.accepted()
    kept = bytearray()
    stream.on_data = lambda data, now: kept.extend(data)
    size = 64 * KIB
    wire = frame("MessageInitiator", 0, b"x") * 1024
    tracemalloc.start()
    for _ in range(size // 1024):
        session.receive(wire)
    retained = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(kept) == size == session.mux.unread
    assert retained <= 2 * size  # the bytes that this test keeps, and next to nothing more


def test_a_reader_that_is_fast_enough_gets_everything() -> None:
    pair = Pair(max_unsent=8 * MIB)
    stream, log = pair.opened()
    data = bytes(range(256)) * (6 * MIB // 256)
    stream.write(data)
    stream.write_eof()
    pair.run()
    assert bytes(log.data) == data and log.events == ["data", "eof"]


def test_row_58_writers_do_not_cut_each_other() -> None:
    pair = Pair()
    streams = [pair.a.open() for _ in range(20)]
    for turn in range(100):
        for i, stream in enumerate(streams):
            stream.write(bytes([i]) * (turn * 13 % 700))
        pair.run(pieces=777)
    for i, stream in enumerate(streams):
        log = pair.b.logs[inbound(stream.number)]
        assert bytes(log.data) == bytes([i]) * sum(turn * 13 % 700 for turn in range(100))


# The end.


def test_row_56_close_resets_every_stream_once() -> None:
    session = Session()
    session.receive(frame("NewStream", 5), frame("NewStream", 1))
    order: list[int] = []
    for _ in range(3):
        session.open()
    for stream_id, log in session.logs.items():
        log.stream.on_reset = lambda code, now, i=stream_id: order.append(i)  # type: ignore[misc]
    session.logs[inbound(1)].stream.on_reset = lambda code, now: session.mux.close(now)
    session.mux.close(3.0)
    session.mux.close(4.0)
    assert order == [inbound(5), outbound(0), outbound(1), outbound(2)]
    assert session.mux.streams == {}
    assert all(log.stream.is_reset for log in session.logs.values())
    assert not session.mux.wants_write


def test_after_close_nothing_happens() -> None:
    session = Session(reads=False)
    stream = session.accepted()
    session.receive(frame("MessageInitiator", 0, b"hello"), b"\x02\x81")
    session.mux.close(3.0)
    session.receive(NEXT, b"\xff" * 30)
    session.mux.handle_timeout(1e9)
    session.mux.go_away()
    assert not session.mux.wants_write and inbound(99) not in session.logs
    with pytest.raises(LocalError):
        session.open()
    with pytest.raises(LocalError):
        stream.write(b"x")
    stream.reset()
    assert session.mux.unread == 0


@pytest.mark.parametrize("rest", [NEXT, b"\xff" * 50, b"\x02\x81", b"\x07\x00"])
@pytest.mark.parametrize("name", ["MessageInitiator", "CloseInitiator", "ResetInitiator"])
def test_a_callback_may_close_the_session(name: str, rest: bytes) -> None:
    session = Session()
    stream, other = session.accepted(), session.accepted(3)
    stream.on_data = lambda data, now: session.mux.close(now)
    stream.on_eof = session.mux.close
    stream.on_reset = lambda code, now: session.mux.close(now)
    session.receive(frame(name, 0, b"payload"), rest)
    session.receive(b"\xff" * 50)
    assert session.logs[other.id].events == ["reset"]
    assert session.mux.streams == {} and inbound(99) not in session.logs


def test_on_stream_may_close_the_session() -> None:
    session = Session()
    session.mux._on_stream = lambda stream, now: session.mux.close(now)
    session.receive(frame("NewStream", 0, b"name"), NEXT)
    assert session.mux.streams == {}


@pytest.mark.parametrize("ending", ["close", "reset", "eof"])
def test_any_prefix_of_a_conversation_can_be_the_end(ending: str) -> None:
    """At every byte: each stream hears of its end once, and nothing stays charged."""
    conversation = (
        frame("MessageReceiver", 0, b"answer")
        + frame("NewStream", 0, b"name")
        + frame("MessageInitiator", 0, b"question")
        + frame("CloseInitiator", 0)
        + frame("ResetReceiver", 1)
        + frame("CloseReceiver", 0)
    )
    for cut in range(len(conversation) + 1):
        session = Session()
        session.open()
        session.open()
        session.wire()
        session.receive(conversation[:cut])
        for log in list(session.logs.values()):
            if ending == "reset":
                log.stream.reset()
            if ending == "eof":
                log.stream.write_eof()
        sent = session.sent()
        assert all(payload == b"" for _, _, payload in sent)
        session.mux.close(session.now)
        assert session.mux.streams == {} and session.mux.unread == 0
        for log in session.logs.values():
            events = log.events
            assert events.count("reset") <= 1 and "reset" not in events[:-1]
            both = log.stream.eof_received and log.stream.eof_sent
            if ending != "reset":
                assert events[-1] == "reset" or both
            expected = b"question" if log.stream.inbound else b"answer"
            assert expected.startswith(bytes(log.data))


def test_parse_is_the_test_of_these_tests() -> None:
    wire = frame("NewStream", 1, b"name") + frame("ResetReceiver", 300)
    assert parse(wire) == [("NewStream", 1, b"name"), ("ResetReceiver", 300, b"")]
