"""Keys of 256 bits: distance, common prefix, and finding the nearest of many."""

from hashlib import sha256

import pytest
from hypothesis import given, strategies as st
from vectors import load

from anyp2p_core.kad.keys import (
    BITS,
    MAX_PREIMAGE,
    common_prefix,
    distance,
    key_of,
    nearest,
    preimage,
)

KEYS = st.integers(0, 2**BITS - 1)
# Ground keys: long common prefixes, the worst case for whoever splits by bits.
NEAR = st.builds(lambda low, shift: low << shift, st.integers(0, 255), st.integers(0, 248))


class Counter:
    """Chooses where the search for a preimage starts."""

    def __init__(self, first=0):
        self.first = first

    def below(self, n):
        return self.first % n


@pytest.mark.parametrize("case", load("kad")["distances"], ids=lambda case: case["log2"])
def test_distances_published(case):
    a, b = int(case["a"], 16), int(case["b"], 16)
    assert distance(a, b).bit_length() - 1 == case["log2"]
    assert common_prefix(a, b) == BITS - 1 - case["log2"]


def test_a_key_is_the_hash():
    assert key_of(b"abc") == int(sha256(b"abc").hexdigest(), 16)


def test_a_key_shares_everything_with_itself():
    assert common_prefix(7, 7) == 256
    assert distance(7, 7) == 0


@given(st.lists(st.one_of(KEYS, NEAR), max_size=300), st.one_of(KEYS, NEAR), st.integers(0, 350))
def test_nearest_is_what_sorting_by_distance_gives(keys, target, wanted):
    keys = sorted(set(keys))
    assert nearest(keys, target, wanted) == sorted(keys, key=lambda key: key ^ target)[:wanted]


@given(st.integers(33, 700), st.integers(0, 255), KEYS, st.integers(1, 100))
def test_nearest_of_many(count, shared, target, wanted):
    keys = sorted({key_of(b"%d" % n) >> shared for n in range(count)})
    assert nearest(keys, target, wanted) == sorted(keys, key=lambda key: key ^ target)[:wanted]


@given(KEYS, st.integers(0, 8), st.integers(0, 2**63))
def test_preimage_shares_exactly_so_many_bits(own, prefix, start):
    found = preimage(own, prefix, Counter(start))
    assert common_prefix(own, key_of(found)) == prefix
    assert found[:2] == b"\x12\x20" and len(found) == 34


def test_preimage_of_the_deepest_bucket():
    assert common_prefix(5, key_of(preimage(5, MAX_PREIMAGE, Counter()))) == MAX_PREIMAGE


def test_preimage_gives_up():
    missed = [own for own in range(64) if not finds(own << 250)]
    assert missed  # with a single try, half of them
    assert preimage(0, 3, Counter(), tries=0) == b""


def finds(own):
    return common_prefix(own, key_of(preimage(own, 0, Counter(), tries=1))) == 0
