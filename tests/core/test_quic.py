"""anyp2p_core.quic: which datagram goes where, on a library that does nothing by itself."""

import pytest
from node_pair import CRYPTO
from quic_fake import SOURCE, FakeProvider

from anyp2p_core.errors import HandshakeError, MuxerError, TimedOut
from anyp2p_core.limits import Limits
from anyp2p_core.quic import (
    FAREWELL_TIME,
    MAX_BATCH,
    MAX_FAREWELLS,
    MAX_REPEATS,
    MAX_STATELESS,
    QuicEndpoint,
    quic_address,
)
from anyp2p_core.quic_connection import QuicConnection
from anyp2p_core.quic_packet import parse_long_header, version_negotiation
from anyp2p_core.timers import Timers

SOCK = 5
OTHER = ("192.0.2.10", 9)
THEIRS = b"their first name"


def long(name=THEIRS, *, version=1, token=b"", first=0xC0, size=1200, source=b"client"):
    head = bytes([first]) + version.to_bytes(4) + bytes([len(name)]) + name
    head += bytes([len(source)]) + source + bytes([len(token)]) + token
    return head.ljust(size, b"\0")


def short(name, size=30):
    return (b"\x40" + name).ljust(size, b"\0")


class Node:
    """The owner of an endpoint and of its connections."""

    def __init__(self, **limits):
        self.limits = Limits(**limits)
        self.provider = FakeProvider()
        self.timers = Timers()
        self.security, self.muxers = {}, {}
        self.unread = 0
        self.admits = True
        self.asked = []
        self.failed = []
        self.ended = []
        self.flushes = []
        self.connections = {}
        self.on_fail = lambda conn: None
        self.endpoint = QuicEndpoint(self.provider, self)
        self.endpoint.listening[SOCK] = None

    def call_at(self, when, reason, callback):
        assert reason == "quic"
        return self.timers.call_at(when, reason, callback)

    def cancel(self, handle):
        self.timers.cancel(handle)

    def make(self, initiator):
        conn = len(self.connections) + 1
        self.connections[conn] = QuicConnection(
            conn,
            initiator=initiator,
            owner=self,
            crypto=CRYPTO,
            local=None,
            remote=None,
            expected=None,
        )
        return self.connections[conn]

    def accept_quic(self, sock, source, now):
        self.asked.append((sock, source))
        return self.make(False) if self.admits else None

    def fail(self, conn, error, now):
        self.failed.append((conn, error))
        self.on_fail(conn)

    def disconnected(self, conn, error, now):
        self.ended.append((conn, error))

    def flushed(self, connection, now):
        self.flushes.append(connection.id)

    def on_upgraded(self, connection, now):
        pass

    def dial(self):
        connection = self.make(True)
        self.endpoint.dial(connection, SOCK, SOURCE, 1.0)
        return connection, self.provider.sessions[-1]

    def receive(self, data, source=SOURCE, sock=SOCK, now=1.0):
        self.endpoint.receive(sock, data, source, now)

    def called(self, **packet):
        """A peer calls; its session."""
        self.receive(long(**packet))
        return self.provider.sessions[-1]

    def out(self, now=1.0):
        packets = []
        while self.endpoint.busy:
            packets += self.endpoint.datagrams(now)
        return packets

    def open(self, connection, session):
        """The handshake is over."""
        connection._key = _Key()
        session.on_open(1.0)
        return connection.muxer


class _Key:
    peer_id = "peer"


def test_dialing():
    node = Node()
    connection, session = node.dial()
    session.outgoing.append(b"initial")
    assert node.endpoint.busy and len(node.endpoint) == 1
    assert node.out() == [(SOCK, SOURCE, b"initial")]
    assert not node.endpoint.busy
    for data in (short(session.id), long(session.id, first=0xE0, size=100)):
        node.receive(data)
    assert len(session.received) == 2 and connection.session is session
    assert node.endpoint.busy and node.out() == []


def test_only_from_where_it_should_come():
    node = Node()
    _, session = node.dial()
    node.receive(short(session.id), source=OTHER)
    node.receive(short(session.id), sock=6)
    node.receive(short(b"unknown!"))
    node.receive(short(session.id, 9)[:9])
    node.receive(b"")
    node.receive(long(session.id, first=0x80))
    assert session.received == []


def test_names_come_and_go():
    node = Node()
    _, session = node.dial()
    session.on_issued(b"second00")
    session.on_issued(b"second00")
    _, other = node.dial()
    other.on_issued(b"second00")  # is taken
    other.on_retired(b"second00")
    other.on_retired(b"nonsense")
    node.receive(short(b"second00"))
    assert len(session.received) == 1
    session.on_retired(b"second00")
    node.receive(short(b"second00"))
    assert len(session.received) == 1


