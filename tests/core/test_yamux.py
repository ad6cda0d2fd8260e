"""The session: frames from a peer played by hand, two sessions, and what an attacker may try."""

import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from time import process_time

import pytest
from hypothesis import given, settings, strategies as st
from yamux_pair import BUDGET, Log, Pair, Session, data_frame, parse, quiet

from anyp2p_core.errors import LimitReached, LocalError, MuxerError, RemoteError, TimedOut
from anyp2p_core.limits import Limits
from anyp2p_core.muxer import RESOURCE_LIMIT
from anyp2p_core.yamux import LAST_ID, PROTOCOL, SHUTDOWN, Yamux
from anyp2p_core.yamux_frame import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    encode,
)
from anyp2p_core.yamux_stream import INITIAL_WINDOW, MAX_PAYLOAD, Stream

KIB = 1024
MIB = 1024 * KIB
PONG = encode(PING | SYN, 0, 99)
"""Behind another frame it shows that the session goes on."""


# Opening, accepting, talking.


def test_protocol() -> None:
    assert PROTOCOL == "/yamux/1.0.0"


def test_the_session_starts_with_a_ping() -> None:
    session = Session(initiator=True)
    assert session.mux.wants_write and session.mux.rtt is None and session.readied == 0
    assert session.wire() == bytes.fromhex("000200010000000000000000")
    assert not session.mux.wants_write


def test_without_on_ready_the_session_is_asked() -> None:
    mux = Yamux(initiator=True, limits=Limits(), on_stream=lambda stream, now: None)
    mux.data_to_send(BUDGET, 0.0)
    mux.open(0.0)
    assert mux.wants_write


def test_a_stream_there_and_back() -> None:
    pair = Pair()
    pair.run()
    readied = pair.a.readied
    stream = pair.a.open()
    assert stream.id == 1 and not stream.inbound
    stream.write(b"hello")
    assert pair.a.readied == readied + 1
    assert parse(b"".join(pair.a.mux.data_to_send(BUDGET, 0.0))) == [("DATA SYN", 1, 5)]
    pair.b.receive(data_frame(SYN, 1, b"hello"))
    echo = pair.b.logs[1].stream
    assert echo.inbound and bytes(pair.b.logs[1].data) == b"hello"
    echo.write(b"hello yourself")
    echo.write_eof()
    wire = pair.b.wire()
    assert parse(wire) == [("DATA ACK", 1, 14), ("DATA FIN", 1, 0)]
    pair.a.receive(wire)
    assert pair.a.logs[1].events == ["data", "eof"]
    stream.write_eof()
    pair.run()
    assert pair.b.logs[1].events == ["data", "eof"]
    assert pair.a.mux.streams == pair.b.mux.streams == {}
    assert not pair.a.mux.wants_write and not pair.b.mux.wants_write


def test_both_sides_number_their_own_streams() -> None:
    pair = Pair()
    assert [pair.a.open().id for _ in range(3)] == [1, 3, 5]
    assert [pair.b.open().id for _ in range(3)] == [2, 4, 6]
    pair.run()
    assert list(pair.a.mux.streams) == [1, 3, 5, 2, 4, 6]
    assert list(pair.b.mux.streams) == [2, 4, 6, 1, 3, 5]


def test_a_stream_without_data_is_announced_and_acknowledged() -> None:
    pair = Pair()
    pair.run()
    pair.a.open()
    wire = pair.a.wire()
    assert parse(wire) == [("WINDOW_UPDATE SYN", 1, 0)]
    pair.b.receive(wire)
    assert pair.b.sent() == [("WINDOW_UPDATE ACK", 1, 0)]


def test_the_acceptor_may_speak_first() -> None:
    pair = Pair()
    pair.b.mux._on_stream = lambda stream, now: stream.write(b"220 ready")
    pair.a.open()
    pair.run()
    assert bytes(pair.a.logs[1].data) == b"220 ready"


def test_callbacks_may_call_back() -> None:
    pair = Pair()
    opened: list[Stream] = []

    def on_stream(stream: Stream, now: float) -> None:
        log = pair.b.logs[stream.id] = Log(stream)

        def on_data(data: bytes, now: float) -> None:
            log.on_data(data, now)
            if data == b"open":
                back = pair.b.mux.open(now)
                back.write(b"back")
                opened.append(back)
            elif data == b"reset":
                stream.reset(5)

        stream.on_data = on_data
        stream.write(b"welcome")

    pair.b.mux._on_stream = on_stream
    stream = pair.a.open()
    stream.write(b"open")
    pair.run()
    assert bytes(pair.a.logs[2].data) == b"back"
    stream.write(b"reset")
    pair.run()
    assert pair.a.logs[1].events == ["data", "reset"] and pair.a.logs[1].codes == [5]
    assert list(pair.a.mux.streams) == [opened[0].id]


def test_on_stream_may_refuse() -> None:
    session = quiet()
    session.mux._on_stream = lambda stream, now: stream.reset(9)
    session.receive(data_frame(SYN | FIN, 1, b"hello"), encode(WINDOW_UPDATE | SYN, 3, 0))
    assert session.sent() == [("WINDOW_UPDATE RST", 1, 9), ("WINDOW_UPDATE RST", 3, 9)]
    assert session.mux.streams == {} and session.mux.unread == 0
    session.receive(data_frame(DATA, 1, b"late"), PONG)
    assert session.sent() == [("PING ACK", 0, 99)]


