"""Attacks on QUIC: what strangers send, and what a peer sends under good keys."""

import gc
import tracemalloc
from random import Random

import pytest
from aioquic.buffer import Buffer, encode_uint_var as var
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.tls import Epoch
from quic_pair import Net, Pair, Place

from anyp2p.providers import quic_hooks
from anyp2p_core.errors import HandshakeError, MuxerError, RemoteError
from anyp2p_core.quic import MAX_FAREWELLS, MAX_STATELESS

STRANGER = ("198.51.100.7", 7)


def packet(connection, frames):
    """A 1-RTT packet with any frames, as the peer of the other end would send it."""
    quic = connection.session._quic
    builder = QuicPacketBuilder(
        host_cid=quic.host_cid,
        peer_cid=quic._peer_cid.cid,
        version=1,
        is_client=quic._is_client,
        max_datagram_size=1452,
        packet_number=quic._packet_number,
    )
    builder.start_packet(QuicPacketType.ONE_RTT, quic._cryptos[Epoch.ONE_RTT])
    builder._buffer.push_bytes(frames)
    (datagram,), _ = builder.flush()
    quic._packet_number = builder.packet_number
    return datagram


class Attack(Pair):
    """``a`` attacks ``b``, which has an honest peer as well."""

    def __init__(self, **options):
        super().__init__(delay=0.001, **options)
        self.friend = Place(3)
        self.places[self.friend.address] = self.friend
        self.friendship = self.friend.dial(self.b.address, self.b.peer_id)
        assert self.run(1.0, lambda: len(self.b.opened) == 2)
        self.run(0.2)

    def send(self, *frames):
        """Frames in packets of their own; the victim's answers are thrown away."""
        for one in frames:
            datagram = packet(self.ours, one)
            self.b.endpoint.receive(self.b.sock, datagram, self.a.address, self.now)

    def answers(self):
        """What the victim sends to the attacker."""
        out = []
        while self.b.endpoint.busy:
            for _, target, data in self.b.endpoint.datagrams(self.now):
                if target == self.a.address:
                    out.append(data)
                else:
                    self.carry(self.b.address, target, data)
        return out

    def pause(self, seconds):
        """Time passes for the victim; what it sends to the attacker is counted."""
        end, out = self.now + seconds, []
        while (when := self.b.timers.next_timeout()) is not None and when <= end:
            self.now = self.b.now = max(self.now, when)
            self.b.timers.run(self.now)
            out += self.answers()
        self.now = max(self.now, end)
        return out

    def check_survival(self, *, ended):
        """The honest peer notices nothing, and nothing of a dead attacker is left."""
        self.answers()
        assert [bool(reason) for _, reason in self.b.closed] == [True] * ended
        if ended:
            assert self.theirs not in self.b.connections.values()
            assert isinstance(self.b.closed[0][1], RemoteError)
            assert len(self.b.endpoint) == 1 and len(self.b.timers) <= 1
            names = [link.connection for link in self.b.endpoint._links.values()]
            assert self.theirs not in names and len(names) <= 9
        assert not self.friend.closed
        stream = self.friendship.muxer.open(self.now)
        stream.write(b"all is well")
        self.run(0.2)
        assert any(bytes(log.data) == b"all is well" for log in self.b.logs.values())


# Row 130: floods under good keys.


def test_row_130_path_challenges():
    attack = Attack()
    size = 0
    flood = (b"\x1a" + bytes(8)) * 140
    for _ in range(300):
        attack.send(flood)
        size += len(flood)
        path = attack.theirs.session._quic._network_paths[0]
        assert len(path.remote_challenges) <= 32
    out = sum(map(len, attack.answers())) + sum(map(len, attack.pause(2.0)))
    assert out < size / 10
    attack.check_survival(ended=False)


def new_id(sequence, retire, name=None):
    name = name or sequence.to_bytes(8)
    return b"\x18" + var(sequence) + var(retire) + bytes([len(name)]) + name + bytes(16)