def test_a_peer_calls():
    node = Node()
    session = node.called()
    assert node.asked == [(SOCK, SOURCE)] and node.provider.accepted == [(THEIRS, None)]
    assert len(session.received) == 1
    node.receive(long())  # the same name: the same session
    node.receive(short(session.id))
    assert len(session.received) == 3 and len(node.endpoint) == 1
    node.open(node.connections[1], session)
    node.receive(short(session.id))
    assert node.endpoint._half_open == 0


@pytest.mark.parametrize(
    ("data", "sock"),
    [
        (long(size=1199), SOCK),
        (long(), 6),
        (long(b"1234567"), SOCK),
        (long(first=0xE0), SOCK),
        (long(version=0), SOCK),
        (long(version=7), 6),
        (long(version=7, size=1199), SOCK),
    ],
)
def test_what_opens_nothing(data, sock):
    node = Node()
    node.receive(data, sock=sock)
    assert not node.endpoint.busy and not node.asked


def test_who_is_not_admitted():
    node = Node()
    node.admits = False
    node.receive(long())
    assert len(node.asked) == 1 and not node.provider.sessions and not node.endpoint.busy


def test_version_negotiation():
    node = Node()
    data = long(version=7)
    node.receive(data)
    assert node.out() == [(SOCK, SOURCE, version_negotiation(parse_long_header(data)))]
    for _ in range(MAX_STATELESS + 5):
        node.receive(data)
    assert len(node.endpoint.datagrams(1.0)) == MAX_STATELESS


def test_retry():
    node = Node(max_pending_inbound=8)
    for n in range(4):
        node.receive(long(b"client%02d" % n))
    assert len(node.provider.sessions) == 2
    assert node.out() == [(SOCK, SOURCE, b"retry for client")] * 2
    node.receive(long(b"client05", token=b"wrong"))
    assert len(node.out()) == 1 and len(node.provider.sessions) == 2
    node.receive(long(b"client06", token=b"token"))
    assert node.provider.accepted[-1] == (b"client06", b"original")
    node.endpoint.close(1, 1.0)
    node.endpoint.close(2, 1.0)
    node.out()
    node.receive(long(b"client07", token=b"wrong"))  # of somebody else, perhaps
    assert node.provider.accepted[-1] == (b"client07", None)


def test_a_first_packet_that_is_not_what_it_seemed():
    node = Node()
    node.provider.prepare = lambda session: setattr(session, "started", False)
    node.called()
    assert node.out() == [] and len(node.endpoint) == 0
    assert isinstance(node.ended[0][1], HandshakeError)
    assert not node.endpoint._links and not node.endpoint._half_open


def test_what_a_session_raises_fails_its_connection():
    node = Node()
    error = MuxerError("no")

    def refuse(*_):
        raise error

    connection, session = node.dial()
    session.on_receive = refuse
    node.on_fail = lambda conn: node.endpoint.close(conn, 1.0)
    session.outgoing.append(b"closing")
    node.receive(short(session.id))
    assert node.failed == [(connection.id, error)]
    assert node.out() == [(SOCK, SOURCE, b"closing")]
    assert node.ended == [(connection.id, None)]
    connection, session = node.dial()
    session.timeout, session.on_timeout = 2.0, refuse
    node.out()
    node.timers.run(2.0)
    assert node.failed[1:] == [(connection.id, error)]


def test_the_end():
    node = Node()
    connection, session = node.dial()
    session.on_issued(b"second00")
    session.timeout = 9.0
    node.out()
    session.outgoing.append(b"last words")
    error = TimedOut("silent")
    session.on_closed(error, 1.0)
    session.on_closed(None, 1.0)
    node.receive(short(session.id))
    assert session.received == []
    assert node.out() == [(SOCK, SOURCE, b"last words")]
    assert node.ended == [(connection.id, error)]
    assert not len(node.endpoint) and not node.endpoint._links and not node.timers
    session.on_issued(b"third000")
    connection.on_ready()
    node.endpoint.close(connection.id, 1.0)
    assert not node.endpoint._links and not node.endpoint.busy


def test_last_words_are_repeated():
    node = Node()
    connection, session = node.dial()
    session.outgoing += [b"last", b"words"]
    node.endpoint.close(connection.id, 1.0, 7)
    assert ("close", 7) in session.calls
    node.out()
    for data in (short(session.id), long(session.id, size=40), short(session.id)):
        node.receive(data)
        assert [data for _, _, data in node.out()] == [b"last", b"words"]
    assert MAX_REPEATS == 3
    node.receive(short(session.id))
    assert node.out() == [] and not node.endpoint._farewells