def test_on_data_may_reset_in_the_middle_of_a_frame() -> None:
    session = quiet(reads=False)
    session.receive(encode(WINDOW_UPDATE | SYN, 1, 0))
    stream = session.logs[1].stream
    stream.on_data = lambda data, now: stream.reset()
    session.receive(data_frame(FIN, 1, b"hello")[:-3])
    assert stream.is_reset and session.mux.unread == 0
    session.receive(b"llo", PONG)
    assert session.logs[1].events == [] and session.mux.unread == 0
    assert session.sent() == [("WINDOW_UPDATE RST", 1, 0), ("PING ACK", 0, 99)]


def test_streams_take_turns() -> None:
    session = quiet()
    for _ in range(3):
        session.open().write(bytes(150_000))
    full = ("DATA", MAX_PAYLOAD)
    frames = session.sent()
    sent = [(kind.split()[0], length) for kind, _, length in frames]
    assert sent == [full] * 6 + [("DATA", 150_000 - 2 * MAX_PAYLOAD)] * 3
    assert [stream_id for _, stream_id, _ in frames] == [2, 4, 6] * 3


@pytest.mark.parametrize("budget", [1, 1000, 65519, 1 << 30])
def test_a_budget_is_kept_to_within_a_frame(budget: int) -> None:
    session = quiet()
    for _ in range(20):
        session.open().write(bytes(40_000))
    while session.mux.wants_write:
        size = sum(map(len, session.mux.data_to_send(budget, 0.0)))
        assert 0 < size < budget + 40_012


def test_a_stream_stays_until_its_own_fin_is_sent() -> None:
    session = quiet()
    session.receive(data_frame(SYN, 1, b"question"))
    stream = session.logs[1].stream
    stream.write(b"answer")
    stream.write_eof()
    session.receive(data_frame(FIN, 1, b""))
    assert session.mux.streams == {1: stream}
    assert session.sent() == [("DATA ACK", 1, 6), ("DATA FIN", 1, 0)]
    assert session.mux.streams == {}


def test_writers_are_told_after_the_frames_are_made() -> None:
    session = quiet(max_unsent=1000)
    for _ in range(3):
        session.open().write(bytes(1001))
    assert len(session.mux.data_to_send(1, 0.0)) == 2
    assert [log.events for log in session.logs.values()] == [["writable"], [], []]
    session.wire()
    assert [log.events for log in session.logs.values()] == [["writable"]] * 3


def test_control_frames_overtake_data() -> None:
    session = quiet()
    session.open().write(b"data")
    session.receive(PONG)
    assert [kind for kind, _, _ in session.sent()] == ["PING ACK", "DATA SYN"]


def test_on_ready_is_called_when_there_is_something_to_send_again() -> None:
    session = quiet()
    assert session.readied == 0
    stream = session.open()
    assert session.readied == 1
    stream.write(b"x")
    session.receive(PONG)
    assert session.readied == 1
    session.wire()
    session.receive(PONG)
    assert session.readied == 2
    session.wire()
    stream.write_eof()
    assert session.readied == 3


@given(
    st.lists(st.binary(max_size=300) | st.just(bytes(70_000)), max_size=4),
    st.integers(1, 20) | st.integers(21, 5000),
)
@settings(deadline=None, max_examples=20)
def test_any_segments_deliver_the_same_bytes(messages: list[bytes], pieces: int) -> None:
    pair = Pair()
    stream = pair.a.open()
    for message in messages:
        rest = memoryview(message)
        while rest:
            rest = rest[stream.write(rest) :]
            pair.run(pieces)
    stream.write_eof()
    pair.run(pieces)
    log = pair.b.logs[1]
    assert bytes(log.data) == b"".join(messages)
    assert log.events[-1] == "eof"


# Limits of our own.


def test_max_outbound_streams() -> None:
    session = quiet(max_outbound_streams=2)
    first = session.open()
    session.open()
    with pytest.raises(LimitReached, match="max_outbound_streams"):
        session.open()
    first.reset()
    assert session.open().id == 6


def test_at_most_256_opens_ahead_of_the_acks() -> None:
    session = quiet()
    streams = [session.open() for _ in range(256)]
    with pytest.raises(LimitReached, match="256"):
        session.open()
    session.wire()
    session.receive(encode(WINDOW_UPDATE | ACK, 2, 0), data_frame(ACK, 4, b""))
    session.receive(encode(WINDOW_UPDATE | ACK, 2, 0), data_frame(ACK, 4, b""))  # counts once
    session.receive(encode(WINDOW_UPDATE | RST, 6, 0))
    streams[3].reset()
    streams[0].reset()  # was acknowledged already
    for _ in range(4):
        session.open()
    with pytest.raises(LimitReached):
        session.open()


def test_row_57_stream_ids_run_out() -> None:
    for initiator in (True, False):
        session = Session(initiator=initiator)
        session.mux.next_id += LAST_ID - 4
        assert session.open().id == LAST_ID - (3 if initiator else 2)
        for _ in range(1 + initiator):
            with pytest.raises(LocalError, match="connect again"):
                while True:
                    session.open()
        assert max(session.mux.streams) < LAST_ID
        assert session.sent()[-1][0] == "WINDOW_UPDATE SYN"


# What each frame does in each state of its stream (the table in the module's docstring).

STATES = ("unknown", "open", "ours", "half", "theirs", "finished", "reset", "dropped")
"""Unknown; open; opened by us; our side closed; theirs; both; reset by us; reset by the peer."""