def test_row_130_new_connection_ids_that_retire_others():
    attack = Attack()
    for n in range(20, 20_000):
        attack.send(new_id(n, n))
        if attack.theirs.id not in attack.b.connections or attack.theirs.session._over:
            break
        assert len(attack.theirs.session._quic._peer_cid_available) <= 8
        assert len(attack.theirs.session._quic._retire_connection_ids) <= 101
    assert n < 200
    attack.check_survival(ended=True)


def test_row_130_new_connection_ids_that_pile_up():
    attack = Attack()
    attack.send(*(new_id(n, 0) for n in range(8, 30)))
    attack.check_survival(ended=True)


def test_row_130_retired_ids_are_replaced_and_forgotten():
    attack = Attack()
    retired = []
    for _ in range(300):
        quic = attack.theirs.session._quic
        current = attack.ours.session._quic._peer_cid.cid
        names = [one for one in quic._host_cids if one.cid != current]
        retired.append(names[0].cid)
        attack.send(b"\x19" + var(names[0].sequence_number))
        attack.answers()
        links = [link for link in attack.b.endpoint._links.values()]
        assert len([link for link in links if link.connection is attack.theirs]) <= 9
        attack.pause(0.01)
    assert not attack.b.closed
    assert not [name for name in retired if name in attack.b.endpoint._links]
    before = attack.theirs.session.heard_at
    attack.pause(1.0)
    for name in retired:  # whoever uses one is not heard
        stale = b"\x40" + name + bytes(30)
        attack.b.endpoint.receive(attack.b.sock, stale, attack.a.address, attack.now)
    assert attack.theirs.session.heard_at == before
    attack.check_survival(ended=False)


@pytest.mark.parametrize(
    "frames",
    [
        [b"\x19" + var(0)],  # the id that this very packet was sent to
        [b"\x19" + var(77)],
        [b"\x06" + var(2**40) + var(1) + b"x"],
        [b"\x06" + var(64 * 1024) + var(1) + b"x"],
        [b"\x06" + var(n) + var(1) + b"x" for n in range(2, 400, 2)],
        [b"\x06" + var(0) + var(4) + b"\x04\xff\xff\xff"]  # a TLS message without end
        + [b"\x06" + var(n) + b"\x44\x00" + bytes(1024) for n in range(4, 2**20, 1024)],
        [b"\x06" + var(0) + var(5) + b"\x0b\x00\x00\x01x"],
    ],
    ids=["current id", "unknown id", "far ahead", "too far", "gaps", "endless", "certificate"],
)
def test_row_130_crypto_frames_and_ids(frames):
    attack = Attack()
    attack.send(*frames)
    attack.check_survival(ended=True)


@pytest.mark.parametrize(
    "frames",
    [
        [b"\x0e" + var(n * 4) + var(0) + var(1) + b"x" for n in range(256, 258)],
        [b"\x0e\x02" + var(0) + var(1) + b"x"],  # a stream of one direction
        [b"\x0e\x00" + var(256 * 1024) + var(1) + b"x"],  # beyond the stream's window
        [b"\x0e" + var(n * 4) + var(200 * 1024) + var(1) + b"x" for n in range(4)],  # of all
        [b"\x0e\x00" + var(n) + var(1) + b"x" for n in range(2, 4000, 2)],
        [b"\x04" + var(n * 4) + var(0) + var(0) for n in range(220)],
        [b"\x04\x00\x00\x05", b"\x04\x00\x00\x06"],
        [b"\x11" + var(2) + var(5)],
        [b"\x05" + var(1) + var(5)],  # one of ours, which does not exist
        [b"\x1e"],
        [b"\x07\x01x"],
        [b"\x31\x05hello"],
        [b"\x40\xff"],
        [b""],
    ],
    ids=[
        "too many streams", "one-way", "window", "connection window", "gaps", "resets",
        "final size", "window of a receiver", "unopened", "handshake done", "token", "datagram",
        "unknown", "empty",
    ],
)  # fmt: skip
def test_row_131_a_broken_rule_ends_one_session(frames):
    attack = Attack()
    if frames == [b""]:
        frames = [b"\x12\xff\xff\xff\xff\xff\xff\xff\xff"]  # 2**62 - 1 streams
    attack.send(*frames)
    attack.check_survival(ended=True)


