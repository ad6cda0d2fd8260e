"""anyp2p_core.ratelimit"""

import pytest
from hypothesis import given, settings, strategies as st

from anyp2p_core.ratelimit import RateLimiter


def allowed(limiter, source, times):
    return [limiter.allow(source, now) for now in times]


def test_a_burst_and_then_the_rate():
    limiter = RateLimiter(rate=2.0, burst=3, size=10)
    assert allowed(limiter, "a", [0.0] * 5) == [True] * 3 + [False] * 2
    assert allowed(limiter, "a", [0.25, 0.5, 0.5, 1.0, 1.0]) == [False, True, False, True, False]


def test_what_is_refused_costs_nothing():
    limiter = RateLimiter(rate=1.0, burst=1, size=10)
    limiter.allow("a", 0.0)
    assert allowed(limiter, "a", [0.5] * 100) == [False] * 100
    assert limiter.allow("a", 1.0)


def test_no_more_than_the_burst_is_saved():
    limiter = RateLimiter(rate=1.0, burst=3, size=10)
    limiter.allow("a", 0.0)
    assert allowed(limiter, "a", [1e9] * 5) == [True] * 3 + [False] * 2


def test_sources_are_counted_apart():
    limiter = RateLimiter(rate=0.0, burst=1, size=10)
    assert [limiter.allow(source, 0.0) for source in "aabbc"] == [True, False, True, False, True]


def test_the_one_heard_of_longest_ago_is_forgotten():
    limiter = RateLimiter(rate=0.0, burst=1, size=2)
    assert limiter.allow("a", 0.0) and limiter.allow("b", 0.0)
    assert not limiter.allow("a", 0.0)
    assert limiter.allow("c", 0.0)  # b is forgotten
    assert not limiter.allow("a", 0.0) and limiter.allow("b", 0.0)


def test_4096_sources_are_remembered():
    limiter = RateLimiter(rate=0.0, burst=1)
    for number in range(4096):
        assert limiter.allow(str(number), 0.0)
    assert not limiter.allow("0", 0.0)
    assert limiter.allow("new", 0.0) and limiter.allow("1", 0.0)


@pytest.mark.parametrize("size", [0, 1])
def test_the_smallest_tables(size):
    limiter = RateLimiter(rate=0.0, burst=1, size=size)
    assert limiter.allow("a", 0.0)
    assert limiter.allow("a", 0.0) is (size == 0)


@settings(deadline=None, max_examples=200)
@given(
    st.floats(0.1, 10.0), st.integers(1, 5), st.lists(st.floats(0.0, 3.0), min_size=1, max_size=40)
)
def test_every_interval_has_at_most_the_burst_and_its_rate(rate, burst, gaps):
    limiter = RateLimiter(rate=rate, burst=burst, size=10)
    now, passed = 0.0, []
    for gap in gaps:
        now += gap
        if limiter.allow("a", now):
            passed.append(now)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            duration = passed[last] - passed[first]
            assert last - first + 1 <= burst + rate * duration + 1e-6
    assert len(passed) >= min(burst, len(gaps))
