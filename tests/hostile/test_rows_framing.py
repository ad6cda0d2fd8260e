"""Attacks before and around the secure channel, against a whole node."""

import gc
import logging

import pytest
from hostile.arena import HEADER, Arena, Attacker, data_frame, proposal
from node_pair import CRYPTO, LOCAL, REMOTE, make_key, make_node

from anyp2p.providers.entropy import OsEntropy
from anyp2p_core import (
    CloseConnection,
    ConnectionClosed,
    ConnectionOpened,
    Dial,
    DialFailed,
    HandshakeError,
    Limits,
    Multiaddr,
    MuxerError,
    NegotiationError,
    PeerIdentified,
    PeerIdMismatch,
    Service,
    StreamOpened,
    TimedOut,
)
from anyp2p_core.connection import Connection
from anyp2p_core.envelope import seal_peer_record
from anyp2p_core.multistream import MAX_PROPOSALS, encode
from anyp2p_core.negotiation import Inbound
from anyp2p_core.noise import Noise
from anyp2p_core.varint import delimited
from anyp2p_core.yamux_frame import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    RST,
    SYN,
    WINDOW_UPDATE,
    encode as frame,
)

FAR = Multiaddr("/ip4/203.0.113.9/tcp/4001")


def counted(*kinds):
    """Live objects of some classes."""
    gc.collect()
    return sum(isinstance(one, kinds) for one in gc.get_objects())


def test_row_1_ten_thousand_connections_of_a_byte_now_and_then():
    crowd = 10_000
    many = {"max_connections": 2 * crowd, "max_inbound_connections": 2 * crowd}
    arena = Arena(limits=Limits(max_pending_inbound=crowd, **many))
    before = counted(Connection, Noise)
    message = HEADER + encode("/noise") + b"\0\x20" + bytes(30)
    lorises = []
    for _ in range(crowd):
        loris = Attacker(arena, upgrade=False)
        loris.conn = arena.node.connected(None, LOCAL, REMOTE, arena.now)
        arena.peers[loris.conn] = loris
        lorises.append(loris)
    late = Attacker(arena, upgrade=False)
    assert arena.join(late) is None  # the places are taken
    for second in range(10):
        piece = second // 4
        for loris in lorises[second % 4 :: 4]:
            loris.raw(message[15 * piece : 15 * (piece + 1)])
        arena.run()
        arena.wait(0.999)
        assert not any(loris.closed for loris in lorises)
    arena.wait(0.02)
    assert all(loris.closed for loris in lorises)  # no byte has extended the deadline
    assert {type(arena.why(lorises[n])) for n in (0, 1, -1)} == {TimedOut}
    assert arena.survives()
    lorises.clear()
    arena.events.clear()
    assert counted(Connection, Noise) <= before
    arena.wait(60)
    assert arena.node.timers.reasons() == ["keepalive"]
    assert arena.empty()


