"""Attacks through mplex, against a whole node: what happens to everybody else."""

import pytest
from hostile.arena import ECHO, HEADER, Arena, Attacker
from hostile.test_memory import KIB, Held, steps_of
from mplex_pair import NAMES, frame

from anyp2p_core import (
    CloseConnection,
    Limits,
    MuxerError,
    PauseReading,
    StreamOpened,
    StreamReset,
    TimedOut,
)
from anyp2p_core.mplex import MAX_INBOUND_STREAMS, MAX_STREAM_UNREAD, MAX_UNREAD, PROTOCOL, Mplex
from anyp2p_core.mplex_frame import decode
from anyp2p_core.multistream import encode
from anyp2p_core.varint import encode as varint
from anyp2p_core.yamux import PROTOCOL as YAMUX, Yamux

MIB = 1024 * KIB


class Peer(Attacker):
    """An attacker that speaks mplex."""

    def __init__(self, arena):
        super().__init__(arena, muxers=(PROTOCOL,))

    def _on_data(self, data, now):
        self.received += data
        data, pos = bytes(self.received), 0
        while (found := decode(data, pos)) is not None:
            head, length, start = found
            if start + length > len(data):
                break
            self._frames.append((NAMES[head & 7], head >> 3, data[start : start + length]))
            pos = start + length
        del self.received[:pos]


class Ring(Arena):
    """The node also takes mplex, the friend prefers yamux."""

    def __init__(self, **options):
        super().__init__(muxers={YAMUX: Yamux, PROTOCOL: Mplex}, **options)

    def attacker(self):
        return self.join(Peer(self))


def message(number, payload):
    return frame("MessageInitiator", number, payload)


def proposal(number, *protocols, data=b""):
    """Frames that open a stream and propose protocols, with data behind them."""
    return frame("NewStream", number, b"%d" % number) + message(
        number, HEADER + b"".join(map(encode, protocols)) + data
    )


def muxer_of(arena, attacker):
    (found,) = arena.node.connections(attacker.key.peer_id)
    assert type(found.muxer) is Mplex
    return found.muxer


def theirs(mux):
    """The streams that the peer opened; the node has one of its own, to identify the peer."""
    return [stream for stream in mux.streams.values() if stream.inbound]


def opened(arena):
    return [event.stream for event in arena.of(StreamOpened)]


def echoes(arena, attacker, number):
    """Whether the node still serves this peer."""
    attacker.frames()
    attacker.send(proposal(number, ECHO, data=b"and me?"), frame("CloseInitiator", number))
    found = b"".join(data for name, i, data in attacker.frames() if i == number)
    return found == HEADER + encode(ECHO) + b"and me?"


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(b"\x02" + varint(MIB + 1), id="row 59 one more"),
        pytest.param(b"\x02" + varint(2**32), id="row 59 4 GiB"),
        pytest.param(b"\x02" + varint(2**63 - 1), id="row 59 all"),
        pytest.param(b"\x02" + b"\xff" * 9, id="row 59 more than all"),
        pytest.param(b"\x50" + varint(MIB + 1), id="row 59 name"),
        pytest.param(b"\x57\x01x" + varint(2**63 - 1), id="unknown flag"),
        pytest.param(b"\xff" * 10, id="number beyond 60 bits"),
        pytest.param(b"\x82\x00\x00", id="no varint"),
        pytest.param(frame("NewStream", 0), id="open twice"),
        pytest.param(frame("CloseInitiator", 0) + frame("NewStream", 0), id="open half closed"),
    ],
)
def test_row_59_a_broken_rule_ends_one_connection(attack):
    arena = Ring()
    attacker, other = arena.attacker(), arena.attacker()
    attacker.send(proposal(0, "/app", data=b"before the attack"))
    other.send(proposal(0, "/app"))
    attacker.send(attack)
    assert attacker.closed and not other.closed
    assert type(arena.why(attacker)) is MuxerError
    ours, others = opened(arena)  # what the attack opened was never seen
    assert arena.node.stream_read(ours, 100, arena.now) == b"before the attack"
    assert echoes(arena, other, 1)
    for stream in (ours, others):
        arena.node.stream_close(stream, arena.now)
    assert arena.survives() and arena.empty()


def test_row_59_lengths_that_are_only_claimed_cost_nothing():
    arena = Ring()
    attacker = arena.attacker()
    attacker.send(proposal(0, "/app"))
    with Held() as held:
        attacker.send(*(proposal(n, "/app") + varint(8 * n + 2) for n in range(1, 2)))
        attacker.send(varint(MIB))
        assert held.now() < 64 * KIB
    for stream in opened(arena):
        arena.node.stream_close(stream, arena.now)
    assert arena.survives() and arena.empty()