def test_last_words_only_for_who_missed_them():
    node = Node()
    connection, session = node.dial()
    session.outgoing.append(b"last")
    node.endpoint.close(connection.id, 1.0)
    node.out()
    node.receive(short(session.id), source=OTHER)
    node.receive(short(session.id), sock=6)
    assert node.out() == []
    node.receive(short(session.id), now=1.0 + FAREWELL_TIME)
    assert node.out() == [] and not node.endpoint._farewells
    for _ in range(MAX_FAREWELLS + 10):
        connection, session = node.dial()
        session.outgoing.append(b"last")
        node.endpoint.close(connection.id, 1.0)
    node.out()
    assert len(node.endpoint._farewells) == MAX_FAREWELLS
    connection, session = node.dial()
    node.endpoint.close(connection.id, 1.0)  # nothing to say
    node.out()
    assert session.id not in node.endpoint._farewells


def test_one_timer_a_session():
    node = Node()
    _, session = node.dial()
    session.timeout = 5.0
    node.out()
    assert node.timers.next_timeout() == 5.0
    session.timeout = 8.0  # later: the timer will see
    node.receive(short(session.id))
    node.out()
    assert node.timers.next_timeout() == 5.0 and len(node.timers) == 1
    node.timers.run(5.0)
    assert session.calls == [] and not node.endpoint.busy
    assert node.timers.next_timeout() == 8.0
    node.receive(short(session.id))
    node.out(7.999)
    assert node.timers.next_timeout() == 8.0
    session.timeout = 8.5  # nobody should be woken for nothing within a moment
    node.receive(short(session.id))
    node.out(7.999)
    assert node.timers.next_timeout() == 8.5 and len(node.timers) == 1
    session.timeout = 6.0
    node.receive(short(session.id))
    node.out()
    assert node.timers.next_timeout() == 6.0 and len(node.timers) == 1
    node.timers.run(6.0)
    assert session.calls == [("timeout", 6.0)]
    session.timeout = None
    node.out()
    assert len(node.timers) == 0
    session.timeout = 9.0
    node.receive(short(session.id))
    node.out()
    session.timeout = None
    node.timers.run(9.0)
    assert session.calls == [("timeout", 6.0)]


def test_streams_are_sent_as_far_as_there_is_room():
    node = Node()
    connection, session = node.dial()
    muxer = node.open(connection, session)
    node.out()
    session.rooms = 10
    stream = muxer.open(1.0)
    stream.write(bytes(35))
    assert node.endpoint.busy
    assert len(node.out()) == 4 and stream.unsent == 0
    session.rooms = 1
    stream.write(bytes(MAX_BATCH + 10))
    assert len(node.endpoint.datagrams(1.0)) == MAX_BATCH and node.endpoint.busy
    assert len(node.out()) == 10
    session.send = lambda stream, data, fin: None  # taken, but not sent for now
    stream.write(b"more")
    assert node.endpoint.datagrams(1.0) == []


def test_sessions_share_a_batch():
    node = Node()
    for _ in range(3):
        _, session = node.dial()
        session.outgoing += [b"x"] * (MAX_BATCH - 1)
    assert len(node.endpoint.datagrams(1.0)) == 2 * (MAX_BATCH - 1)
    assert len(node.endpoint.datagrams(1.0)) == MAX_BATCH - 1
    assert not node.endpoint.busy


def test_idle_sessions_are_not_looked_at():
    node = Node()
    sessions = [node.dial()[1] for _ in range(1000)]
    for session in sessions:
        session.timeout = 30.0
    node.out()
    looks = []
    for session in sessions:
        session.datagrams_to_send = lambda now, session=session: looks.append(session) or []
        session.next_timeout = lambda session=session: looks.append(session) or 30.0
    node.receive(short(sessions[500].id))
    node.out()
    assert looks == [sessions[500]] * 2 and len(node.timers) == 1000


def test_whoever_closes_in_order_is_told():
    node = Node()
    connection, session = node.dial()
    node.out()
    connection.draining = object()
    node.receive(short(session.id))
    node.out()
    assert node.flushes == [connection.id]


@pytest.mark.parametrize(
    ("source", "address"),
    [
        (("192.0.2.1", 4001), "/ip4/192.0.2.1/udp/4001/quic-v1"),
        (("2001:db8::1", 1), "/ip6/2001:db8::1/udp/1/quic-v1"),
        (("fe80::1%eth0", 1), "/ip6zone/eth0/ip6/fe80::1/udp/1/quic-v1"),
    ],
)
def test_addresses(source, address):
    assert str(quic_address(source)) == address