EXPECTED = {
    # frame:          unknown      open     ours     half     theirs   finished reset, dropped
    "DATA 5":         "-           data     data     data     error    -        -",
    "DATA 0":         "-           -        -        -        -        -        -",
    "DATA ACK 5":     "-           data     data     data     error    -        -",
    "DATA FIN 5":     "-           data+eof data+eof data+eof error    -        -",
    "DATA FIN 0":     "-           eof      eof      eof      -        -        -",
    "DATA RST 5":     "-           reset    reset    reset    error    -        -",
    "DATA RST 0":     "-           reset    reset    reset    reset    -        -",
    "DATA FIN RST 5": "-           reset    reset    reset    error    -        -",
    "DATA SYN 5":     "open+data   error    error    error    error    renew    renew",
    "DATA SYN 0":     "open        error    error    error    error    renew    renew",
    "DATA SYN ACK 0": "open        error    error    error    error    renew    renew",
    "DATA SYN FIN 5": "open+data+eof error  error    error    error    renew    renew",
    "DATA SYN FIN 0": "open+eof    error    error    error    error    renew    renew",
    "DATA SYN RST 5": "-           error    error    error    error    -        -",
    "DATA SYN ACK FIN RST 0": "-   error    error    error    error    -        -",
    "WINDOW_UPDATE 7":     "-      window   window   window   window   -        -",
    "WINDOW_UPDATE 0":     "-      -        -        -        -        -        -",
    "WINDOW_UPDATE ACK 7": "-      window   window   window   window   -        -",
    "WINDOW_UPDATE FIN 7": "-      window+eof window+eof window+eof window - -",
    "WINDOW_UPDATE RST 7": "-      reset7   reset7   reset7   reset7   -        -",
    "WINDOW_UPDATE FIN RST 7": "-  reset7   reset7   reset7   reset7   -        -",
    "WINDOW_UPDATE SYN 7":     "open+window error error error error    renew    renew",
    "WINDOW_UPDATE SYN FIN 7": "open+window+eof error error error error renew   renew",
    "WINDOW_UPDATE SYN RST 7": "-  error    error    error    error    -        -",
}  # fmt: skip

TYPES = {"DATA": DATA, "WINDOW_UPDATE": WINDOW_UPDATE, "PING": PING, "GO_AWAY": GO_AWAY}
FLAGS = {"SYN": SYN, "ACK": ACK, "FIN": FIN, "RST": RST}
CASES = [
    (frame, state, result)
    for frame, row in EXPECTED.items()
    for state, result in zip(STATES, [*row.split(), row.split()[-1]], strict=True)
]


def in_state(state: str) -> tuple[Session, int]:
    """A session with a stream in that state; returns the stream's id too."""
    session = quiet()
    if state == "unknown":
        return session, 1
    if state == "ours":
        session.open()
        session.wire()
        return session, 2
    session.receive(encode(WINDOW_UPDATE | SYN, 1, 0))
    stream = session.logs[1].stream
    if state in ("half", "finished"):
        stream.write_eof()
    if state in ("theirs", "finished"):
        session.receive(encode(WINDOW_UPDATE | FIN, 1, 0))
    if state == "reset":
        stream.reset()
    if state == "dropped":
        session.receive(encode(WINDOW_UPDATE | RST, 1, 0))
    session.wire()
    session.logs[1].events.clear()
    return session, 1


def outcome(session: Session, stream_id: int, wire: bytes, pieces: int) -> str:
    """Feed ``wire`` in pieces; say what changed in the words of the table."""
    before = session.mux.streams.get(stream_id)
    known = stream_id in session.logs
    log = session.logs.pop(stream_id, None)
    window = before.send_window if before else INITIAL_WINDOW
    try:
        for i in range(0, len(wire), pieces):
            session.receive(wire[i : i + pieces])
    except MuxerError as error:
        assert error.code == 1
        with pytest.raises(MuxerError, match=str(error)):
            session.receive(PONG)
        return "error"
    words = []
    fresh = session.logs.get(stream_id)
    if fresh is not None:
        if known and before is None:
            return "renew"
        assert before is None
        words.append("open")
        log = fresh
    if log is not None:
        if log.stream.send_window != window:
            assert log.stream.send_window == window + 7
            words.append("window")
        words += [f"reset{log.codes[0] or ''}" if e == "reset" else e for e in log.events]
        if "data" in log.events:
            assert bytes(log.data) == b"fives" and log.stream.unread == 0
    return "+".join(words) or "-"


def build(frame: str) -> Callable[[int], bytes]:
    name, *flags, number = frame.split()
    head = TYPES[name] | sum(FLAGS[flag] for flag in flags)
    payload = b"fives"[: int(number)] if name == "DATA" else b""
    return lambda stream_id: encode(head, stream_id, int(number)) + payload


@pytest.mark.parametrize("feed", ["whole", "bytes", "trailing"])
@pytest.mark.parametrize(("frame", "state", "result"), CASES)
def test_row_55_each_frame_in_each_state(frame: str, state: str, result: str, feed: str) -> None:
    session, stream_id = in_state(state)
    wire = build(frame)(stream_id) + (PONG if feed == "trailing" else b"")
    assert outcome(session, stream_id, wire, 1 if feed == "bytes" else 1 << 30) == result
    if result == "error":
        return
    if feed != "trailing":
        session.receive(PONG)
    kinds = [kind for kind, _, _ in session.sent()]
    assert kinds[0] == "PING ACK"
    rest = ["WINDOW_UPDATE ACK"] if result.startswith(("open", "renew")) else []
    assert kinds[1:] == rest
    live = session.mux.streams.get(stream_id)
    ended = "reset" in result or (state == "half" and "eof" in result)
    gone = state in ("unknown", "finished", "reset", "dropped") and not rest
    assert (live is None) == (ended or gone)


