"""The routing table: who gets in, who stays, and how fast the closest are found."""

import tracemalloc

from core.kad.people import peer, public
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from anyp2p_core.kad.keys import MAX_PREIMAGE, common_prefix, key_of
from anyp2p_core.kad.table import GRACE, MAX_ADDRESSES, Admission, Table
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.peer_id import PeerId

OWN = peer(0)
OWN_KEY = key_of(bytes(OWN))


def prefix(one):
    return common_prefix(OWN_KEY, key_of(bytes(one)))


def peers_in(bucket, count, start=1):
    """Peers that belong into one bucket of OWN's table."""
    found = []
    number = start
    while len(found) < count:
        if prefix(peer(number)) == bucket:
            found.append(peer(number))
        number += 1
    return found


def test_peers_are_found_by_distance():
    table = Table(OWN)
    for number in range(1, 200):
        table.add(peer(number), 0.0)
    target = key_of(b"target")
    inside = [entry.peer for entry in table.entries()]
    expected = sorted(inside, key=lambda one: key_of(bytes(one)) ^ target)
    assert [entry.peer for entry in table.closest(target, 20)] == expected[:20]
    assert len(table.closest(target, 1000)) == len(table) == len(inside)


def test_row_80_we_are_not_in_our_own_table():
    table = Table(OWN)
    assert table.judge(OWN, 0.0) is table.add(OWN, 0.0) is Admission.SELF
    assert len(table) == 0


def test_a_full_bucket_prefers_those_who_are_there():
    table = Table(OWN, k=3)
    first = peers_in(0, 4)
    for now, one in enumerate(first[:3]):
        assert table.add(one, now) is Admission.ADDED
    assert table.judge(first[3], 10.0) is table.add(first[3], 10.0) is Admission.FULL
    assert table.add(peers_in(1, 1)[0], 10.0) is Admission.ADDED  # another bucket
    assert table.add(first[0], 11.0) is Admission.KNOWN
    # The one that has been silent for longest makes room; the first has answered since.
    assert table.judge(first[3], 1.0 + GRACE) is Admission.ADDED
    assert table.add(first[3], 1.0 + GRACE) is Admission.ADDED
    assert first[1] not in table and first[0] in table
    assert table.get(first[1]) is None


def test_what_is_known_of_a_peer_is_brought_up_to_date():
    table = Table(OWN)
    table.add(peer(1), 1.0, addresses=tuple(map(public, range(50))))
    assert table.get(peer(1)).addresses == tuple(map(public, range(MAX_ADDRESSES)))
    table.add(peer(1), 2.0)
    assert table.get(peer(1)).addresses == tuple(map(public, range(MAX_ADDRESSES)))
    table.add(peer(1), 3.0, addresses=(public(9),), groups=(b"ignored",))
    entry = table.get(peer(1))
    assert (entry.addresses, entry.added_at, entry.useful_at) == ((public(9),), 1.0, 3.0)
    assert table.health(3.0).groups == 0


def test_removing():
    table = Table(OWN)
    assert not table.remove(peer(1))
    table.add(peer(1), 0.0, groups=(b"a", b"b"))
    table.add(peer(2), 0.0, groups=(b"a",))
    assert table.remove(peer(1))
    assert (len(table), table.health(0.0).groups) == (1, 1)
    assert table.remove(peer(2))
    assert table.health(0.0) == Table(OWN).health(0.0)


def test_row_82_few_peers_of_one_network():
    table = Table(OWN)
    zero, one, two = peers_in(0, 3), peers_in(1, 2), peers_in(2, 2)
    group = (b"network",)
    assert [table.add(each, 0.0, groups=group) for each in zero] == [
        Admission.ADDED, Admission.ADDED, Admission.CROWDED,
    ]  # fmt: skip
    assert [table.add(each, 0.0, groups=group) for each in one] == [
        Admission.ADDED, Admission.CROWDED,
    ]  # fmt: skip
    assert table.judge(two[0], 0.0, (b"other", *group)) is Admission.CROWDED
    assert table.add(two[0], 0.0, groups=(b"other",)) is Admission.ADDED
    assert table.add(two[1], 0.0) is Admission.ADDED  # loopback and private have no group
    # A peer that makes room makes room for its network too.
    assert table.health(0.0).largest_group == 3


def test_row_82_ten_thousand_ids_of_one_network():
    table = Table(OWN)
    for number in range(1, 300):
        table.add(peer(number), 0.0, groups=(b"%d" % number,))
    honest = {entry.peer for entry in table.entries()}
    ground = [peer(number) for number in range(1000, 11_000)]
    for one in ground:
        table.add(one, 1.0, groups=(b"attacker",))
    sybils = {entry.peer for entry in table.entries()} - honest
    assert len(sybils) <= 3
    for target in (OWN_KEY, key_of(bytes(ground[0])), key_of(b"anything")):
        closest = {entry.peer for entry in table.closest(target, 20)}
        assert len(closest & honest) >= 17


def test_a_stale_peer_makes_room_for_its_own_network():
    table = Table(OWN, k=2)
    a, b, c = peers_in(0, 3)
    table.add(a, 0.0, groups=(b"g",))
    table.add(b, 0.0, groups=(b"g",))
    assert table.add(c, GRACE - 1, groups=(b"g",)) is Admission.FULL
    assert table.add(c, GRACE, groups=(b"g",)) is Admission.ADDED
    assert a not in table and b in table