@pytest.mark.parametrize("size", [100, 5000, 60_000, MIB])
def test_row_60_a_stream_that_nobody_reads_is_the_only_one_to_suffer(size):
    arena = Ring()
    attacker = arena.attacker()
    attacker.send(proposal(0, "/app"), proposal(1, "/app", data=b"kept"))
    attacker.frames()
    flooded, other = opened(arena)
    mux = muxer_of(arena, attacker)
    with Held() as held:
        segment = message(0, bytes(size)) * (60_000 // size or 1)
        while mux.unread + len(segment) <= MAX_STREAM_UNREAD:
            attacker.send(segment)
        assert held.now() <= 2 * MAX_STREAM_UNREAD + 64 * KIB
        attacker.send(segment, segment)
        assert attacker.frames() == [("ResetReceiver", 0, b"")]
        assert mux.unread == arena.node.unread == 4
        attacker.send(segment * 20)  # it goes on as if nothing had happened
        assert attacker.frames() == [] and mux.unread == 4
        del segment
        assert held.now() < 64 * KIB
    with pytest.raises(StreamReset, match="left unread"):
        arena.node.stream_read(flooded, 1, arena.now)
    assert arena.node.stream_read(other, 9, arena.now) == b"kept"
    assert echoes(arena, attacker, 2)
    for stream in (flooded, other):
        arena.node.stream_close(stream, arena.now)
    assert not attacker.closed and arena.survives() and arena.empty()


def test_row_60_all_streams_of_a_connection_together():
    arena = Ring()
    attacker, other = arena.attacker(), arena.attacker()
    other.send(proposal(0, "/app", data=b"kept"))
    mux = muxer_of(arena, attacker)
    for n in range(100):
        attacker.send(proposal(n, "/app", data=bytes(60_000 - 100 * n)))
        assert mux.unread <= MAX_UNREAD
    shed = [number for name, number, _ in attacker.frames() if name == "ResetReceiver"]
    assert shed == list(range(len(shed))) and 0 < len(shed) < 50  # the largest first
    assert echoes(arena, attacker, 1000)
    broken = 0
    for stream in opened(arena):
        try:
            assert arena.node.stream_read(stream, 1 << 20, arena.now)
        except StreamReset:
            broken += 1
        arena.node.stream_close(stream, arena.now)
    assert broken == len(shed) and mux.unread == arena.node.unread == 0
    assert not attacker.closed and not other.closed and arena.survives() and arena.empty()


def test_row_60_an_echo_that_reads_nothing_back():
    """What the echo cannot write it does not read: then the stream is full, and is reset."""
    arena = Ring()
    attacker = arena.attacker()
    attacker.send(proposal(0, ECHO))
    attacker.stall()
    mux = muxer_of(arena, attacker)
    (stream,) = theirs(mux)
    for _ in range(40):
        attacker.send(message(0, bytes(60_000)))
        assert stream.unsent <= Limits().max_unsent and mux.unread <= MAX_STREAM_UNREAD
    assert stream.shed and mux.unread == stream.unsent == 0
    arena.node.blocked(attacker.conn, False, arena.now)
    arena.run()
    assert echoes(arena, attacker, 1)
    assert arena.survives() and arena.empty()


def test_row_61_a_hundred_thousand_streams():
    arena = Ring()
    attacker, other = arena.attacker(), arena.attacker()
    mux = muxer_of(arena, attacker)
    limits = Limits()
    with Held() as held:
        for first in range(0, 100_000, 50):
            attacker.send(*(proposal(n, "/app") for n in range(first, first + 50)))
            assert len(theirs(mux)) <= MAX_INBOUND_STREAMS
            assert mux.queued_control <= 12 * limits.max_resets
            if attacker.closed:
                break
        assert first < MAX_INBOUND_STREAMS + limits.max_resets + 50
        assert held.now() < MIB
    assert type(arena.why(attacker)) is MuxerError and not other.closed
    assert len(opened(arena)) == MAX_INBOUND_STREAMS
    assert len(mux.streams) == 0
    for stream in opened(arena):
        arena.node.stream_close(stream, arena.now)
    assert arena.survives() and arena.empty()


def test_row_61_refused_streams_are_answered_and_do_no_harm():
    arena = Ring()
    attacker = arena.attacker()
    for n in range(MAX_INBOUND_STREAMS + 100):
        attacker.send(proposal(n, "/app"))
    refused = [number for name, number, _ in attacker.frames() if name == "ResetReceiver"]
    assert refused == list(range(MAX_INBOUND_STREAMS, MAX_INBOUND_STREAMS + 100))
    arena.node.stream_close(opened(arena)[0], arena.now)
    attacker.send(frame("CloseInitiator", 0))
    assert echoes(arena, attacker, 1000)
    for stream in opened(arena)[1:]:
        arena.node.stream_close(stream, arena.now)
    assert not attacker.closed and arena.survives() and arena.empty()


@pytest.mark.parametrize("ending", ["reset", "close", "lost"])
def test_row_62_what_came_before_the_end_can_be_read(ending):
    arena = Ring()
    attacker = arena.attacker()
    attacker.send(proposal(0, "/app", data=b"before"))
    (stream,) = opened(arena)
    if ending == "lost":
        attacker.send(message(0, b" the end"))
        arena.leave(attacker)
    else:
        name = "ResetInitiator" if ending == "reset" else "CloseInitiator"
        attacker.send(message(0, b" the end"), frame(name, 0))
    node = arena.node
    assert node.unread == 14
    assert node.stream_read(stream, 3, arena.now) == b"bef"
    found = b""
    while len(found) < 11:
        found += node.stream_read(stream, 100, arena.now)
    assert found == b"ore the end" and node.unread == 0
    if ending == "reset":
        with pytest.raises(StreamReset):
            node.stream_read(stream, 1, arena.now)
    elif ending == "close":
        assert node.stream_read(stream, 1, arena.now) == b""
        node.stream_write(stream, b"half-closed")
        arena.run()
        assert attacker.frames()[-1] == ("MessageReceiver", 0, b"half-closed")
    node.stream_close(stream, arena.now)
    assert arena.survives() and arena.empty()


@pytest.mark.parametrize("body", [b"", b"x"])
def test_row_49_streams_opened_and_reset(body):
    arena = Ring()
    attacker = arena.attacker()
    limits = Limits()
    for _ in range(3):  # within the budget it may go on for ever
        for n in range(limits.max_resets):
            attacker.send(frame("NewStream", n), frame("ResetInitiator", n, body))
        arena.wait(limits.resets_period)
    assert not attacker.closed and theirs(muxer_of(arena, attacker)) == []
    pair = frame("NewStream", 1) + frame("ResetInitiator", 1, body)
    with Held() as held:
        attacker.send(pair * 100_000)
        assert attacker.closed and held.now() < MIB
    assert type(arena.why(attacker)) is MuxerError
    assert arena.survives() and arena.empty()


def test_row_47_and_50_a_peer_that_reads_no_answers():
    arena = Ring()
    attacker = arena.attacker()
    attacker.stall()
    start = arena.now
    mux = muxer_of(arena, attacker)
    limits = Limits()
    for first in range(0, 200_000, 100):
        if attacker.paused:  # the node does not read any more
            break
        broken = (frame("NewStream", n) + message(n, b"\0 no") for n in range(first, first + 100))
        attacker.send(*broken)
        arena.now += 0.01
    assert attacker.paused and arena.of(PauseReading)
    assert mux.queued_control <= limits.max_queued_control and theirs(mux) == []
    arena.wait(start + limits.send_timeout - arena.now)
    assert attacker.closed and isinstance(arena.why(attacker), TimedOut)
    assert arena.survives() and arena.empty()


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    "nothing",
    [
        message(0, b""),
        message(77, b"x"),
        frame("MessageReceiver", 77, b"x"),
        frame("CloseReceiver", 77, b"x"),
        frame("ResetInitiator", 77),
        frame("ResetReceiver", 77, b"x"),
    ],
    ids=["empty", "unknown", "not ours", "close not ours", "reset unknown", "reset not ours"],
)
def test_row_142_and_55_frames_for_no_stream_cost_little(nothing, size):
    arena = Ring()
    attacker = arena.attacker()
    attacker.send(proposal(0, "/app"))
    attacker.frames()
    wire = attacker._noise.seal([nothing * 2000])
    assert steps_of(arena, attacker, wire, size) <= 60 * len(wire)  # a frame may have two bytes
    arena.run()
    assert attacker.frames() == [] and echoes(arena, attacker, 1)
    arena.node.stream_close(opened(arena)[0], arena.now)
    assert arena.survives() and arena.empty()