@pytest.mark.parametrize(
    "frames",
    [
        b"\x02" + var(2**62 - 1) + var(0) + var(0) + var(2**62 - 1),
        b"\x02" + var(2**61) + var(2**62 - 1) + var(0) + var(0),
        b"\x03" + var(5) + var(0) + var(0) + var(0) + var(2**60) * 3,
        b"\x10" + var(2**62 - 1) + b"\x11\x00" + var(2**62 - 1) + b"\x12" + var(2**60),
        b"\x14" + var(2**62 - 1) + b"\x15\x00" + var(2**62 - 1) + b"\x16" + var(2**60),
        b"\x1b" + bytes(8),
        b"\x05\x00" + var(2**62 - 1),
        b"\x0f\x00\x00\x00",
        b"\x01" * 1000,
    ],
)
def test_row_131_odd_frames_that_are_allowed(frames):
    attack = Attack()
    attack.send(*[frames] * 50)
    out = attack.answers() + attack.pause(1.0)
    assert sum(map(len, out)) < 30_000
    attack.check_survival(ended=False)


def test_row_131_a_gap_costs_no_more_than_the_window():
    attack = Attack()
    gc.collect()
    tracemalloc.start()
    attack.send(b"\x0e\x00" + var(256 * 1024 - 1) + var(1) + b"x")
    attack.send(b"\x0e\x04" + var(256 * 1024 - 1) + var(1) + b"x")
    attack.send(b"\x0e\x08" + var(256 * 1024 - 1) + var(1) + b"x")  # beyond the connection's
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 600 * 1024
    attack.check_survival(ended=True)


def test_row_131_random_frames_under_good_keys():
    """Whatever an authenticated peer puts into packets ends its session at worst."""
    random = Random(131)
    kinds = [*range(0x00, 0x20), 0x30, 0x31]
    victim, friend = Place(2), Place(3)
    net = Net(victim, friend, delay=0.001)
    friendship = friend.dial(victim.address, victim.peer_id)
    assert net.run(1.0, lambda: friendship.peer)
    ended = 0
    for _ in range(120):
        stranger = Place(1)
        net.places[stranger.address] = stranger
        ours = stranger.dial(victim.address)
        assert net.run(1.0, lambda ours=ours: ours.peer and ours.session._quic._handshake_confirmed)
        for _ in range(12):
            frames = b""
            for _ in range(random.randrange(1, 5)):
                body = bytes(random.randrange(256) for _ in range(random.randrange(30)))
                if random.random() < 0.7:  # small numbers reach further
                    body = bytes(byte & 0x3F for byte in body)
                frames += bytes([random.choice(kinds)]) + body
            datagram = packet(ours, frames)
            victim.endpoint.receive(victim.sock, datagram, stranger.address, net.now)
            net.flush()
        net.run(0.05)
        ended += len(victim.connections) == 1
        for conn in list(victim.connections):
            if victim.connections[conn].peer == stranger.peer_id:
                victim.endpoint.close(conn, net.now)
        net.flush()
        del net.places[stranger.address]
    assert ended > 100
    assert all(reason is None or isinstance(reason, RemoteError) for _, reason in victim.closed)
    assert len(victim.endpoint) == 1 and len(victim.endpoint._links) <= 9
    assert len(victim.timers) == 1 and not victim.endpoint._half_open
    assert len(victim.endpoint._farewells) <= MAX_FAREWELLS
    assert not friend.closed


# Row 131: transport parameters and handshake messages.


def mutated(data, random):
    data = bytearray(data)
    for _ in range(random.randrange(1, 4)):
        at = random.randrange(len(data))
        match random.randrange(4):
            case 0:
                data[at] ^= 1 << random.randrange(8)
            case 1:
                data[at] = random.choice((0, 1, 0x3F, 0x40, 0x7F, 0x80, 0xC0, 0xFF))
            case 2:
                del data[at : at + random.randrange(1, 9)]
            case 3:
                data[at:at] = bytes(random.randrange(256) for _ in range(random.randrange(1, 9)))
        if not data:
            break
    return bytes(data)