def test_refreshing():
    table = Table(OWN)
    assert table.to_refresh(0.0, 600.0) == [0]  # nothing known: look far away
    table.add(peers_in(3, 1)[0], 0.0)
    assert table.to_refresh(0.0, 600.0) == [0, 1, 2, 3]
    table.refreshed(OWN_KEY ^ 1 << 255, 5.0)
    table.refreshed(OWN_KEY ^ 1 << 253, 5.0)
    assert table.to_refresh(604.0, 600.0) == [1, 3]
    assert table.to_refresh(605.0, 600.0) == [0, 1, 2, 3]
    # Everything near our own key counts as the deepest bucket.
    table.refreshed(OWN_KEY, 6.0)
    (deep,) = peers_in(MAX_PREIMAGE, 1)
    table.add(deep, 6.0)
    assert table.to_refresh(7.0, 600.0) == [1, *range(3, MAX_PREIMAGE)]


def test_health():
    table = Table(OWN)
    for now, one in enumerate(peers_in(0, 2) + peers_in(1, 1)):
        table.add(one, float(now), groups=(b"g",) if now else ())
    table.refreshed(OWN_KEY ^ 1 << 255, 3.0)
    health = table.health(GRACE + 1)
    assert (health.size, health.stale, health.groups, health.largest_group) == (3, 2, 1, 2)
    assert [(b.prefix, b.size, b.stale, b.refreshed_at) for b in health.buckets] == [
        (0, 2, 2, 3.0), (1, 1, 0, None),
    ]  # fmt: skip
    assert [entry.useful_at for entry in table.stale(GRACE + 1)] == [0.0, 1.0]


def test_moving():
    table = Table(OWN)
    table.add(peer(1), 0.0, addresses=(public(1),))
    table.moved(peer(1), ())
    table.moved(peer(2), (public(2),))
    assert table.get(peer(1)).addresses == (public(1),) and len(table) == 1
    table.moved(peer(1), tuple(map(public, range(20))))
    assert table.get(peer(1)).addresses == tuple(map(public, range(8)))
    assert table.get(peer(1)).useful_at == 0.0


def test_an_entry_with_eight_addresses_takes_less_than_1500_bytes():
    people = [peer(n) for n in range(1, 3001)]
    where = [[Multiaddr.from_bytes(bytes(public(n, port))) for port in range(1, 9)]
             for n in range(3001)]  # fmt: skip
    table = Table(OWN, k=10_000)
    tracemalloc.start()
    for number, one in enumerate(people):
        own = PeerId(bytes(one))
        addresses = tuple(
            Multiaddr.from_bytes(bytes(bytearray(bytes(each)))) for each in where[number]
        )
        table.add(own, 0.0, addresses=addresses, groups=(b"\x04%d" % number,))
    size = tracemalloc.get_traced_memory()[0] / len(table)
    tracemalloc.stop()
    assert size < 1500


class TableMachine(RuleBasedStateMachine):
    """Against a plain dict of what was added."""

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.table = Table(OWN, k=4)
        self.model = {}

    @rule(number=st.integers(0, 60), group=st.integers(0, 12))
    def add(self, number, group):
        groups = (b"%d" % group,) if group else ()
        judged = self.table.judge(peer(number), self.now, groups)
        before = {entry.peer for entry in self.table.entries()}
        assert self.table.add(peer(number), self.now, groups=groups) is judged
        gone = before - {entry.peer for entry in self.table.entries()}
        for one in gone:
            assert judged is Admission.ADDED and len(gone) == 1
            assert self.model.pop(one)[0] <= self.now - GRACE
            assert prefix(one) == prefix(peer(number))
        if judged is Admission.ADDED:
            self.model[peer(number)] = (self.now, groups)
        elif judged is Admission.KNOWN:
            self.model[peer(number)] = (self.now, self.model[peer(number)][1])

    @precondition(lambda self: self.model)
    @rule(index=st.integers(0, 1000))
    def remove(self, index):
        one = list(self.model)[index % len(self.model)]
        assert self.table.remove(one)
        del self.model[one]

    @rule(seconds=st.sampled_from([1.0, 100.0, GRACE]))
    def wait(self, seconds):
        self.now += seconds

    @rule(number=st.integers(0, 1000), count=st.integers(0, 30))
    def closest(self, number, count):
        target = key_of(b"%d" % number)
        expected = sorted(self.model, key=lambda one: key_of(bytes(one)) ^ target)[:count]
        assert [entry.peer for entry in self.table.closest(target, count)] == expected

    @rule(number=st.integers(0, 1000))
    def refresh(self, number):
        key = key_of(b"%d" % number)
        self.table.refreshed(key, self.now)
        assert common_prefix(key, OWN_KEY) not in self.table.to_refresh(self.now, 1.0)

    @invariant()
    def holds(self):
        table, model = self.table, self.model
        assert len(table) == len(model)
        assert all(one in table for one in model) and OWN not in table
        health = table.health(self.now)
        assert health.size == len(model)
        assert sum(bucket.size for bucket in health.buckets) == len(model)
        assert all(bucket.size <= 4 for bucket in health.buckets)
        by_group = {}
        for one, (_, groups) in model.items():
            for each in groups:
                by_group.setdefault(each, []).append(prefix(one))
        assert health.groups == len(by_group)
        for buckets in by_group.values():
            assert len(buckets) <= 3
            assert all(buckets.count(bucket) <= 2 for bucket in buckets)
        limit = self.now - GRACE
        stale = {one for one, (useful, _) in model.items() if useful <= limit}
        assert {entry.peer for entry in table.stale(self.now)} == stale
        assert health.stale == len(stale)


TestTable = TableMachine.TestCase
TestTable.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
