"""A whole node: its inputs, outputs, commands and limits. Attacks are in tests/hostile."""

import pytest
from connection_pair import tls
from fake_layers import Maker
from node_pair import CRYPTO, LOCAL, REMOTE, Pair, make_key, make_node
from stranger import one_by_one

from anyp2p.providers.entropy import OsEntropy
from anyp2p.providers.xsalsa20 import SalsaCiphers
from anyp2p_core import (
    CloseConnection,
    ConnectionClosed,
    ConnectionLost,
    ConnectionOpened,
    Dial,
    DialError,
    DialFailed,
    HandshakeError,
    IdentifyFailed,
    LimitReached,
    Limits,
    LocalError,
    Multiaddr,
    MuxerError,
    NegotiationError,
    PauseReading,
    PeerConnected,
    PeerIdentified,
    PeerIdMismatch,
    PerfFailed,
    PerfFinished,
    PingSucceeded,
    ResumeReading,
    Service,
    StreamFailed,
    StreamOpened,
    StreamReadable,
    StreamReset,
    TimedOut,
)
from anyp2p_core.echo import Echo
from anyp2p_core.node import PAUSE_AT
from anyp2p_core.perf import Perf
from anyp2p_core.plaintext import PlaintextSecurity
from anyp2p_core.pnet import PreSharedKey, PrivateNetwork
from anyp2p_core.route import route
from anyp2p_core.security import NoiseSecurity


def outputs(node, kind):
    return [item for item in node.poll() if isinstance(item, kind)]


def accept(node, now=0.0, remote=REMOTE):
    """A connection that a stranger opens; None when it is refused."""
    conn = node.connected(None, LOCAL, remote, now)
    refused = outputs(node, CloseConnection)
    assert refused in ([], [CloseConnection(conn, abort=True)])
    return None if refused else conn


def nothing_left(side):
    node = side.node
    assert node.connections() == [] == node.connected_peers() == node.writable()
    assert len(node.timers) == node.unread == 0
    assert node.next_timeout() is None
    return True


def together(*options, **common):
    """A pair that serves /app from the start, settled."""
    a, b = options or ({}, {})
    pair = Pair(make_node(**a, **common), make_node(**b, **common), connect=False)
    for side in (pair.a, pair.b):
        side.node.handle("/app", pair.now)
    pair.connect()
    pair.wait(10)
    return pair


# Connections.


def test_both_ends_are_told_and_know_each_other():
    pair = Pair()
    for here, there in pair.sides:
        node, peer = here.node, there.node.peer_id
        opened = here.last(ConnectionOpened)
        assert (opened.conn, opened.peer, opened.inbound) == (here.conn, peer, here is pair.b)
        assert opened.address == (LOCAL if here is pair.a else REMOTE)
        assert node.connected_peers() == [peer]
        assert node.is_connected(peer)
        assert node.connection(peer).id == here.conn
        assert node.connections() == node.connections(peer) == [node.connection(peer)]
        assert here.last(PeerIdentified).peer == peer
        assert node.identified(peer).agent == "anyp2p"
        assert not node.is_connected(make_key().peer_id)
        assert node.identified(make_key().peer_id) is None
    assert pair.a.last(PeerConnected) == PeerConnected(pair.dial, pair.b.node.peer_id, pair.a.conn)
    assert pair.a.node.peers.addresses(pair.b.node.peer_id, pair.now)


def test_ends_of_connections_are_told():
    pair = Pair()
    pair.hang_up(pair.a, pair.b, OSError("the cable"))
    ours, theirs = pair.a.last(ConnectionClosed), pair.b.last(ConnectionClosed)
    assert (ours.conn, ours.peer, str(ours.error)) == (
        pair.a.conn,
        pair.b.node.peer_id,
        "the cable",
    )
    assert (theirs.peer, theirs.error) == (pair.a.node.peer_id, None)
    assert nothing_left(pair.a) and nothing_left(pair.b)
    with pytest.raises(LocalError, match="not connected"):
        pair.a.node.connection(pair.b.node.peer_id)


@pytest.mark.parametrize("after", range(0, 500, 37))
def test_a_connection_that_ends_during_the_upgrade(after):
    pair = Pair(connect=False, cut=lambda data: [data[:after]] if data else [])
    pair.connect()
    if pair.a.of(ConnectionOpened):
        return
    pair.hang_up(pair.a, pair.b)
    assert isinstance(pair.a.last(ConnectionClosed).error, HandshakeError)
    assert pair.a.last(ConnectionClosed).peer is None
    failed = pair.a.last(DialFailed)
    assert isinstance(failed.error, DialError) and "during negotiation" in str(failed.error)
    assert nothing_left(pair.a) and nothing_left(pair.b)


def test_the_end_of_the_bytes_is_the_end_of_the_connection():
    pair = together()
    ours, _ = pair.opened()
    pair.a.node.receive_eof(pair.a.conn, pair.now)
    assert outputs(pair.a.node, CloseConnection) == [CloseConnection(pair.a.conn, abort=False)]
    with pytest.raises(ConnectionLost):
        pair.a.node.stream_read(ours, 1, pair.now)
    assert not pair.a.node.is_connected(pair.b.node.peer_id)


def test_the_end_of_the_bytes_in_the_middle_of_a_message_is_an_error():
    pair = together()
    pair.a.node.receive(pair.a.conn, b"\x01", pair.now)
    pair.a.node.receive_eof(pair.a.conn, pair.now)
    pair.run()
    assert pair.a.last(CloseConnection).abort
    assert isinstance(pair.a.last(ConnectionClosed).error, HandshakeError)


