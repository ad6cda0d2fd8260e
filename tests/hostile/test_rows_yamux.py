"""Attacks inside the secure channel, against a whole node: what happens to everybody else."""

import pytest
from hostile.arena import ECHO, HEADER, Arena, data_frame, proposal

from anyp2p_core import (
    CloseConnection,
    ConnectionClosed,
    ConnectionLost,
    Limits,
    LocalError,
    MuxerError,
    PauseReading,
    PingFailed,
    ResumeReading,
    StreamFailed,
    StreamOpened,
    StreamReset,
    TimedOut,
)
from anyp2p_core.multistream import encode
from anyp2p_core.yamux_frame import (
    ACK,
    FIN,
    GO_AWAY,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    encode as frame,
)

WINDOW = 256 * 1024
TOP = 0xFFFF_FFFF


def connection_of(arena, attacker):
    (found,) = arena.node.connections(attacker.key.peer_id)
    return found


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param([frame(WINDOW_UPDATE, 1, TOP)] * 2, id="row 42"),
        pytest.param([data_frame(SYN, 3, bytes(WINDOW + 1))], id="row 43 data"),
        pytest.param([frame(WINDOW_UPDATE | SYN, 3, WINDOW + 1)], id="row 43 window"),
        pytest.param([frame(WINDOW_UPDATE | SYN, 3, TOP)], id="row 44"),
        pytest.param([frame(0, 1, TOP)], id="row 45"),
        pytest.param([data_frame(0, 1, bytes(WINDOW))], id="row 45 one more than the window"),
        pytest.param([frame(0x0100_0000, 1, 0)], id="row 55 version"),
        pytest.param([frame(0x4_0000, 1, 0)], id="row 55 type"),
        pytest.param([frame(0, 0, 5)], id="row 55 stream 0"),
        pytest.param([frame(WINDOW_UPDATE | SYN, 2, 0)], id="row 55 parity"),
        pytest.param([frame(WINDOW_UPDATE | SYN, 1, 0)], id="row 55 twice"),
        pytest.param([frame(FIN, 1, 0), data_frame(0, 1, b"x")], id="row 55 data after FIN"),
    ],
)
def test_row_42_to_45_and_55_a_broken_rule_ends_one_connection(attack):
    arena = Arena()
    attacker, other = arena.attacker(), arena.attacker()
    attacker.send(proposal(1, "/app", data=b"before the attack"))
    other.send(proposal(1, "/app"))
    ours = arena.of(StreamOpened)[0].stream
    attacker.frames()
    attacker.send(*attack)
    assert attacker.frames()[-1][:3] == (GO_AWAY, 0, 1)
    assert attacker.closed and not other.closed
    error = arena.why(attacker)
    assert isinstance(error, MuxerError) and error.code == 1
    assert len(arena.of(StreamOpened)) == 2  # what the attack opened was never seen
    assert arena.node.stream_read(ours, 100, arena.now)[:17] == b"before the attack"
    if attack[0][:4] != frame(FIN, 1, 0)[:4]:
        with pytest.raises(ConnectionLost):
            while arena.node.stream_read(ours, 1 << 20, arena.now):
                pass
    else:  # it was complete
        assert arena.node.stream_read(ours, 1, arena.now) == b""
    for opened in arena.of(StreamOpened):
        arena.node.stream_close(opened.stream, arena.now)
    assert arena.survives() and arena.empty()