def strangers(monkeypatch, patch, rounds, by_client=True):
    """Handshakes with strangers who deviate by ``patch(quic, random)``; what the victim said."""
    victim = Place(2)
    net = Net(victim, delay=0.001)
    for n in range(rounds):
        stranger = Place(1)
        net.places[stranger.address] = stranger
        random = Random(n)
        initialize = quic_hooks.Connection._initialize

        def deviate(self, peer_cid, initialize=initialize, random=random):
            if self._is_client == by_client:
                patch(self, random)
            initialize(self, peer_cid)

        monkeypatch.setattr(quic_hooks.Connection, "_initialize", deviate)
        if by_client:
            stranger.dial(victim.address)
        else:
            victim.dial(stranger.address)
        net.run(0.3)
        monkeypatch.setattr(quic_hooks.Connection, "_initialize", initialize)
        for conn in list(victim.connections):
            victim.endpoint.close(conn, net.now)
        net.flush()
        del net.places[stranger.address]
        assert not victim.connections and not victim.endpoint._links and not victim.timers
        assert not victim.endpoint._half_open
    reasons = [reason for _, reason in victim.closed]
    assert all(reason is None or isinstance(reason, RemoteError) for reason in reasons)
    return reasons


@pytest.mark.parametrize("by_client", [True, False])
def test_row_131_transport_parameters(monkeypatch, by_client):
    def patch(quic, random):
        whole = quic._serialize_transport_parameters
        quic._serialize_transport_parameters = lambda: mutated(whole(), random)

    reasons = strangers(monkeypatch, patch, 150, by_client)
    assert sum(isinstance(reason, HandshakeError) for reason in reasons) > 50


@pytest.mark.parametrize("by_client", [True, False])
def test_row_131_handshake_messages(monkeypatch, by_client):
    def patch(quic, random):
        push = quic._push_crypto_data

        def broken():
            for epoch, buffer in quic._crypto_buffers.items():
                if buffer.tell() and random.random() < 0.7:
                    fresh = Buffer(capacity=16384)
                    fresh.push_bytes(mutated(buffer.data, random))
                    quic._crypto_buffers[epoch] = fresh
            push()

        quic._push_crypto_data = broken

    reasons = strangers(monkeypatch, patch, 150, by_client)
    assert sum(isinstance(reason, HandshakeError) for reason in reasons) > 50


# What strangers send who have no keys.


def recorded():
    """Datagrams of a whole connection in both directions."""
    pair = Pair(delay=0.001)
    stream, _, theirs = pair.opened(b"hello")
    theirs.stream.write(bytes(3000))
    theirs.stream.write_eof()
    stream.write_eof()
    pair.run(0.2)
    pair.a.endpoint.close(pair.ours.id, pair.now)
    pair.run(0.2)
    return pair


def feed_everywhere(victim, datagrams, now):
    for source, data in datagrams:
        victim.endpoint.receive(victim.sock, data, source, now)
        out = []
        while victim.endpoint.busy:
            out += victim.endpoint.datagrams(now)
        assert sum(len(one[2]) for one in out if one[1] == source) <= 3 * max(len(data), 1)


def check_empty(victim, now):
    """After the time that anything may last, nothing is left."""
    for _ in range(10_000):
        when = victim.timers.next_timeout()
        if when is None:
            break
        now = max(now, when)
        victim.timers.run(now)
        while victim.endpoint.busy:
            victim.endpoint.datagrams(now)
    endpoint = victim.endpoint
    assert not len(endpoint) and not endpoint._links and not endpoint._half_open
    assert not victim.timers and not endpoint._stateless
    assert len(endpoint._farewells) <= MAX_FAREWELLS
    assert all(isinstance(reason, RemoteError) for _, reason in victim.closed)


def test_random_bytes_cost_nothing():
    random = Random(1)
    victim = Place(2)
    datagrams = []
    for _ in range(4000):
        data = random.randbytes(random.choice((0, 1, 5, 9, 20, 64, 1199, 1200, 1452)))
        if data and random.random() < 0.5:
            data = bytes([data[0] | 0xC0]) + b"\x00\x00\x00\x01\x08"[: len(data) - 1] + data[6:]
        datagrams.append((STRANGER, data))
    feed_everywhere(victim, datagrams, 100.0)
    assert not victim.opened
    check_empty(victim, 100.0)