def test_unknown_connections_are_ignored():
    node = make_node()
    node.receive(99, b"data", 0.0)
    node.receive_eof(99, 0.0)
    node.disconnected(99, None, 0.0)
    node.dial_failed(99, OSError("x"), 0.0)
    node.blocked(99, True, 0.0)
    node.close(99, 0.0)
    node.abort(99, 0.0)
    node.cancel_dial(99)
    node.cancel_open(99, 0.0)
    node.stream_close(99, 0.0)
    node.stream_reset(99, 0, 0.0)
    node.cancel_perf(99, 0.0)
    assert node.fail(99, OSError("x"), 0.0) is False
    assert node.data_to_send(99, 0.0) == b""
    assert node.poll() == [] == node.writable()
    for call in (
        lambda: node.stream_read(99, 1, 0.0),
        lambda: node.stream_write(99, b""),
        lambda: node.stream_writable(99),
        lambda: node.stream_drained(99),
        lambda: node.stream_write_eof(99),
    ):
        with pytest.raises(LocalError, match="stream 99 was closed"):
            call()


def test_nothing_is_read_after_an_error():
    node = make_node()
    conn = accept(node)
    node.receive(conn, b"GET / HTTP/1.1\r\n", 1.0)
    assert outputs(node, CloseConnection) == [CloseConnection(conn, abort=True)]
    node.receive(conn, b"more of it", 1.0)
    node.receive_eof(conn, 1.0)
    node.handle_timeout(1000.0)
    assert node.poll() == []
    node.disconnected(conn, None, 1000.0)
    (closed,) = outputs(node, ConnectionClosed)
    assert isinstance(closed.error, NegotiationError) and closed.peer is None
    assert len(node.timers) == 0


def test_the_last_word_of_a_refusal_is_sent():
    node = make_node()
    conn = accept(node)
    node.receive(conn, b"\x13/multistream/1.0.0\n\x07/tls/1\n\xff\xff\xff", 0.0)
    assert node.writable() == [conn]
    assert node.data_to_send(conn, 0.0) == b"\x13/multistream/1.0.0\n\x03na\n"
    assert node.writable() == []


def test_only_connections_with_something_to_send_are_writable():
    node = make_node()
    conns = [accept(node) for _ in range(3)]
    assert node.writable() == []
    for conn in conns:
        node.receive(conn, b"\x13/multistream/1.0.0\n\x03/x\n", 0.0)
    node.blocked(conns[1], True, 0.0)
    assert node.writable() == [conns[0], conns[2]]
    assert node.data_to_send(conns[0], 0.0) and node.data_to_send(conns[2], 0.0)
    assert node.writable() == []
    node.blocked(conns[1], False, 1.0)
    node.blocked(conns[1], False, 1.0)
    assert node.writable() == [conns[1]]


def test_what_is_left_of_a_dead_connection_is_not_sent():
    pair = Pair(connect=False)
    pair.run = lambda: None
    pair.connect()
    del pair.run
    a, b = pair.a.node, pair.b.node
    b.receive(pair.b.conn, a.data_to_send(pair.a.conn, pair.now), pair.now)
    a.receive(pair.a.conn, b.data_to_send(pair.b.conn, pair.now), pair.now)
    stream = a.open_stream(b.peer_id, ["/app"], pair.now)  # the handshake's end is still here
    a.disconnected(pair.a.conn, None, pair.now)
    a.stream_reset(stream, 0, pair.now)
    assert a.writable() == []


def test_a_peer_that_is_us():
    key = make_key()
    pair = Pair(make_node(key), make_node(key), connect=False)
    pair.connect(expected=None)
    assert "leads back to this node" in str(pair.a.last(DialFailed).error)
    assert isinstance(pair.a.last(ConnectionClosed).error, HandshakeError)
    assert not pair.a.of(ConnectionOpened) and not pair.b.of(ConnectionOpened)
    assert nothing_left(pair.a) and nothing_left(pair.b)


def test_row_37_another_peer_than_dialed_is_never_surfaced():
    pair = Pair(connect=False)
    expected = make_key().peer_id
    pair.connect(expected=expected)
    assert isinstance(pair.a.last(ConnectionClosed).error, PeerIdMismatch)
    assert not pair.a.of(ConnectionOpened) and not pair.a.of(PeerConnected)
    assert str(pair.b.node.peer_id) in str(pair.a.last(DialFailed).error)
    for peer in (expected, pair.b.node.peer_id):
        assert not pair.a.node.peers.addresses(peer, pair.now)
        assert not pair.a.node.is_connected(peer)
    assert nothing_left(pair.a) and nothing_left(pair.b)


def test_security_is_what_was_given_and_nothing_else():
    def secured(*kinds):
        key = make_key()
        made = {
            "noise": lambda: NoiseSecurity(key, CRYPTO, OsEntropy()),
            "plaintext": lambda: PlaintextSecurity(key, CRYPTO),
        }
        return make_node(key, security=[made[kind]() for kind in kinds])

    pair = Pair(secured("plaintext", "noise"), secured("noise", "plaintext"))
    assert pair.a.node.connections()[0].negotiated.security == "/plaintext/2.0.0"
    pair = Pair(secured("plaintext"), secured("noise"), connect=False)
    pair.connect()
    assert isinstance(pair.b.last(ConnectionClosed).error, NegotiationError)
    assert isinstance(pair.a.last(ConnectionClosed).error, NegotiationError)


def test_close_delivers_what_was_written():
    pair = together()
    ours, theirs = pair.opened()
    assert pair.a.node.stream_write(ours, bytes(100_000)) == 100_000
    pair.a.node.close(pair.a.conn, pair.now)
    pair.run()
    got = 0
    while data := pair.b.node.stream_read(theirs, 1 << 20, pair.now):
        got += len(data)
    assert got == 100_000
    assert pair.a.last(CloseConnection) == CloseConnection(pair.a.conn, abort=False)
    assert [side.last(ConnectionClosed).error for side in (pair.a, pair.b)] == [None, None]
    assert nothing_left(pair.a) and nothing_left(pair.b)