@pytest.mark.parametrize("attack", ["streams", "refused streams", "pings", "resets", "echo"])
def test_row_47_and_50_a_peer_that_stops_reading_and_goes_on_asking(attack):
    arena = Arena()
    attacker = arena.attacker()
    attacker.frames()
    attacker.stall()
    start = arena.now
    connection = connection_of(arena, attacker)
    limits = Limits()
    next_id = 1
    most = 0
    for _ in range(2000):
        if attacker.paused:  # the node does not read any more
            break
        frames = []
        for _ in range(100):
            if attack == "pings":
                frames.append(frame(PING | SYN, 0, next_id))
            elif attack == "streams":
                frames.append(proposal(next_id, "/app"))
            elif attack == "refused streams":
                frames.append(frame(WINDOW_UPDATE | SYN, next_id, 0))
            elif attack == "resets":
                frames.append(data_frame(SYN, next_id, b"\0 no multistream"))
            else:
                frames.append(proposal(next_id, ECHO, data=bytes(20_000)))
            next_id += 2
        attacker.send(*frames)
        held = connection.muxer.queued_control + connection.unsent()
        most = max(most, held)
        arena.now += 0.01
    assert connection.muxer.queued_control <= limits.max_queued_control
    if attack == "echo":  # bounded by the streams, and by what the peer may have unread
        assert most <= limits.max_inbound_streams * limits.max_unsent
    elif attack == "pings":
        assert most <= 1000
    else:  # until we stop to read
        assert most <= 2 * 64 * 1024
        assert attacker.paused and arena.of(PauseReading)
    arena.wait(start + limits.send_timeout - arena.now)
    assert attacker.closed
    assert isinstance(arena.why(attacker), TimedOut)
    for opened in arena.of(StreamOpened):
        arena.node.stream_close(opened.stream, arena.now)
    assert arena.survives() and arena.empty()


def test_row_47_a_peer_that_reads_again_is_read_again():
    arena = Arena()
    attacker = arena.attacker()
    attacker.stall()
    for n in range(300):
        attacker.send(*(frame(WINDOW_UPDATE | SYN, 200 * n + 2 * i + 1, 0) for i in range(100)))
    assert attacker.paused
    arena.wait(5)
    arena.node.blocked(attacker.conn, False, arena.now)
    arena.run()
    assert not attacker.paused and arena.of(ResumeReading)
    arena.wait(60)
    assert not attacker.closed
    assert arena.survives() and arena.empty()


def test_row_48_pings_without_end_cost_no_memory():
    arena = Arena()
    attacker = arena.attacker()
    attacker.frames()
    attacker.send(b"".join(frame(PING | SYN, 0, n) for n in range(20_000)))
    assert len(attacker.frames()) <= 4 * 5  # four to a segment, the others are dropped
    attacker.send(frame(PING | ACK, 0, 99) * 1000)
    assert attacker.frames() == []
    assert not attacker.closed and arena.survives() and arena.empty()


@pytest.mark.parametrize("protocol", ["", "/app", ECHO, "/ipfs/ping/1.0.0", "/ipfs/id/1.0.0"])
def test_row_49_streams_opened_and_reset(protocol):
    arena = Arena()
    attacker = arena.attacker()
    limits = Limits()
    start = arena.now
    opened = 0
    while not attacker.closed:
        stream = 2 * opened + 1
        first = proposal(stream, protocol) if protocol else frame(WINDOW_UPDATE | SYN, stream, 0)
        attacker.send(first + frame(WINDOW_UPDATE | RST, stream, 0))
        opened += 1
        if not attacker.closed:
            assert not [s for s in connection_of(arena, attacker).muxer.streams if s % 2]
        assert opened <= limits.max_resets + 1
        for event in arena.of(StreamOpened):
            arena.node.stream_reset(event.stream, 0, arena.now)
    assert opened == limits.max_resets + 1 and arena.now - start < 1
    assert isinstance(arena.why(attacker), MuxerError)
    assert arena.survives() and arena.empty()


def test_row_49_within_the_budget_it_may_go_on_for_ever():
    arena = Arena()
    attacker = arena.attacker()
    for n in range(1000):
        attacker.send(proposal(2 * n + 1, ECHO) + frame(WINDOW_UPDATE | RST, 2 * n + 1, 0))
        arena.wait(0.06)
    assert not attacker.closed
    assert len(connection_of(arena, attacker).muxer.streams) <= 1
    assert arena.survives() and arena.empty()


