"""anyp2p_core.peerstore"""

import time

import pytest
from hypothesis import given, settings, strategies as st
from stranger import KEYS

from anyp2p_core import Limits, Multiaddr
from anyp2p_core.peer_id import PeerId
from anyp2p_core.peerstore import ADDRESS_TTL, MAX_KEPT, PeerInfo, Peerstore


def peer(number):
    return PeerId(b"\x12\x20" + number.to_bytes(32))


def addresses(count, start=1):
    return [
        Multiaddr.from_bytes(b"\x04\x7f\0\0\1\x06" + n.to_bytes(2))
        for n in range(start, start + count)
    ]


A, B, C = map(peer, range(3))


def test_what_is_not_known():
    store = Peerstore(Limits())
    assert store.get(A) is None and A not in store and len(store) == 0
    assert store.addresses(A, 0.0) == [] and store.address_count == 0
    store.disconnected(A, 0.0)
    assert len(store) == 0


def test_what_is_learned():
    store = Peerstore(Limits())
    info = store.learn(A)
    assert info == PeerInfo() and info.protocols is None and info.record_seq == -1
    info.agent = "a/1"
    info.public_key = KEYS[0].public
    assert store.learn(A) is info and store.get(A) is info and A in store and len(store) == 1
    store.connected(A)
    assert store.learn(A) is info and store.get(A) is info and A in store and len(store) == 1
    store.connected(A)  # harmless
    store.disconnected(A, 1.0)
    assert store.get(A) is info and len(store) == 1


def test_a_peer_that_connects_is_known():
    store = Peerstore(Limits())
    store.connected(A)
    assert store.get(A) == PeerInfo() and len(store) == 1


def test_addresses_are_forgotten_after_an_hour():
    store = Peerstore(Limits())
    first, second = addresses(2)
    store.add_addresses(A, [first, second], 0.0)
    store.add_addresses(A, [first], 100.0)
    assert store.addresses(A, 3599.0) == [second, first]  # the oldest first
    assert store.addresses(A, 3600.0) == [first] and store.address_count == 1
    assert store.addresses(A, 3700.0) == [] and store.address_count == 0
    assert A in store


def test_addresses_of_connected_peers_are_not_forgotten():
    """The hour starts when they leave: else a long connection could not be made again."""
    store = Peerstore(Limits())
    store.connected(A)
    store.add_addresses(A, addresses(2), 0.0)
    assert store.addresses(A, 1e9) == addresses(2)
    store.disconnected(A, 1e9)
    assert store.addresses(A, 1e9 + ADDRESS_TTL - 1) == addresses(2)
    assert store.addresses(A, 1e9 + ADDRESS_TTL) == []


def test_addresses_are_replaced():
    store = Peerstore(Limits())
    store.add_addresses(A, addresses(5), 0.0)
    store.set_addresses(A, addresses(2, 4), 1.0)
    assert store.addresses(A, 1.0) == addresses(2, 4) and store.address_count == 2
    store.set_addresses(A, [], 1.0)
    assert store.addresses(A, 1.0) == [] and store.address_count == 0


def test_row_64_at_most_64_addresses_per_peer():
    for connected in (False, True):
        store = Peerstore(Limits())
        if connected:
            store.connected(A)
        store.add_addresses(A, addresses(6000), 0.0)
        assert store.addresses(A, 0.0) == addresses(64, 5937)
        store.add_addresses(A, addresses(1, 5937), 1.0)
        store.add_addresses(A, addresses(1), 1.0)
        assert store.addresses(A, 1.0) == [
            *addresses(62, 5939),
            *addresses(1, 5937),
            *addresses(1),
        ]
        assert store.address_count == 64


def test_row_64_at_most_100_000_addresses_in_all():
    limits = Limits()
    assert limits.max_addresses == 100_000
    store = Peerstore(limits)
    fifty = addresses(50)
    for number in range(3000):
        store.add_addresses(peer(number), fifty, 0.0)
        assert store.address_count <= 100_000
    assert len(store) == 2000 and store.address_count == 100_000
    assert peer(999) not in store and peer(1000) in store


def test_row_138_at_most_10_000_peers_and_connected_ones_stay():
    limits = Limits()
    assert limits.max_peers == 10_000
    store = Peerstore(limits)
    friends = [peer(number) for number in range(10)]
    for friend in friends:
        store.connected(friend)
        store.add_addresses(friend, addresses(3), 0.0)
    for number in range(10, 20_000):
        store.learn(peer(number))
        assert len(store) <= 10_010
    assert all(friend in store and len(store.addresses(friend, 9e9)) == 3 for friend in friends)
    assert peer(9999) not in store and peer(10_000) in store
    store.disconnected(friends[0], 0.0)  # as young as any other now
    assert friends[0] in store and peer(10_000) not in store