@pytest.mark.parametrize(
    ("head", "stream_id", "length"),
    [
        (0x0100_0000, 1, 0),  # version 1
        (0xFF00_0000, 0, 0),
        (0x0101_0001, 1, 0),
        *[(kind << 16, 0, 0) for kind in (4, 5, 127, 255)],
        (0x0004_0001, 1, 0),
        (DATA, 0, 0),
        (DATA, 0, 5),
        (DATA | SYN, 0, 0),
        (DATA | RST, 0, 0),
        (WINDOW_UPDATE, 0, 1),
        (WINDOW_UPDATE | RST, 0, 1),
        (WINDOW_UPDATE | SYN, 0, 0),
        (DATA | SYN, 2, 0),  # our own parity
        (DATA | SYN | RST, 2, 0),
        (WINDOW_UPDATE | SYN, 0xFFFF_FFFE, 0),
    ],
)
def test_row_55_frames_that_end_the_session(head: int, stream_id: int, length: int) -> None:
    session = quiet()
    with pytest.raises(MuxerError) as caught:
        session.receive(encode(head, stream_id, length))
    assert caught.value.code == 1
    assert session.logs == {} and session.mux.streams == {} and not session.mux.wants_write
    session.mux.go_away(caught.value.code)
    assert session.sent() == [("GO_AWAY", 0, 1)]


def test_row_55_wrong_parity_is_judged_from_both_sides() -> None:
    session = Session(initiator=True)
    session.receive(encode(WINDOW_UPDATE | SYN, 2, 0))
    with pytest.raises(MuxerError):
        session.receive(encode(WINDOW_UPDATE | SYN, 3, 0))


def test_row_55_flags_without_a_name_and_odd_pings_are_ignored() -> None:
    session = quiet()
    session.receive(encode(WINDOW_UPDATE | SYN | 0xFFF0, 1, 0), data_frame(0x8000, 1, b"x"))
    session.receive(encode(PING, 0, 1), encode(PING | RST, 0, 2), encode(PING | ACK, 0, 3))
    session.receive(encode(PING | SYN | ACK, 7, 4))
    assert session.sent() == [("PING ACK", 0, 4), ("WINDOW_UPDATE ACK", 1, 0)]
    assert bytes(session.logs[1].data) == b"x"


def test_row_55_streams_may_open_in_any_order_but_ids_of_live_ones_are_taken() -> None:
    session = quiet()
    session.receive(*[encode(WINDOW_UPDATE | SYN, i, 0) for i in (9, 3, 0xFFFF_FFFF)])
    assert list(session.mux.streams) == [9, 3, 0xFFFF_FFFF]
    with pytest.raises(MuxerError):
        session.receive(encode(WINDOW_UPDATE | SYN, 3, 0))


def test_row_55_frames_after_go_away() -> None:
    session = quiet()
    session.receive(encode(WINDOW_UPDATE | SYN, 1, 0))
    session.mux.go_away()
    session.mux.go_away(2)
    with pytest.raises(LocalError):
        session.open()
    session.receive(data_frame(SYN, 3, b"late"), data_frame(DATA, 1, b"going on"))
    assert session.sent() == [
        ("GO_AWAY", 0, 0),
        ("WINDOW_UPDATE RST", 3, SHUTDOWN),
        ("WINDOW_UPDATE ACK", 1, 0),
    ]
    assert bytes(session.logs[1].data) == b"going on" and 3 not in session.logs


def test_row_55_go_away_received() -> None:
    session = quiet()
    stream = session.open()
    assert session.mux.peer_gone_away is None
    session.receive(encode(GO_AWAY, 0, 0))
    assert session.mux.peer_gone_away == 0
    with pytest.raises(LocalError):
        session.open()
    stream.write(b"going on")
    assert session.sent() == [("DATA SYN", 2, 8)]
    session.receive(data_frame(DATA, 2, b"me too"), encode(WINDOW_UPDATE | SYN, 1, 0))
    assert bytes(session.logs[2].data) == b"me too" and 1 in session.logs
    session.receive(encode(GO_AWAY, 0, 0x1003))
    assert session.mux.peer_gone_away == 0x1003


def test_go_away_with_an_impossible_code() -> None:
    session = quiet()
    with pytest.raises(LocalError):
        session.mux.go_away(1 << 32)
    assert not session.mux.wants_write


# Parsing: segments of any size, garbage.


def test_a_large_frame_is_passed_on_as_it_comes() -> None:
    session = quiet()
    payload = bytes(range(250)) * 100
    wire = data_frame(SYN | FIN, 1, payload)
    session.receive(wire[:5])
    session.receive(wire[5:12])
    log = session.logs[1]
    assert log.events == [] and log.stream.receive_window == INITIAL_WINDOW - len(payload)
    for i in range(12, len(wire), 9000):
        assert "eof" not in log.events
        session.receive(wire[i : i + 9000])
    assert log.sizes == [9000, 9000, 7000]
    assert bytes(log.data) == payload and log.events == ["data", "eof"]


def test_a_payload_in_a_segment_of_its_own_is_not_copied() -> None:
    session = quiet()
    session.receive(encode(DATA | SYN, 1, 5))
    payload = b"12345"
    seen: list[bytes] = []
    session.logs[1].stream.on_data = lambda data, now: seen.append(data)
    session.receive(payload)
    assert seen[0] is payload