def test_close_during_the_upgrade_is_an_abort():
    node = make_node()
    conn = accept(node)
    node.close(conn, 0.0)
    node.close(conn, 0.0)
    assert outputs(node, CloseConnection) == [CloseConnection(conn, abort=True)]


def test_close_waits_for_no_stream_that_is_gone():
    pair = together()
    pair.obeys = False
    ours, theirs = pair.opened()
    pair.a.node.stream_write(ours, bytes(400_000))
    pair.run()
    pair.a.node.stream_write(ours, bytes(100_000))
    pair.a.node.close(pair.a.conn, pair.now)
    pair.run()
    assert not pair.a.of(CloseConnection)
    pair.b.node.stream_reset(theirs, 0, pair.now)
    pair.run()
    assert pair.a.of(CloseConnection) == [CloseConnection(pair.a.conn, abort=False)]


def test_the_first_failure_of_a_connection_counts():
    pair = together()
    node, conn = pair.a.node, pair.a.conn
    assert node.fail(conn, TimedOut("first"), pair.now)
    assert node.fail(conn, TimedOut("second"), pair.now)
    assert outputs(node, CloseConnection) == [CloseConnection(conn, abort=True)]
    node.disconnected(conn, None, pair.now)
    assert str(outputs(node, ConnectionClosed)[0].error) == "first"


def test_the_oldest_usable_connection_is_taken():
    keys = make_key(), make_key()
    nodes = [make_node(key) for key in keys]
    pairs = []
    for _ in range(2):
        pairs.append(Pair(nodes[1], nodes[0], connect=False))
        pairs[-1].connect(expected=None)
    peer = nodes[1].peer_id
    assert nodes[0].connection(peer).id == pairs[0].b.conn
    assert nodes[0].identified(peer).peer == peer
    pairs[0].obeys = False
    nodes[0].close(pairs[0].b.conn, 100.0)
    assert nodes[0].connection(peer).id == pairs[1].b.conn
    assert nodes[0].connections(peer) == [nodes[0].connection(peer)]


def test_nobody_is_identified_before_it_says_so():
    pair = Pair(b=make_node(limits=Limits(max_negotiating_streams=0)))
    assert pair.a.of(ConnectionOpened) and pair.a.of(IdentifyFailed)
    assert pair.a.node.identified(pair.b.node.peer_id) is None


def test_limit_max_unread_total():
    pair = together({}, {"limits": Limits(max_unread_total=1000)})
    ours, theirs = pair.opened()
    pair.a.node.stream_write(ours, bytes(1000))
    pair.run()
    assert pair.b.node.unread == 1000
    other, _ = pair.opened()
    pair.a.node.stream_write(other, b"!")
    pair.run()
    assert pair.b.node.unread == 1
    with pytest.raises(StreamReset, match="max_unread_total"):
        pair.b.node.stream_read(theirs, 10, pair.now)
    with pytest.raises(StreamReset):  # the peer is told at once
        pair.a.node.stream_write(ours, b"more")


# Limits of connections.


def test_limit_upgrade_timeout_is_not_extended_by_bytes():
    node = make_node(limits=Limits(upgrade_timeout=8.0))
    conn = accept(node, 1.0)
    for n, byte in enumerate(b"\x13/multist"):
        node.receive(conn, bytes([byte]), 1.0 + n * 0.7)
    node.handle_timeout(8.9)
    assert node.poll() == []
    node.handle_timeout(node.next_timeout())
    assert outputs(node, CloseConnection) == [CloseConnection(conn, abort=True)]
    node.disconnected(conn, None, 9.0)
    assert isinstance(outputs(node, ConnectionClosed)[0].error, TimedOut)


def test_limit_max_connections():
    node = make_node(limits=Limits(max_connections=2))
    assert accept(node)
    node.dial(make_key().peer_id, [LOCAL], 0.0)  # one more is still possible
    dial = outputs(node, Dial)[0]
    node.connected(dial.conn, REMOTE, LOCAL, 0.0)
    assert accept(node) is None
    with pytest.raises(LimitReached, match="max_connections: 2"):
        node.dial(make_key().peer_id, [LOCAL], 0.0)
    node.disconnected(dial.conn, None, 0.0)
    assert accept(node)


def test_limits_of_inbound_connections():
    node = make_node(limits=Limits(max_inbound_connections=2, max_pending_inbound=1))
    first = accept(node)
    assert accept(node) is None
    node.disconnected(first, None, 0.0)
    pairs = []
    for _ in range(2):
        pairs.append(Pair(None, node, connect=False))
        pairs[-1].connect()
        assert pairs[-1].b.of(ConnectionOpened)
    assert accept(node) is None
    pairs[0].hang_up(pairs[0].a, pairs[0].b)
    assert accept(node)
    assert accept(node) is None


def test_limit_max_connections_per_peer():
    limits = Limits(max_connections_per_peer=2)
    key = make_key()
    node = make_node(limits=limits)
    pairs = []
    for _ in range(3):
        pairs.append(Pair(make_node(key), node, connect=False))
        pairs[-1].connect()
    assert len(node.connections(key.peer_id)) == 2
    assert [len(pair.b.of(ConnectionOpened)) for pair in pairs] == [1, 1, 0]
    refused = pairs[2].b.last(ConnectionClosed).error
    assert isinstance(refused, MuxerError) and "max_connections_per_peer" in str(refused)
    told = pairs[2].a.last(ConnectionClosed).error  # why, in the GoAway's code
    assert isinstance(told, MuxerError) and told.code == 0x1001
    assert node.connected_peers() == [key.peer_id]
    pairs[0].hang_up(pairs[0].a, pairs[0].b)
    assert node.connected_peers() == [key.peer_id]
    pairs[1].hang_up(pairs[1].a, pairs[1].b)
    assert node.connected_peers() == []


