"""What peers can make a node hold, in bytes, entries and timers."""

import gc
import sys
import tracemalloc

import pytest
from hostile.arena import ECHO, HEADER, Arena, Attacker, data_frame, proposal
from node_pair import LOCAL, make_key, make_node

from anyp2p_core import (
    CloseConnection,
    ConnectionClosed,
    Dial,
    DialFailed,
    HandshakeError,
    Limits,
    LocalError,
    Multiaddr,
    StreamOpened,
)
from anyp2p_core.multistream import encode
from anyp2p_core.varint import encode as varint
from anyp2p_core.yamux_frame import FIN, RST, SYN, WINDOW_UPDATE, encode as frame

KIB = 1024


class Held:
    """Bytes of Python objects that a block leaves behind."""

    def __enter__(self):
        gc.collect()
        tracemalloc.start()
        self._before = tracemalloc.get_traced_memory()[0]
        return self

    def __exit__(self, *_):
        tracemalloc.stop()

    def now(self):
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - self._before


def tiny_frames(stream, total, size):
    """``total`` bytes of payload in frames of ``size``, in segments of 64 KiB."""
    one = data_frame(0, stream, bytes(size))
    count = total // size
    per_segment = 60_000 // len(one)
    for first in range(0, count, per_segment):
        yield one * min(per_segment, count - first)


@pytest.mark.parametrize(
    "size, payload", [(1, 256), (2, 64), (16, 64), (100, 256), (4000, 256), (5000, 256)]
)
def test_row_52_small_frames_nobody_reads(size, payload):
    arena = Arena(friend=False)
    attacker = arena.attacker()
    attacker.send(proposal(1, "/app"))
    payload = payload * KIB - len(HEADER + encode("/app")) - size
    segments = [attacker._noise.seal([one]) for one in tiny_frames(1, payload, size)]
    with Held() as held:
        for segment in segments:
            arena.node.receive(attacker.conn, segment, arena.now)
        kept = held.now()
        assert arena.node.unread == payload // size * size
        assert kept <= 2 * payload + 64 * KIB
        stream = arena.of(StreamOpened)[0].stream
        while arena.node.stream_read(stream, 1 << 20, arena.now):
            pass
        assert held.now() < 64 * KIB
    arena.node.stream_close(stream, arena.now)
    assert arena.empty()


@pytest.mark.parametrize("noise_frames", [1, 3])
def test_row_52_small_sealed_messages(noise_frames):
    """The same payload, sealed frame by frame and cut anywhere: nothing more is kept."""
    arena = Arena(friend=False)
    attacker = arena.attacker()
    attacker.send(proposal(1, "/app"))
    wire = b"".join(
        attacker._noise.seal([data_frame(0, 1, b"x" * 8)] * noise_frames) for _ in range(2000)
    )
    with Held() as held:
        for pos in range(0, len(wire), 777):
            arena.node.receive(attacker.conn, wire[pos : pos + 777], arena.now)
        assert held.now() <= 2 * 16_000 * noise_frames + 64 * KIB
    arena.node.stream_close(arena.of(StreamOpened)[0].stream, arena.now)
    assert arena.empty()


def test_promise_7_an_idle_connection_is_small():
    arena = Arena(friend=False)
    key = make_key()
    attackers = [Attacker(arena, key=make_key()) for _ in range(20)]
    arena.attacker(key=key)  # what is made once is made
    with Held() as held:
        for attacker in attackers:
            arena.join(attacker)
        arena.wait(11)
        whole = held.now()
        arena.leave(*attackers)
    assert whole / len(attackers) <= 64 * KIB  # both ends of it
    assert arena.empty()


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param([varint(1 << 62)], id="multistream line"),
        pytest.param([HEADER, encode("/ipfs/id/push/1.0.0"), varint(8193)], id="identify"),
        pytest.param(
            [HEADER, encode("/ipfs/id/push/1.0.0"), b"\x0a\x0a" + varint(1 << 40)], id="field"
        ),
        pytest.param([HEADER, varint(1024), b"/"], id="multistream waits"),
        pytest.param([HEADER, encode("/ipfs/id/push/1.0.0"), varint(8192)], id="identify waits"),
    ],
)
def test_row_141_and_4_lengths_that_are_only_claimed(attack):
    arena = Arena()
    attacker = arena.attacker()
    attacker.send(proposal(9, "/app"))  # what is made once is made
    opening = data_frame(SYN, 1, b"".join(attack))
    with Held() as held:
        attacker.send(opening)
        assert held.now() < 64 * KIB
    arena.node.stream_close(arena.of(StreamOpened)[0].stream, arena.now)
    arena.wait(11)
    assert not attacker.closed
    connection = arena.node.connections(attacker.key.peer_id)[0]
    assert 1 not in connection.muxer.streams and connection.muxer.unread == 0
    assert arena.survives() and arena.empty()