def test_one_byte_segments_cost_no_more_than_the_bytes() -> None:
    """Twice the bytes cost about twice the time, also within one frame; retried for noise."""

    def cost(size: int) -> float:
        session = quiet()
        session.receive(encode(WINDOW_UPDATE | SYN, 1, 0))
        wire = data_frame(DATA, 1, bytes(size))
        best = float("inf")
        for _ in range(3):
            start = process_time()
            for i in range(len(wire)):
                session.receive(wire[i : i + 1])
            best = min(best, process_time() - start)
            session.wire()
        return best

    ratios = []
    for _ in range(5):
        ratios.append(cost(40_000) / cost(5_000))
        if ratios[-1] < 14:  # linear is 8, quadratic is 64
            return
    pytest.fail(f"8 times the bytes cost {ratios} times as much")


def test_small_frames_in_one_segment_cost_no_more_than_the_frames() -> None:
    def cost(count: int) -> float:
        session = quiet()
        session.receive(encode(WINDOW_UPDATE | SYN, 1, 0))
        wire = data_frame(DATA, 1, b"x") * count
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


FRAMES = st.builds(
    lambda kind, flags, stream_id, length, payload: (
        encode(kind | flags, stream_id, len(payload) if kind == DATA else length) + payload
        if kind == DATA
        else encode(kind | flags, stream_id, length)
    ),
    st.sampled_from([DATA, WINDOW_UPDATE, PING, GO_AWAY]),
    st.sampled_from([0, 0, SYN, ACK, FIN, RST, SYN | FIN, SYN | RST, ACK | FIN, 15]),
    st.integers(0, 4),
    st.sampled_from([0, 1, 7, INITIAL_WINDOW, 2**32 - 1]),
    st.binary(max_size=20),
)