def test_mutated_packets_of_a_real_connection():
    real = recorded()
    random = Random(2)
    to_server = [data for _, target, data in real.sent if target == real.b.address]
    victim = Place(2, key=real.b.key)
    datagrams = [
        ((f"198.51.100.{random.randrange(250)}", 9), mutated(random.choice(to_server), random))
        for _ in range(3000)
    ]
    feed_everywhere(victim, datagrams, 100.0)
    assert not victim.opened
    check_empty(victim, 100.0)


def test_mutated_packets_between_two_that_talk():
    """Somebody who sees the packets sends broken copies, with the right source address."""
    pair = Pair(delay=0.001)
    random = Random(3)
    carry = pair.carry

    def meddle(source, target, data):
        place = pair.places[target]
        for _ in range(3):
            copy = mutated(data, random)
            place.endpoint.receive(place.sock, copy, source, pair.now)
        carry(source, target, data)

    pair.carry = meddle
    again = pair.a.dial(pair.b.address)
    stream = pair.ours.muxer.open(pair.now)
    stream.write(bytes(200_000))
    stream.write_eof()
    assert pair.run(20.0, lambda: again.peer and "eof" in pair.b.logs[stream.id].events)
    assert len(pair.b.logs[stream.id].data) == 200_000
    assert not pair.a.closed and not pair.b.closed


def test_repeated_packets_of_another_connection():
    real = recorded()
    pair = Pair(a=Place(1, key=real.a.key), b=Place(2, key=real.b.key), delay=0.001)
    for source, target, data in real.sent * 3:
        place = pair.places[target]
        place.endpoint.receive(place.sock, data, source, pair.now)
        pair.flush()
    pair.run(0.5)
    # The first Initial opened a session, which gets no further.
    assert len(pair.b.opened) == 1
    assert pair.opened(b"hello")[2].data == b"hello"


def test_there_is_no_migration():
    pair = Pair(delay=0.001)
    stream, _, theirs = pair.opened()
    moved = ("192.0.2.200", 200)
    stream.write(b"from elsewhere")
    for _, _, data in pair.a.endpoint.datagrams(pair.now):
        pair.b.endpoint.receive(pair.b.sock, data, moved, pair.now)
        pair.b.endpoint.receive(99, data, pair.a.address, pair.now)  # the same, another socket
    assert bytes(theirs.data) == b"!"
    pair.run(1.0)  # it is sent again, from where it should
    assert bytes(theirs.data) == b"!from elsewhere"
    assert not [target for _, target, _ in pair.sent if target == moved]
    assert len(pair.theirs.session._quic._network_paths) == 1


def long_header(version=1, destination=b"12345678", source=b"87654321", first=0xC0):
    return (
        bytes([first]) + version.to_bytes(4) + bytes([len(destination)]) + destination
        + bytes([len(source)]) + source
    )  # fmt: skip


def test_version_negotiation():
    victim = Place(2)

    def answer(data, sock=victim.sock):
        victim.endpoint.receive(sock, data, STRANGER, 100.0)
        return [data for _, _, data in victim.endpoint.datagrams(100.0)]

    for version in (2, 0x6B3343CF, 0x1A2A3A4A, 2**32 - 1):
        (packet,) = answer(long_header(version).ljust(1200, b"\0"))
        assert packet[1:5] == bytes(4) and packet[-4:] == b"\0\0\0\x01"
        assert packet[5:] == b"\x0887654321\x0812345678\0\0\0\x01"
    long = long_header(7, bytes(255), bytes(255)).ljust(1200, b"\0")
    assert len(answer(long)[0]) < 1200
    assert answer(long_header(2).ljust(1199, b"\0")) == []  # no more comes back than was sent
    assert answer(long_header(0).ljust(1200, b"\0")) == []  # else two would go on for ever
    assert answer(long_header(2).ljust(1200, b"\0"), sock=99) == []  # nobody may call there
    for _ in range(1000):
        victim.endpoint.receive(victim.sock, long_header(9).ljust(1200, b"\0"), STRANGER, 100.0)
    assert len(victim.endpoint.datagrams(100.0)) == MAX_STATELESS
    check_empty(victim, 100.0)