def test_limit_send_timeout():
    pair = together(limits=Limits(send_timeout=20.0, keepalive_timeout=100.0))
    node, conn, start = pair.a.node, pair.a.conn, pair.now
    node.blocked(conn, True, start)
    node.blocked(conn, True, start + 1)  # the same time counts on
    pair.wait(19.0)
    node.blocked(conn, False, pair.now)
    node.blocked(conn, True, pair.now)  # it took something: the clock starts anew
    pair.wait(19.5)
    assert not pair.a.of(CloseConnection)
    pair.wait(0.5)
    assert isinstance(pair.a.last(ConnectionClosed).error, TimedOut)
    assert nothing_left(pair.a) and nothing_left(pair.b)


def test_a_transport_that_takes_bytes_again_is_left_alone():
    pair = together()
    node, conn = pair.a.node, pair.a.conn
    node.blocked(conn, True, pair.now)
    pair.wait(5)
    node.blocked(conn, False, pair.now)
    pair.wait(60)
    assert node.is_connected(pair.b.node.peer_id)
    node.blocked(conn, True, pair.now)
    pair.hang_up(pair.a, pair.b)
    pair.wait(60)
    assert nothing_left(pair.a)


def test_a_peer_that_is_silent_is_dropped():
    pair = together(limits=Limits(keepalive_interval=30.0, keepalive_timeout=10.0))
    pair.wait(300)
    assert pair.a.node.is_connected(pair.b.node.peer_id)  # both answer pings
    start = pair.now
    pair.b.node.writable = lambda: []
    pair.wait(100)
    assert isinstance(pair.a.last(ConnectionClosed).error, TimedOut)
    assert pair.a.of(CloseConnection) and pair.now - start <= 100


def test_a_peer_that_cannot_be_sent_to_is_watched_from_the_start():
    pair = Pair(connect=False)
    pair.run = lambda: None
    pair.connect()
    del pair.run
    a, b = pair.a.node, pair.b.node
    now = pair.now
    b.receive(pair.b.conn, a.data_to_send(pair.a.conn, now), now)
    a.receive(pair.a.conn, b.data_to_send(pair.b.conn, now), now)
    assert a.timers.reasons().count("keepalive") == 1  # nothing of the session was sent yet
    a.handle_timeout(now + 10)
    assert a.timers.reasons().count("keepalive") == 1


def test_a_timer_of_a_connection_that_failed_does_nothing():
    pair = together()
    pair.obeys = False
    pair.a.node.abort(pair.a.conn, pair.now)
    pair.a.poll()
    count = len(pair.a.actions)
    pair.a.node.handle_timeout(pair.now + 1000)
    pair.a.poll()
    assert len(pair.a.actions) == count
    node = make_node()
    conn = accept(node)
    node.abort(conn, 0.0)
    node.poll()
    node.handle_timeout(1000.0)
    assert node.poll() == []


# Dialing.


def test_a_connected_peer_is_not_dialed_again():
    pair = Pair()
    request = pair.a.node.dial(pair.b.node.peer_id, [LOCAL], pair.now)
    assert pair.a.node.poll() == [PeerConnected(request, pair.b.node.peer_id, pair.a.conn)]


def test_a_peer_whose_connection_closes_is_dialed_again():
    pair = together()
    pair.obeys = False
    pair.a.node.close(pair.a.conn, pair.now)
    pair.a.poll()
    pair.a.node.dial(pair.b.node.peer_id, [LOCAL], pair.now)
    (dial,) = outputs(pair.a.node, Dial)
    assert dial.address == LOCAL


def test_a_peer_that_goes_away_is_dialed_again():
    pair = together()
    connection = pair.b.node.connections()[0]
    connection.muxer.go_away()
    pair.b.node.touch(connection)
    pair.run()
    assert not pair.a.node.is_connected(pair.b.node.peer_id)
    pair.a.node.dial(pair.b.node.peer_id, [LOCAL], pair.now)
    assert outputs(pair.a.node, Dial)


def test_addresses_may_name_the_peer_and_known_ones_are_tried_too():
    node = make_node()
    peer = make_key().peer_id
    node.peers.add_addresses(peer, [Multiaddr("/ip4/192.0.2.7/tcp/7")], 0.0)
    only = Multiaddr(f"/p2p/{peer}")
    node.dial(peer, [LOCAL / Multiaddr(f"/p2p/{peer}"), only], 0.0)
    dialed = []
    for _ in range(5):
        dialed += [str(item.address) for item in outputs(node, Dial)]
        if node.next_timeout() is not None:
            node.handle_timeout(node.next_timeout())
    assert dialed == [str(LOCAL), "/ip4/192.0.2.7/tcp/7"]


def test_a_dial_that_was_cancelled_is_not_wanted_any_more():
    node = make_node()
    request = node.dial(make_key().peer_id, [LOCAL], 0.0)
    (dial,) = outputs(node, Dial)
    node.cancel_dial(request)
    assert outputs(node, CloseConnection) == [CloseConnection(dial.conn, abort=True)]
    node.connected(dial.conn, REMOTE, LOCAL, 0.0)
    assert outputs(node, CloseConnection) == [CloseConnection(dial.conn, abort=True)]
    node.disconnected(dial.conn, None, 0.0)
    assert node.poll() == [] and len(node.timers) == 0