def test_row_141_a_sealed_message_that_is_only_claimed():
    arena = Arena()
    attacker = arena.attacker()
    with Held() as held:
        attacker.raw(b"\xff\xff")
        arena.run()
        assert held.now() < 64 * KIB
    attacker.silent = True
    arena.wait(60)
    assert attacker.closed
    assert arena.survives() and arena.empty()


def steps_of(arena, attacker, wire, size):
    """Lines of Python that run while ``wire`` arrives in segments of ``size``."""
    steps = 0

    def count(*_):
        nonlocal steps
        steps += 1
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        for pos in range(0, len(wire), size):
            arena.node.receive(attacker.conn, wire[pos : pos + size], arena.now)
    finally:
        sys.settrace(before)
    return steps


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    "nothing",
    [frame(0, 0, 0), frame(WINDOW_UPDATE, 7, 0), frame(WINDOW_UPDATE | 0xFFF0, 1, 0)],
    ids=["empty data", "no window", "unknown flags"],
)
def test_row_142_input_without_progress_costs_little(nothing, size):
    arena = Arena()
    attacker = arena.attacker()
    wire = attacker._noise.seal([nothing * 2000])
    assert steps_of(arena, attacker, wire, size) <= 40 * len(wire)
    arena.run()
    assert arena.survives() and arena.empty()


@pytest.mark.parametrize("size", [1, 1000])
def test_promise_11_twice_as_much_costs_twice_as_much(size):
    arena = Arena()
    attacker = arena.attacker()
    attacker.send(proposal(1, "/app"))
    costs = []
    for amount in (8_000, 16_000, 32_000):
        wire = attacker._noise.seal([data_frame(0, 1, bytes(amount))])
        costs.append(steps_of(arena, attacker, wire, size))
        arena.run()
    assert costs[1] <= 2.2 * costs[0] and costs[2] <= 2.2 * costs[1]
    arena.node.stream_close(arena.of(StreamOpened)[0].stream, arena.now)
    assert arena.empty()


def test_row_142_time_that_stands_still():
    node = make_node(limits=Limits(keepalive_interval=0.0, keepalive_timeout=0.0))
    calls = []
    node.call_at(5.0, "again", lambda now: calls.append(node.call_at(now, "again", calls.append)))
    node.handle_timeout(5.0)
    assert len(calls) == 1
    node.handle_timeout(5.0)
    assert len(calls) == 2 and len(node.timers) == 0


@pytest.mark.parametrize("how", ["read", "close", "reset", "peer resets", "peer ends", "lost"])
def test_row_134_the_ledger_returns_to_zero(how):
    arena = Arena()
    node = arena.node
    attackers = [arena.attacker() for _ in range(3)]
    for attacker in attackers:
        for n in range(20):
            attacker.send(
                proposal(4 * n + 1, "/app", data=bytes(1000)),
                data_frame(0, 4 * n + 1, bytes(5000)),
                data_frame(SYN, 4 * n + 3, HEADER[: n % 20]),  # in the middle of something
            )
    streams = [event.stream for event in arena.of(StreamOpened)]
    assert len(streams) == 60 and node.unread == 60 * 6000
    for attacker in attackers:
        connection = node.connections(attacker.key.peer_id)[0]
        assert connection.muxer.unread == 20 * 6000
    if how == "read":
        for stream in streams:
            while node.stream_read(stream, 999, arena.now):
                pass
    elif how in ("close", "reset"):
        for n, stream in enumerate(streams):
            if how == "close":
                node.stream_close(stream, arena.now, discard=n % 2 == 0)
            else:
                node.stream_reset(stream, 0, arena.now)
    else:
        for attacker in attackers:
            for n in range(20):
                if how == "peer resets":
                    attacker.send(frame(WINDOW_UPDATE | RST, 4 * n + 1, 0))
                elif how == "peer ends":
                    attacker.send(frame(FIN, 4 * n + 1, 0))
        if how == "lost":
            arena.leave(*attackers)
        assert node.unread == 60 * 6000  # it can still be read
        for stream in streams:
            assert node.stream_read(stream, 1 << 20, arena.now)
            node.stream_close(stream, arena.now)
    assert node.unread == 0
    arena.wait(11)  # and what was in the middle of something
    for connection in node.connections():
        assert connection.muxer.unread == 0
    for stream in streams if how == "read" else ():
        node.stream_close(stream, arena.now)
    assert arena.survives() and arena.empty()


