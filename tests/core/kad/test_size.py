"""How many peers there are, and whether a key is crowded."""

from core.kad.people import peer

from anyp2p_core.kad.keys import BITS, key_of
from anyp2p_core.kad.size import (
    MARGIN,
    MAX_ESTIMATES,
    MIN_ESTIMATES,
    REGION,
    NetworkSize,
    is_crowded,
    region,
)

KEYS = [key_of(bytes(peer(n))) for n in range(2000)]


def distances(target, keys=KEYS, k=20):
    return sorted(key ^ target for key in keys)[:k]


def test_the_size_is_learned_from_random_lookups():
    size = NetworkSize()
    for number in range(MIN_ESTIMATES):
        assert size.estimate is None
        size.learn(distances(key_of(b"%d" % number)), 20)
    for number in range(40):
        size.learn(distances(key_of(b"random %d" % number)), 20)
    assert 1600 < size.estimate < 2400
    for number in range(MAX_ESTIMATES):
        size.learn(distances(key_of(b"%d" % number), KEYS[:200]), 20)
    assert 150 < size.estimate < 260  # only the most recent ones count


def test_a_few_lies_do_not_matter():
    size = NetworkSize()
    for number in range(9):
        size.learn(distances(key_of(b"%d" % number)), 20)
    for _ in range(4):
        size.learn([0] * 20, 20)
    assert 1000 < size.estimate < 4000


def test_too_little_says_nothing():
    size = NetworkSize()
    for _ in range(10):
        size.learn([1 << 250] * 19, 20)
        size.learn([1 << 250], 1)
    assert size.estimate is None


def test_chance_does_not_crowd_when_few_are_wanted():
    found = [distances(key_of(b"%d" % n), k=8) for n in range(300)]
    assert not any(is_crowded(one, 8, len(KEYS)) for one in found)
    for one in found:
        assert is_crowded([distance // 20 for distance in one], 8, len(KEYS))


def test_chance_does_not_crowd():
    crowded = [n for n in range(300) if is_crowded(distances(key_of(b"%d" % n)), 20, len(KEYS))]
    assert crowded == []
    assert not is_crowded(distances(5)[:19], 20, len(KEYS))


def test_row_83_sybils_near_a_key_are_noticed():
    target = key_of(b"censored")
    ground = sorted(key_of(b"sybil %d" % n) for n in range(40_000))
    sybils = sorted(ground, key=target.__xor__)[:20]  # each nearer than all honest peers
    assert is_crowded(distances(target, [*KEYS, *sybils]), 20, len(KEYS))
    # The region that is asked then holds more honest peers than a lookup wants.
    honest = [key for key in KEYS if key ^ target <= region(20, len(KEYS))]
    assert len(honest) >= 20


def test_the_region_holds_twice_as_many_as_are_wanted():
    assert region(20, 2048) * 2048 == REGION * 20 << BITS
    assert region(20, 0) == REGION * 20 << BITS
    edge = (20 << BITS) // (MARGIN * 2000)
    assert is_crowded([edge - 1] * 20, 20, 2000) and not is_crowded([edge + 1] * 20, 20, 2000)