def test_row_53_a_hundred_thousand_streams():
    arena = Arena()
    attacker = arena.attacker()
    limits = Limits()
    for n in range(1000):
        first = 200 * n + 1
        attacker.send(b"".join(proposal(first + 2 * i, "/app") for i in range(100)))
        streams = connection_of(arena, attacker).muxer.streams
        assert sum(stream % 2 for stream in streams) <= limits.max_inbound_streams
    assert len(arena.of(StreamOpened)) == limits.max_inbound_streams
    assert not attacker.closed
    for opened in arena.of(StreamOpened):
        arena.node.stream_close(opened.stream, arena.now)
    assert arena.survives() and arena.empty()


def test_row_54_all_windows_filled_and_nothing_read():
    arena = Arena()
    attacker = arena.attacker()
    limits = Limits()
    header = len(HEADER + encode("/app"))
    for n in range(limits.max_inbound_streams):
        attacker.send(proposal(2 * n + 1, "/app"))
        for _ in range(4):
            attacker.post(data_frame(0, 2 * n + 1, bytes((WINDOW - header) // 4)))
        arena.run()
        assert connection_of(arena, attacker).muxer.unread <= limits.max_unread
        assert arena.node.unread <= limits.max_unread
    assert not attacker.closed
    shed = [one for one in attacker.frames() if one[0] == WINDOW_UPDATE | RST]
    assert len(shed) == 256 - 64
    alive = 0
    for opened in arena.of(StreamOpened):
        try:
            alive += len(arena.node.stream_read(opened.stream, 1 << 20, arena.now)) > 0
        except StreamReset as error:
            assert "max_unread" in str(error)
        arena.node.stream_close(opened.stream, arena.now)
    assert alive == 64
    assert arena.survives() and arena.empty()


def test_row_54_the_node_as_a_whole_keeps_its_limit_and_the_friend():
    limits = Limits(max_unread=1 << 20, max_unread_total=4 << 20)
    arena = Arena(limits=limits)
    friend = arena.friend
    kept = friend.node.open_stream(arena.node.peer_id, ["/app"], arena.now)
    friend.node.stream_write(kept, bytes(100_000))
    arena.run()
    theirs = arena.of(StreamOpened)[-1].stream
    crowd = [arena.attacker() for _ in range(6)]
    for attacker in crowd:
        for n in range(4):
            attacker.send(proposal(2 * n + 1, "/app"))
            for _ in range(4):
                attacker.post(data_frame(0, 2 * n + 1, bytes(65_000)))
            arena.run()
            assert arena.node.unread <= limits.max_unread_total
    got = 0
    while data := arena.node.stream_read(theirs, 1 << 20, arena.now):
        got += len(data)
        arena.run()
    assert got == 100_000  # those who hold most have paid
    friend.node.stream_close(kept, arena.now)
    for opened in arena.of(StreamOpened):
        arena.node.stream_close(opened.stream, arena.now)
    assert arena.survives() and arena.empty()


@pytest.mark.parametrize("how", ["reset", "eof", "error", "attack", "abort"])
def test_row_56_everybody_who_waits_is_told_at_once(how):
    arena = Arena()
    attacker = arena.attacker()
    node, peer, conn = arena.node, attacker.key.peer_id, attacker.conn
    attacker.send(*(proposal(2 * n + 1, "/app") for n in range(20)))
    readers = [event.stream for event in arena.of(StreamOpened)]
    openers = [node.open_stream(peer, ["/a", "/b"], arena.now) for _ in range(20)]
    eager = [node.open_stream(peer, ["/a"], arena.now) for _ in range(20)]
    for stream in readers[:10]:
        node.stream_write(stream, bytes(300_000))  # writers that wait
    pings = [node.ping(peer, arena.now) for _ in range(5)]
    arena.run()
    arena.events.clear()
    if how == "reset":
        node.disconnected(conn, ConnectionResetError("reset"), arena.now)
        arena.peers.pop(conn)
    elif how == "error":
        node.fail(conn, TimedOut("no pong"), arena.now)
    elif how == "abort":
        node.abort(conn, arena.now)
    elif how == "eof":
        node.receive_eof(conn, arena.now)
    else:
        attacker.raw(bytes(100))
    arena.run()
    assert {event.stream for event in arena.of(StreamFailed)} == set(openers)
    assert all(isinstance(event.error, ConnectionLost) for event in arena.of(StreamFailed))
    assert {event.request for event in arena.of(PingFailed)} == set(pings)
    for stream in (*readers, *eager):
        woken = [type(e).__name__ for e in arena.events if getattr(e, "stream", 0) == stream]
        assert {"StreamReadable", "StreamWritable", "StreamDrained"} <= set(woken)
        for call in (node.stream_writable, node.stream_drained):
            with pytest.raises(ConnectionLost):
                call(stream)
        with pytest.raises(ConnectionLost):
            node.stream_read(stream, 1, arena.now)
        node.stream_close(stream, arena.now)
    with pytest.raises(LocalError):
        node.open_stream(peer, ["/a"], arena.now)
    assert arena.survives() and arena.empty()


def test_row_57_stream_ids_run_out_without_harm():
    arena = Arena()
    attacker = arena.attacker()
    attacker.send(proposal(2**31 + 1, "/app"), proposal(2**32 - 1, "/app"))
    connection = connection_of(arena, attacker)
    connection.muxer.next_id = 2**32 - 2
    with pytest.raises(LocalError, match="connect again"):
        arena.node.open_stream(attacker.key.peer_id, ["/a"], arena.now)
    for opened in arena.of(StreamOpened):
        arena.node.stream_close(opened.stream, arena.now)
    assert arena.survives() and arena.empty()


def test_a_session_that_the_peer_ends_is_told_with_its_code():
    arena = Arena()
    attacker = arena.attacker()
    attacker.send(frame(GO_AWAY, 0, 2))
    assert not arena.node.is_connected(attacker.key.peer_id)
    arena.node.receive_eof(attacker.conn, arena.now)
    arena.run()
    arena.wait(5)
    assert attacker.closed and CloseConnection(attacker.conn, abort=True) in arena.actions
    error = arena.why(attacker)
    assert isinstance(error, MuxerError) and error.code == 2
    assert arena.survives() and arena.empty()


def test_promise_14_a_stream_that_is_not_read_does_not_stop_the_others():
    arena = Arena()
    friend = arena.friend
    node = friend.node
    stuck = node.open_stream(arena.node.peer_id, ["/app"], arena.now)
    while node.stream_write(stuck, bytes(65_536)):
        arena.run()
    busy = node.open_stream(arena.node.peer_id, [ECHO], arena.now)
    echoed = sent = 0
    while echoed < 4 << 20:
        sent += node.stream_write(busy, bytes(65_536))
        arena.run()
        while data := node.stream_read(busy, 1 << 20, arena.now):
            echoed += len(data)
            arena.run()
    assert sent == echoed
    node.stream_reset(busy, 0, arena.now)
    node.stream_reset(stuck, 0, arena.now)
    arena.run()
    arena.node.stream_close(arena.of(StreamOpened)[-1].stream, arena.now)
    assert arena.survives() and arena.empty()


def test_the_closed_connection_is_the_only_one():
    arena = Arena()
    crowd = [arena.attacker() for _ in range(5)]
    for number, attacker in enumerate(crowd):
        attacker.send(frame(0x0100_0000, 0, 0))
        assert len(arena.of(ConnectionClosed)) == number + 1
        assert [one.closed for one in crowd] == [True] * (number + 1) + [False] * (4 - number)
    assert arena.survives() and arena.empty()


def test_row_38_only_bytes_that_came_are_passed_on():
    arena = Arena()
    attacker = arena.attacker()
    attacker.send(proposal(1, "/app"))
    (opened,) = arena.of(StreamOpened)

    def read():
        return arena.node.stream_read(opened.stream, 1 << 20, arena.now)

    attacker.send(frame(0, 1, 1000) + b"the first of them")
    assert read() == b"the first of them" and read() is None
    assert connection_of(arena, attacker).muxer.unread == 0
    attacker.send(b".")
    assert read() == b"." and read() is None
    attacker.send(bytes(1000 - 18) + data_frame(0, 1, b"the next frame"))
    assert read() + read() == bytes(1000 - 18) + b"the next frame" and read() is None
    arena.node.stream_close(opened.stream, arena.now)
    assert arena.survives() and arena.empty()
