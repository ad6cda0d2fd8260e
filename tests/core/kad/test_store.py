"""The store in memory: bounded, fair to strangers, and nothing older than it may be."""

from core.kad.people import peer, public
from hypothesis import given, settings, strategies as st

from anyp2p_core.kad.store import MemoryStore, Records, StoredRecord

WALL = 1_700_000_000.0
DAY = 86_400.0


def record(key, sender=b"", *, value=b"v", expires=WALL + 2 * DAY):
    return StoredRecord(
        b"/x/%d" % key if isinstance(key, int) else key, value, WALL, expires, sender
    )


def keys(records):
    return [int(key[3:]) for key in records._records]


def test_put_get_remove():
    store = MemoryStore()
    one = record(1, b"a")
    assert store.put(one, WALL)
    assert store.get(one.key, WALL) is one
    assert store.get(b"/x/2", WALL) is None
    other = record(1, b"b", value=b"w")
    assert store.put(other, WALL)
    assert store.get(one.key, WALL) is other
    store.remove(one.key)
    store.remove(one.key)
    assert store.get(one.key, WALL) is None


def test_records_expire():
    store = MemoryStore()
    store.put(record(1), WALL)
    assert store.get(b"/x/1", WALL + 2 * DAY - 1) is not None
    assert store.get(b"/x/1", WALL + 2 * DAY) is None
    assert not store.put(record(2, expires=WALL), WALL)
    records = Records()
    records.put(record(3), WALL)
    records.put(record(4, expires=WALL + 3 * DAY), WALL)
    assert records.sweep(WALL + 2 * DAY) == 1
    assert (keys(records), records.sweep(WALL + 9 * DAY), len(records)) == ([4], 1, 0)
    store.put(record(5), WALL)
    store.add_provider(b"key", peer(1), (), WALL)
    store.sweep(WALL + 3 * DAY)
    assert store.get(b"/x/5", WALL) is None and store.providers(b"key", WALL) == []


def test_a_value_that_is_too_long():
    assert not MemoryStore(max_value=10).put(record(1, value=bytes(11)), WALL)
    assert MemoryStore(max_value=10).put(record(1, value=bytes(10)), WALL)


def test_row_74_one_peer_has_its_share():
    records = Records(max_records=100)
    for number in range(20):
        assert records.put(record(number, b"flood"), WALL)
    assert keys(records) == list(range(15, 20))
    # Our own are not limited.
    for number in range(100, 195):
        assert records.put(record(number), WALL)
    assert len(records) == 100
    # Now all is full. Whoever has most makes room, first its oldest.
    assert records.put(record(300, b"other"), WALL)
    assert keys(records)[:4] == [16, 17, 18, 19]


def test_a_store_full_of_our_own_takes_nothing_else():
    records = Records(max_records=3)
    for number in range(3):
        records.put(record(number), WALL)
    assert not records.put(record(9, b"a"), WALL)
    assert records.put(record(1, value=b"new"), WALL)
    assert keys(records) == [0, 2, 1]


def test_what_has_expired_makes_room_first():
    records = Records(max_records=4, share=1.0)
    records.put(record(1, b"a", expires=WALL + 10), WALL)
    for number in (2, 3, 4):
        records.put(record(number, b"b"), WALL)
    assert records.put(record(5, b"c"), WALL + 10)
    assert keys(records) == [2, 3, 4, 5]
    assert records.put(record(6, b"d"), WALL + 11)  # nothing has expired: b has most
    assert keys(records) == [3, 4, 5, 6]
    for number in (3, 4):
        records.remove(b"/x/%d" % number)
    for number in (7, 8, 9):
        records.put(record(number, b"%d" % number), WALL + 12)
    assert keys(records) == [6, 7, 8, 9]  # all have one: the first comes first


def test_row_74_a_flood_of_many_peers_stays_flat_and_leaves_the_quiet_alone():
    records = Records()
    for number in range(5):
        records.put(record(number, b"quiet %d" % number), WALL)
    for number in range(5, 50_000):
        records.put(record(number, b"%d" % (number % 500)), WALL)
    assert len(records) == 1024
    assert len(records._by_sender) <= 1024 and len(records._by_count) <= 52
    # Everybody else has at least two, so that the quiet ones keep theirs.
    assert keys(records)[:5] == [0, 1, 2, 3, 4]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 4), st.integers(0, 2)), max_size=60))
def test_counts_agree_with_what_is_there(steps):
    records = Records(max_records=12, share=0.3)
    for key, sender, what in steps:
        if what:
            records.put(record(key, b"%d" % sender if sender else b""), WALL)
        else:
            records.remove(b"/x/%d" % key)
        held = {}
        for one in records._records.values():
            held.setdefault(one.sender, []).append(one.key)
        assert {sender: list(kept) for sender, kept in records._by_sender.items()} == {
            sender: held[sender] for sender in records._by_sender
        }
        assert len(records) <= 12 and set(records._by_sender) == set(held)
        by_count = {(n, sender) for n, same in records._by_count.items() for sender in same}
        assert by_count == {(len(kept), sender) for sender, kept in held.items() if sender}
        assert all(len(kept) <= 3 for sender, kept in held.items() if sender)


def test_providers_and_our_own_keys():
    store = MemoryStore(max_provider_keys=10, max_providers_per_key=2)
    assert store.add_provider(b"key", peer(1), (public(1),), WALL)
    (found,) = store.providers(b"key", WALL)
    assert (found.peer, found.addresses) == (peer(1), (public(1),))
    store.remove_provider(b"key", peer(1))
    assert store.providers(b"key", WALL) == []
    store.set_own(b"a", WALL)
    store.set_own(b"b", WALL + 1)
    store.set_own(b"a", WALL + 2)
    assert list(store.own_keys().items()) == [(b"b", WALL + 1), (b"a", WALL + 2)]
    store.remove_own(b"b")
    store.remove_own(b"b")
    assert list(store.own_keys()) == [b"a"]
