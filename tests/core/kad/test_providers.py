"""Provider records: who may have how many, for how long, and who gives way."""

import tracemalloc

from core.kad.people import peer, public

from anyp2p_core.kad.keys import key_of
from anyp2p_core.kad.providers import (
    ADDRESS_VALIDITY,
    MAX_ADDRESSES,
    REPUBLISH,
    RETRY,
    VALIDITY,
    Providers,
    Republishing,
)

WALL = 1_700_000_000.0


def names(found):
    return [one.peer for one in found]


def test_found_in_the_order_in_which_they_came():
    book = Providers()
    for number in (3, 1, 2, 3):
        assert book.add(b"key", peer(number), (), WALL)
    assert names(book.find(b"key", WALL)) == [peer(3), peer(1), peer(2)]
    assert book.find(b"other", WALL) == []
    assert len(book) == 1


def test_48_hours_and_addresses_for_24():
    book = Providers()
    book.add(b"key", peer(1), (public(1),), WALL)
    book.add(b"key", peer(2), (public(2),), WALL + 100)
    book.add(b"key", peer(2), (), WALL + 200)  # without addresses the old ones stay
    assert [one.addresses for one in book.find(b"key", WALL)] == [(public(1),), (public(2),)]
    assert [one.addresses for one in book.find(b"key", WALL + ADDRESS_VALIDITY)] == [
        (), (public(2),),
    ]  # fmt: skip
    assert names(book.find(b"key", WALL + VALIDITY - 1)) == [peer(1), peer(2)]
    assert names(book.find(b"key", WALL + VALIDITY)) == [peer(2)]
    assert book.find(b"key", WALL + VALIDITY + 200) == []
    assert len(book) == 0 == len(book._holders)


def test_so_many_addresses():
    book = Providers()
    book.add(b"key", peer(1), tuple(map(public, range(20))), WALL)
    assert book.find(b"key", WALL)[0].addresses == tuple(map(public, range(MAX_ADDRESSES)))


def test_row_77_a_closer_provider_is_not_locked_out_by_twenty_sybils():
    book = Providers()
    near = sorted(map(peer, range(1, 60)), key=lambda p: key_of(bytes(p)) ^ key_of(b"key"))
    for one in near[20:40]:
        assert book.add(b"key", one, (), WALL)
    assert book.add(b"key", near[5], (), WALL)
    assert not book.add(b"key", near[50], (), WALL)
    assert set(names(book.find(b"key", WALL))) == {near[5], *near[20:39]}
    # Those that have expired make room for anybody.
    assert book.add(b"key", near[50], (), WALL + VALIDITY)
    assert names(book.find(b"key", WALL + VALIDITY)) == [near[50]]
    # Who is in already only repeats itself.
    for one in near[:20]:
        book.add(b"full", one, (), WALL)
    assert book.add(b"full", near[19], (), WALL + 1)


def test_row_76_one_peer_has_its_share_of_keys():
    book = Providers(max_keys=100)
    book.add(b"quiet", peer(1), (), WALL)
    for number in range(50):
        book.add(b"%d" % number, peer(2), (), WALL)
    assert len(book) == 6
    assert names(book.find(b"49", WALL)) == [peer(2)] and book.find(b"44", WALL) == []
    assert names(book.find(b"quiet", WALL)) == [peer(1)]


def test_a_share_of_one():
    book = Providers(max_keys=3)
    for number in range(5):
        book.add(b"%d" % number, peer(2), (public(1),), WALL)
    assert len(book) == 1 == len(book._holders)
    assert book.find(b"4", WALL)[0].addresses == (public(1),)


def test_the_key_that_nobody_asked_for_makes_room():
    book = Providers(max_keys=3)
    for number in range(3):
        book.add(b"%d" % number, peer(number), (), WALL)
    book.find(b"0", WALL)
    book.add(b"3", peer(3), (), WALL)
    assert [bool(book.find(b"%d" % n, WALL)) for n in range(4)] == [True, False, True, True]


def test_removing():
    book = Providers()
    book.add(b"key", peer(1), (), WALL)
    book.remove(b"key", peer(2))
    book.remove(b"none", peer(1))
    assert len(book) == 1
    book.remove(b"key", peer(1))
    assert len(book) == 0 == len(book._holders)


def test_sweeping():
    book = Providers()
    book.add(b"a", peer(1), (), WALL)
    book.add(b"b", peer(2), (), WALL)
    book.add(b"c", peer(3), (), WALL + 10)
    assert book.sweep(WALL + VALIDITY - 1) == 0
    assert book.sweep(WALL + VALIDITY) == 2
    assert names(book.find(b"c", WALL)) == [peer(3)]
    assert book.sweep(WALL + 2 * VALIDITY) == 1 and book.sweep(WALL) == 0


def test_row_76_a_flood_of_keys_keeps_memory_flat():
    book = Providers(max_keys=500)
    people = [peer(n) for n in range(100)]

    def flood(first):
        for number in range(first, first + 10_000):
            book.add(b"%032d" % number, people[number % 100], (public(1),), WALL)

    tracemalloc.start()
    flood(0)
    before = tracemalloc.get_traced_memory()[0]
    flood(10_000)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(book) == 500
    assert after - before < 50_000


def test_when_to_say_it_again():
    again = Republishing()
    again.set(b"a", WALL)
    again.set(b"b", WALL + 1)
    again.set(b"a", WALL + 2)
    assert (len(again), b"a" in again, b"c" in again) == (2, True, False)
    assert again.due(WALL + REPUBLISH, 9) == []
    assert again.due(WALL + REPUBLISH + 2, 9) == [b"b", b"a"]
    assert again.due(WALL + REPUBLISH + 2) == [b"b"]
    again.remove(b"b")
    again.remove(b"b")
    assert again.due(WALL + REPUBLISH + 2) == [b"a"]


def test_who_cannot_be_told_is_tried_again_soon_and_blocks_nobody():
    again = Republishing()
    for number in range(5):
        again.set(b"%d" % number, WALL)
    now = WALL + REPUBLISH
    assert again.due(now, 2) == [b"0", b"1"]
    again.postpone(b"0", now)
    again.postpone(b"1", now)
    assert again.due(now, 2) == [b"2", b"3"] and b"0" in again
    assert again.due(now + RETRY, 3) == [b"0", b"1", b"2"]
    again.set(b"0", now + RETRY)
    assert again.due(now + RETRY, 9) == [b"1", b"2", b"3", b"4"]


def test_what_is_kept_is_never_said():
    again = Republishing()
    again.keep(b"a")
    assert (len(again), b"a" in again) == (1, True)
    assert again.due(WALL + 9 * REPUBLISH, 9) == []
    again.remove(b"a")
    assert len(again) == 0