def test_row_55_data_for_streams_that_ended():
    arena = Ring()
    attacker = arena.attacker()
    attacker.send(proposal(0, "/app", data=b"x"), frame("CloseInitiator", 0))
    attacker.send(proposal(1, "/app", data=b"x"), frame("ResetInitiator", 1))
    attacker.frames()
    mux = muxer_of(arena, attacker)
    with Held() as held:
        for n in (0, 1):
            for _ in range(40):
                attacker.send(message(n, bytes(60_000)), frame("CloseInitiator", n))
        assert held.now() < 64 * KIB and mux.unread == 2
    assert attacker.frames() == [] and len(opened(arena)) == 2
    first, second = opened(arena)
    assert arena.node.stream_read(first, 9, arena.now) == b"x"
    assert arena.node.stream_read(first, 9, arena.now) == b""
    for stream in (first, second):
        arena.node.stream_close(stream, arena.now)
    assert arena.survives() and arena.empty()


@pytest.mark.parametrize("size", [1, 2, 16, 100])
def test_row_52_small_frames_nobody_reads(size):
    arena = Ring(friend=False)
    attacker = arena.attacker()
    attacker.send(proposal(0, "/app"))
    count = 64 * KIB // size
    sealed = [attacker._noise.seal([message(0, b"x" * size) * 512]) for _ in range(count // 512)]
    with Held() as held:
        for segment in sealed:
            arena.node.receive(attacker.conn, segment, arena.now)
        assert arena.node.unread == count // 512 * 512 * size
        assert held.now() <= 2 * 64 * KIB + 64 * KIB
        (stream,) = opened(arena) or [event.stream for event in arena.node.poll()]
        while arena.node.stream_read(stream, 1 << 20, arena.now):
            pass
        assert held.now() < 64 * KIB
    arena.node.stream_close(stream, arena.now)
    assert arena.empty()


@pytest.mark.parametrize("size", [1, 1000])
def test_promise_11_twice_as_much_costs_twice_as_much(size):
    arena = Ring()
    attacker = arena.attacker()
    attacker.send(proposal(0, "/app"))
    costs = []
    for amount in (8_000, 16_000, 32_000):
        wire = attacker._noise.seal([message(0, bytes(amount))])
        costs.append(steps_of(arena, attacker, wire, size))
        arena.run()
    assert costs[1] <= 2.2 * costs[0] and costs[2] <= 2.2 * costs[1]
    arena.node.stream_close(opened(arena)[0], arena.now)
    assert arena.empty()


@pytest.mark.parametrize("how", ["read", "close", "reset", "peer resets", "lost"])
def test_row_134_the_ledger_returns_to_zero(how):
    arena = Ring()
    node = arena.node
    attackers = [arena.attacker() for _ in range(2)]
    for attacker in attackers:
        for n in range(0, 40, 2):
            attacker.send(
                proposal(n, "/app", data=bytes(1000)),
                message(n, bytes(5000)),
                frame("NewStream", n + 1) + message(n + 1, HEADER[: n % 20]),
            )
    muxers = [muxer_of(arena, attacker) for attacker in attackers]
    streams = opened(arena)
    assert len(streams) == 40 and node.unread == 40 * 6000
    assert all(mux.unread == 20 * 6000 for mux in muxers)
    if how == "peer resets":
        for attacker in attackers:
            attacker.send(*(frame("ResetInitiator", n) for n in range(0, 40, 2)))
    elif how == "lost":
        arena.leave(*attackers)
    for n, stream in enumerate(streams):
        if how == "close":
            node.stream_close(stream, arena.now, discard=n % 2 == 0)
        elif how == "reset":
            node.stream_reset(stream, 0, arena.now)
        else:
            while how == "read" and node.stream_read(stream, 999, arena.now):
                pass
            if how != "read":
                assert node.stream_read(stream, 1 << 20, arena.now)
            node.stream_close(stream, arena.now)
    arena.wait(11)  # and what was in the middle of something
    assert node.unread == 0 and all(mux.unread == 0 for mux in muxers)
    assert arena.survives() and arena.empty()


@pytest.mark.parametrize("how", ["lost", "rule"])
def test_row_56_everybody_who_waits_is_told_at_once(how):
    arena = Ring()
    attacker = arena.attacker()
    attacker.send(*(proposal(n, "/app") for n in range(5)))
    node = arena.node
    streams = opened(arena)
    for stream in streams:
        while node.stream_write(stream, bytes(100_000)):
            pass
        assert node.stream_read(stream, 1, arena.now) is None
    arena.events.clear()
    if how == "lost":
        arena.leave(attacker)
    else:
        attacker.send(b"\x07\x00")
        assert arena.of(CloseConnection)
    for stream in streams:
        with pytest.raises(ConnectionError):
            node.stream_read(stream, 1, arena.now)
        with pytest.raises(ConnectionError):
            node.stream_write(stream, b"x")
        kinds = {type(e).__name__ for e in arena.events if getattr(e, "stream", None) == stream}
        assert {"StreamReadable", "StreamWritable"} <= kinds
        node.stream_close(stream, arena.now)
    assert arena.survives() and arena.empty()