def test_the_least_recently_used_goes_first():
    store = Peerstore(Limits(max_peers=3))
    for one in (A, B, C):
        store.learn(one)
    store.learn(A)
    store.get(B)
    store.learn(peer(3))
    assert B not in store and A in store
    store.add_addresses(C, addresses(1), 0.0)
    store.learn(peer(4))
    assert A not in store and C in store
    # One that connects makes room, and needs some when it leaves.
    store.connected(C)
    store.learn(peer(5))
    assert len(store) == 4 and peer(3) in store
    store.disconnected(C, 0.0)
    assert len(store) == 3 and peer(3) not in store


def test_connected_peers_keep_their_addresses_while_others_make_room():
    store = Peerstore(Limits(max_addresses=10))
    store.connected(A)
    store.add_addresses(A, addresses(6), 0.0)
    store.add_addresses(B, addresses(3), 0.0)
    store.add_addresses(C, addresses(3), 0.0)
    assert B not in store and store.addresses(C, 0.0) == addresses(3)
    store.add_addresses(A, addresses(4, 7), 0.0)
    assert C not in store and store.addresses(A, 0.0) == addresses(10)
    # Alone it keeps the newest; nobody else gets any room.
    store.add_addresses(A, addresses(2, 11), 0.0)
    assert store.addresses(A, 0.0) == addresses(10, 3)
    store.add_addresses(B, addresses(1), 0.0)
    assert B not in store and store.address_count == 10


@pytest.mark.parametrize(
    "limits",
    [Limits(max_peers=0), Limits(max_addresses=0), Limits(max_addresses_per_peer=0)],
)
def test_limits_of_nothing(limits):
    store = Peerstore(limits)
    for one in (A, B):
        store.add_addresses(one, addresses(3), 0.0)
        store.connected(one)
        store.add_addresses(one, addresses(3), 0.0)
        assert len(store.addresses(one, 0.0)) == (3 if limits.max_peers == 0 else 0)
        store.disconnected(one, 0.0)
    assert store.address_count == 0 or limits.max_peers


def test_what_is_large_is_not_kept_of_peers_that_left():
    """10,000 of them may be remembered."""
    assert MAX_KEPT == 4096
    for length, kept in ((MAX_KEPT, True), (MAX_KEPT + 1, False)):
        names = ("/" + "x" * 999, "/" + "y" * (length - 1001))
        store = Peerstore(Limits())
        store.connected(A)
        info = store.learn(A)
        info.protocols = names
        info.record, info.record_seq, info.certified = bytes(length), 7, tuple(addresses(3))
        store.disconnected(A, 0.0)
        assert store.get(A) is info and info.record_seq == 7
        assert info.protocols == (names if kept else None)
        assert (len(info.record), len(info.certified)) == ((length, 3) if kept else (0, 0))
    store.connected(B)
    store.disconnected(B, 0.0)
    assert store.get(B) == PeerInfo()


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("lacdsg"), st.integers(0, 7), st.integers(1, 12), st.integers(0, 8)
        ),
        max_size=60,
    )
)
def test_any_course_of_events(steps):
    """The count is that of the tables, and the limits hold after each step."""
    limits = Limits(max_peers=4, max_addresses=12, max_addresses_per_peer=5)
    store = Peerstore(limits)
    connected = {}
    for step, number, start, count in steps:
        one = peer(number)
        if step == "l":
            store.learn(one)
        elif step == "a":
            store.add_addresses(one, addresses(count, start), 0.0)
        elif step == "s":
            store.set_addresses(one, addresses(count, start), 0.0)
        elif step == "c":
            store.connected(one)
            connected[one] = None
        elif step == "d":
            store.disconnected(one, 0.0)
            connected.pop(one, None)
        else:
            store.addresses(one, 2 * ADDRESS_TTL)
        known = [peer(n) for n in range(8) if peer(n) in store]
        assert len(store) == len(known) <= len(connected) + limits.max_peers
        tables = [store.get(one).addresses for one in known]
        assert store.address_count == sum(map(len, tables)) <= limits.max_addresses
        assert all(len(table) <= limits.max_addresses_per_peer for table in tables)
        assert all(one in store for one in connected)


def test_no_scan_at_the_limits():
    """A full store is as fast as a small one."""

    def cost(count):
        store = Peerstore(Limits(max_peers=count, max_addresses=2 * count))
        for number in range(count):
            store.add_addresses(peer(number), pair, 0.0)
        best = float("inf")
        for attempt in range(3):
            start = time.process_time()
            for number in range(500):
                store.add_addresses(peer(count + 500 * attempt + number), pair, 0.0)
            best = min(best, time.process_time() - start)
        return best

    pair = addresses(2)
    assert cost(10_000) < 8 * cost(100)