@given(st.lists(FRAMES, max_size=30), st.lists(st.integers(1, 40), max_size=40))
@settings(deadline=None, max_examples=200)
def test_any_frames_in_any_segments_have_one_outcome(frames: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(frames)
    results = []
    for sizes in ([len(wire)], cuts + [1] * len(wire)):
        session = quiet()
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
        sent = session.sent()
        results.append((error, logs, sent, session.mux.peer_gone_away, list(session.mux.streams)))
        session.mux.close(session.now)
        assert all(log.events.count("reset") <= 1 for log in session.logs.values())
    assert results[0] == results[1]


def test_after_an_error_nothing_is_taken() -> None:
    session = quiet()
    with pytest.raises(MuxerError):
        session.receive(b"\xff" * 12)
    with pytest.raises(MuxerError, match="ffff"):
        session.receive(data_frame(SYN, 1, b"x"))
    assert session.logs == {}


# Windows under attack.


def test_row_42_window_updates_beyond_32_bits() -> None:
    session = quiet()
    session.receive(encode(WINDOW_UPDATE | SYN, 1, 0))
    stream = session.logs[1].stream
    room = 2**32 - 1 - INITIAL_WINDOW
    with pytest.raises(MuxerError):
        session.receive(encode(WINDOW_UPDATE | ACK | FIN, 1, room + 1))
    assert stream.send_window == INITIAL_WINDOW and session.logs[1].events == []
    session = quiet()
    session.receive(encode(WINDOW_UPDATE | SYN, 1, 0), encode(WINDOW_UPDATE, 1, room))
    assert session.logs[1].stream.send_window == 2**32 - 1
    with pytest.raises(MuxerError):
        session.receive(encode(WINDOW_UPDATE, 1, 2**32 - 1))
    assert session.logs[1].stream.send_window == 2**32 - 1


@pytest.mark.parametrize("flags", [0, FIN, RST])
def test_row_43_a_stream_that_starts_beyond_its_window_is_never_seen(flags: int) -> None:
    session = quiet()
    with pytest.raises(MuxerError):
        session.receive(encode(DATA | SYN | flags, 1, INITIAL_WINDOW + 1))
    assert session.logs == {} and session.mux.streams == {}
    session = quiet()
    if flags != RST:  # with RST the number is an error code
        with pytest.raises(MuxerError):
            session.receive(encode(WINDOW_UPDATE | SYN | flags, 1, INITIAL_WINDOW + 1))
    assert session.logs == {} and session.mux.streams == {}
    session = quiet()
    session.receive(encode(WINDOW_UPDATE | SYN | RST, 7, 0xFFFF_FFFF))
    session.receive(encode(WINDOW_UPDATE | SYN | flags, 1, INITIAL_WINDOW))
    session.receive(encode(DATA | SYN | flags, 3, INITIAL_WINDOW))
    if flags != RST:
        assert session.logs[1].stream.send_window == 2 * INITIAL_WINDOW
        assert session.logs[3].stream.receive_window == 0
    session.receive(bytes(INITIAL_WINDOW), PONG)
    assert session.sent()[0][0] in ("PING ACK", "WINDOW_UPDATE ACK")


def test_row_44_a_first_credit_beyond_32_bits() -> None:
    session = quiet()
    with pytest.raises(MuxerError):
        session.receive(encode(WINDOW_UPDATE | SYN, 1, 0xFFFF_FFFF))
    assert session.logs == {} and session.mux.streams == {}


def test_row_45_data_above_the_window_is_judged_by_the_header() -> None:
    session = quiet(reads=False)
    session.receive(data_frame(SYN, 1, bytes(1000)))
    with pytest.raises(MuxerError, match="window"):
        session.receive(encode(DATA, 1, INITIAL_WINDOW - 999))
    session = quiet(reads=False)
    session.receive(data_frame(SYN, 1, bytes(1000)), encode(DATA, 1, INITIAL_WINDOW - 1000))
    assert session.logs[1].stream.receive_window == 0
    # Its body never comes. Our own frames still go out.
    session.open().write(b"going on")
    assert ("DATA SYN", 2, 8) in session.sent()


def test_row_45_unknown_streams_may_get_what_fits_the_largest_window() -> None:
    session = quiet()
    session.receive(encode(DATA, 1, 16 * MIB))
    for _ in range(16):
        session.receive(bytes(MIB))
    session.receive(PONG)
    assert session.sent() == [("PING ACK", 0, 99)]
    for length in (16 * MIB + 1, 2**32 - 1):
        with pytest.raises(MuxerError):
            quiet().receive(encode(DATA, 1, length))
    session = quiet(max_stream_window=1)
    session.receive(encode(DATA, 1, INITIAL_WINDOW))
    with pytest.raises(MuxerError):
        quiet(max_stream_window=1).receive(encode(DATA, 1, INITIAL_WINDOW + 1))


# Work and memory under attack.


def test_row_13_close_does_not_wait_for_a_peer_that_never_reads() -> None:
    session = quiet()
    session.open().write(bytes(100_000))
    session.receive(PONG)
    session.mux.close(1.0)
    assert not session.mux.wants_write and session.mux.data_to_send(BUDGET, 1.0) == []
    assert session.logs[2].events == ["reset"]


@pytest.mark.parametrize("attack", ["open", "open and refuse", "ping", "everything"])
def test_row_47_a_peer_that_never_reads(attack: str) -> None:
    session = quiet(max_resets=1 << 30)
    if attack == "open and refuse":
        session.mux._on_stream = lambda stream, now: stream.reset(1)
    waiting = 0
    try:
        for i in range(1, 180_000, 2):
            if attack != "ping":
                session.receive(encode(WINDOW_UPDATE | SYN, i, 0))
            if attack in ("ping", "everything"):
                session.receive(encode(PING | SYN, 0, i), encode(WINDOW_UPDATE, i, 1))
            waiting = max(waiting, session.mux.queued_control)
    except MuxerError as error:
        assert "max_queued_control" in str(error)
    else:
        assert attack == "ping"
    assert waiting <= MIB
    assert len(session.mux.streams) <= 256
    out = sum(map(len, session.mux.data_to_send(1 << 30, 0.0)))
    assert out <= MIB + 256 * 12


def test_row_48_at_most_four_pongs_are_queued() -> None:
    session = quiet()
    session.receive(b"".join(encode(PING | SYN, 0, i) for i in range(100_000)))
    assert session.sent() == [("PING ACK", 0, i) for i in range(4)]
    session.receive(PONG)
    assert session.sent() == [("PING ACK", 0, 99)]


def test_row_48_pongs_nobody_asked_for_are_ignored() -> None:
    session = quiet()
    session.now = 50.0
    session.receive(encode(PING | ACK, 0, 0), encode(PING | ACK, 0, 1))
    assert session.mux.rtt == 0.1 and not session.mux.wants_write


@pytest.mark.parametrize(
    "pair",
    [
        lambda i: encode(WINDOW_UPDATE | SYN, i, 0) + encode(WINDOW_UPDATE | RST, i, 0),
        lambda i: data_frame(SYN, i, b"x") + data_frame(RST, i, b"y"),
        lambda i: encode(WINDOW_UPDATE | SYN | RST, i, 0),
    ],
)
def test_row_49_streams_opened_and_reset(pair: Callable[[int], bytes]) -> None:
    session = quiet()
    for round_ in range(3):  # 200 within 10 s are allowed, again and again
        for i in range(200):
            session.receive(pair(400 * round_ + 2 * i + 1))
        session.now += 10.0
    assert session.mux.streams == {} and session.sent() == []
    for i in range(200):
        session.receive(pair(2001 + 2 * i))
    with pytest.raises(MuxerError):
        session.receive(pair(3001))
    assert list(session.mux.streams) in ([], [3001])


def test_row_49_resets_of_our_own_streams_do_not_count() -> None:
    session = quiet()
    for _ in range(500):
        stream = session.open()
        session.wire()
        session.receive(encode(WINDOW_UPDATE | RST, stream.id, 0))
    assert session.mux.streams == {}


def test_row_50_resets_we_are_made_to_send_are_bounded() -> None:
    session = quiet(max_queued_control=1200)
    session.receive(*[encode(WINDOW_UPDATE | SYN, 2 * i + 1, 0) for i in range(256)])
    flood = [encode(WINDOW_UPDATE | SYN, 2 * i + 1, 0) for i in range(1000, 2000)]
    with pytest.raises(MuxerError, match="max_queued_control"):
        session.receive(*flood)
    assert session.mux.queued_control == 1200
    # Window updates count too.
    session = quiet(max_queued_control=24)
    session.receive(encode(WINDOW_UPDATE | SYN, 1, 0))
    session.wire()
    for _ in range(2):
        session.now += 1.0  # so that the window does not grow
        session.receive(encode(DATA, 1, 128 * KIB))
        session.receive(bytes(128 * KIB))
    with pytest.raises(MuxerError, match="max_queued_control"):
        session.receive(encode(DATA, 1, 128 * KIB))
    # Frames for streams that are gone make no answer at all.
    session = quiet()
    session.receive(*[data_frame(flags, 77, b"x") for flags in (0, ACK, FIN, RST)] * 100)
    assert session.sent() == []


def test_row_52_small_frames_are_not_kept_here() -> None:
    session = quiet(reads=False)
    session.receive(encode(WINDOW_UPDATE | SYN, 1, 0))
    session.wire()
    kept = bytearray()
    session.logs[1].stream.on_data = lambda data, now: kept.extend(data)
    size = 64 * KIB
    wire = data_frame(DATA, 1, b"x") * 1024
    tracemalloc.start()
    for _ in range(size // 1024):
        session.receive(wire)
    retained = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(kept) == size == session.mux.unread
    assert retained <= 2 * size  # the bytes that this test keeps, and next to nothing more


def test_row_53_too_many_streams_are_refused_one_by_one() -> None:
    session = quiet()
    sent: list[tuple[str, int, int]] = []
    for i in range(1, 200_000, 2):
        session.receive(data_frame(SYN, i, b"hello"))
        if i % 1000 == 1:
            sent += session.sent()
    sent += session.sent()
    assert len(session.mux.streams) == 256 == len(session.logs)
    refused = [frame for frame in sent if frame[0] == "WINDOW_UPDATE RST"]
    assert len(refused) == 100_000 - 256
    assert all(code == RESOURCE_LIMIT for _, _, code in refused)
    session.logs[1].stream.reset()
    session.receive(data_frame(SYN, 200_001, b"hello"))
    assert bytes(session.logs[200_001].data) == b"hello"


def test_row_54_unread_bytes_of_all_streams_are_bounded() -> None:
    session = quiet(reads=False)
    chunk = data_frame(DATA, 0, bytes(64 * KIB))
    for i in range(1, 201, 2):
        session.receive(encode(WINDOW_UPDATE | SYN, i, 0))
        for _ in range(4):
            if i in session.mux.streams:
                session.receive(encode(DATA, i, 64 * KIB), chunk[12:])
            assert session.mux.unread <= 16 * MIB
            live = sum(stream.unread for stream in session.mux.streams.values())
            assert live == session.mux.unread
    shed = [log for log in session.logs.values() if log.stream.shed]
    assert len(shed) == 36
    assert all(log.codes == [RESOURCE_LIMIT] for log in shed)
    assert all(log.stream.unread == 0 and log.stream.is_reset for log in shed)
    sent = session.sent()
    assert [f for f in sent if "RST" in f[0]] == [
        ("WINDOW_UPDATE RST", log.stream.id, RESOURCE_LIMIT) for log in shed
    ]


def test_row_54_the_largest_unread_stream_is_shed() -> None:
    session = quiet(reads=False, max_unread=1000)
    session.receive(
        *[data_frame(SYN, i, bytes(size)) for i, size in ((1, 300), (3, 400), (5, 300))]
    )
    session.receive(data_frame(DATA, 5, b"x"), PONG)
    assert session.logs[3].stream.shed and session.logs[3].events == ["data", "reset"]
    assert session.mux.unread == 601 and len(session.logs[5].data) == 301
    # The stream that receives may be the largest itself, in the middle of a frame.
    frame = data_frame(FIN, 5, bytes(500))
    session.receive(frame[:100])
    session.receive(frame[100:], PONG)
    assert session.logs[5].events == ["data", "reset"] and session.mux.unread == 300
    session.receive(data_frame(SYN, 7, bytes(700)))
    assert session.mux.unread == 1000 and not session.logs[7].stream.shed


def test_row_54_a_callback_may_reset_the_receiver_while_another_stream_is_shed() -> None:
    session = quiet(reads=False, max_unread=1000)
    session.receive(data_frame(SYN, 1, bytes(900)), encode(WINDOW_UPDATE | SYN, 3, 0))
    session.logs[1].stream.on_reset = lambda code, now: session.logs[3].stream.reset()
    session.receive(data_frame(DATA, 3, bytes(200)), PONG)
    assert session.logs[3].events == [] and session.mux.unread == 0
    assert session.mux.streams == {}


def test_row_54_shedding_counts_as_resets() -> None:
    session = quiet(reads=False, max_unread=1000)
    with pytest.raises(MuxerError):
        for i in range(1, 1001, 2):
            session.receive(data_frame(SYN, i, bytes(1001)))
    assert len(session.logs) == 201


def test_row_54_windows_grow_within_half_of_max_unread() -> None:
    pair = Pair(max_unread=4 * MIB, max_unsent=MIB)
    pair.run(delay=0.01)
    streams = [pair.a.open() for _ in range(8)]
    for _ in range(6):
        for stream in streams:
            stream.write(bytes(MIB))
        pair.run(delay=0.01, budget=1 << 30)
        granted = sum(log.stream.receive_window for log in pair.b.logs.values())
        assert granted <= 8 * INITIAL_WINDOW + 2 * MIB
    assert granted > 8 * INITIAL_WINDOW
    for stream in streams:
        stream.reset()
    pair.run(delay=0.01)
    stream = pair.a.open()
    for _ in range(6):
        stream.write(bytes(MIB))
        pair.run(delay=0.01, budget=1 << 30)
    grown = pair.b.logs[stream.id].stream.receive_window
    assert grown > 4 * INITIAL_WINDOW  # what the others had is free again


def test_row_58_writers_do_not_cut_each_other() -> None:
    pair = Pair()
    streams = [pair.a.open() for _ in range(20)]
    for turn in range(100):
        for i, stream in enumerate(streams):
            stream.write(bytes([i]) * (turn * 13 % 700))
        pair.run(pieces=777)
    for i, stream in enumerate(streams):
        log = pair.b.logs[stream.id]
        assert bytes(log.data) == bytes([i]) * sum(turn * 13 % 700 for turn in range(100))
        assert stream.send_window == log.stream.receive_window


# The end.


def test_row_56_close_resets_every_stream_once() -> None:
    session = quiet()
    session.receive(encode(WINDOW_UPDATE | SYN, 5, 0), encode(WINDOW_UPDATE | SYN, 1, 0))
    order: list[int] = []
    for _ in range(3):
        session.open()
    for stream_id, log in session.logs.items():
        log.stream.on_reset = lambda code, now, i=stream_id: order.append(i)  # type: ignore[misc]
    session.logs[1].stream.on_reset = lambda code, now: session.mux.close(now)
    session.mux.close(3.0)
    session.mux.close(4.0)
    assert order == [5, 2, 4, 6]
    assert session.mux.streams == {}
    assert all(log.stream.is_reset for log in session.logs.values())
    assert not session.mux.wants_write and session.mux.next_timeout() is None


def test_after_close_nothing_happens() -> None:
    session = quiet(reads=False)
    session.receive(data_frame(SYN, 1, b"hello"))
    stream = session.logs[1].stream
    session.mux.close(3.0)
    session.receive(data_frame(SYN, 3, b"late"), PONG, b"\xff" * 30)
    session.receive(b"\xff" * 30)
    session.mux.handle_timeout(1e9)
    session.mux.go_away()
    assert not session.mux.wants_write and 3 not in session.logs
    with pytest.raises(LocalError):
        session.open()
    with pytest.raises(LocalError):
        stream.write(b"x")
    stream.reset()
    assert session.mux.unread == 0


@pytest.mark.parametrize("flags", [DATA, FIN])
def test_a_callback_may_close_the_session(flags: int) -> None:
    session = quiet()
    session.receive(encode(WINDOW_UPDATE | SYN, 1, 0), encode(WINDOW_UPDATE | SYN, 3, 0))
    session.logs[1].stream.on_data = lambda data, now: session.mux.close(now)
    session.receive(data_frame(flags, 1, b"x"), data_frame(flags, 3, b"y"), b"\xff" * 50)
    assert session.logs[3].events == ["reset"]


def test_on_stream_may_close_the_session() -> None:
    session = quiet()
    session.mux._on_stream = lambda stream, now: session.mux.close(now)
    session.receive(data_frame(SYN, 1, b"x"), data_frame(SYN, 3, b"y"))
    assert session.mux.streams == {}


@pytest.mark.parametrize("ending", ["close", "reset", "eof"])
def test_any_prefix_of_a_conversation_can_be_the_end(ending: str) -> None:
    """At every byte: each stream hears of its end once, and nothing stays charged."""
    source = quiet()
    stream = source.open()
    stream.write(b"hello")
    source.open().write(b"other")
    source.wire()
    conversation = (
        data_frame(ACK, 2, b"answer")
        + data_frame(SYN, 1, b"question")
        + encode(WINDOW_UPDATE, 2, 10)
        + data_frame(FIN, 1, b"more")
        + encode(WINDOW_UPDATE | RST, 4, 3)
        + data_frame(FIN, 2, b"")
    )
    for cut in range(len(conversation) + 1):
        session = quiet()
        session.open()
        session.open()
        session.wire()
        session.receive(conversation[:cut])
        if ending == "reset":
            for log in list(session.logs.values()):
                log.stream.reset()
        if ending == "eof":
            for log in list(session.logs.values()):
                log.stream.write_eof()
            session.wire()
        session.mux.close(session.now)
        assert session.mux.streams == {} and session.mux.unread == 0
        for log in session.logs.values():
            events = log.events
            assert events.count("reset") <= 1 and "reset" not in events[:-1]
            if ending == "close" and cut < len(conversation):
                both = log.stream.eof_received and log.stream.eof_sent
                assert events[-1] == "reset" or both
            assert b"answer".startswith(bytes(log.data)) or b"questionmore".startswith(
                bytes(log.data)
            )


# Keepalive.


def test_the_session_measures_the_round_trip_time() -> None:
    pair = Pair()
    assert pair.a.mux.next_timeout() is None
    pair.run(delay=0.25)
    assert pair.a.mux.rtt == 0.5 and pair.b.mux.rtt == 0.5
    due = pair.a.mux.next_timeout()
    assert due == 30.0
    pair.a.mux.handle_timeout(29.0)
    assert not pair.a.mux.wants_write
    pair.a.now = pair.b.now = due
    pair.a.mux.handle_timeout(due)
    assert pair.a.mux.wants_write and pair.a.mux.queued_control == 12
    pair.run()
    assert pair.a.mux.rtt == 0.25  # smoothed with the 0.0 of this run


def test_a_peer_that_does_not_answer() -> None:
    session = quiet()
    session.mux.handle_timeout(30.0)
    session.wire()
    assert session.mux.next_timeout() == 40.0
    with pytest.raises(TimedOut):
        session.mux.handle_timeout(40.0)
    session = quiet()
    session.mux.handle_timeout(30.0)
    session.now = 39.0
    session.receive(encode(WINDOW_UPDATE | SYN, 1, 0))  # slow, but alive
    session.mux.handle_timeout(40.0)
    assert session.mux.next_timeout() == 49.0
    with pytest.raises(TimedOut):
        session.mux.handle_timeout(49.0)