def test_a_connection_is_told_of_once():
    node = make_node()
    node.dial(make_key().peer_id, [LOCAL], 0.0)
    (dial,) = outputs(node, Dial)
    node.connected(dial.conn, REMOTE, LOCAL, 0.0)
    node.connected(dial.conn, REMOTE, LOCAL, 0.0)
    assert outputs(node, CloseConnection) == [CloseConnection(dial.conn, abort=True)]


def test_dials_fail_with_the_reason():
    node = make_node()
    request = node.dial(make_key().peer_id, [LOCAL], 0.0)
    (dial,) = outputs(node, Dial)
    node.dial_failed(dial.conn, OSError("connection refused"), 0.0)
    (failed,) = outputs(node, DialFailed)
    assert failed.dial == request and "connection refused" in str(failed.error)
    assert len(node.timers) == 0
    request = node.dial(make_key().peer_id, [LOCAL], 0.0)
    (dial,) = outputs(node, Dial)
    node.disconnected(dial.conn, None, 0.0)
    (failed,) = outputs(node, DialFailed)
    assert "was cancelled" in str(failed.error)


def test_limit_dial_timeout_ends_an_upgrade_too():
    node = make_node(limits=Limits(dial_timeout=3.0))
    node.dial(make_key().peer_id, [LOCAL], 0.0)
    (dial,) = outputs(node, Dial)
    node.connected(dial.conn, REMOTE, LOCAL, 1.0)
    assert node.data_to_send(dial.conn, 1.0)
    node.handle_timeout(3.0)
    assert outputs(node, CloseConnection) == [CloseConnection(dial.conn, abort=True)]
    node.disconnected(dial.conn, None, 3.0)
    failed = outputs(node, DialFailed)[0].error
    assert "no answer within 3 s" in str(failed)
    assert len(node.timers) == 0


# Slow readers.


def test_reading_pauses_when_answers_pile_up_and_resumes():
    pair = together()
    a, b = pair.a.node, pair.b.node
    b.blocked(pair.b.conn, True, pair.now)
    peer = a.connections()[0]
    # The other side opens streams that end at once: each makes us answer with a reset.
    b.connections()[0].closing = True
    segments = 0
    while not pair.b.of(PauseReading):
        for _ in range(100):
            peer.muxer.open(pair.now).write(b"x")
        a.touch(peer)
        pair.run()
        for stream in list(peer.muxer.streams.values()):
            stream.reset()
        pair.now += 1.0
        segments += 1
        assert segments < 200
    assert pair.b.of(PauseReading) == [PauseReading(pair.b.conn)]
    b.receive(pair.b.conn, a.data_to_send(pair.a.conn, pair.now), pair.now)
    assert b.poll() == []  # once is enough
    for _ in range(2):
        b.blocked(pair.b.conn, False, pair.now)
    assert outputs(b, ResumeReading) == [ResumeReading(pair.b.conn)]


# Streams.


@pytest.mark.parametrize("optimistic", [True, False])
def test_streams_reach_the_application(optimistic):
    pair = together()
    node, peer = pair.a.node, pair.b.node.peer_id
    stream = node.open_stream(peer, ["/app"], pair.now, optimistic=optimistic)
    pair.a.poll()
    expected = StreamOpened(stream, pair.a.conn, peer, "/app", False)
    assert pair.a.of(StreamOpened) == ([expected] if optimistic else [])
    pair.run()
    assert pair.a.of(StreamOpened) == [expected]
    theirs = pair.b.last(StreamOpened)
    assert theirs == StreamOpened(theirs.stream, pair.b.conn, node.peer_id, "/app", True)
    assert node.stream(stream).protocol == "/app" and not node.stream(stream).inbound
    assert pair.b.node.stream(theirs.stream).inbound
    assert node.stream_write(stream, b"hello") == 5
    assert not node.stream_drained(stream)
    pair.run()
    assert pair.b.node.stream_read(theirs.stream, 10, pair.now) == b"hello"
    assert node.stream_drained(stream) and node.stream_writable(stream)


def test_a_protocol_that_the_peer_is_known_not_to_speak_is_asked_for_first():
    pair = together()
    stream = pair.a.node.open_stream(pair.b.node.peer_id, ["/other"], pair.now)
    pair.run()
    assert pair.a.of(StreamOpened) == []
    failed = pair.a.last(StreamFailed)
    assert failed.stream == stream and isinstance(failed.error, NegotiationError)
    assert not pair.a.node.connections()[0].muxer.streams


def test_a_protocol_that_the_peer_gave_up_since_shows_as_an_error():
    pair = together()
    pair.b.node.unhandle("/app", pair.now)
    node = pair.a.node
    stream = node.open_stream(pair.b.node.peer_id, ["/app"], pair.now)
    node.stream_write(stream, b"early")
    pair.run()
    with pytest.raises((NegotiationError, StreamReset)):
        node.stream_read(stream, 1, pair.now)
    assert not pair.a.of(StreamFailed)  # it had been opened
    assert pair.a.of(StreamReadable)


def test_limit_negotiation_timeout():
    pair = together(limits=Limits(negotiation_timeout=2.0))
    pair.b.node.writable = lambda: []
    node = pair.a.node
    told = node.open_stream(pair.b.node.peer_id, ["/app", "/b"], pair.now)
    shown = node.open_stream(pair.b.node.peer_id, ["/app"], pair.now)
    closed = node.open_stream(pair.b.node.peer_id, ["/app"], pair.now)
    node.stream_close(closed, pair.now)
    pair.wait(1.9)
    assert not pair.a.of(StreamFailed)
    pair.wait(0.1)
    (failed,) = pair.a.of(StreamFailed)
    assert failed.stream == told and isinstance(failed.error, TimedOut)
    with pytest.raises(TimedOut):
        node.stream_read(shown, 1, pair.now)
    assert not node.connections()[0].muxer.streams