@pytest.mark.parametrize("line", [b"\x03ls\n", encode("/unknown")], ids=["row 5", "row 6"])
def test_row_5_and_6_questions_without_end(line):
    arena = Arena()
    attacker = arena.attacker()
    arena.wait(11)
    attacker.frames()
    sent, got = attacker.raw_sent, attacker.raw_received
    attacker.send(frame(WINDOW_UPDATE | SYN, 1, 0))
    attacker.send(data_frame(0, 1, HEADER + line * (200_000 // len(line))))
    answers = [one for one in attacker.frames() if one[1] == 1]
    assert [one[:3] for one in answers if one[0] & FIN] == [(DATA | FIN, 1, 0)]
    said = b"".join(payload for _, _, _, payload in answers)
    assert said == HEADER + b"\x03na\n" * MAX_PROPOSALS
    assert attacker.raw_received - got <= 4 * (attacker.raw_sent - sent)
    assert not attacker.closed and arena.survives() and arena.empty()


def test_row_6_answers_do_not_pile_up_while_the_peer_does_not_read():
    arena = Arena()
    attacker = arena.attacker()
    attacker.stall()
    for n in range(1000):
        attacker.send(proposal(2 * n + 1, *["/unknown"] * MAX_PROPOSALS))
    connection = arena.node.connections(attacker.key.peer_id)[0]
    assert connection.unsent() <= 64 * (20 + 4 * MAX_PROPOSALS)
    assert connection.muxer.queued_control <= Limits().max_queued_control
    assert arena.survives() and arena.empty()


def test_row_7_ten_thousand_streams_that_propose_nothing():
    arena = Arena()
    attacker = arena.attacker()
    connection = arena.node.connections(attacker.key.peer_id)[0]
    before = counted(Inbound)
    opened = 0
    for _ in range(100):  # in time with the budget of resets
        attacker.send(
            b"".join(frame(WINDOW_UPDATE | SYN, 2 * (opened + n) + 1, 0) for n in range(100))
        )
        opened += 100
        refused = [one for one in attacker.frames() if one[0] == WINDOW_UPDATE | RST]
        assert len(refused) >= 36
        assert len(connection.muxer.streams) <= 64 + 1
        assert not attacker.closed
        arena.wait(1)
    assert arena.survives()
    arena.wait(11)
    assert counted(Inbound) <= before
    assert not connection.muxer.streams
    assert arena.empty()


def test_row_8_early_data_behind_a_refused_proposal_reaches_no_handler():
    arena = Arena()
    attacker = arena.attacker()
    attacker.send(
        proposal(1, "/gone", data=b"for nobody" * 1000),
        proposal(3, "/app", data=b"for the application"),
    )
    (opened,) = arena.of(StreamOpened)
    assert arena.node.stream_read(opened.stream, 100, arena.now) == b"for the application"
    refused = [one for one in attacker.frames() if one[1] == 1]
    assert refused[-1][:3] == (DATA | FIN, 1, 0)
    assert b"".join(payload for _, _, _, payload in refused) == HEADER + b"\x03na\n"
    connection = arena.node.connections(attacker.key.peer_id)[0]
    assert connection.muxer.unread == 0
    arena.node.stream_close(opened.stream, arena.now)
    assert arena.survives() and arena.empty()


class Spy:
    """Cryptography that counts what it is asked for."""

    def __init__(self):
        self.calls = 0
        self.invalid_tag = CRYPTO.invalid_tag

    def __getattr__(self, name):
        self.calls += 1
        return getattr(CRYPTO, name)


def test_row_10_the_rate_limit_comes_before_any_cryptography():
    spy = Spy()
    node = make_node(crypto=spy)
    hello = HEADER + encode("/noise") + b"\0\x20" + bytes(range(32))

    def arrive(now):
        conn = node.connected(None, LOCAL, FAR, now)
        node.receive(conn, hello, now)
        refused = CloseConnection(conn, abort=True) in node.poll()
        node.data_to_send(conn, now)
        node.disconnected(conn, None, now)
        return not refused

    burst = Limits().inbound_burst_per_ip
    assert [arrive(0.0) for _ in range(burst + 1)] == [True] * burst + [False]
    before = spy.calls
    assert before > burst
    for _ in range(1000):
        assert not arrive(0.0)
    assert spy.calls == before
    assert arrive(1.0) and spy.calls > before


def test_row_11_one_peer_id_opens_a_thousand_connections():
    arena = Arena()
    key = make_key()
    first = arena.attacker(key=key)
    first.send(proposal(1, "/app", data=b"mine"))
    (opened,) = arena.of(StreamOpened)
    others = [arena.attacker(key=key) for _ in range(200)]
    kept = [one for one in others if not one.closed]
    assert len(kept) == Limits().max_connections_per_peer - 1
    assert kept == others[: len(kept)]  # the oldest ones stay, always
    assert not first.closed
    refused = others[-1]
    assert isinstance(arena.why(refused), MuxerError)
    assert refused.frames()[-1][0] == GO_AWAY
    assert len(arena.of(ConnectionOpened)) == len(kept) + 2  # the friend's, too
    assert arena.node.stream_read(opened.stream, 10, arena.now) == b"mine"
    arena.node.stream_close(opened.stream, arena.now)
    assert arena.survives() and arena.empty()


class Broken(Service):
    """A service with a bug."""

    protocols = ("/broken",)

    def on_stream(self, connection, stream, protocol, now):
        raise ZeroDivisionError


def test_row_12_a_bug_costs_one_connection():
    arena = Arena(services=[Broken()])
    victim, other = arena.attacker(), arena.attacker()
    with pytest.raises(ZeroDivisionError):
        victim.send(proposal(1, "/broken"))
    arena.node.abort(victim.conn, arena.now)  # what a runtime does then
    arena.run()
    assert victim.closed and not other.closed
    other.send(proposal(1, "/app", data=b"hello"))
    assert len(arena.of(StreamOpened)) == 1
    arena.node.stream_close(arena.of(StreamOpened)[0].stream, arena.now)
    assert arena.survives() and arena.empty()


@pytest.mark.parametrize("size", [0, 100, 1_000_000])
def test_row_13_close_does_not_wait_for_a_peer_that_never_reads(size):
    arena = Arena(limits=Limits(max_unsent=1 << 20))
    attacker = arena.attacker()
    arena.wait(11)
    attacker.send(proposal(1, "/app"))
    stream = arena.of(StreamOpened)[0].stream
    assert arena.node.stream_write(stream, bytes(size)) == size
    arena.node.stream_close(stream, arena.now)
    start = arena.now
    arena.node.close(attacker.conn, start)
    arena.wait(1.0)
    assert attacker.closed
    assert arena.survives() and arena.empty()


# Identity.


def test_row_16_a_valid_record_of_somebody_else_is_ignored():
    arena = Arena()
    attacker, victim = arena.attacker(), make_key()
    where = Multiaddr("/ip4/203.0.113.66/tcp/1")
    record = seal_peer_record(victim, 1 << 62, [where])
    message = delimited(b"\x42" + delimited(record))
    attacker.send(proposal(1, "/ipfs/id/push/1.0.0", data=message) + frame(FIN, 1, 0))
    pushed = arena.of(PeerIdentified)[-1]
    assert pushed.conn == attacker.conn and not pushed.info.signed_record
    assert where not in pushed.info.addresses
    for peer in (victim.peer_id, attacker.key.peer_id):
        assert where not in arena.node.peers.addresses(peer, arena.now)
    assert arena.survives() and arena.empty()


def test_row_17_records_of_peers_never_met_are_not_stored():
    arena = Arena()
    attacker = arena.attacker()
    limit = Limits().max_pushes_per_minute
    known = len(arena.node.peers)
    for n in range(3 * limit):
        key = make_key()
        record = seal_peer_record(key, 1, [Multiaddr("/ip4/203.0.113.66/tcp/1")])
        message = delimited(b"\x42" + delimited(record))
        attacker.send(proposal(2 * n + 1, "/ipfs/id/push/1.0.0", data=message))
        attacker.send(frame(FIN, 2 * n + 1, 0))
        assert not arena.node.peers.addresses(key.peer_id, arena.now)
    assert len(arena.node.peers) == known
    assert len(arena.of(PeerIdentified)) <= limit + 2
    assert arena.survives() and arena.empty()


def test_row_37_the_wrong_peer_answers_a_dial():
    arena = Arena()
    wanted, server = make_key().peer_id, make_node()
    dial = arena.node.dial(wanted, [FAR], arena.now)
    (action,) = [one for one in arena.node.poll() if isinstance(one, Dial)]
    ours = arena.node.connected(action.conn, LOCAL, FAR, arena.now)
    theirs = server.connected(None, FAR, LOCAL, arena.now)
    for _ in range(5):
        server.receive(theirs, arena.node.data_to_send(ours, arena.now), arena.now)
        arena.node.receive(ours, server.data_to_send(theirs, arena.now), arena.now)
    arena.run()
    arena.node.disconnected(ours, None, arena.now)
    arena.run()
    (failed,) = arena.of(DialFailed)
    assert failed.dial == dial and str(server.peer_id) in str(failed.error)
    (closed,) = arena.of(ConnectionClosed)
    assert isinstance(closed.error, PeerIdMismatch) and closed.peer is None
    assert len(arena.of(ConnectionOpened)) == 1  # the friend's
    assert not arena.node.peers.addresses(wanted, arena.now)
    assert not arena.node.peers.addresses(server.peer_id, arena.now)
    assert arena.survives() and arena.empty()


def test_row_39_no_secret_in_what_a_failing_handshake_says(caplog):
    caplog.set_level(logging.DEBUG)
    key = make_key()
    drawn = []

    def entropy(size):
        drawn.append(OsEntropy()(size))
        return drawn[-1]

    node = make_node(key, entropy=entropy)
    conn = node.connected(None, LOCAL, REMOTE, 0.0)
    node.receive(conn, HEADER + encode("/noise") + b"\0\x20" + make_key().sign(b"x")[:32], 0.0)
    node.data_to_send(conn, 0.0)
    node.receive(conn, b"\0\x80" + bytes(128), 0.0)
    node.disconnected(conn, None, 0.0)
    (closed,) = (one for one in node.poll() if isinstance(one, ConnectionClosed))
    assert isinstance(closed.error, HandshakeError)
    said = repr((node, closed, closed.error, node.__dict__.keys())) + caplog.text
    said += "".join(map(repr, node.__dict__.values()))
    assert len(drawn) >= 2
    for secret in (*drawn, key.encode()[-64:-32]):
        assert secret.hex() not in said and repr(secret)[2:-1] not in said


# Promises about what is not authenticated yet.


@pytest.mark.parametrize(
    "opening",
    [
        b"",
        b"\x13",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(500),
        HEADER,
        HEADER * 50,
        HEADER + b"\x03ls\n" * 65,
        HEADER + encode("/tls/1.0.0") * 65,
        HEADER + encode("/noise"),
        HEADER + encode("/noise") + b"\0\x20" + bytes(range(32)),
        HEADER + encode("/noise") + b"\0\x20" + bytes(range(32)) + b"\xff\xff" + bytes(65535),
        HEADER + encode("/noise") + b"\0\x00",
    ],
)
@pytest.mark.parametrize("piece", [1 << 20, 1, 100])
def test_promise_12_little_is_answered_before_the_peer_is_known(opening, piece):
    arena = Arena(friend=False)
    stranger = arena.join(Attacker(arena, upgrade=False))
    for pos in range(0, len(opening[:2000]), piece):
        stranger.raw(opening[pos : pos + piece])
        arena.run()
    assert len(stranger.received) <= 4 * stranger.raw_sent + 4096
    arena.wait(11)
    assert stranger.closed
    assert isinstance(arena.why(stranger), HandshakeError | NegotiationError | TimedOut)
    assert arena.empty()


def test_answers_reach_a_peer_that_only_looks():
    arena = Arena()
    attacker = arena.attacker()
    attacker.frames()
    attacker.send(proposal(1, "/unknown"), frame(FIN, 1, 0))
    answers = [one for one in attacker.frames() if one[1] == 1]
    assert [payload for _, _, _, payload in answers] == [HEADER + b"\x03na\n", b""]
    assert answers[0][0] & ACK and answers[-1][0] & FIN
    assert arena.survives() and arena.empty()


@pytest.mark.parametrize("years", [0.0, 1.0, 10.0])
def test_promise_5_time_that_jumps(years):
    arena = Arena(friend=False)
    key = make_key()
    authenticated = arena.attacker(key=key)
    authenticated.send(proposal(1, "/app"), proposal(3), frame(WINDOW_UPDATE | SYN, 5, 0))
    authenticated.silent = True
    half_way = arena.join(Attacker(arena, upgrade=False))
    arena.node.dial(make_key().peer_id, [FAR, LOCAL], arena.now)
    arena.node.open_stream(key.peer_id, ["/a", "/b"], arena.now)
    arena.node.ping(key.peer_id, arena.now)
    arena.run()
    arena.now += years * 31_557_600 + 61  # all at once, in the order of the deadlines
    for _ in range(5):
        arena.node.handle_timeout(arena.now)
        arena.run()
    assert not authenticated.closed  # whoever slept is asked once more, then given its time
    arena.wait(61)
    for peer in (authenticated, half_way):
        assert peer.closed and isinstance(arena.why(peer), TimedOut)
    assert len(arena.of(DialFailed)) == 1
    for opened in arena.of(StreamOpened):
        arena.node.stream_close(opened.stream, arena.now)
    assert arena.empty()