def test_stateless_resets_and_short_packets_of_nobody():
    victim = Place(2)
    random = Random(4)
    for _ in range(1000):
        data = bytes([0x40 | random.randrange(64)]) + random.randbytes(random.randrange(60))
        victim.endpoint.receive(victim.sock, data, STRANGER, 100.0)
    assert not victim.endpoint.busy
    pair = Pair(delay=0.001)
    name = pair.ours.session.id
    for _ in range(300):
        data = bytes([0x40]) + name + random.randbytes(40)
        pair.a.endpoint.receive(pair.a.sock, data, pair.b.address, pair.now)
    assert pair.opened(b"hello")[2].data == b"hello"


def initials(count):
    """First packets of as many clients, each from another address."""
    place = Place(1)
    out = []
    for n in range(count):
        place.dial(("192.0.2.2", 2))
        ((_, _, data),) = place.endpoint.datagrams(100.0)
        out.append(((f"198.51.{100 + n // 250}.{n % 250}", 1), data))
    return out


def test_a_flood_of_first_packets():
    victim = Place(2, max_pending_inbound=40)
    datagrams = initials(400)
    feed_everywhere(victim, datagrams, 100.0)
    # A quarter of what may be half open costs state; the others are asked to come again.
    assert len(victim.endpoint) == victim.endpoint._half_open == 10
    feed_everywhere(victim, datagrams, 100.0)
    assert len(victim.endpoint) == 10
    check_empty(victim, 100.0)
    assert len(victim.closed) == 10


def test_first_packets_that_are_not_admitted():
    victim = Place(2)
    victim.admits = False
    feed_everywhere(victim, initials(20), 100.0)
    assert not len(victim.endpoint) and not victim.closed
    check_empty(victim, 100.0)


@pytest.mark.parametrize(
    "data",
    [
        long_header(destination=b"1234567"),  # too short a first id
        long_header(destination=bytes(21)),
        long_header(first=0xE0),  # a handshake packet
        long_header(first=0x80),
        long_header() + b"\xff" * 8,  # a token of more bytes than there are
        long_header() + b"\x7f\xff",
    ],
)
def test_first_packets_that_are_none(data):
    victim = Place(2)
    victim.accept_quic = None  # nobody asks
    for size in (1200, len(data)):
        padded = data.ljust(size, b"\xff")
        victim.endpoint.receive(victim.sock, padded, STRANGER, 100.0)
    assert not victim.endpoint.busy


def test_a_first_packet_that_cannot_be_opened():
    victim = Place(2)
    (source, data), *_ = initials(1)
    data = data[:60] + bytes([data[60] ^ 1]) + data[61:]
    feed_everywhere(victim, [(source, data)], 100.0)
    assert not victim.opened and len(victim.endpoint) <= 1
    check_empty(victim, 100.0)


def test_a_peer_that_acknowledges_nothing_makes_us_hold_a_bounded_amount():
    attack = Attack()
    _, _, theirs = attack.opened()
    attack.places.pop(attack.a.address)
    sent = theirs.stream.write(bytes(10**7))
    for _ in range(50):
        attack.pause(0.05)
        if theirs.stream.is_reset:
            break
        sent += theirs.stream.write(bytes(10**6)) if theirs.stream.writable() else 0
    assert sent <= 600 * 1024
    attack.run(60.0)
    assert isinstance(attack.b.closed[0][1], RemoteError)


def test_a_muxer_error_in_the_middle_of_a_batch():
    attack = Attack(b=Place(2, max_resets=3))
    frames = b"".join(b"\x04" + var(n * 4) + b"\x00\x00" for n in range(10))
    attack.send(frames + b"\x0a" + var(40) + b"\x05hello")
    assert isinstance(attack.b.connections[attack.theirs.id].reason, MuxerError)
    attack.check_survival(ended=True)
    assert all(not log.data for log in attack.b.logs.values() if log.stream.id == 40)