def test_streams_that_are_opening_fail_with_their_connection():
    pair = together()
    pair.b.node.writable = lambda: []
    node = pair.a.node
    stream = node.open_stream(pair.b.node.peer_id, ["/app", "/b"], pair.now)
    pair.hang_up(pair.a, pair.b, OSError("the cable"))
    failed = pair.a.last(StreamFailed)
    assert failed.stream == stream
    assert isinstance(failed.error, ConnectionLost) and "the cable" in str(failed.error)


def test_cancelled_opens_are_reset_at_both_ends():
    pair = together()
    node, peer = pair.a.node, pair.b.node.peer_id
    opened = node.open_stream(peer, ["/app"], pair.now)
    opening = node.open_stream(peer, ["/app", "/b"], pair.now)
    never_sent = node.open_stream(peer, ["/app", "/b"], pair.now)
    node.cancel_open(never_sent, pair.now)
    for conn in node.writable():
        pair.b.node.receive(pair.b.conn, node.data_to_send(conn, pair.now), pair.now)
    assert len(pair.b.node.connections()[0].muxer.streams) == 2
    node.cancel_open(opened, pair.now)
    node.cancel_open(opening, pair.now)
    node.cancel_open(opening, pair.now)
    pair.run()
    assert not pair.b.node.connections()[0].muxer.streams
    assert not node.connections()[0].muxer.streams
    assert not pair.a.of(StreamFailed)
    with pytest.raises(LocalError):
        node.stream(opened)


def test_streams_need_a_connection():
    node = make_node()
    with pytest.raises(LocalError, match="connect first"):
        node.open_stream(make_key().peer_id, ["/app"], 0.0)


def test_reading_alone_grants_new_window():
    pair = together()
    ours, theirs = pair.opened()
    pair.a.node.stream_write(ours, bytes(200_000))
    pair.run()
    while pair.b.node.stream_read(theirs, 1 << 20, pair.now):
        pass
    assert pair.b.node.writable() == [pair.b.conn]


@pytest.mark.parametrize("how", ["close", "reset", "cancel"])
def test_a_stream_that_was_left_is_forgotten(how):
    pair = together()
    node = pair.a.node
    ours, theirs = pair.opened()
    connection = node.connections()[0]
    assert list(connection.app_streams) == [ours]
    if how == "close":
        node.stream_close(ours, pair.now)
    elif how == "reset":
        node.stream_reset(ours, 7, pair.now)
    else:
        node.cancel_open(ours, pair.now)
    assert not connection.app_streams
    pair.run()
    if how == "close":
        assert pair.b.node.stream_read(theirs, 1, pair.now) == b""
    else:
        with pytest.raises(StreamReset) as caught:
            pair.b.node.stream_read(theirs, 1, pair.now)
        assert caught.value.code == (7 if how == "reset" else 0)


def test_peers_are_told_which_handlers_there_are():
    pair = together()
    pair.b.node.handle("/new", pair.now)
    pair.wait(1)
    assert "/new" in pair.a.node.identified(pair.b.node.peer_id).protocols
    pair.b.node.unhandle("/new", pair.now)
    pair.wait(1)
    assert "/new" not in pair.a.node.identified(pair.b.node.peer_id).protocols


def test_handlers_come_and_go():
    node = make_node()
    node.handle("/app", 0.0)
    assert "/app" in node.protocols and node.supports("/app")
    with pytest.raises(LocalError, match="has a handler already"):
        node.handle("/app", 0.0)
    with pytest.raises(LocalError, match="has a handler already"):
        node.handle("/ipfs/ping/1.0.0", 0.0)
    node.unhandle("/app", 0.0)
    assert not node.supports("/app")
    for protocol in ("/app", "/ipfs/ping/1.0.0"):
        with pytest.raises(LocalError, match="does not handle"):
            node.unhandle(protocol, 0.0)


@pytest.mark.parametrize("name", ["", "app", "/a\n", "/" + "x" * 1023, "/a\0b"])
def test_names_that_cannot_be_handled(name):
    node = make_node()
    with pytest.raises(LocalError, match="protocol name"):
        node.handle(name, 0.0)
    assert name not in node.protocols


# Services.


class Notebook(Service):
    """Writes down what it is told."""

    protocols = ("/notes",)

    def __init__(self):
        self.notes = []

    def on_connected(self, connection, now):
        self.notes.append(("connected", connection.id))

    def on_disconnected(self, connection, now):
        self.notes.append(("disconnected", connection.id, connection.error is not None))

    def on_stream(self, connection, stream, protocol, now):
        self.notes.append(("stream", protocol))
        stream.on_data = lambda data, now: stream.credit(len(data), now)

    def on_event(self, event, now):
        self.notes.append((type(event).__name__, now))


def test_services_are_told():
    notebook = Notebook()
    pair = together({"services": [notebook]}, {})
    conn = pair.a.conn
    assert notebook.context is pair.a.node
    stream = pair.b.node.open_stream(pair.a.node.peer_id, ["/notes"], pair.now)
    pair.run()
    pair.b.node.stream_write(stream, b"x")
    pair.run()
    pair.hang_up(pair.a, pair.b)
    wanted = [
        ("ConnectionOpened", 100.0),
        ("PeerConnected", 100.0),
        ("connected", conn),
        ("PeerIdentified", 100.0),
        ("stream", "/notes"),
        ("disconnected", conn, True),
        ("ConnectionClosed", 110.0),
    ]
    assert [note for note in notebook.notes if note in wanted] == wanted