def test_row_134_pushes_and_pings_and_echoes_cost_nothing_in_the_end():
    arena = Arena()
    node, friend = arena.node, arena.friend.node
    for n in range(5):
        node.handle(f"/more/{n}", arena.now)  # each is pushed to the friend
        friend.handle(f"/more/{n}", arena.now)
        arena.wait(6)
        assert arena.survives()
    for one in (node, friend):
        (connection,) = one.connections()
        assert connection.muxer.unread == one.unread == 0
        assert all(stream.unread == 0 for stream in connection.muxer.streams.values())
    arena.wait(11)
    assert node.timers.reasons() == friend.timers.reasons() == ["keepalive"]
    assert arena.empty()


def test_row_143_a_hundred_thousand_dials():
    rounds, at_once = 500, 200
    node = make_node(limits=Limits(max_peers=100))
    peers = [make_key().peer_id for _ in range(at_once)]
    address = [Multiaddr("/ip4/192.0.2.1/tcp/1"), LOCAL]
    now = 0.0
    for number in range(rounds):
        dials = [node.dial(peer, address, now) for peer in peers]
        attempts = [item.conn for item in node.poll() if isinstance(item, Dial)]
        assert len(attempts) == at_once
        assert len(node.timers) == 2 * at_once  # the attempt's end, and the next address
        if number % 3 == 0:
            for dial in dials:
                node.cancel_dial(dial)
        else:
            for conn in attempts:
                node.dial_failed(conn, OSError("refused"), now)
            for item in node.poll():
                if isinstance(item, Dial):
                    node.dial_failed(item.conn, OSError("refused"), now)
        assert len(node.timers) == 0
        assert all(isinstance(item, DialFailed | CloseConnection) for item in node.poll())
        now += 0.001
    assert node.next_timeout() is None


def test_row_143_streams_opened_and_dropped():
    arena = Arena()
    node, peer = arena.node, arena.friend.node.peer_id
    for n in range(20_000):
        stream = node.open_stream(peer, ["/a", "/b"][: 1 + n % 2], arena.now)
        node.cancel_open(stream, arena.now)
    assert sorted(node.timers.reasons()) == ["keepalive", "negotiate streams"]
    gc.collect()
    arena.run()
    assert len(node.connections()[0].muxer.streams) == 0
    arena.wait(11)
    assert node.timers.reasons() == ["keepalive"]
    assert arena.survives() and arena.empty()


def test_row_143_connections_that_come_and_go():
    node = make_node()
    for n in range(5000):
        conn = node.connected(None, LOCAL, LOCAL, float(n))
        assert len(node.timers) == 1
        if n % 2:
            node.receive(conn, b"garbage", float(n))
        node.disconnected(conn, None, float(n))
        assert len(node.timers) == 0
        closed = [item for item in node.poll() if isinstance(item, ConnectionClosed)]
        assert len(closed) == 1 and (n % 2 or isinstance(closed[0].error, HandshakeError))


def test_bounds_are_kept_when_the_peer_reads_nothing_of_an_echo():
    arena = Arena(limits=Limits(max_stream_window=256 * KIB))
    attacker = arena.attacker()
    attacker.send(proposal(1, ECHO))
    for _ in range(40):  # it grants no window: what we may send is used up, then what we hold
        streams = arena.node.connections(attacker.key.peer_id)[0].muxer.streams
        room = streams[1].receive_window
        if not room:
            break
        attacker.send(data_frame(0, 1, bytes(min(room, 60_000))))
    stream = arena.node.connections(attacker.key.peer_id)[0].muxer.streams[1]
    assert stream.unsent <= Limits().max_unsent
    assert stream.unread <= 256 * KIB
    assert arena.survives() and arena.empty()


def test_streams_of_dead_connections_need_no_connection():
    arena = Arena()
    attacker = arena.attacker()
    attacker.send(proposal(1, "/app", data=b"left"))
    (opened,) = arena.of(StreamOpened)
    arena.leave(attacker)
    assert arena.node.stream_read(opened.stream, 9, arena.now) == b"left"
    arena.node.stream_write_eof(opened.stream)
    arena.node.stream_reset(opened.stream, 0, arena.now)
    with pytest.raises(LocalError):
        arena.node.stream(opened.stream)
    assert arena.node.writable() == []
    assert arena.survives() and arena.empty()