def test_services_are_told_when_it_happened():
    notebook = Notebook()
    node = make_node(services=[notebook])

    def last():
        return notebook.notes[-1]

    node.dial(None, [], 1.0)
    assert last() == ("DialFailed", 1.0)
    node.dial(make_key().peer_id, [LOCAL], 2.0)
    (dial,) = outputs(node, Dial)
    node.dial_failed(dial.conn, OSError("refused"), 3.0)
    assert last() == ("DialFailed", 3.0)
    node.dial(make_key().peer_id, [LOCAL], 4.0)
    node.handle_timeout(60.0)
    assert last() == ("DialFailed", 60.0)
    node.poll()
    node.disconnected(accept(node, 61.0), None, 62.0)
    assert last() == ("ConnectionClosed", 62.0)
    pair = Pair(node, connect=False)
    pair.run = lambda: None
    pair.connect()
    del pair.run
    pair.b.node.receive(pair.b.conn, node.data_to_send(pair.a.conn, 100.0), 100.0)
    node.receive(pair.a.conn, pair.b.node.data_to_send(pair.b.conn, 100.0), 101.0)
    assert ("ConnectionOpened", 101.0) in notebook.notes
    node.open_stream(pair.b.node.peer_id, ["/app"], 101.0)
    node.receive_eof(pair.a.conn, 103.0)
    assert last() == ("StreamDrained", 103.0)


def test_services_may_use_the_context():
    pair = together()
    node, connection = pair.a.node, pair.a.node.connections()[0]
    ran = []
    handle = node.call_at(pair.now + 1, "example", ran.append)
    node.call_at(pair.now + 2, "example", ran.append)
    node.cancel(handle)
    pair.wait(3)
    assert ran == [112.0]
    assert node.wall(5.0) == 5.0 + node.epoch
    connection.muxer.go_away()
    node.touch(connection)
    assert node.writable() == [connection.id]
    pair.hang_up(pair.a, pair.b)
    node.touch(connection)
    assert node.writable() == []


def test_two_services_cannot_have_the_same_protocol():
    with pytest.raises(LocalError, match="/notes has a handler already"):
        make_node(services=[Notebook(), Notebook()])


def test_addresses_are_told_to_peers():
    pair = together()
    where = Multiaddr("/ip4/127.0.0.1/tcp/9")
    pair.b.node.listening([where], pair.now)
    pair.wait(1)
    assert pair.a.last(PeerIdentified).pushed
    assert pair.a.node.identified(pair.b.node.peer_id).addresses == (where,)


def test_ping():
    pair = together()
    request = pair.a.node.ping(pair.b.node.peer_id, pair.now)
    pair.run()
    assert pair.a.last(PingSucceeded).request == request


def test_perf_is_there_when_it_is_asked_for():
    pair = together({}, {"services": [Perf(serve=True)]})
    node, peer = pair.a.node, pair.b.node.peer_id
    node.cancel_perf(1, pair.now)
    request = node.perf(peer, 100_000, 200_000, pair.now)
    pair.run()
    done = pair.a.last(PerfFinished)
    assert (done.request, done.uploaded, done.downloaded) == (request, 100_000, 200_000)
    second = node.perf(peer, 1, 10**9, pair.now)
    node.cancel_perf(second, pair.now)
    pair.run()
    assert pair.a.last(PerfFailed).request == second
    with pytest.raises(LocalError):
        node.perf(make_key().peer_id, 1, 1, pair.now)


def test_echo():
    pair = together({}, {"services": [Echo()]})
    node = pair.a.node
    stream = node.open_stream(pair.b.node.peer_id, ["/echo/1.0.0"], pair.now)
    node.stream_write(stream, b"hello")
    node.stream_write_eof(stream)
    pair.run()
    assert node.stream_read(stream, 10, pair.now) == b"hello"
    assert node.stream_read(stream, 10, pair.now) == b""


def test_a_service_begins_and_ends_to_serve():
    pair = Pair()
    service = Service()
    pair.a.node.serve(service, "/late", pair.now)
    assert "/late" in pair.a.node.protocols
    with pytest.raises(LocalError, match="has a handler"):
        pair.a.node.serve(service, "/late", pair.now)
    with pytest.raises(LocalError, match="does not handle"):
        pair.a.node.unhandle("/late", pair.now)
    pair.a.node.unserve("/late", pair.now)
    assert "/late" not in pair.a.node.protocols


# What lies under connections.


class Refusing:
    """Makes layers that cannot do what an address asks for, and sees it late."""

    def check(self, route):
        pass

    def start(self, *, initiator, route, write):
        raise LocalError("no certificate can be for that name")


def private(byte):
    return PrivateNetwork(PreSharedKey(byte * 32), SalsaCiphers(), OsEntropy())


@pytest.mark.parametrize(
    ("offers", "end"),
    [
        (((),), ""),
        ((("ws",),), "/ws"),
        ((("tls", "ws"),), "/tls/ws"),
        (((), ("ws",)), ""),  # nobody knows yet
    ],
)
def test_addresses_of_a_connection_name_its_layers(offers, end):
    node = make_node(layers={"ws": Maker(b"w"), "tls": Maker(b"t")})
    node.connected(None, LOCAL, REMOTE, 0.0, offers=offers)
    node.connected(None, None, None, 0.0, offers=offers)
    named, nameless = node._connections.values()
    assert (str(named.local), str(named.remote)) == (f"{LOCAL}{end}", f"{REMOTE}{end}")
    assert nameless.local is None is nameless.remote


@pytest.mark.parametrize(("first", "end"), [(b"GET", "/ws"), (b"\x13/m", "")])
def test_addresses_at_a_shared_port_name_the_layers_once_they_are_known(first, end):
    node = make_node(layers={"ws": Maker(b"w")})
    conn = node.connected(None, LOCAL, REMOTE, 0.0, offers=((), ("ws",)))
    [connection] = node._connections.values()
    node.receive(conn, first[:2], 0.0)
    assert str(connection.remote) == str(REMOTE)
    node.receive(conn, first[2:], 0.0)
    assert (str(connection.local), str(connection.remote)) == (f"{LOCAL}{end}", f"{REMOTE}{end}")


def test_layers_of_a_dial_are_those_of_its_address():
    maker = Maker(b"w", b"GET")
    node = make_node(layers={"ws": maker})
    node.dial(None, [LOCAL.encapsulate("/ws")], 0.0)
    [dial] = outputs(node, Dial)
    node.connected(dial.conn, REMOTE, LOCAL, 0.0)
    [(_, initiator, where)] = maker.made
    assert initiator and where == route(LOCAL.encapsulate("/ws"))
    [connection] = node._connections.values()
    assert str(connection.remote) == f"{LOCAL}/ws" and str(connection.local) == f"{REMOTE}/ws"
    assert node.writable() == [dial.conn]
    assert node.data_to_send(dial.conn, 0.0) == b"GET"  # the proposal waits for the answer
    assert node.writable() == []


@pytest.mark.parametrize(
    ("layers", "reason"), [({}, "WebSocket needs a provider"), ({"ws": Refusing()}, "certificate")]
)
def test_a_layer_that_cannot_be_made_fails_the_dial(layers, reason):
    node = make_node(layers=layers)
    node.dial(None, [LOCAL.encapsulate("/ws")], 0.0)
    said = node.poll()
    dials = [item for item in said if isinstance(item, Dial)]
    if dials:  # it may be known before
        node.connected(dials[0].conn, REMOTE, LOCAL, 0.0)
        said = node.poll()
        assert [one for one in said if isinstance(one, CloseConnection)] == [
            CloseConnection(dials[0].conn, abort=True)
        ]
        node.disconnected(dials[0].conn, None, 0.0)
    [failed] = [item for item in said if isinstance(item, DialFailed)]
    assert reason in str(failed.error)
    assert node.poll() == [] and not node._connections and len(node.timers) == 0


def test_a_layer_that_cannot_be_made_for_whoever_comes():
    node = make_node(layers={"ws": Refusing()}, limits=Limits(max_pending_inbound=1))
    for _ in range(3):  # none of them counts
        conn = node.connected(None, LOCAL, REMOTE, 0.0, offers=(("ws",),))
        assert outputs(node, CloseConnection) == [CloseConnection(conn, abort=True)]
        node.disconnected(conn, None, 0.0)
    assert accept(node) is not None


@pytest.mark.parametrize("segments", [None, one_by_one])
def test_a_private_network(segments):
    pair = Pair(make_node(private=private(b"k")), make_node(private=private(b"k")), cut=segments)
    assert pair.a.node.carriers.private
    assert pair.a.last(PeerConnected).peer == pair.b.node.peer_id


@pytest.mark.parametrize("theirs", [b"K", None])
def test_a_dial_into_another_private_network_says_what_it_may_be(theirs):
    other = make_node(private=private(theirs)) if theirs else make_node()
    pair = Pair(make_node(private=private(b"k")), other)
    assert "it may use another pre-shared key, or none" in str(pair.a.last(DialFailed).error)
    assert not pair.a.node._connections and not pair.b.node._connections


def test_a_dial_that_fails_in_the_right_private_network_says_why():
    ours, theirs = make_key(), make_key()
    pair = Pair(
        make_node(ours, private=private(b"k"), security=[PlaintextSecurity(ours, CRYPTO)]),
        make_node(theirs, private=private(b"k")),
    )
    error = str(pair.a.last(DialFailed).error)
    assert "supports none of /plaintext" in error and "pre-shared" not in error


def test_good_bye_of_the_peer_ends_the_connection():
    ours, theirs = make_key(), make_key()
    pair = Pair(make_node(ours, security=[tls(ours)]), make_node(theirs, security=[tls(theirs)]))
    pair.obeys = False
    pair.b.node.close(pair.b.conn, pair.now)
    pair.run()
    assert pair.a.of(CloseConnection) == [CloseConnection(pair.a.conn, abort=False)]
    assert pair.a.node.connections() == []
    pair.hang_up(pair.a, pair.b)
    assert pair.a.last(ConnectionClosed).error is None
    nothing_left(pair.a)


def test_who_reads_no_answers_of_a_layer_is_not_read_either():
    node = make_node(layers={"ws": Maker(b"w")})
    conn = node.connected(None, LOCAL, REMOTE, 0.0, offers=(("ws",),))
    node.blocked(conn, True, 0.0)
    node.receive(conn, b"?" * PAUSE_AT, 0.0)
    assert outputs(node, PauseReading) == []
    node.receive(conn, b"??", 0.0)
    assert outputs(node, PauseReading) == [PauseReading(conn)]
    node.receive(conn, b"?", 0.0)
    assert outputs(node, PauseReading) == []
    node.blocked(conn, False, 0.0)
    assert outputs(node, ResumeReading) == [ResumeReading(conn)]


def test_good_bye_during_the_upgrade_is_an_error():
    maker = Maker(b"w", b"GET")
    node = make_node(layers={"ws": maker})
    conn = node.connected(None, LOCAL, REMOTE, 0.0, offers=(("ws",),))
    node.receive(conn, b"GET~", 0.0)
    [closed] = outputs(node, CloseConnection) or [None]
    while node.writable():
        node.data_to_send(conn, 0.0)
    closed = closed or outputs(node, CloseConnection)[0]
    assert closed == CloseConnection(conn, abort=True)
    node.disconnected(conn, None, 0.0)
    assert isinstance(outputs(node, ConnectionClosed)[0].error, HandshakeError)
